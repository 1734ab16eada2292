//! Does what the plan says: through an API, some calls at a time, or straight into the store.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::plan::Plan;
use crate::cli::routes::client::{ApiClient, Told};
use crate::cli::routes::here::Here;
use crate::cli::{complain, wiring};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::control::bulk::{self, Wish};
use crate::route::record::RecordKeys;

/// Calls at once: a hub makes as many.
const CALLS_MAX: usize = 10;

/// How often it is said how far it is.
const TOLD_AGAIN: Duration = Duration::from_secs(1);

/// Does it. Returns the routes that were refused after all, each with the reason; an error ends the whole.
pub(super) async fn apply(config: &Config, here: &Here, plan: &Plan) -> Result<Vec<(String, String)>, String> {
    if plan.wishes.is_empty() {
        return Ok(Vec::new());
    }
    let mut progress = Progress::new(plan.wishes.len());
    match here {
        Here::Store(store) => {
            let (keys, max) = (RecordKeys::new(config.prefix()), wiring::room(config).max);
            let written = bulk::write(&**store, &keys, &SystemClock, max, &plan.wishes, |done| progress.at(done));
            written.await.map_err(|error| progress.broken(&error.to_string()))?;
            complain(
                "pointsman: a running Pointsman serves them within a second; one that is started later, from then on",
            );
            Ok(Vec::new())
        }
        Here::Api(client) => call(client, &plan.wishes, &mut progress).await,
    }
}

async fn call(client: &ApiClient, wishes: &[Wish], progress: &mut Progress) -> Result<Vec<(String, String)>, String> {
    let client = Arc::new(client.clone());
    let (mut calls, mut refused) = (JoinSet::new(), Vec::new());
    let (mut rest, mut done) = (wishes.iter().cloned(), 0);
    complain(&format!("pointsman: writing through the API at {}", client.shown()));
    loop {
        while calls.len() < CALLS_MAX
            && let Some(wish) = rest.next()
        {
            let client = client.clone();
            calls.spawn(async move { (wish.spec.clone(), one(&client, &wish).await) });
        }
        let Some(ended) = calls.join_next().await else { return Ok(refused) };
        let (spec, told) = ended.map_err(|error| format!("a call broke off: {error}"))?;
        match told {
            Ok(Told::Done) => {}
            Ok(Told::Refused(reason)) => refused.push((spec.as_str().to_owned(), reason)),
            Ok(Told::Unavailable(reason)) | Err(reason) => return Err(progress.broken(&reason)),
        }
        done += 1;
        progress.at(done);
    }
}

async fn one(client: &ApiClient, wish: &Wish) -> Result<Told, String> {
    match &wish.state {
        Some((_, data)) => {
            let record = serde_json::to_string(data).map_err(|error| error.to_string())?;
            client.post(&wish.spec, record).await
        }
        None => client.delete(&wish.spec).await,
    }
}

/// How far it is, told from time to time.
struct Progress {
    all: usize,
    done: usize,
    told: Instant,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { all, done: 0, told: Instant::now() }
    }

    fn at(&mut self, done: usize) {
        self.done = done;
        if self.told.elapsed() >= TOLD_AGAIN && done < self.all {
            self.told = Instant::now();
            complain(&format!("pointsman: {done} of {} changes made", self.all));
        }
    }

    /// What to say of an end before the end.
    fn broken(&self, reason: &str) -> String {
        format!(
            "{reason}. {} of {} changes were made; to make the others, call this again, which does no harm",
            self.done, self.all
        )
    }
}
