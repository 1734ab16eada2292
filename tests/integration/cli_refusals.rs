//! Command lines, variables and files that are refused: the exit code, and the sentence.

use crate::support::pointsman::pointsman;

const ESSENTIAL: [&str; 4] = ["--etcd-endpoints", "http://127.0.0.1:1", "--traefik-api", "http://127.0.0.1:3"];

/// Each command line is refused with this code, and stderr contains each sentence.
#[track_caller]
fn refused(args: &[&str], environment: &[(&str, &str)], code: i32, sentences: &[&str]) {
    let args: Vec<&str> = args.iter().copied().chain(ESSENTIAL).collect();
    let finished = pointsman(&args, environment);
    assert_eq!((finished.code, finished.stdout.as_str()), (code, ""), "{args:?}: {finished:?}");
    for sentence in sentences {
        assert!(finished.stderr.contains(sentence), "{args:?} does not say {sentence:?}:\n{}", finished.stderr);
    }
}

#[test]
fn an_unknown_flag_or_command_is_refused_by_name_with_a_suggestion() {
    refused(&["--api-prot", "1"], &[], 2, &["'--api-prot'", "a similar argument exists: '--api-port'"]);
    refused(&["chekc"], &[], 2, &["'chekc'", "a similar subcommand exists: 'check'"]);
    refused(&["--api-port"], &[], 2, &["--api-port"]);
    refused(&["check", "--colour"], &[], 2, &["'--colour'"]);
    refused(&["--dir", "x"], &[], 2, &["'--dir'"]);
}

#[test]
fn an_unknown_variable_is_refused_by_name_with_a_suggestion() {
    refused(&[], &[("POINTSMAN_API_PROT", "1")], 64, &["POINTSMAN_API_PROT", "did you mean POINTSMAN_API_PORT?"]);
}

#[test]
fn flags_of_configurable_http_proxy_that_we_lack_are_refused_in_either_spelling() {
    let says = |flag: &str| format!("{flag}: configurable-http-proxy has this setting, but");
    for args in [&["--ssl-key", "key.pem"][..], &["--ssl-key=key.pem"], &["check", "--ssl-key", "key.pem"]] {
        refused(args, &[], 64, &[&says("--ssl-key")]);
    }
    // A bare flag doesn't take the next word for its value.
    refused(&["--no-x-forward", "--insecure", "check"], &[], 64, &[&says("--no-x-forward"), &says("--insecure")]);
}

#[test]
fn a_bad_value_names_its_source_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pointsman.toml");
    std::fs::write(&file, "api-port = 99999\nlog-level = 'loud'\n").unwrap();
    let file = file.to_str().unwrap();
    let place = format!("api-port in {file}: 99999 is not a port (1-65535)");
    refused(&["--config", file], &[], 64, &["2 problems", &place]);
    refused(&[], &[("POINTSMAN_CONFIG", file)], 64, &["2 problems", &place]);
    refused(&["--config", file, "--log-level", "info"], &[], 64, &[&place]);
    refused(&["--config", "/nowhere.toml"], &[], 64, &["--config: /nowhere.toml can't be read"]);
    // The stronger source is the one that counts, wherever the flag stands.
    refused(&["--config", file, "--log-level=info", "--api-port=0"], &[], 64, &["--api-port: 0 is not a port"]);
    refused(&["check", "--api-port", "0"], &[], 64, &["--api-port: 0 is not a port"]);
    refused(&["--api-port", "0", "check"], &[], 64, &["--api-port: 0 is not a port"]);
    refused(&["--api-port", "1", "--api-port", "0"], &[], 64, &["--api-port: 0 is not a port"]);
}

#[test]
fn a_secret_is_never_repeated() {
    let finished = pointsman(
        &["--etcd-endpoints", "http://me:hunter2@etcd:2379", "--traefik-api", "http://me:hunter2@[::1"],
        &[("CONFIGPROXY_AUTH_TOKEN", "hunter2 hunter2")],
    );
    assert_eq!(finished.code, 64);
    assert!(finished.stderr.contains("CONFIGPROXY_AUTH_TOKEN: holds white space"), "{finished:?}");
    assert!(!format!("{finished:?}").contains("hunter2"), "{finished:?}");
}

#[test]
fn what_is_missing_is_explained() {
    let finished = pointsman(&[], &[]);
    assert_eq!(finished.code, 64);
    for words in ["--etcd-endpoints", "POINTSMAN_ETCD_ENDPOINTS=http://127.0.0.1:2379", "--traefik-api"] {
        assert!(finished.stderr.contains(words), "{words} is not in:\n{}", finished.stderr);
    }
}
