use super::*;

fn plain() -> StaticConfig {
    StaticConfig {
        version: TraefikVersion::NEWEST_KNOWN,
        entry_points: vec![("web".to_owned(), ":8000".to_owned())],
        public: Public { request_timeout: Duration::from_secs(7200), ..Public::default() },
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
            request_timeout: Duration::from_secs(3600),
            idle_timeout: Some(Duration::from_secs(5)),
            drop_alias_headers: true,
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
    assert!(!yaml(TraefikVersion(3, 7, 12)).contains("underscoreHeadersStrategy"));
    assert!(!yaml(TraefikVersion(3, 7, 11)).contains("aliasHeadersStrategy"));
    assert!(yaml(TraefikVersion(3, 7, 11)).contains("underscoreHeadersStrategy: keep"));
    assert!(!yaml(TraefikVersion(3, 7, 5)).contains("HeadersStrategy"));
}

/// The YAML of each entry point, by its name.
fn entry_points(yaml: &str) -> Vec<(&str, &str)> {
    let (_, rest) = yaml.split_once("entryPoints:\n").expect("entry points");
    let (rest, _) = rest.split_once("\n\n").expect("an end");
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.starts_with("  ") && !line.starts_with("   ") && !line.trim_start().starts_with('#') {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts[1..].iter().copied().chain([rest.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| rest[*start..end].split_once(":\n").expect("a name"))
        .map(|(name, text)| (name.trim(), text))
        .collect()
}

#[test]
fn every_entry_point_bounds_its_requests_and_leaves_paths_alone() {
    for config in [plain(), full(), child()] {
        let yaml = config.to_yaml();
        let found = entry_points(&yaml);
        assert_eq!(found.len(), config.entry_points.len() + 1 + usize::from(config.public.redirect.is_some()));
        let strategy = if config.public.drop_alias_headers { "delete" } else { "keep" };
        for (name, text) in found {
            for option in [
                "maxHeaderBytes: 65536",
                "sanitizePath: false",
                "allowEncodedSlash: true",
                "encodeQuerySemicolons: true",
            ] {
                assert!(text.contains(option), "{name} lacks {option}: {text}");
            }
            assert!(text.contains(&format!("aliasHeadersStrategy: {strategy}")), "{name}: {text}");
            assert!(text.contains("readTimeout: ") && !text.contains("readTimeout: 0"), "{name}: {text}");
        }
    }
}

#[test]
fn a_password_is_never_shown() {
    let login = Some(("reader".to_owned(), Password::Placeholder));
    let config = StaticConfig { source: Source::Etcd(EtcdProvider { login, ..etcd() }), ..plain() };
    assert!(config.to_yaml().contains("password: \"\" # fill in"));
    assert!(!format!("{:?}", full()).contains("quotes"));
}
