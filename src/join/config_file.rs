//! The file that etcd is started with. With one it reads neither flags nor variables, so everything is in it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::decide::Start;
use super::members::Members;

/// What is ours to say.
const OURS: [&str; 10] = [
    "name",
    "data-dir",
    "listen-peer-urls",
    "listen-client-urls",
    "listen-metrics-urls",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
];

/// Settings that are the same at every start.
#[derive(Debug, Clone)]
pub struct Base {
    /// This member.
    pub name: String,
    /// Where clients reach it, `http://HOST:PORT`.
    pub client_url: String,
    /// The address that it listens on, as it stands in a URL.
    pub listen_ip: String,
    /// Where it tells how it is, without TLS or certificates.
    pub metrics_port: Option<u16>,
    /// More settings, by the names of etcd's flags.
    pub more: Map<String, Value>,
}

/// Reads further settings, and refuses those that are ours to say.
pub fn read_more(text: &str) -> Result<Map<String, Value>, String> {
    let more: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON object of etcd's settings: {error}"))?;
    match OURS.iter().find(|name| more.contains_key(**name)) {
        Some(name) => Err(format!("'{name}' can't be set here: etcd-join says it; remove it")),
        None => Ok(more),
    }
}

/// The file, which is JSON and so YAML as well.
#[must_use]
pub fn write(base: &Base, members: &Members, data: &Path, start: &Start) -> String {
    let peer_url = members.url(&base.name).unwrap_or_default();
    let listen = |url: &str| {
        let port = url.rsplit_once(':').map_or("", |(_, port)| port);
        format!("http://{}:{port}", base.listen_ip)
    };
    // With data etcd looks at none of these three; should they vanish, this is the harmless way to say them.
    let (cluster, state, token) = match start {
        Start::AsItIs => (members, "existing", "pointsman"),
        Start::New(token) => (members, "new", token.as_str()),
        Start::Joining(cluster) => (cluster, "existing", "pointsman"),
    };
    let mut file = base.more.clone();
    file.extend([
        ("name".to_owned(), json!(base.name)),
        ("data-dir".to_owned(), json!(data)),
        ("listen-peer-urls".to_owned(), json!(listen(peer_url))),
        ("listen-client-urls".to_owned(), json!(listen(&base.client_url))),
        ("initial-advertise-peer-urls".to_owned(), json!(peer_url)),
        ("advertise-client-urls".to_owned(), json!(base.client_url)),
        ("initial-cluster".to_owned(), json!(cluster.to_string())),
        ("initial-cluster-state".to_owned(), json!(state)),
        ("initial-cluster-token".to_owned(), json!(token)),
    ]);
    if let Some(port) = base.metrics_port {
        file.insert("listen-metrics-urls".to_owned(), json!(listen(&format!(":{port}"))));
    }
    format!("{:#}\n", Value::Object(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(start: &Start) -> Value {
        let base = Base {
            name: "m1".to_owned(),
            client_url: "http://m1:2379".to_owned(),
            listen_ip: "0.0.0.0".to_owned(),
            metrics_port: Some(2381),
            more: read_more(r#"{"max-txn-ops": 1024, "auto-compaction-mode": "periodic"}"#).unwrap(),
        };
        let members = "m0=http://m0:2380,m1=http://m1:2380".parse().unwrap();
        serde_json::from_str(&write(&base, &members, Path::new("/data/etcd"), start)).unwrap()
    }

    #[test]
    fn everything_is_in_the_file() {
        assert_eq!(
            file(&Start::New("t".to_owned())),
            json!({
                "name": "m1",
                "data-dir": "/data/etcd",
                "listen-peer-urls": "http://0.0.0.0:2380",
                "listen-client-urls": "http://0.0.0.0:2379",
                "listen-metrics-urls": "http://0.0.0.0:2381",
                "initial-advertise-peer-urls": "http://m1:2380",
                "advertise-client-urls": "http://m1:2379",
                "initial-cluster": "m0=http://m0:2380,m1=http://m1:2380",
                "initial-cluster-state": "new",
                "initial-cluster-token": "t",
                "max-txn-ops": 1024,
                "auto-compaction-mode": "periodic",
            })
        );
    }

    #[test]
    fn only_a_new_cluster_is_called_new() {
        assert_eq!(file(&Start::AsItIs)["initial-cluster-state"], "existing");
        let joining = file(&Start::Joining("m1=http://m1:2380".parse().unwrap()));
        assert_eq!(
            (&joining["initial-cluster-state"], &joining["initial-cluster"]),
            (&json!("existing"), &json!("m1=http://m1:2380"))
        );
    }

    #[test]
    fn what_is_ours_is_refused_by_name() {
        for name in OURS {
            let told = read_more(&json!({ name: "x" }).to_string()).unwrap_err();
            assert!(told.contains(name), "{told}");
        }
        assert!(read_more("[]").is_err());
        assert!(read_more("").is_err());
    }
}
