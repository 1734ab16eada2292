//! The trial itself: add, see, remove, see it gone; and remove whatever happens.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::door::{Door, Doors, Seen};
use super::server::Server;
use crate::cli::check::report::Report;
use crate::cli::routes::client::{ApiClient, Told};
use crate::route::RouteSpec;

/// How long a call that finds the API unavailable is repeated, as a hub does it, and how often.
const API_PATIENCE: Duration = Duration::from_secs(30);
const API_PAUSE: Duration = Duration::from_secs(1);

/// How long a Traefik has to follow, and how often it is asked. What is answered well is there at once; a Traefik that
/// starts just now, or for which changes don't wait, takes some seconds.
const DOOR_PATIENCE: Duration = Duration::from_secs(15);
const DOOR_PAUSE: Duration = Duration::from_millis(250);

/// What later than this is worth a word.
const LATE: Duration = Duration::from_millis(500);

/// All it takes.
pub(super) struct Trial {
    pub(super) api: ApiClient,
    pub(super) doors: Doors,
    pub(super) server: Server,
    /// The route.
    pub(super) spec: RouteSpec,
    /// The path to ask for.
    pub(super) path: String,
}

/// What a Traefik should show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    TheWord,
    AnythingElse,
}

/// Whether the route is there.
enum Added {
    Yes,
    /// Nobody has said so in time.
    Perhaps,
    /// The call failed for this reason, and may have done something before.
    Failed(String),
    /// It was never asked for, or was refused.
    No,
}

/// When a Traefik did as it should, or else what was seen last.
type Found = Result<Duration, Result<Seen, String>>;

impl Trial {
    /// Does all of it. A stop only shortens what is before the removal.
    pub(super) async fn run(&self, report: &mut Report, stop: &CancellationToken) {
        let before = self.before().await;
        let mut answering = self.doors.all.clone();
        let added = self.add(report, stop).await;
        if matches!(added, Added::Yes | Added::Perhaps)
            && let Some(found) = stop.run_until_cancelled(self.see(&answering, Wanted::TheWord)).await
        {
            let nobody = found.iter().all(Result::is_err);
            let mut still = Vec::new();
            for ((door, found), before) in answering.into_iter().zip(found).zip(before) {
                if self.tell_served(&door, found, before.as_ref(), report).await {
                    still.push(door);
                }
            }
            answering = still;
            if nobody {
                report.problem("route", "no Traefik serves it");
            }
        }
        if self.remove(&added, report).await
            && let Some(found) = stop.run_until_cancelled(self.see(&answering, Wanted::AnythingElse)).await
        {
            for (door, found) in answering.iter().zip(found) {
                self.tell_gone(door, found, report).await;
            }
        }
        if stop.is_cancelled() {
            report.problem("try-route", "it was stopped before its end");
        }
    }

    /// What each answers while there is no route yet.
    async fn before(&self) -> Vec<Option<Seen>> {
        let mut asked = JoinSet::new();
        for (at, door) in self.doors.all.iter().cloned().enumerate() {
            let path = self.path.clone();
            asked.spawn(async move { (at, door.ask(&path).await.ok()) });
        }
        in_order(asked).await
    }

    /// Adds the route. A call that is under way is never given up: it could still happen after the route was removed.
    async fn add(&self, report: &mut Report, stop: &CancellationToken) -> Added {
        let target = format!("http://{}", self.server.address);
        // Without the hub's own mark it is none of the hub's routes, and the hub leaves it alone.
        let record = json!({"target": target, "made_by": "pointsman try-route"}).to_string();
        let give_up = Instant::now() + API_PATIENCE;
        while !stop.is_cancelled() {
            match self.api.post_once(&self.spec, record.clone()).await {
                Ok(Told::Done) => {
                    let shown = self.api.shown();
                    report.ok(
                        "route",
                        format_args!("{} is added through {shown}, and leads here, to {target}", self.spec),
                    );
                    return Added::Yes;
                }
                Ok(Told::Unavailable(_)) if Instant::now() + API_PAUSE < give_up => {
                    stop.run_until_cancelled(sleep(API_PAUSE)).await;
                }
                // It may be there all the same, and whoever lacks it is the reason.
                Ok(Told::Unavailable(reason)) => {
                    report.problem(
                        "route",
                        format_args!("{reason}; see below which Traefik lacks it, and Pointsman's log"),
                    );
                    return Added::Perhaps;
                }
                Ok(Told::Refused(reason)) => {
                    report.problem("route", reason);
                    return Added::No;
                }
                Err(reason) => {
                    report.problem("route", &reason);
                    return Added::Failed(reason);
                }
            }
        }
        Added::Perhaps
    }

    /// Removes the route, and says whether it was there and is gone.
    async fn remove(&self, added: &Added, report: &mut Report) -> bool {
        if matches!(added, Added::No) {
            return false;
        }
        let reason = match self.api.delete(&self.spec).await {
            Ok(Told::Done) => {
                report.ok("route", "is removed");
                return !matches!(added, Added::Failed(_));
            }
            Ok(Told::Refused(reason) | Told::Unavailable(reason)) | Err(reason) => reason,
        };
        match added {
            // Nothing new.
            Added::Failed(before) if *before == reason => {}
            _ => report.problem(
                "route",
                format_args!(
                    "{reason}; it may still be there: DELETE /api/routes{} when the API answers again",
                    self.spec
                ),
            ),
        }
        false
    }

    /// Asks each until it does as it should.
    async fn see(&self, doors: &[Door], wanted: Wanted) -> Vec<Found> {
        let mut asked = JoinSet::new();
        let began = Instant::now();
        for (at, door) in doors.iter().cloned().enumerate() {
            let (path, word) = (self.path.clone(), self.server.word.clone());
            asked.spawn(async move {
                loop {
                    let seen = door.ask(&path).await;
                    if seen.as_ref().is_ok_and(|seen| (seen.body == word) == (wanted == Wanted::TheWord)) {
                        return (at, Ok(began.elapsed()));
                    }
                    if began.elapsed() + DOOR_PAUSE > DOOR_PATIENCE {
                        return (at, Err(seen));
                    }
                    sleep(DOOR_PAUSE).await;
                }
            });
        }
        in_order(asked).await
    }

    /// Tells whether it serves the route, and says whether it answers at all.
    async fn tell_served(&self, door: &Door, found: Found, before: Option<&Seen>, report: &mut Report) -> bool {
        let part = format!("traefik {door}");
        let seen = match found {
            Ok(after) => {
                report.ok(&part, format_args!("carries a request for it here{}", late(after)));
                return true;
            }
            Err(seen) => seen,
        };
        if self.doors.has_gone(door).await {
            report.ok(&part, "has gone meanwhile, and is not counted");
            return false;
        }
        match &seen {
            Err(silence) => report.problem(
                &part,
                format_args!("does not answer ({silence}); look at that Traefik and its log, or restart it"),
            ),
            Ok(seen) if before.is_some_and(|before| is_as_before(before, seen)) => report.problem(
                &part,
                format_args!(
                    "does not have the route: it answers {} as before; see in its log whether it reaches etcd, or restart it",
                    seen.status
                ),
            ),
            Ok(seen) => report.problem(
                &part,
                format_args!(
                    "answers {} and not with our word; see whether it reaches us at {}, and which middleware answers",
                    seen.status, self.server.address
                ),
            ),
        }
        seen.is_ok()
    }

    async fn tell_gone(&self, door: &Door, found: Found, report: &mut Report) {
        let part = format!("traefik {door}");
        match found {
            Ok(after) => report.ok(&part, format_args!("has it no more{}", late(after))),
            Err(_) if self.doors.has_gone(door).await => report.ok(&part, "has gone meanwhile, and is not counted"),
            Err(Ok(_)) => report.problem(
                &part,
                "still serves the removed route; see in its log whether it reaches etcd, or restart it",
            ),
            Err(Err(silence)) => report
                .problem(&part, format_args!("does not answer any more ({silence}); look at that Traefik and its log")),
        }
    }
}

async fn in_order<T: 'static>(asked: JoinSet<(usize, T)>) -> Vec<T> {
    let mut all = asked.join_all().await;
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, one)| one).collect()
}

/// Whether the answer is that of a Traefik without the route. A page may differ each time, such as one of the hub; a
/// Traefik that can't reach us answers 502 to 504, also if it did so before for want of any route.
fn is_as_before(before: &Seen, now: &Seen) -> bool {
    before.status == now.status && (before.body == now.body || now.status < 500)
}

fn late(after: Duration) -> String {
    if after > LATE { format!(", after {:.1} s", after.as_secs_f64()) } else { String::new() }
}
