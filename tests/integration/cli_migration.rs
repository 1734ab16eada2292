//! Every command of docs/migration.md, in its order, on a machine that has what the page speaks of.

use std::path::Path;

use crate::support::chp::Chp;
use crate::support::etcd::Etcd;
use crate::support::pointsman::{Server, pointsman};
use crate::support::process::{free_port, program};

const TOKEN: (&str, &str) = ("CONFIGPROXY_AUTH_TOKEN", "a-token-for-tests");

/// The commands of the page, line by line.
fn commands() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_of_the_page_works_in_its_order() {
    let home = tempfile::tempdir().expect("a folder");
    let chp = Chp::start(TOKEN.1, &[], home.path()).await;
    for i in 0..20 {
        chp.post(TOKEN.1, &format!("/user/u{i}"), &format!(r#"{{"target":"http://127.0.0.1:{}"}}"#, 2000 + i)).await;
    }
    let etcd = Etcd::start().await;
    let data = home.path().join("pointsman");
    let (port, traefik) = (free_port().to_string(), program("traefik"));
    let data = data.to_str().expect("UTF-8");
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let words: Vec<String> = command
            .split(' ')
            .map(|word| match word {
                "/srv/jupyterhub/pointsman" => data.to_owned(),
                "http://127.0.0.1:8001" => chp.api.clone(),
                "http://127.0.0.1:2379" => etcd.endpoint().to_owned(),
                file if Path::new(file).extension().is_some_and(|extension| extension == "json") => {
                    home.path().join(file).display().to_string()
                }
                word => word.to_owned(),
            })
            .collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(words.remove(0), "pointsman", "{command}");
        // Pointsman runs when it is checked, on ports that are free on this machine.
        let own = ["--ip", "127.0.0.1", "--port", &port, "--traefik-binary", traefik.to_str().expect("UTF-8")];
        let mut server = None;
        if words[0] == "check" {
            let flags = [&own[..], &["--data-dir", data]].concat();
            server = Some(Server::start(&flags, &[TOKEN], home.path()).await);
            words.extend(own);
        }
        let api = server.as_ref().map(|server| server.api.rsplit_once(':').expect("a port").1.to_owned());
        if let Some(api) = &api {
            words.extend(["--api-port", api]);
        }
        let mut finished = pointsman(&words, &[TOKEN]);
        for _ in 0..20 {
            // It may be checked before it is ready.
            if api.is_none() || finished.code == 0 {
                break;
            }
            finished = pointsman(&words, &[TOKEN]);
        }
        assert_eq!(finished.code, 0, "{command}: {}{}", finished.stdout, finished.stderr);
        drop(server);
    }
    for file in ["before.json", "after.json", "table.json"] {
        let table: serde_json::Value =
            serde_json::from_slice(&std::fs::read(home.path().join(file)).expect(file)).expect("JSON");
        assert_eq!(table.as_object().expect("a table").len(), 20, "{file}");
    }
}
