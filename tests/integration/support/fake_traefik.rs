//! A Traefik that reads its tree from any store and shows its marker, and that a test can hold back. It also counts answers
//! as a test says that they were given.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pointsman::store::SharedStore;
use pointsman::store::follow::{Follower, Update};
use pointsman::traefik::fixed::{MARKER_HEADER, MARKER_KEY, MARKER_MIDDLEWARE};
use pointsman::traefik::name;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

type Keys = BTreeMap<String, String>;

/// Answers by the names of their routers, and how often somebody has read them.
#[derive(Default)]
struct Counters {
    answers: BTreeMap<String, u64>,
    reads: usize,
}

/// Shows what a Traefik would show that serves the tree under `root_key/`. Ends with its value.
pub(crate) struct FakeTraefik {
    pub(crate) url: Url,
    held: watch::Sender<bool>,
    serving: Arc<Mutex<Keys>>,
    revision: Arc<AtomicI64>,
    counters: Arc<Mutex<Counters>>,
    _tasks: JoinSet<()>,
}

impl FakeTraefik {
    pub(crate) async fn start(store: SharedStore, root_key: &str) -> Self {
        Self::start_as(store, root_key, "etcd").await
    }

    /// The same, where the tree comes by this provider.
    pub(crate) async fn start_as(store: SharedStore, root_key: &str, provider: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        let serving: Arc<Mutex<Keys>> = Arc::default();
        let held = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let counters: Arc<Mutex<Counters>> = Arc::default();
        let app = Router::new()
            .route("/api/http/middlewares/{name}", get(marker))
            .with_state((serving.clone(), provider))
            .route("/metrics", get(metrics))
            .with_state(counters.clone());
        tasks.spawn(async move { axum::serve(listener, app).await.expect("serves") });
        let prefix = format!("{root_key}/");
        let (mut hold, shown) = (held.subscribe(), serving.clone());
        let revision: Arc<AtomicI64> = Arc::default();
        let heard = revision.clone();
        tasks.spawn(async move {
            let reader = store.clone();
            let mut follower = Follower::new(store, prefix.clone());
            loop {
                // Any change has it read the whole tree, as Traefik does.
                let (listing, told) = match follower.next().await {
                    Update::Reset(listing) => (Ok(listing.clone()), listing.revision),
                    Update::Changes(changes) => (reader.list(&prefix).await, changes.revision),
                    Update::Lost(_) => continue,
                };
                heard.store(told, Ordering::SeqCst);
                let Ok(listing) = listing else { continue };
                let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
                let keys: Keys = listing.entries.into_iter().map(|e| (e.key, text(e.value))).collect();
                hold.wait_for(|held| !held).await.expect("the test goes on");
                *shown.lock().expect("not poisoned") =
                    keys.iter().map(|(k, v)| (k.strip_prefix(&prefix).unwrap_or(k).to_owned(), v.clone())).collect();
            }
        });
        Self { url, held, serving, revision, counters, _tasks: tasks }
    }

    /// Whether it keeps to what it serves now.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// The revision of the store that it has heard of.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// A route's server has answered a user's request.
    pub(crate) fn answered(&self, path: &str) {
        *self.counters.lock().expect("not poisoned").answers.entry(name::route(path)).or_default() += 1;
    }

    /// How often somebody has read the counters.
    pub(crate) fn reads(&self) -> usize {
        self.counters.lock().expect("not poisoned").reads
    }

    /// The URL of a route's server, as far as a leaf router of exactly this rule says.
    pub(crate) fn target(&self, rule: &str) -> Option<String> {
        let keys = self.serving.lock().expect("not poisoned");
        let key = keys.iter().find(|(k, v)| k.ends_with("/rule") && *v == rule)?.0;
        let name = key.split('/').nth(2)?;
        keys.get(&format!("http/services/{name}/loadbalancer/servers/0/url")).cloned()
    }
}

async fn metrics(State(counters): State<Arc<Mutex<Counters>>>) -> String {
    let mut counters = counters.lock().expect("not poisoned");
    counters.reads += 1;
    // When it started is of no interest, if it is always the same.
    let mut page = "process_start_time_seconds 1.7e+09\n".to_owned();
    for (router, count) in &counters.answers {
        let labels =
            format!(r#"code="200",method="GET",protocol="http",router="{router}@etcd",service="{router}@etcd""#);
        writeln!(page, "traefik_router_requests_total{{{labels}}} {count}").expect("a string grows");
    }
    page
}

async fn marker(
    State((keys, provider)): State<(Arc<Mutex<Keys>>, &'static str)>,
    Path(name): Path<String>,
) -> Response {
    if name != format!("{MARKER_MIDDLEWARE}@{provider}") {
        return StatusCode::NOT_FOUND.into_response();
    }
    match keys.lock().expect("not poisoned").get(MARKER_KEY) {
        Some(marker) => {
            json!({"headers": {"customResponseHeaders": {MARKER_HEADER: marker}}}).to_string().into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
