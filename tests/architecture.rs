//! The house rules that the compiler doesn't know: who may import whom, one crate one room, no orphan, no long file.

#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::{Source, declared_modules, named_crates, named_rooms, without_comments_and_tests};

/// A room (the first module under `src/`) and the rooms whose names may stand in it. Its own name always may.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["child", "cli"]),
    (
        "cli",
        &["activity", "api", "child", "config", "control", "forward", "join", "route", "snapshot", "store", "traefik"],
    ),
    ("config", &["route"]),
    ("api", &["activity", "control", "route"]),
    ("activity", &["route", "store", "traefik"]),
    ("child", &["traefik"]),
    ("control", &["route", "snapshot", "store", "traefik"]),
    ("traefik", &["route"]),
    ("snapshot", &["route"]),
    ("join", &["store"]),
    ("store", &[]),
    ("forward", &[]),
    ("route", &[]),
    ("causes", &[]),
    ("clock", &[]),
    ("files", &[]),
    ("lifecycle", &[]),
    ("ownership", &[]),
    ("random", &[]),
    ("socket", &[]),
    ("telemetry", &[]),
];

/// Rooms that know nothing of ours, and that everybody but the pure ones may use.
const COMMON_ROOMS: &[&str] = &["causes", "clock", "files", "lifecycle", "ownership", "random", "socket", "telemetry"];

/// Rooms of plain values and functions: they get their time from outside and start nothing.
const PURE_ROOMS: &[&str] = &["route"];

/// A foreign crate and the beginnings of the only paths under `src/` where its name may stand.
const CRATE_HOMES: &[(&str, &[&str])] = &[
    ("etcd_client", &["store/etcd"]),
    ("redb", &["store/embedded"]),
    ("axum", &["api"]),
    ("hyper", &["api"]),
    ("hyper_util", &["api"]),
    ("http_body_util", &["api"]),
    ("tower", &["api"]),
    ("flate2", &["traefik/client"]),
    ("netlink_packet_core", &["activity/kernel"]),
    ("netlink_packet_sock_diag", &["activity/kernel"]),
    ("netlink_sys", &["activity/kernel"]),
    (
        "reqwest",
        &[
            "activity/remote",
            "traefik/client",
            "api/pages",
            "api/auth",
            "cli/check",
            "cli/routes/client",
            "cli/try_route/door",
            "join/peers",
        ],
    ),
    ("jsonwebtoken", &["api/auth"]),
    ("clap", &["cli"]),
    ("socket2", &["child", "forward"]),
    ("prometheus_client", &["api/metrics"]),
    ("tokio_rustls", &["api/listen"]),
    ("rcgen", &["traefik/folder"]),
    ("command_fds", &["child"]),
    ("rustix", &["child", "clock", "forward", "api/metrics", "ownership", "socket", "store/embedded/inspect"]),
    ("toml", &["config"]),
];

/// Beyond this a file can't be read in one sitting.
const FILE_LINES_MAX: usize = 500;

#[test]
fn imports_point_in_one_direction() {
    assert_none(
        sources("src").iter().flat_map(direction_errors),
        "Imports against the direction of tests/architecture.rs",
    );
}

#[test]
fn a_foreign_crate_has_one_room() {
    assert_none(sources("src").iter().flat_map(home_errors), "Crates outside their room");
}

#[test]
fn every_file_is_declared_by_a_mod() {
    let mut errors = orphans("src", &["main.rs", "lib.rs"]);
    if root().join("tests/integration/main.rs").exists() {
        errors.extend(orphans("tests/integration", &["main.rs"]));
    }
    assert_none(errors, "Files that are never compiled");
}

#[test]
fn no_file_is_too_long() {
    let long = sources("src").into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("src/{}: {lines} lines, the limit is {FILE_LINES_MAX}", source.path))
    });
    assert_none(long, "Files to split");
}

#[test]
fn there_is_no_mod_rs() {
    let wrong = sources("src").into_iter().filter(|s| s.path.ends_with("mod.rs")).map(|s| format!("src/{}", s.path));
    assert_none(wrong, "Write foo.rs beside foo/ instead of foo/mod.rs");
}

#[test]
fn the_checks_see_what_they_should() {
    let check = |path: &str, text: &str| {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        direction_errors(&source).len() + home_errors(&source).len()
    };
    for (path, text) in [
        ("store/memory.rs", "use crate::route::Route;\n"),
        ("route.rs", "fn f() { crate::store::x(); }\n"),
        ("route.rs", "use crate::clock::Clock;\n"),
        ("traefik/tree.rs", "use crate::{route::Route, control};\n"),
        ("traefik/tree.rs", "use crate::{\n    route::{Route, Target},\n    store::{Txn},\n};\n"),
        ("store.rs", "use crate :: api;\n"),
        ("store.rs", "use super::api;\n"),
        ("store/etcd.rs", "use super::super::api::x;\n"),
        ("main.rs", "use pointsman::config::Config;\n"),
        ("control.rs", "use etcd_client::Client;\n"),
        ("store/versions.rs", "use redb::Database;\n"),
        ("control.rs", "fn f(x: ::axum::Router) {}\n"),
        ("cli/serve.rs", "fn f(x: reqwest::Client) {}\n"),
        ("somewhere_new.rs", "fn f() {}\n"),
    ] {
        assert_ne!(check(path, text), 0, "not noticed in {path}: {text}");
    }
    for (path, text) in [
        ("store/memory.rs", "use super::Txn;\nuse crate::store::Op;\n"),
        ("store.rs", "// like crate::route, but not\n/* crate::api */ const X: &str = \"crate::api axum::x\";\n"),
        ("store.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::route::Route;\n}\n"),
        ("control.rs", "use crate::{route::{Route, RouteTable}, store, clock::Clock};\n"),
        ("store/etcd/session.rs", "use etcd_client::Client;\n"),
        ("store/embedded/disk.rs", "use redb::Database;\n"),
        ("api/listen.rs", "use axum::Router;\nlet tower = 1;\n"),
        ("main.rs", "fn main() { pointsman::cli::run(); }\n"),
    ] {
        assert_eq!(check(path, text), 0, "wrongly refused in {path}: {text}");
    }
}

fn direction_errors(source: &Source) -> Vec<String> {
    let room = source.room();
    if source.is_test() || room == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "src/{}: '{room}' is no known room; give it a line in tests/architecture.rs",
            source.path
        )];
    };
    named_rooms(source)
        .into_iter()
        .filter(|(_, named)| {
            let common = COMMON_ROOMS.contains(&named.as_str()) && !PURE_ROOMS.contains(&room);
            named != room && !allowed.contains(&named.as_str()) && !common
        })
        .filter(|(_, named)| ROOMS.iter().any(|(name, _)| name == named))
        .map(|(line, named)| format!("src/{}:{line}: '{room}' may not name '{named}'", source.path))
        .collect()
}

fn home_errors(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    named_crates(source, CRATE_HOMES.iter().map(|(name, _)| *name))
        .into_iter()
        .filter(|(_, name)| {
            let homes = CRATE_HOMES.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, homes)| *homes);
            !homes.iter().any(|home| source.path.starts_with(home))
        })
        .map(|(line, name)| format!("src/{}:{line}: '{name}' may not be named here", source.path))
        .collect()
}

fn orphans(folder: &str, roots: &[&str]) -> Vec<String> {
    let files = sources(folder);
    let mut declared: BTreeSet<String> = roots.iter().map(|&name| name.to_owned()).collect();
    for file in &files {
        declared.extend(declared_modules(file, roots));
    }
    files.into_iter().filter(|f| !declared.contains(&f.path)).map(|f| format!("{folder}/{}", f.path)).collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let base = root().join(folder);
    let mut found = Vec::new();
    let mut folders = vec![base.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                found.push(Source { path: relative(&path, &base), text });
            }
        }
    }
    assert!(!found.is_empty(), "no source found in {}", base.display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn relative(path: &Path, base: &Path) -> String {
    path.strip_prefix(base).expect("below the base").to_string_lossy().replace('\\', "/")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(errors: impl IntoIterator<Item = String>, heading: &str) {
    let errors: Vec<String> = errors.into_iter().collect();
    assert!(errors.is_empty(), "{heading}:\n{}", errors.join("\n"));
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let code = without_comments_and_tests("a // b\n\"c \\\" d\" /* e\n /* f */ */ 'g' r#\"h \" i\"# j::<'k>()\n");
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "\"\"", "''", "\"\"", "j::<'k>()"]);
    assert_eq!(code.lines().count(), 3, "line numbers are kept");
}
