//! Looks, decides and does the step, again and again, until etcd may start or time is up.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::config_file::{self, Base};
use super::decide::{RECORD_KEY, Start, Step, decide};
use super::home::Home;
use super::members::Members;
use super::note::{Card, Note};
use super::peers::Peers;
use super::situation::{Directory, Situation};
use crate::random;
use crate::store::StoreError;
use crate::store::etcd::{Cluster, EtcdSettings};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);
/// After a change that the cluster refused, which often is because members haven't been together for 5 s.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// So long we look for the others before we start with our data in spite of their silence.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How often what we wait for is said; the first time a little sooner.
const TELL_EVERY: Duration = Duration::from_secs(5);
const TELL_FIRST: Duration = Duration::from_secs(2);
/// So long we show the others that we have agreed, before we leave and can't be asked until etcd runs.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Everything that an administrator says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who there should be.
    pub members: Members,
    /// What etcd is told at every start; who we are, too.
    pub base: Base,
    /// The member's volume.
    pub home: Home,
    /// Where clients reach etcd, all members of it.
    pub etcd: EtcdSettings,
    /// After this long there is no more hope in waiting.
    pub patience: Duration,
    /// What the names of volume claims begin with.
    pub claims: Option<String>,
}

/// Works until etcd may start; the error is a sentence for the administrator. What the others may know is shown in `card`.
pub async fn run(settings: &Settings, card: &watch::Sender<Option<Card>>) -> Result<(), String> {
    let mut joining = Joining::new(settings, card)?;
    let began = Instant::now();
    let mut tell_at = began + TELL_FIRST;
    loop {
        let step = joining.look(began.elapsed() > LOOK_AROUND).await?;
        let waiting = match joining.take(step).await? {
            Done::Start => return Ok(()),
            Done::Step => continue,
            Done::Nothing(sentence, pause) => {
                sleep(pause).await;
                sentence
            }
        };
        let me = &settings.base.name;
        if began.elapsed() > settings.patience {
            let seconds = settings.patience.as_secs();
            return Err(format!("{me} has waited for {seconds} s, and will be started again: {waiting}"));
        }
        if Instant::now() >= tell_at {
            info!(member = %me, waited_s = began.elapsed().as_secs(), "{me} waits: {waiting}");
            tell_at = Instant::now() + TELL_EVERY;
        }
    }
}

enum Done {
    Start,
    Step,
    Nothing(String, Duration),
}

struct Joining<'a> {
    settings: &'a Settings,
    card: &'a watch::Sender<Option<Card>>,
    peers: Peers,
    cluster: Cluster,
    note: Note,
}

impl<'a> Joining<'a> {
    fn new(settings: &'a Settings, card: &'a watch::Sender<Option<Card>>) -> Result<Self, String> {
        let home = &settings.home;
        let note = if let Some(note) = home.load().map_err(volume)? {
            note
        } else {
            let note = Note::new(random::digits::<8>());
            home.store(&note).map_err(volume)?;
            note
        };
        let cluster = Cluster::new(&settings.etcd, RECORD_KEY).map_err(|error| error.to_string())?;
        Ok(Self { settings, card, peers: Peers::new(&settings.members, me(settings))?, cluster, note })
    }

    /// Looks at everything, and decides.
    async fn look(&mut self, patient: bool) -> Result<Step, String> {
        let settings = self.settings;
        let directory = settings.home.look().map_err(volume)?;
        self.show(directory != Directory::Empty);
        let alone = settings.members.len() == 1;
        let cluster = async {
            // Alone there is nobody to ask but ourselves, and we don't run.
            if alone {
                Err("there is no other member".to_owned())
            } else {
                self.cluster.look().await.map_err(|e| e.to_string())
            }
        };
        let (others, cluster) = tokio::join!(self.peers.ask(), cluster);
        Ok(decide(&Situation {
            me: me(settings),
            members: &settings.members,
            directory,
            note: self.note.clone(),
            others,
            cluster,
            patient,
            claims: settings.claims.as_deref(),
        }))
    }

    async fn take(&mut self, step: Step) -> Result<Done, String> {
        let name = me(self.settings);
        match step {
            Step::Wait(sentence) => Ok(Done::Nothing(sentence, PAUSE)),
            Step::Refuse(sentence) => Err(sentence),
            Step::Agree(volumes) => {
                self.store(|note| note.agreed = Some(volumes))?;
                Ok(Done::Step)
            }
            Step::Discard(why) => {
                warn!(member = %name, "{name} removes its data and joins anew: {why}");
                // A new name first: with the old one we could be taken for somebody who has never run.
                self.note = Note::new(random::digits::<8>());
                self.settings.home.store(&self.note).and_then(|()| self.settings.home.discard()).map_err(volume)?;
                Ok(Done::Step)
            }
            Step::Record => {
                let record = serde_json::to_vec(&self.settings.members).map_err(|error| error.to_string())?;
                Ok(told("the members can't be written into the cluster", self.cluster.write_note(&record).await))
            }
            Step::Remove(id) => {
                info!(member = %name, "{name} has lost its data; its old entry {id:x} is taken off the cluster's list");
                Ok(told("the old entry can't be removed", self.cluster.remove(id).await))
            }
            Step::Add => {
                let url = self.settings.members.url(name).unwrap_or_default();
                match self.cluster.add(url).await {
                    Ok(id) => {
                        info!(member = %name, "The cluster has taken {name} in, as {id:x}");
                        self.store(|note| note.added = Some(id))?;
                        Ok(Done::Step)
                    }
                    Err(error) => Ok(told("the cluster doesn't take this member in yet", Err(error))),
                }
            }
            Step::Start(start) => self.start(&start).await.map(|()| Done::Start),
        }
    }

    async fn start(&mut self, start: &Start) -> Result<(), String> {
        let (settings, name) = (self.settings, me(self.settings));
        let said = match start {
            Start::AsItIs => "goes on with its data".to_owned(),
            Start::New(_) => format!("begins a new cluster of {} members", settings.members.len()),
            Start::Joining(cluster) => format!("joins a cluster of {} members", cluster.len()),
        };
        if *start == Start::AsItIs {
            // What was noted for a first start is used up: it must not vouch for a directory that somebody empties by hand.
            let members = std::mem::take(&mut self.note.members);
            self.note = Note { members, ..Note::new(random::digits::<8>()) };
        } else {
            settings.home.discard().map_err(volume)?;
        }
        let members = &settings.members;
        self.store(|note| {
            if note.members.is_empty() {
                note.members = members.clone();
            }
        })?;
        if matches!(start, Start::New(_)) && settings.members.len() > 1 {
            sleep(FAREWELL).await;
        }
        let file = config_file::write(&settings.base, &settings.members, &settings.home.data(), start);
        settings.home.store_config(&file).map_err(volume)?;
        info!(member = %name, "{name} {said}");
        Ok(())
    }

    fn store(&mut self, change: impl FnOnce(&mut Note)) -> Result<(), String> {
        change(&mut self.note);
        self.settings.home.store(&self.note).map_err(volume)
    }

    fn show(&self, holds_data: bool) {
        self.card.send_replace(Some(Card {
            name: me(self.settings).to_owned(),
            members: self.settings.members.clone(),
            holds_data,
            incarnation: self.note.incarnation.clone(),
            agreed: self.note.agreed.clone(),
        }));
    }
}

fn me(settings: &Settings) -> &str {
    &settings.base.name
}

/// A change that failed may have happened; the next look tells.
fn told(what: &str, changed: Result<(), StoreError>) -> Done {
    match changed {
        Ok(()) => Done::Step,
        Err(error) => Done::Nothing(format!("{what}: {error}"), PAUSE_AFTER_REFUSAL),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is called with what failed")]
fn volume(error: io::Error) -> String {
    format!("the volume can't be used: {error}; look at --dir, its owner and its rights")
}
