use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use proptest::prelude::*;

use super::settings::{Kind, REFUSED, SETTINGS, Setting};
use super::*;

/// What must always be said.
const ESSENTIAL: &str = "etcd-endpoints = ['http://127.0.0.1:2379']\ntraefik-api = ['http://127.0.0.1:8099']\n";

fn flags(given: &[(&str, &str)]) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in given {
        let setting = Setting::find(name).unwrap_or_else(|| panic!("no setting {name}"));
        layer.set(setting, vec![(*value).to_owned()], Origin::Flag);
    }
    layer
}

fn load(flag: &[(&str, &str)], variables: &[(&str, &str)], toml: &str) -> Result<Config, Problems> {
    let mut problems = Problems::none();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let environment = Layer::from_environment(variables, &mut problems);
    let file = Layer::from_toml(toml, Path::new("/etc/pointsman.toml"), &mut problems);
    let sources = Sources {
        flags: flags(flag),
        environment,
        file_is_lost: file.is_none(),
        file: file.unwrap_or_default(),
        ..Sources::default()
    };
    Config::from_sources(&sources, Files::Check, problems)
}

fn port(listen: &Listen) -> u16 {
    match listen {
        Listen::Tcp { port, .. } => *port,
        Listen::Unix(path) => panic!("a socket: {}", path.display()),
    }
}

/// Checks that these settings, beside the essential ones, bring up exactly these problems.
#[track_caller]
fn refused(flag: &[(&str, &str)], variables: &[(&str, &str)], toml: &str, problems: &[&str]) {
    let essential = if toml.contains("etcd-endpoints") || toml.contains("nothing else") { "" } else { ESSENTIAL };
    let found = load(flag, variables, &format!("{essential}{toml}")).expect_err("a wrong configuration was accepted");
    assert_eq!(found.0, problems);
}

#[test]
fn the_defaults() {
    let config = load(&[], &[], ESSENTIAL).unwrap();
    insta::assert_debug_snapshot!(config);
}

#[test]
fn what_is_missing_is_explained() {
    refused(
        &[],
        &[],
        "etcd-endpoints = ['http://127.0.0.1:2379']",
        &["--traefik-api is missing: say where Traefik's API is, as --traefik-api http://127.0.0.1:8099 or \
           POINTSMAN_TRAEFIK_API=http://127.0.0.1:8099"],
    );
}

#[test]
fn without_etcd_everything_is_on_this_machine() {
    let config = load(&[("ip", ""), ("port", "9000")], &[], "").unwrap();
    let folder = |flags: &[(&str, &str)]| match load(flags, &[], "").unwrap().store {
        StoreConfig::OneMachine { folder, .. } => folder.display().to_string(),
        StoreConfig::Etcd(_) => panic!("etcd was not asked for"),
    };
    assert_eq!(folder(&[]), "pointsman-data");
    assert_eq!(folder(&[("api-port", "9001")]), "pointsman-data-9001");
    assert_eq!(folder(&[("api-socket", "/run/hub/proxy.sock")]), "pointsman-data-proxy.sock");
    assert_eq!(folder(&[("api-port", "9001"), ("data-dir", "/srv/x")]), "/srv/x");
    assert_eq!((port(&config.public.listen), port(&config.api.listen)), (9000, 9001));
    insta::assert_debug_snapshot!(config);
}

#[test]
fn authorities_of_the_environment_count_where_traefik_is_ours() {
    for (toml, counts) in [("", true), (ESSENTIAL, false)] {
        let sources = Sources {
            file: Layer::from_toml(toml, Path::new("/etc/pointsman.toml"), &mut Problems::none()).unwrap(),
            extra_ca: Some("/etc/company.pem".into()),
            ..Sources::default()
        };
        let config = Config::from_sources(&sources, Files::Ignore, Problems::none()).unwrap();
        assert_eq!(config.servers.extra_ca.is_some(), counts, "{toml}");
    }
}

#[test]
fn a_setting_of_the_other_store_is_refused() {
    let problem = load(&[], &[], "etcd-user = 'x'\npages-port = 1\n").unwrap_err();
    let why = "only has a meaning with etcd; add --etcd-endpoints, or remove it";
    let place = |name: &str| format!("{name} in /etc/pointsman.toml: {why}");
    assert_eq!(problem.0, [place("etcd-user"), place("pages-port")]);
    refused(
        &[("data-dir", "x"), ("socket", "y")],
        &[],
        "",
        &["socket", "data-dir"].map(|name| {
            &*format!("--{name}: only has a meaning without etcd, where Pointsman starts Traefik itself; remove it")
                .leak()
        }),
    );
}

#[test]
fn a_problem_names_its_source() {
    let sentence = "99999 is not a port (1-65535)";
    refused(&[("api-port", "99999")], &[], "", &[&format!("--api-port: {sentence}")]);
    refused(&[], &[("POINTSMAN_API_PORT", "99999")], "", &[&format!("POINTSMAN_API_PORT: {sentence}")]);
    refused(&[], &[], "api-port = 99999", &[&format!("api-port in /etc/pointsman.toml: {sentence}")]);
}

#[test]
fn an_unknown_name_is_refused_with_a_suggestion() {
    for (toml, problem) in [
        ("api-prot = 1", "api-prot in /etc/pointsman.toml: there is no such setting; did you mean api-port?"),
        ("api_port = 1", "api_port in /etc/pointsman.toml: there is no such setting; did you mean api-port?"),
        ("Api-Port = 1", "Api-Port in /etc/pointsman.toml: there is no such setting; did you mean api-port?"),
        ("ectd-user = 'x'", "ectd-user in /etc/pointsman.toml: there is no such setting; did you mean etcd-user?"),
        ("colour = 'x'", "colour in /etc/pointsman.toml: there is no such setting (pointsman --help lists them all)"),
    ] {
        refused(&[], &[], toml, &[problem]);
    }
    for (variable, problem) in [
        ("POINTSMAN_API_PROT", "POINTSMAN_API_PROT: there is no such setting; did you mean POINTSMAN_API_PORT?"),
        ("POINTSMAN_API-PORT", "POINTSMAN_API-PORT: there is no such setting; did you mean POINTSMAN_API_PORT?"),
        ("POINTSMAN_COLOUR", "POINTSMAN_COLOUR: there is no such setting (pointsman --help lists them all)"),
    ] {
        refused(&[], &[(variable, "1")], "", &[problem]);
    }
}

#[test]
fn what_configurable_http_proxy_has_and_we_do_not_is_refused_by_name() {
    for known in REFUSED {
        assert!(Setting::find(known.name).is_none(), "{} is there and refused", known.name);
        assert!(!known.why.ends_with('.') && known.why.contains("emove"), "{} says what to do", known.name);
    }
    let why = "it names a module for Node. Routes are kept on disk here (--data-dir) or in etcd (--etcd-endpoints); \
               remove it";
    refused(&[], &[], "storage-backend = 'x'", &[&format!("storage-backend in /etc/pointsman.toml: {why}")]);
    refused(&[], &[("POINTSMAN_STORAGE_BACKEND", "x")], "", &[&format!("POINTSMAN_STORAGE_BACKEND: {why}")]);
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_not_ours() {
    let made = [
        ("POINTSMAN_PORT", "tcp://10.96.0.7:8001"),
        ("POINTSMAN_PORT_8001_TCP", "tcp://10.96.0.7:8001"),
        ("POINTSMAN_PORT_8001_TCP_PROTO", "tcp"),
        ("POINTSMAN_PORT_8001_TCP_PORT", "8001"),
        ("POINTSMAN_PORT_8001_TCP_ADDR", "10.96.0.7"),
        ("POINTSMAN_SERVICE_HOST", "10.96.0.7"),
        ("POINTSMAN_SERVICE_PORT", "8001"),
        ("POINTSMAN_SERVICE_PORT_API", "8001"),
        ("POINTSMAN_API_PORT", "tcp://10.96.0.8:8001"),
        ("POINTSMAN_API_SERVICE_HOST", "10.96.0.8"),
    ];
    let config = load(&[], &made, ESSENTIAL).unwrap();
    assert_eq!((port(&config.public.listen), port(&config.api.listen)), (8000, 8001));
    assert_eq!(port(&load(&[], &[("POINTSMAN_PORT", "9000")], ESSENTIAL).unwrap().public.listen), 9000);
}

#[test]
fn an_empty_variable_is_not_set() {
    let config = load(&[], &[("POINTSMAN_API_PORT", ""), ("POINTSMAN_ETCD_USER", "")], ESSENTIAL).unwrap();
    assert_eq!((port(&config.api.listen), &config.etcd().unwrap().user), (8001, &None));
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_the_line() {
    let problems = load(&[], &[], &format!("{ESSENTIAL}api-port 1\n")).unwrap_err().to_string();
    assert!(problems.starts_with("/etc/pointsman.toml is not valid TOML, line 3: "), "{problems}");
    refused(&[], &[], "api-port = [1]", &["api-port in /etc/pointsman.toml: must be one text or number"]);
    refused(
        &[],
        &[],
        "host-routing = 'yes?'",
        &["host-routing in /etc/pointsman.toml: 'yes?' is neither true nor false"],
    );
    refused(
        &[],
        &[],
        "[etcd]\nprefix = 'x'",
        &["[etcd] in /etc/pointsman.toml: there are no tables; settings stand by themselves, such as \
           etcd-prefix = \"x\""],
    );
    refused(
        &[],
        &[],
        "entry-point = { a = 1 }",
        &["entry-point in /etc/pointsman.toml: must be a list of texts, such as [\"a\", \"b\"]"],
    );
}

#[test]
fn every_value_is_checked_by_itself() {
    for (name, value, problem) in [
        ("api-port", "0", "0 is not a port (1-65535)"),
        (
            "api-ip",
            "10.0.0.300",
            "'10.0.0.300' is not an address; write a name or an IP address (the port has a \
          setting of its own)",
        ),
        (
            "api-ip",
            "localhost:8001",
            "'localhost:8001' is not an address; write a name or an IP address (the port has \
          a setting of its own)",
        ),
        ("log-level", "loud", "'loud' is not a log level (debug, info, warn or error)"),
        ("log-format", "xml", "'xml' is not a log format (text or json)"),
        ("etcd-endpoints", "etcd:2379", "'etcd:2379' is not a web address; write http://HOST:2379"),
        ("etcd-endpoints", "127.0.0.1:2379", "'127.0.0.1:2379' is not a URL; write http://HOST:2379"),
        ("etcd-endpoints", "http://etcd", "'http://etcd' names no port; etcd's is 2379 as a rule"),
        ("etcd-endpoints", "http://etcd:2379/v3", "'http://etcd:2379/v3' has a path; write http://HOST:2379"),
        ("etcd-endpoints", "http://u:secret@etcd:1", "carries a user name or password; remove the part before '@'"),
        ("etcd-endpoints", "htp:/u:secret@etcd", "this is not a web address; write http://HOST:2379"),
        ("etcd-endpoints", " , ", "is empty"),
        (
            "etcd-prefix",
            "a//b",
            "'a//b' may hold letters, digits, '-', '_' and '.', in parts separated by single \
          slashes",
        ),
        ("traefik-root-key", "/tr", "'/tr' begins with a slash, which Traefik can't read; write 'tr'"),
        (
            "traefik-api",
            "dns://traefik",
            "'dns://traefik' names no port; write http://HOST:PORT, or dns://NAME:PORT \
          for a name that resolves to all of them",
        ),
        ("traefik-api", "dns://traefik:x", "x is not a port (1-65535)"),
        (
            "traefik-api",
            "ftp://traefik",
            "'ftp://traefik' is not a web address; write http://HOST:PORT, or \
          dns://NAME:PORT for a name that resolves to all of them",
        ),
        ("entry-point", "we`b", "'we`b' is not the name of an entry point (letters, digits, '-' and '_')"),
        ("entry-point", "Traefik", "'traefik' is the private entry point, with Traefik's API; users need another one"),
        ("entry-point", "web=::1:80", "'::1:80': write an IPv6 address in brackets, as [::1]:80"),
        ("entry-point", "web=80", "'80' is not HOST:PORT"),
        ("laggard", "skip", "'skip' is neither proceed nor wait"),
        ("laggard-grace", "2", "2 s is too short for a readiness probe; 4 is the least"),
        ("installation", "a b", "'a b' is not a name of letters, digits and -_./"),
        ("trusted-ips", "10.0.0.0/33", "'10.0.0.0/33' is not an address or range, such as 10.0.0.0/8"),
        ("default-target", "hub:8081", "'target' has the scheme 'hub'; use http or https"),
        ("max-routes", "0", "0 is not a number above 0"),
        ("keep-alive-timeout", "0", "0 is not a number above 0"),
        ("custom-header", "X-Only", "'X-Only' has no colon; write NAME: VALUE"),
        ("custom-header", "a b: c", "'a b' is not the name of a header"),
        ("custom-header", "X: ", "the header X has no value"),
        (
            "ssl-protocol",
            "TLSv1",
            "'TLSv1' is too old to be safe, or names no one version; write TLSv1_2 or TLSv1_3, \
          or remove it",
        ),
        ("middlewares", "limit", "'limit' is not NAME@PROVIDER, such as limit@file"),
        ("pages-url", "https://us:1", "'https://us:1' must begin with http://; our pages don't speak TLS"),
        ("pages-url", "http://0.0.0.0:8002", "'http://0.0.0.0:8002' is no address that anybody can call"),
        ("pages-url", "http://us:8002/x", "'http://us:8002/x' has a path; write http://HOST:PORT"),
    ] {
        refused(&[(name, value)], &[], "", &[&format!("--{name}: {problem}")]);
    }
}

#[test]
fn settings_are_checked_against_each_other() {
    for (toml, problems) in [
        ("etcd-user = 'me'", &["etcd-user in /etc/pointsman.toml: needs --etcd-password-file beside it"][..]),
        (
            "etcd-cert = '/dev/null'\n",
            &[
                "etcd-cert in /etc/pointsman.toml: needs --etcd-key beside it",
                "etcd-cert in /etc/pointsman.toml: has no effect with http:// endpoints; write https:// in \
                 --etcd-endpoints",
            ],
        ),
        (
            "etcd-ca = '/nowhere'",
            &[
                "etcd-ca in /etc/pointsman.toml: has no effect with http:// endpoints; write https:// in \
                 --etcd-endpoints",
                "etcd-ca in /etc/pointsman.toml: /nowhere can't be read: No such file or directory (os error 2)",
            ],
        ),
        (
            "etcd-endpoints = ['http://a:1', 'https://b:1']\ntraefik-api = ['http://a:2']",
            &["etcd-endpoints in /etc/pointsman.toml: some begin with http:// and some with https://; all must be \
                 of one kind"],
        ),
        (
            "etcd-prefix = 'traefik2'",
            &["--traefik-root-key: 'traefik' and the etcd-prefix 'traefik2' begin with one another; Traefik reads \
                 every key that begins with its root key, so choose texts that differ, such as 'traefik' and \
                 'pointsman'"],
        ),
        (
            "entry-point = ['web', 'Web']",
            &["entry-point in /etc/pointsman.toml: 'web' is named twice (upper and lower case count as one)"],
        ),
        (
            "error-target = 'http://127.0.0.1:8081/hub/error'",
            &["error-target in /etc/pointsman.toml: needs --pages-url beside it: Traefik gets its error pages from \
                 us, so say where it reaches us, as --pages-url http://HOST:8002"],
        ),
        (
            "etcd-endpoints = 'http://a:1'\ntraefik-api = 'http://10.0.0.5:8099'\npages-url = 'http://127.0.0.1:8002'",
            &["pages-url in /etc/pointsman.toml: http://127.0.0.1:8002 is an address of this machine only, and the \
                 Traefik at http://10.0.0.5:8099 is elsewhere; give an address of ours that it can reach"],
        ),
        (
            "pages-url = 'http://pointsman:8002'",
            &["pages-url in /etc/pointsman.toml: says that Traefik reaches us at pointsman, but our pages listen on \
                 this machine's loopback only; add --pages-ip '*', or an address"],
        ),
        (
            "pages-url = 'http://127.0.0.1:8001'\npages-port = 8001",
            &["pages-port in /etc/pointsman.toml: 8001 is taken by --api-port too; give each its own"],
        ),
        (
            "jwt-algorithms = ['RS256']",
            &[
                "jwt-algorithms in /etc/pointsman.toml: signed tokens need a key: add --jwt-key-file, --jwt-jwks-url \
                 or --jwt-jwks-file",
                "jwt-algorithms in /etc/pointsman.toml: signed tokens need --jwt-issuer: else tokens of anybody who \
                 shares the key would count",
                "jwt-algorithms in /etc/pointsman.toml: signed tokens need --jwt-audience: else tokens meant for \
                 other services would count",
            ],
        ),
        ("token-file = ['/nowhere']", &["token-file /nowhere: can't be read: No such file or directory (os error 2)"]),
    ] {
        refused(&[], &[], toml, problems);
    }
}

#[test]
fn all_problems_come_at_once() {
    refused(
        &[("api-port", "0")],
        &[("POINTSMAN_COLOUR", "x"), ("POINTSMAN_LOG_LEVEL", "loud")],
        "pages-port = 'x'\nssl-key = 'y'",
        &[
            "POINTSMAN_COLOUR: there is no such setting (pointsman --help lists them all)",
            "--api-port: 0 is not a port (1-65535)",
            "pages-port in /etc/pointsman.toml: x is not a port (1-65535)",
            "POINTSMAN_LOG_LEVEL: 'loud' is not a log level (debug, info, warn or error)",
            "ssl-key in /etc/pointsman.toml: needs --ssl-cert beside it",
        ],
    );
}

#[test]
fn lists_are_read_from_every_source() {
    for config in [
        load(&[("entry-point", "a,b=:81")], &[], ESSENTIAL),
        load(&[], &[("POINTSMAN_ENTRY_POINT", "a, b=:81,")], ESSENTIAL),
        load(&[], &[], &format!("{ESSENTIAL}entry-point = ['a', 'b=:81']")),
    ] {
        let b = EntryPoint { name: "b".to_owned(), address: Some(":81".to_owned()) };
        assert_eq!(config.unwrap().traefik.entry_points, [EntryPoint { name: "a".to_owned(), address: None }, b]);
    }
}

#[test]
fn every_interface_has_two_spellings() {
    for text in ["", "*"] {
        assert_eq!(
            load(&[("ip", text), ("api-ip", text)], &[], ESSENTIAL).unwrap().api.listen,
            Listen::Tcp { ip: String::new(), port: 8001 }
        );
    }
    assert_eq!(
        load(&[("api-ip", "[::1]")], &[], ESSENTIAL).unwrap().api.listen,
        Listen::Tcp { ip: "::1".into(), port: 8001 }
    );
}

#[test]
fn names_of_settings_are_unique_and_plain() {
    let names: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(names.len(), SETTINGS.len());
    assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')), "{names:?}");
}

/// What the hub passes to each proxy, and what changes nothing: we do it anyway, as the configurable-http-proxy.
const WITHOUT_EFFECT: [&str; 2] = ["client-ssl-request-cert", "client-ssl-reject-unauthorized"];

/// A setting that nobody reads would be accepted and do nothing: each must refuse or take a value that only it knows.
#[test]
fn every_setting_is_read() {
    for essential in [ESSENTIAL, ""] {
        let before = format!("{:?}", load(&[], &[], essential).unwrap());
        for setting in SETTINGS.iter().filter(|setting| setting.name != "config") {
            let value = match (setting.kind, setting.name) {
                (Kind::Switch, _) => "true",
                (_, "jwt-scope-prefix") => "x:",
                _ => "\u{7f}",
            };
            let changed = match load(&[(setting.name, value)], &[], essential) {
                Ok(config) => format!("{config:?}") != before,
                Err(problems) => problems.0.iter().any(|problem| problem.contains(setting.name)),
            };
            assert_eq!(changed, !WITHOUT_EFFECT.contains(&setting.name), "{} with {essential:?}", setting.name);
        }
    }
}

proptest! {
    #[test]
    fn flags_win_over_variables_and_these_over_the_file(
        flag in proptest::option::of(1u16..), variable in proptest::option::of(1u16..), file in proptest::option::of(1u16..),
        name in proptest::sample::select(vec!["api-port", "pages-port", "port"]),
    ) {
        let (flag_text, variable_text) = (flag.map(|n| n.to_string()), variable.map(|n| n.to_string()));
        let flags: Vec<(&str, &str)> = flag_text.iter().map(|text| (name, text.as_str())).collect();
        let spelled = settings::variable(name);
        let variables: Vec<(&str, &str)> = variable_text.iter().map(|text| (spelled.as_str(), text.as_str())).collect();
        let toml = file.map(|n| format!("{name} = {n}")).unwrap_or_default();
        let config = load(&flags, &variables, &format!("{ESSENTIAL}{toml}")).unwrap();
        let (found, default) = match name {
            "api-port" => (port(&config.api.listen), 8001),
            "pages-port" => (config.pages.port, 8002),
            _ => (port(&config.public.listen), 8000),
        };
        prop_assert_eq!(found, flag.or(variable).or(file).unwrap_or(default));
    }

    #[test]
    fn no_text_makes_the_checks_panic(text in "\\PC{0,40}", at in 0..SETTINGS.len()) {
        let setting = &SETTINGS[at];
        prop_assume!(setting.name != "config");
        let _ = load(&[(setting.name, &text)], &[], ESSENTIAL);
    }
}

#[test]
fn a_version_of_tls_has_the_names_that_openssl_gives_it() {
    let read = values::tls_version;
    for text in ["TLSv1_2", "TLSv1.2", "TLSv1_2_method", "TLSv1_2_server_method", "TLSv1_2_client_method"] {
        assert_eq!(read(text), Ok(TlsVersion::Tls12), "{text}");
    }
    assert_eq!(read("TLSv1_3"), Ok(TlsVersion::Tls13));
    for (text, part) in [
        ("SSLv3", "too old"),
        ("TLSv1", "too old"),
        ("TLSv1_1", "too old"),
        ("SSLv23_method", "no one version"),
        ("TLS", "no one version"),
        ("TLSv1_4", "not a version"),
        ("", "not a version"),
    ] {
        let says = read(text).expect_err(text);
        assert!(says.contains(part) && says.contains("TLSv1_3"), "{says}");
    }
}
