//! `pointsman export` and `import`: between a real configurable-http-proxy, folders, etcd and running Pointsmen.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::certificates::Authority;
use crate::support::chp::Chp;
use crate::support::embedded;
use crate::support::etcd::Etcd;
use crate::support::http;
use crate::support::pointsman::{Finished, Server, pointsman};
use crate::support::process::{Running, free_port, program};
use crate::support::raw_http::{Backends, RawClient};
use crate::support::system::{System, TOKEN};
use crate::support::wait::eventually;

const ENVIRONMENT: [(&str, &str); 1] = [("CONFIGPROXY_AUTH_TOKEN", TOKEN)];

fn run(args: &[&str]) -> Finished {
    pointsman(args, &ENVIRONMENT)
}

/// What it says on stdout where it must succeed.
#[track_caller]
fn good(args: &[&str]) -> String {
    let finished = run(args);
    assert_eq!(finished.code, 0, "{args:?}: {}", finished.stderr);
    assert!(!finished.stderr.contains(TOKEN), "the token is told: {}", finished.stderr);
    finished.stdout
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A table without the times that configurable-http-proxy adds.
fn timeless(table: &str) -> Value {
    let mut table: Value = serde_json::from_str(table).expect("JSON");
    for record in table.as_object_mut().expect("an object").values_mut() {
        record.as_object_mut().expect("a record").remove("last_activity");
    }
    table
}

/// A Pointsman on one machine with this folder; its port for users comes first.
async fn one_machine(data: &Path, logs: &Path, more: &[&str]) -> (u16, Server) {
    let port = free_port();
    let (number, traefik) = (port.to_string(), program("traefik"));
    let flags = ["--ip", "127.0.0.1", "--port", &number, "--data-dir", text(data), "--traefik-binary", text(&traefik)];
    let server = Server::start(&[&flags[..], more].concat(), &ENVIRONMENT, logs).await;
    let readyz = format!("{}/readyz", server.api);
    eventually("readiness", Duration::from_secs(20), || async {
        match crate::support::wait::http_get(&readyz).await? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    (port, server)
}

/// The port of a server's API.
fn api_port(server: &Server) -> &str {
    server.api.rsplit_once(':').expect("a port").1
}

/// Paths as they are sent, and records that both sides keep.
const AWKWARD: [(&str, &str); 9] = [
    ("/", r#"{"target":"http://127.0.0.1:8081","hub":true,"jupyterhub":true}"#),
    ("/user/jane", r#"{"target":"http://127.0.0.1:1","user":"jane","server_name":"","jupyterhub":true}"#),
    ("/user/j%40x.org/a%20b", r#"{"target":"http://[::1]:2/base/","deep":{"a":[1,null,false,"é😀"]},"n":1.50}"#),
    ("/user/%25%3F%23%5B%5D%22%60%7B%7D%5C", r#"{"target":"https://host_name:3"}"#),
    ("/user/%E7%A7%80/%F0%9F%98%80", r#"{"target":"http://127.0.0.1:4","host":"mine","constructor":{}}"#),
    ("/constructor", r#"{"target":"http://127.0.0.1:5","__proto__":1}"#),
    ("/a//b", r#"{"target":"http://127.0.0.1:6","big":12345678901234567890}"#),
    ("/x%00%0Ay", r#"{"target":"http://127.0.0.1:7"}"#),
    ("/A", r#"{"target":"http://127.0.0.1:8/"}"#),
];

/// What configurable-http-proxy takes and we don't.
const REFUSED: [(&str, &str, &str, &str); 7] = [
    ("//a", "//a", r#"{"target":"http://odd"}"#, "the same route as /a"),
    ("/ftp", "/ftp", r#"{"target":"ftp://x"}"#, "has the scheme 'ftp'"),
    ("/nothing", "/nothing", r#"{"target":"no url"}"#, "'target'"),
    ("/query", "/query", r#"{"target":"http://x/?a"}"#, "has a query"),
    ("/a%2F..%2Fb", "/a/../b", r#"{"target":"http://x"}"#, "segment '..'"),
    ("/half", "/half", "{\"target\":\"http://x\",\"half\":\"\\ud800\"}", "not valid JSON"),
    ("/login", "/login", r#"{"target":"http://me:secret@x"}"#, "user name or password"),
];

#[tokio::test]
async fn a_chp_moves_in_with_all_that_can_be_served_and_back_again() {
    let home = folder();
    let chp = Chp::start(TOKEN, &[], home.path()).await;
    for (path, record) in AWKWARD {
        chp.post(TOKEN, path, record).await;
    }
    chp.post(TOKEN, "/a", r#"{"target":"http://127.0.0.1:9"}"#).await;
    let everything = timeless(&good(&["export", "--from", &chp.api]));
    assert_eq!(everything.as_object().unwrap().len(), AWKWARD.len() + 1);
    for (path, _, record, _) in REFUSED {
        chp.post(TOKEN, path, record).await;
    }

    let data = home.path().join("data");
    let from_chp = ["import", "--from", &chp.api, "--data-dir", text(&data)];
    let dry = run(&[&from_chp[..], &["--dry-run"]].concat());
    assert!(dry.code == 1 && dry.stdout.contains("add     /user/jane -> http://127.0.0.1:1\n"), "{dry:?}");
    assert!(!data.exists(), "a dry run has made the folder");

    let moved = run(&from_chp);
    assert_eq!(moved.code, 1, "{moved:?}");
    for (_, listed, _, reason) in REFUSED {
        let line = moved.stderr.lines().find(|line| line.contains(&format!("not imported: {listed}: ")));
        assert!(line.is_some_and(|line| line.contains(reason)), "{listed} {reason}: {}", moved.stderr);
    }
    assert!(
        moved.stderr.contains("10 added, 0 changed, 0 removed;") && moved.stderr.contains("7 refused"),
        "{moved:?}"
    );
    assert!(!moved.stderr.contains("secret"), "{moved:?}");
    let here = good(&["export", "--data-dir", text(&data)]);
    assert_eq!(timeless(&here), everything);

    // The way back, into a new and empty one.
    let other = folder();
    let new = Chp::start(TOKEN, &[], other.path()).await;
    let file = home.path().join("table.json");
    std::fs::write(&file, here).unwrap();
    good(&["import", text(&file), "--to", &new.api]);
    assert_eq!(timeless(&good(&["export", "--from", &new.api])), everything);
    let again = run(&["import", text(&file), "--to", &new.api]);
    assert!(again.stderr.contains("0 added, 0 changed, 0 removed; 10 were here already"), "{again:?}");
}

// The servers answer while the command runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_proxies_are_held_against_each_other() {
    let home = folder();
    let (chp, backends) = (Chp::start(TOKEN, &[], home.path()).await, Backends::start().await);
    let (public, server) = one_machine(&home.path().join("data"), home.path(), &[]).await;
    for (path, at) in [("/user/a", 0), ("/user/b%40x", 1)] {
        chp.post(TOKEN, path, &format!(r#"{{"target":"{}","user":"x"}}"#, backends.url(at))).await;
    }
    let doors = [chp.public, public].map(|port| format!("http://127.0.0.1:{port}"));
    let both = ["import", "--from", &chp.api, "--to", &server.api];
    let visits = ["--visit", &doors[0], "--visit", &doors[1]];
    let compare = || run(&[&both[..], &["--compare"], &visits].concat());
    let before = compare();
    assert!(before.code == 1 && before.stderr.contains("2 routes are on one side or both, and 2 differ"), "{before:?}");
    assert!(before.stdout.contains("missing /user/a, which only the source has\n"), "{before:?}");
    assert_eq!(timeless(&good(&["export", "--from", &server.api])), json!({}), "a comparison has changed something");

    good(&both);
    let same = compare();
    assert!(same.code == 0 && same.stdout.is_empty(), "{same:?}");
    assert!(same.stderr.contains("the pages of 2 routes were looked at, and 0 differ"), "{same:?}");

    // Where a server is that nobody reaches, on one side only.
    chp.post(TOKEN, "/user/a", r#"{"target":"http://127.0.0.1:9","user":"x"}"#).await;
    chp.post(TOKEN, "/bad", r#"{"target":"no url"}"#).await;
    let differs = compare();
    assert_eq!(differs.code, 1, "{differs:?}");
    let lines: Vec<&str> = differs.stdout.lines().collect();
    assert!(lines[0].starts_with("refused /bad: ") && lines[1] == "differs /user/a", "{differs:?}");
    assert!(lines[2].starts_with("page    /user/a: 503 | 200") && lines.len() == 3, "{differs:?}");
    // One place alone has nothing to be held against.
    let alone = run(&[&both[..], &["--compare", "--visit", &doors[0]]].concat());
    assert!(alone.code == 1 && alone.stderr.contains("name two places"), "{alone:?}");
}

#[tokio::test]
async fn hosts_of_a_chp_with_host_routing_are_no_data() {
    let home = folder();
    let chp = Chp::start(TOKEN, &["--host-routing"], home.path()).await;
    chp.post(TOKEN, "/Jane.example.org/user/jane", r#"{"target":"http://127.0.0.1:1","user":"jane"}"#).await;
    chp.post(TOKEN, "/", r#"{"target":"http://127.0.0.1:2"}"#).await;
    let data = home.path().join("data");
    good(&["import", "--from", &chp.api, "--data-dir", text(&data), "--host-routing"]);
    let here = timeless(&good(&["export", "--data-dir", text(&data), "--host-routing"]));
    let jane = json!({"target": "http://127.0.0.1:1", "user": "jane", "host": "jane.example.org"});
    assert_eq!(here, json!({"/": {"target": "http://127.0.0.1:2"}, "/jane.example.org/user/jane": jane}));
    let raw = timeless(&good(&["export", "--data-dir", text(&data)]));
    assert_eq!(raw["/jane.example.org/user/jane"].get("host"), None, "the host is kept as data");
}

#[tokio::test]
async fn a_folder_that_a_pointsman_holds_is_reached_through_its_api() {
    let home = folder();
    let (data, backends) = (home.path().join("data"), Backends::start().await);
    let (public, server) = one_machine(&data, home.path(), &[]).await;
    let held = ["--data-dir", text(&data)];
    let there = [&held[..], &["--api-ip", "127.0.0.1", "--api-port", api_port(&server)]].concat();

    let many: serde_json::Map<String, Value> =
        (0..60).map(|i| (format!("/user/u{i}"), json!({"target": backends.url(i % 3)}))).collect();
    let file = home.path().join("table.json");
    std::fs::write(&file, Value::Object(many.clone()).to_string()).unwrap();
    let imported = run(&[&["import", text(&file)], &there[..]].concat());
    assert_eq!(imported.code, 0, "{imported:?}");
    assert!(
        imported.stderr.contains("writing through the API") && imported.stderr.contains("60 added"),
        "{imported:?}"
    );
    // Traefik serves each when the command ends.
    for i in [0, 31, 59] {
        let answer = RawClient::connect(public).await.get("hub", &format!("/user/u{i}/")).await;
        assert_eq!(answer.body, (i % 3).to_string(), "{i}");
    }
    assert_eq!(timeless(&good(&[&["export"], &there[..]].concat())), Value::Object(many));

    // --replace takes away what the source doesn't have.
    std::fs::write(&file, r#"{"/user/u1":{"target":"http://127.0.0.1:1"}}"#).unwrap();
    let replaced = run(&[&["import", text(&file), "--replace"], &there[..]].concat());
    assert!(replaced.code == 0 && replaced.stderr.contains("0 added, 1 changed, 59 removed;"), "{replaced:?}");
    let gone = RawClient::connect(public).await.get("hub", "/user/u2/").await;
    assert_ne!(gone.body, "2");

    // Where its API isn't found, that is said, with the process and the fix.
    let lost = ["--api-port", &free_port().to_string()].map(str::to_owned);
    let lost: Vec<&str> = held.into_iter().chain(lost.iter().map(String::as_str)).collect();
    for (command, flag) in [(vec!["export"], "--from"), (vec!["import", text(&file)], "--to")] {
        let refused = run(&[&command[..], &lost[..]].concat());
        assert_eq!(refused.code, 1, "{refused:?}");
        let says = ["in use by a running Pointsman (process ", &format!("Name its API by {flag} http://HOST:PORT")];
        assert!(says.iter().all(|says| refused.stderr.contains(says)), "{refused:?}");
    }
    let named = good(&["export", "--from", &server.api]);
    assert_eq!(timeless(&named), json!({"/user/u1": {"target": "http://127.0.0.1:1"}}));
}

#[tokio::test]
async fn an_api_behind_https_or_a_socket_is_found_too() {
    let home = folder();
    let signed = Authority::new("authority", home.path()).sign("api");
    let (socket, port) = (home.path().join("api.sock"), free_port().to_string());
    let https = ["--api-ip", "127.0.0.1", "--api-port", &port, "--api-ssl-cert", text(&signed.cert)];
    let https = [&https[..], &["--api-ssl-key", text(&signed.key)]].concat();
    let (url, authority) = (format!("https://127.0.0.1:{port}"), home.path().join("authority.pem"));
    let unix = format!("unix:{}", socket.display());
    let ways = [
        (https, vec!["--from", &url, "--ca", text(&authority)]),
        (vec!["--api-socket", text(&socket)], vec!["--from", &unix]),
    ];
    let traefik = program("traefik");
    let file = home.path().join("table.json");
    for (number, (api, from)) in ways.into_iter().enumerate() {
        let (data, users) = (home.path().join(format!("data{number}")), free_port().to_string());
        let own =
            ["--ip", "127.0.0.1", "--port", &users, "--data-dir", text(&data), "--traefik-binary", text(&traefik)];
        let flags = [&own[..], &api].concat();
        let mut server = Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &flags, &ENVIRONMENT, home.path());
        eventually("its API", Duration::from_secs(20), || {
            let ended = server.ended();
            assert!(ended.is_none(), "it ended at once:\n{}", server.log());
            let checked = run(&[&["check"], &flags[..]].concat());
            let good = checked.stdout.contains("the token is accepted") && checked.stdout.contains(": ready");
            async move { if good { Ok(()) } else { Err(checked.stdout) } }
        })
        .await;
        std::fs::write(&file, r#"{"/a":{"target":"http://127.0.0.1:1"}}"#).unwrap();
        let imported = run(&[&["import", text(&file)], &flags[..]].concat());
        assert!(imported.code == 0 && imported.stderr.contains("writing through the API"), "{imported:?}");
        assert!(timeless(&good(&[&["export"], &from[..]].concat())).get("/a").is_some());
        if number == 0 {
            let untrusted = run(&["export", "--from", &url]);
            assert!(untrusted.code == 1 && untrusted.stderr.contains("can't be trusted"), "{untrusted:?}");
        }
    }
}

#[tokio::test]
async fn the_last_use_of_a_route_goes_along() {
    let home = folder();
    let data = home.path().join("data");
    let long_ago = "2026-01-02T03:04:05.678Z";
    let record = |last: &str| json!({"target": "http://127.0.0.1:1", "last_activity": last});
    let table = json!({"/idle": record(long_ago), "/to-come": record("2999-01-01T00:00:00Z"), "/odd": record("soon")});
    let imported = import_text(&["--data-dir", text(&data)], &table.to_string());
    assert_eq!(imported.code, 0, "{imported:?}");
    let there: Value = serde_json::from_str(&good(&["export", "--data-dir", text(&data)])).unwrap();
    assert_eq!(there["/idle"], record(long_ago));
    for path in ["/to-come", "/odd"] {
        let last = there[path]["last_activity"].as_str().expect("a time");
        assert!(("2026-01-03".."2999").contains(&last), "{there}");
    }
    // A Pointsman that starts on it says the same.
    let (_, server) = one_machine(&data, home.path(), &[]).await;
    eventually("the time of the last use", Duration::from_secs(30), || async {
        let table: Value = serde_json::from_str(&good(&["export", "--from", &server.api])).expect("JSON");
        if table["/idle"] == record(long_ago) { Ok(()) } else { Err(table.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn what_goes_into_etcd_is_served_by_the_pointsmen_there() {
    let system = System::start(1).await;
    let replica = system.pointsman(&[]).await.ready().await;
    assert_eq!(replica.add("/user/old", &system.backends.url(0)).await.0, 201);
    let table =
        json!({"/user/new": {"target": system.backends.url(1)}, "/user/old": {"target": system.backends.url(2)}});
    let imported = import_text(&["--etcd-endpoints", system.etcd.endpoint()], &table.to_string());
    assert!(imported.code == 0 && imported.stderr.contains("1 added, 1 changed"), "{imported:?}");
    eventually("the new routes", Duration::from_secs(10), || async {
        system.leads_to("/user/new/", 1).await?;
        system.leads_to("/user/old/", 2).await
    })
    .await;
    // And the replica goes on from there.
    assert_eq!(replica.add("/user/third", &system.backends.url(0)).await.0, 201);
    let all = good(&["export", "--etcd-endpoints", system.etcd.endpoint()]);
    assert_eq!(timeless(&all).as_object().unwrap().len(), 3);
}

/// Imports from stdin.
fn import_text(args: &[&str], table: &str) -> Finished {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["import", "-"])
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pointsman");
    child.stdin.take().expect("stdin").write_all(table.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Finished { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Tables with awkward names, without two spellings of one route.
fn tables() -> impl Strategy<Value = Value> {
    let segment =
        prop_oneof!["[a-z]{1,4}", "[ -~&&[^/]]{1,6}", "\\PC{1,4}", "[\u{0}-\u{2f}&&[^/]]{1,3}", Just("%2F".to_owned())];
    let path = prop::collection::vec(segment, 0..4).prop_map(|segments| format!("/{}", segments.join("/")));
    let path = path.prop_filter("it can be a route", |path| {
        let usual = path == "/" || !(path.starts_with("//") || path.ends_with('/'));
        usual && path.split('/').all(|segment| segment != "." && segment != "..")
    });
    let data = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        "\\PC{0,8}".prop_map(|t| json!({"t": [t]}))
    ];
    let record =
        (1_u16.., data).prop_map(|(port, data)| json!({"target": format!("http://127.0.0.1:{port}"), "x": data}));
    prop::collection::btree_map(path, record, 0..8).prop_map(|table| Value::Object(table.into_iter().collect()))
}

#[test]
fn from_a_folder_to_etcd_and_back_is_the_identity() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let etcd = runtime.block_on(Etcd::start());
    let home = folder();
    let [one, two] = ["one", "two"].map(|name| home.path().join(name));
    let file = home.path().join("table.json");
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let round_trip = |table: Value| {
        std::fs::write(&file, table.to_string()).expect("a file");
        let places = [["--data-dir", text(&one)], ["--etcd-endpoints", etcd.endpoint()], ["--data-dir", text(&two)]];
        for place in places {
            good(&[&["import", text(&file), "--replace"], &place[..]].concat());
            // What comes out goes into the next one.
            let out = good(&[&["export", "--output", text(&file)], &place[..]].concat());
            prop_assert_eq!(out, "");
            let read = std::fs::read_to_string(&file).expect("a file");
            prop_assert_eq!(&timeless(&read), &table);
            let sorted: Vec<&str> = read.lines().filter_map(|line| line.strip_prefix('"')).collect();
            let is_whole = read.ends_with("}\n") && sorted.len() == table.as_object().map_or(0, serde_json::Map::len);
            prop_assert!(is_whole);
        }
        Ok(())
    };
    runner.run(&tables(), round_trip).unwrap_or_else(|error| panic!("{error}"));

    // More than one transaction takes.
    let many = (0..1000).map(|i| (format!("/user/u{i}"), json!({"target": format!("http://10.0.0.1:{}", 1000 + i)})));
    round_trip(Value::Object(many.collect())).expect("the identity");
    runtime.block_on(async {
        // The records are those that a Pointsman writes, under a head that counts the transactions.
        let store = embedded::open(&two).await;
        let keys = pointsman::route::record::RecordKeys::new("pointsman");
        let records = pointsman::control::bulk::read(&store, &keys).await.expect("records");
        assert_eq!(records.table.len(), 1000);
    });
}

#[tokio::test]
async fn an_answer_that_is_no_table_is_explained() {
    let answers = [
        (403, "", "", "refuses the token; set CONFIGPROXY_AUTH_TOKEN"),
        (404, "", "Not Found", "has no /api/routes (status 404): name the API's address"),
        (302, "Location: /hub/\r\n", "", "leads elsewhere (status 302)"),
        (200, "", "<html>", "is not a table of routes"),
        (200, "", r#"{"message":"hi"}"#, "its first key is \"message\""),
        (500, "", "boom", "answers 500: boom"),
    ];
    for (status, headers, body, says) in answers {
        let server = http::Server::start(move |_| Some(http::response(status, headers, body))).await;
        let url = format!("http://{}", server.address);
        let refused = tokio::task::spawn_blocking(move || run(&["export", "--from", &url])).await.unwrap();
        assert!(refused.code == 1 && refused.stdout.is_empty(), "{refused:?}");
        assert!(refused.stderr.contains(says) && !refused.stderr.contains(TOKEN), "{says}: {refused:?}");
    }
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let refused = run(&["import", "--from", &nobody]);
    assert!(refused.code == 1 && refused.stderr.contains("nobody can be reached at"), "{refused:?}");
}

#[test]
fn what_cannot_be_read_is_named_with_the_fix() {
    let home = folder();
    let nowhere = home.path().join("nowhere");
    let refused = run(&["export", "--data-dir", text(&nowhere)]);
    assert!(refused.code == 1 && refused.stderr.contains("correct --data-dir"), "{refused:?}");
    assert!(!nowhere.exists());
    let file = home.path().join("table.json");
    std::fs::write(&file, "[]").unwrap();
    let refused = run(&["import", text(&file), "--data-dir", text(&nowhere)]);
    assert!(refused.code == 1 && refused.stderr.contains("table.json is not a table of routes"), "{refused:?}");
    assert_eq!(run(&["import"]).code, 2);
    assert_eq!(run(&["import", "x", "--from", "http://x"]).code, 2);
    assert_eq!(run(&["export", "--from", "localhost:8001"]).code, 2);
    // No more routes than the settings allow.
    std::fs::write(&file, r#"{"/a":{"target":"http://x"},"/b":{"target":"http://x"}}"#).unwrap();
    let refused = run(&["import", text(&file), "--data-dir", text(&nowhere), "--max-routes", "1"]);
    assert!(refused.code == 1 && refused.stderr.contains("would have 2 routes"), "{refused:?}");
}
