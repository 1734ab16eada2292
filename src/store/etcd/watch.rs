//! A watch on etcd that knows whether it is still alive.
//!
//! etcd's watch has no sign of life that can be relied on: a stream can hang, or die in silence, for minutes. So after
//! 2 s of silence we ask for one. A progress request is what the protocol has for it, but some versions of etcd leave it
//! unanswered while a watch is new (3.4.25 to 3.4.30, 3.5.8 to 3.5.12), so a second question follows that every version
//! answers: the creation of another, short-lived watch on the same stream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Error, EventType, KvClient, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::endpoint::{Connection, Endpoint};
use super::fault::{Fault, is_too_large, needs_login};
use super::pool::{Boxed, Pool};
use super::{key_value, prefix_end, revision_of};
use crate::store::{Changes, Event, Revision, StoreError, Watch};

/// Silence after which a progress request is sent, then the second question, then silence that means death.
const SILENCE: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(3), Duration::from_millis(4500)];

/// The largest single message that we take; above it a listing is the better way.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

const OUR_WATCH: i64 = 1;
const QUESTION: i64 = 2;

/// Opens a watch on a member that is alive.
pub(super) async fn open(pool: &Pool, prefix: &str, after: Revision) -> Result<EtcdWatch, StoreError> {
    let deadline = Instant::now() + pool.patience();
    let endpoint = pool.trusted(deadline).await.map_err(|fault| fault.error)?;
    let number = endpoint.number();
    let opened = timeout_at(deadline, open_on(&endpoint, prefix, after)).await;
    let opened = opened.unwrap_or_else(|_| Err(Fault::silence(endpoint.url(), pool.patience())));
    let (watch, revision) = match opened {
        Ok(opened) => opened,
        Err(fault) => {
            if !fault.connection_is_good {
                pool.distrust(&endpoint, number);
            }
            return Err(fault.error);
        }
    };
    if revision < after && newest_revision(pool, prefix).await? < after {
        // A member may lag behind, but a linearizable read does not: the store itself has gone back.
        return Err(StoreError::Compacted(after));
    }
    Ok(watch)
}

async fn newest_revision(pool: &Pool, prefix: &str) -> Result<Revision, StoreError> {
    let key = question_key(prefix);
    let read = pool.read(move |mut kv: KvClient| {
        let key = key.clone();
        async move { kv.get(key, None).await }.boxed()
    });
    revision_of(read.await?.header())
}

async fn open_on(endpoint: &Arc<Endpoint>, prefix: &str, after: Revision) -> Result<(EtcdWatch, Revision), Fault> {
    let connection = endpoint.connection().await?;
    let mut last = None;
    for _ in 0..2 {
        match create(endpoint, &connection, prefix, after).await {
            Ok(opened) => return Ok(opened),
            // etcd 3.4 calls a forgotten login a lack of permission when a watch is created, so both are tried twice.
            Err(Denied::Login(fault)) => {
                last = Some(fault);
                Box::pin(endpoint.log_in_again(&connection)).await?;
            }
            Err(Denied::Otherwise(fault)) => return Err(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::refused(endpoint.url(), "the watch was refused")))
}

enum Denied {
    Login(Fault),
    Otherwise(Fault),
}

async fn create(
    endpoint: &Arc<Endpoint>,
    connection: &Connection,
    prefix: &str,
    after: Revision,
) -> Result<(EtcdWatch, Revision), Denied> {
    let failed = |error: Error| {
        let fault = endpoint.fault(connection.number, &error);
        if needs_login(&error) { Denied::Login(fault) } else { Denied::Otherwise(fault) }
    };
    let from = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
    // We begin with `after` itself and drop what is not newer. For a deletion at exactly the revision that etcd was
    // compacted to may be missing from a watch that begins there; one that begins earlier is told of the compaction.
    let options = WatchOptions::new()
        .with_range(prefix_end(prefix.as_bytes()))
        .with_start_revision(after.max(1))
        .with_watch_id(OUR_WATCH);
    let mut client = connection.client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
    let stream = client.watch(from, Some(options)).await.map_err(failed)?;
    let (sender, mut responses) = stream.split();
    let created = responses.message().await.map_err(failed)?;
    let Some(created) = created else {
        return Err(Denied::Otherwise(Fault::unavailable(endpoint.url(), "the watch ended before it began")));
    };
    if created.canceled() {
        return Err(denied(endpoint.url(), &created, after));
    }
    let revision = revision_of(created.header())
        .map_err(|error| Denied::Otherwise(Fault::unavailable(endpoint.url(), &error.to_string())))?;
    endpoint.heard(connection.number);
    let progress_is_in_order = progress_is_in_order(connection).await;
    let watch = EtcdWatch {
        sender,
        responses,
        endpoint: endpoint.clone(),
        number: connection.number,
        question_key: question_key(prefix),
        after,
        heard: Instant::now(),
        asked: 0,
        progress_is_in_order,
    };
    Ok((watch, revision))
}

fn denied(url: &str, created: &WatchResponse, after: Revision) -> Denied {
    let reason = created.cancel_reason();
    if created.compact_revision() > 0 {
        let error = StoreError::Compacted(after);
        Denied::Otherwise(Fault { error, nothing_happened: true, connection_is_good: true })
    } else if reason.contains("permission denied") || reason.contains("auth") {
        Denied::Login(Fault::refused(url, &format!("the watch was refused: {reason}")))
    } else {
        Denied::Otherwise(Fault::unavailable(url, &format!("the watch was refused: {reason}")))
    }
}

/// A key below the prefix, for questions: so the user has permission for it.
fn question_key(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() }
}

/// Whether an answer to a progress request comes after all events up to its revision. In etcd before 3.4.25 and 3.5.8 it
/// can overtake them. When the version can't be had the answer is no: then it merely is a sign of life.
async fn progress_is_in_order(connection: &Connection) -> bool {
    let Ok(status) = connection.client.maintenance_client().status().await else { return false };
    is_in_order(status.version())
}

fn is_in_order(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut number = || numbers.next().unwrap_or(0);
    match (number(), number(), number()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

pub(super) struct EtcdWatch {
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    endpoint: Arc<Endpoint>,
    number: u64,
    question_key: Vec<u8>,
    /// Everything up to here has been reported.
    after: Revision,
    heard: Instant,
    /// How many questions the present silence has seen.
    asked: usize,
    progress_is_in_order: bool,
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Changes, StoreError> {
        loop {
            tokio::select! {
                biased;
                message = self.responses.message() => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return Err(self.broken("etcd ended the watch")),
                        // It would be as large the next time: a listing comes in pages.
                        Err(error) if is_too_large(&error) => return Err(StoreError::Compacted(self.after)),
                        Err(error) => return Err(self.endpoint.fault(self.number, &error).error),
                    };
                    (self.heard, self.asked) = (Instant::now(), 0);
                    self.endpoint.heard(self.number);
                    if let Some(changes) = self.digest(&message).await? {
                        return Ok(changes);
                    }
                }
                () = sleep_until(self.heard + SILENCE[self.asked]) => self.ask().await?,
            }
        }
    }
}

impl EtcdWatch {
    /// Asks for a sign of life, or gives up.
    async fn ask(&mut self) -> Result<(), StoreError> {
        self.asked += 1;
        let sent = match self.asked {
            1 => self.sender.request_progress().await,
            2 => {
                let options = WatchOptions::new().with_watch_id(QUESTION);
                self.sender.watch(self.question_key.clone(), Some(options)).await
            }
            _ => {
                let silence = self.heard.elapsed().as_millis();
                return Err(self.broken(&format!("the watch has been silent for {silence} ms")));
            }
        };
        sent.map_err(|error| self.broken(&error.to_string()))
    }

    async fn digest(&mut self, message: &WatchResponse) -> Result<Option<Changes>, StoreError> {
        if message.watch_id() == QUESTION {
            if message.created() && !message.canceled() {
                let cancelled = self.sender.cancel(QUESTION).await;
                cancelled.map_err(|error| self.broken(&error.to_string()))?;
            }
            return Ok(None);
        }
        if message.canceled() {
            return Err(if message.compact_revision() > 0 {
                StoreError::Compacted(self.after)
            } else {
                // Whether it is us who are unwanted is seen when we come back.
                self.broken(&format!("etcd cancelled the watch: {}", message.cancel_reason()))
            });
        }
        if message.events().is_empty() {
            if self.progress_is_in_order {
                let revision = revision_of(message.header()).map_err(|error| self.broken(&error.to_string()))?;
                self.after = self.after.max(revision);
            }
            return Ok(Some(Changes { revision: self.after, events: Vec::new() }));
        }
        let newer = message.events().iter().filter_map(|event| Some((event.event_type(), event.kv()?)));
        let newer: Vec<_> = newer.filter(|(_, entry)| entry.mod_revision() > self.after).collect();
        let Some((_, last)) = newer.last() else { return Ok(None) };
        // Not the header's revision: a watch that catches up in several messages has not yet come that far.
        self.after = last.mod_revision();
        let events = newer.into_iter().map(|(kind, entry)| match kind {
            EventType::Put => Event::Put(key_value(entry)),
            EventType::Delete => Event::Delete { revision: entry.mod_revision(), key: key_value(entry).key },
        });
        Ok(Some(Changes { revision: self.after, events: events.collect() }))
    }

    fn broken(&self, why: &str) -> StoreError {
        self.endpoint.discard(self.number);
        Fault::unavailable(self.endpoint.url(), why).error
    }
}

#[cfg(test)]
mod tests {
    use super::is_in_order;

    #[test]
    fn progress_is_believed_from_the_versions_that_got_it_right() {
        for version in ["3.4.25", "3.4.41", "3.5.8", "3.5.16", "3.6.0", "3.6.0-rc.1", "4.0.0"] {
            assert!(is_in_order(version), "{version}");
        }
        for version in ["3.4.23", "3.5.7", "3.3.27", "", "not decided"] {
            assert!(!is_in_order(version), "{version}");
        }
    }
}
