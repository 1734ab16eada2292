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
    let says = |flag: &str| format!("{flag}: it names a module for Node. Routes are kept on disk here (--data-dir)");
    for args in [
        &["--storage-backend", "x"][..],
        &["--storage-backend=x"],
        &["check", "--storage-backend", "x"],
        &["--storage-backend", "x", "--storage-backend", "y"],
    ] {
        refused(args, &[], 64, &[&says("--storage-backend")]);
    }
    refused(&[], &[("POINTSMAN_STORAGE_BACKEND", "x")], 64, &[&says("POINTSMAN_STORAGE_BACKEND")]);
    // A bare flag doesn't take the next word for its value.
    let both = ["--no-x-forward: Traefik always tells", "--auto-rewrite: Traefik can't rewrite"];
    refused(&["--no-x-forward", "--auto-rewrite", "check"], &[], 64, &both);
    refused(&["--timeout"], &[], 2, &["--timeout"]);
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
    let finished = pointsman(&["--etcd-endpoints", "http://127.0.0.1:1"], &[]);
    assert_eq!(finished.code, 64);
    for words in ["--traefik-api is missing", "POINTSMAN_TRAEFIK_API=http://127.0.0.1:8099"] {
        assert!(finished.stderr.contains(words), "{words} is not in:\n{}", finished.stderr);
    }
}
