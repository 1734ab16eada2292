use super::*;

fn plain() -> StaticConfig {
    StaticConfig {
        version: TraefikVersion::NEWEST_KNOWN,
        entry_points: vec![("web".to_owned(), ":8000".to_owned())],
        public: Public::default(),
        private: Private::Open("127.0.0.1:8099".to_owned()),
        accept: Duration::ZERO,
        grace: Duration::from_secs(10),
        source: Source::Etcd(etcd()),
        fallback: None,
        dynamic_folder: None,
        log_level: "INFO".to_owned(),
        log_json: false,
    }
}

fn etcd() -> EtcdProvider {
    EtcdProvider {
        endpoints: vec!["127.0.0.1:2379".to_owned()],
        root_key: "traefik".to_owned(),
        login: None,
        tls: None,
    }
}

/// As Pointsman writes it for a Traefik that it starts itself.
fn child() -> StaticConfig {
    StaticConfig {
        private: Private::Keyed("127.0.0.1:40001".to_owned()),
        source: Source::Push,
        fallback: None,
        accept: Duration::ZERO,
        grace: Duration::from_millis(300),
        ..full()
    }
}

fn full() -> StaticConfig {
    let etcd = EtcdProvider {
        endpoints: vec!["etcd-0:2379".to_owned(), "[::1]:2379".to_owned()],
        root_key: "hub/traefik".to_owned(),
        login: Some(("reader".to_owned(), Password::Text("with \"quotes\": #\n\\".to_owned()))),
        tls: Some(ClientTls {
            ca: Some("/etc/etcd/ca.pem".to_owned()),
            pair: Some(("/etc/etcd/us.pem".to_owned(), "/etc/etcd/us.key".to_owned())),
        }),
    };
    StaticConfig {
        entry_points: vec![("web".to_owned(), ":80".to_owned()), ("other-door".to_owned(), "[::1]:81".to_owned())],
        public: Public {
            tls: true,
            redirect: Some((":8080".to_owned(), 443)),
            trusted: Trusted::Ranges(vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]),
            proxy_protocol_ips: vec!["10.1.0.0/16".to_owned()],
            idle_timeout: Some(Duration::from_secs(5)),
            access_log: Some(AccessLog::File("/var/log/traefik \"access\"".to_owned())),
        },
        accept: Duration::from_secs(5),
        source: Source::Etcd(etcd),
        fallback: Some(FallbackProvider {
            endpoint: "http://pointsman-pages:8002/fallback".to_owned(),
            key_header: "X-Key",
            key: "0123abcd".to_owned(),
        }),
        dynamic_folder: Some("/etc/traefik/dynamic".to_owned()),
        log_level: "DEBUG".to_owned(),
        log_json: true,
        ..plain()
    }
}

#[test]
fn the_plain_configuration() {
    insta::assert_snapshot!(plain().to_yaml());
}

#[test]
fn the_configuration_with_everything() {
    insta::assert_snapshot!(full().to_yaml());
}

#[test]
fn the_configuration_of_our_own_traefik() {
    insta::assert_snapshot!(child().to_yaml());
}

#[test]
fn an_older_traefik_gets_no_option_that_it_does_not_know() {
    let yaml = |version| StaticConfig { version, ..plain() }.to_yaml();
    assert!(yaml(TraefikVersion(3, 7, 12)).contains("aliasHeadersStrategy: keep"));
    assert!(!yaml(TraefikVersion(3, 7, 11)).contains("aliasHeadersStrategy"));
}

#[test]
fn a_password_is_never_shown() {
    let login = Some(("reader".to_owned(), Password::Placeholder));
    let config = StaticConfig { source: Source::Etcd(EtcdProvider { login, ..etcd() }), ..plain() };
    assert!(config.to_yaml().contains("password: \"\" # fill in"));
    assert!(!format!("{:?}", full()).contains("quotes"));
}
