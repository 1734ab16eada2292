//! The commit protocol (docs/protocol.md), small enough to look at every state it can reach.
//!
//! **What is in it.** A store with guarded transactions on a head and a marker; two routes, one below the other, and a bucket
//! that comes and goes; three calls of the hub, overlapping in every way; up to two Traefiks that load any revision at any
//! time; commits whose answer gets lost, or that arrive long after everybody has stopped waiting; replicas that die between
//! any two steps; a store that is wiped. Record-only commits and the fast path, projections of several transactions (one
//! leaf each), calls that change nothing, retries by nonce, epochs.
//!
//! **Replicas are not in the state.** All that a replica has of its own is a view of the store, which may lag. So every step
//! here may be taken from *any* revision the store ever had, which covers two replicas or twenty, each watch delayed as
//! you like, a replica that is paused between planning and sending, and one that restarts. A transaction whose guards fail
//! changes nothing; such steps are left out.
//!
//! **What is left out.** Batches (a batch is one commit with several calls: what holds for one call holds for it), time (a
//! deadline may pass at any moment), the list of live Traefiks (issue of the barrier's own tests), etcd restored from a backup,
//! foreign keys, and how keys and rules are spelled. A Traefik lags by at most `longest_history` different revisions.
//!
//! Each guard has a variant of the protocol that lacks it, and a test that the checker finds out.

mod calls;
mod coverage;
mod model;
mod rules;
mod tree;

use std::io::Write;

use calls::Ask;
use model::{Action, EXPLAINED, MARKER_RISES, MARKER_TRUE, PROGRESS, ROUTED, State, TREE_RIGHT};
use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model, Path};
use tree::{JANE, LAB};

/// What a variant of the protocol leaves out, or does instead. Each must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// The protocol as it is.
    Nothing,
    /// The transaction that writes records doesn't compare the head.
    RecordsWithoutHeadGuard,
    /// The fast path compares the head only.
    FastPathWithoutMarkerGuard,
    /// The fast path raises the marker, and leaves out what other commits still owe the tree.
    FastPathBringsOnlyItsOwn,
    /// A projection doesn't compare the marker.
    ProjectionWithoutMarkerGuard,
    /// A projection runs although the mirrored records are older than the marker.
    ProjectionFromOldRecords,
    /// A marker of another epoch is overwritten without comparing the head.
    NewEpochWithoutHeadGuard,
    /// The first of several transactions puts the new marker already.
    MarkerBeforeTheLastStep,
    /// Nobody steps in for a replica that died between commit and projection.
    OnlyTheCommitterProjects,
    /// An identical POST is found identical in a mirror that may be behind.
    NoChangeSkipsHeadRead,
    /// An identical POST is answered without asking the Traefiks.
    NoChangeSkipsBarrier,
    /// A DELETE that finds nothing leaves the head alone.
    NotFoundWritesNothing,
    /// A commit without an answer counts as not happened.
    DoubtMeansAgain,
    /// A commit without an answer counts as happened once its number is taken.
    DoubtMeansDone,
    /// The barrier compares n only.
    BarrierIgnoresEpoch,
    /// The barrier is content with the first Traefik.
    BarrierAsksOneTraefik,
    /// A GET is answered without reading the head.
    GetFromMirrorAlone,
    /// Leaves move between buckets in the wrong order.
    LongerLeafMovesFirst,
    /// A bucket is opened without its catch-all.
    BucketWithoutCatchAll,
    /// A bucket is closed, and the catch-all goes on naming it.
    CatchAllNamesMissingBucket,
    /// A bucket is closed with leaves in it.
    BucketClosedOverLeaves,
}

impl Broken {
    /// Whether steps may be taken from revisions that the right protocol has no use for.
    fn looks_back(self) -> bool {
        matches!(
            self,
            Broken::RecordsWithoutHeadGuard
                | Broken::FastPathWithoutMarkerGuard
                | Broken::ProjectionWithoutMarkerGuard
                | Broken::ProjectionFromOldRecords
                | Broken::NewEpochWithoutHeadGuard
                | Broken::NoChangeSkipsHeadRead
                | Broken::GetFromMirrorAlone
        )
    }
}

/// What the hub asks for, and how much may go wrong meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct World {
    script: Vec<Ask>,
    traefiks: usize,
    /// Commits that stay without an answer.
    losses: u8,
    /// Replicas that die after a commit.
    deaths: u8,
    wipes: u8,
}

/// One protocol, and the worlds to check it in.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    broken: Broken,
    worlds: Vec<World>,
    longest_history: usize,
}

const ADD: Ask = Ask::Add { route: JANE, target: 1 };
const CHANGE: Ask = Ask::Add { route: JANE, target: 2 };
const DELETE: Ask = Ask::Delete { route: JANE };
const GET: Ask = Ask::Get { route: JANE };
const ADD_LAB: Ask = Ask::Add { route: LAB, target: 5 };
const DELETE_LAB: Ask = Ask::Delete { route: LAB };

fn world<const CALLS: usize>(script: [Ask; CALLS], traefiks: usize, [losses, deaths, wipes]: [u8; 3]) -> World {
    World { script: script.to_vec(), traefiks, losses, deaths, wipes }
}

#[test]
fn the_protocol_holds() {
    let worlds = vec![
        // One route: who wins, who is told what, and what comes late.
        world([ADD, CHANGE, DELETE], 2, [1, 1, 0]),
        world([ADD, DELETE, ADD], 2, [2, 0, 0]),
        world([ADD, DELETE, DELETE], 2, [1, 1, 0]),
        world([ADD, CHANGE, GET], 2, [1, 0, 0]),
        world([ADD, DELETE, GET], 2, [1, 0, 0]),
        // Two routes, one below the other: projections of several steps, buckets.
        world([ADD, ADD_LAB, CHANGE], 2, [0, 0, 0]),
        world([ADD, ADD_LAB, DELETE_LAB], 2, [0, 1, 0]),
        world([ADD, ADD_LAB, DELETE], 1, [1, 0, 0]),
        // The store loses everything.
        world([ADD, DELETE, CHANGE], 2, [1, 0, 1]),
        world([ADD, ADD_LAB, ADD], 2, [0, 0, 1]),
    ];
    let checker = Protocol { broken: Broken::Nothing, worlds, longest_history: 4 }
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    say(&format!("{} states, {} steps deep", checker.unique_state_count(), checker.max_depth()));
    for (name, path) in checker.discoveries() {
        assert!(!is_invariant(name), "{name}: broken after {}", told(path));
    }
    // What should happen sometimes must have happened; and a space this small would not be the one meant here.
    checker.assert_properties();
    assert!(checker.unique_state_count() > 50_000, "only {} states were looked at", checker.unique_state_count());
}

#[rstest]
#[case::records_without_head_guard(Broken::RecordsWithoutHeadGuard, EXPLAINED, world([ADD, DELETE, CHANGE], 1, [0, 0, 0]))]
#[case::fast_without_marker_guard(Broken::FastPathWithoutMarkerGuard, TREE_RIGHT, world([ADD, ADD_LAB, DELETE, ADD], 1, [0, 0, 0]))]
#[case::fast_path_brings_only_its_own(Broken::FastPathBringsOnlyItsOwn, MARKER_TRUE, world([ADD, ADD_LAB], 1, [0, 0, 0]))]
#[case::projection_without_marker_guard(Broken::ProjectionWithoutMarkerGuard, MARKER_RISES, world([ADD, CHANGE, DELETE], 1, [0, 0, 0]))]
#[case::projection_from_old_records(Broken::ProjectionFromOldRecords, MARKER_RISES, world([ADD, CHANGE], 1, [0, 0, 0]))]
#[case::new_epoch_without_head_guard(Broken::NewEpochWithoutHeadGuard, MARKER_RISES, world([ADD, CHANGE], 1, [0, 0, 1]))]
#[case::marker_too_early(Broken::MarkerBeforeTheLastStep, MARKER_TRUE, world([ADD, ADD_LAB], 1, [0, 0, 0]))]
#[case::only_the_committer(Broken::OnlyTheCommitterProjects, PROGRESS, world([ADD], 1, [0, 1, 0]))]
#[case::no_change_by_an_old_view(Broken::NoChangeSkipsHeadRead, EXPLAINED, world([ADD, DELETE, ADD], 1, [0, 0, 0]))]
#[case::no_change_without_barrier(Broken::NoChangeSkipsBarrier, ROUTED, world([ADD, ADD], 1, [0, 0, 0]))]
#[case::not_found_writes_nothing(Broken::NotFoundWritesNothing, EXPLAINED, world([ADD, DELETE, ADD_LAB], 1, [1, 0, 0]))]
#[case::doubt_means_again(Broken::DoubtMeansAgain, EXPLAINED, world([ADD, DELETE], 1, [1, 0, 0]))]
#[case::doubt_means_done(Broken::DoubtMeansDone, ROUTED, world([ADD, ADD_LAB], 1, [1, 0, 0]))]
#[case::barrier_ignores_epoch(Broken::BarrierIgnoresEpoch, ROUTED, world([ADD, CHANGE], 1, [0, 0, 1]))]
#[case::barrier_asks_one(Broken::BarrierAsksOneTraefik, ROUTED, world([ADD], 2, [0, 0, 0]))]
#[case::get_from_mirror_alone(Broken::GetFromMirrorAlone, EXPLAINED, world([ADD, GET], 1, [0, 0, 0]))]
#[case::longer_leaf_first(Broken::LongerLeafMovesFirst, TREE_RIGHT, world([ADD, ADD_LAB], 1, [0, 0, 0]))]
#[case::bucket_without_catch_all(Broken::BucketWithoutCatchAll, TREE_RIGHT, world([ADD, ADD_LAB], 1, [0, 0, 0]))]
#[case::catch_all_names_missing(Broken::CatchAllNamesMissingBucket, TREE_RIGHT, world([ADD, ADD_LAB, CHANGE], 1, [0, 0, 0]))]
#[case::bucket_closed_over_leaves(Broken::BucketClosedOverLeaves, TREE_RIGHT, world([ADD, ADD_LAB, CHANGE], 1, [0, 0, 0]))]
fn a_missing_guard_is_found_out(#[case] broken: Broken, #[case] invariant: &'static str, #[case] world: World) {
    let protocol = Protocol { broken, worlds: vec![world], longest_history: 12 };
    // Step by step deeper, so that the counterexample is a shortest one.
    let found = (1..=12).find_map(|depth| {
        let checker = protocol
            .clone()
            .checker()
            .target_max_depth(depth + 1)
            .finish_when(HasDiscoveries::AnyOf([invariant].into()))
            .spawn_bfs()
            .join();
        Some((checker.unique_state_count(), checker.discovery(invariant)?))
    });
    let (states, path) = found.unwrap_or_else(|| panic!("{broken:?} does not break \"{invariant}\" within 12 steps"));
    say(&format!("{broken:?}: not \"{invariant}\", {states} states, {}", told(path)));
}

fn is_invariant(property: &str) -> bool {
    property.starts_with('I')
}

/// A counterexample as a list of steps.
fn told(path: Path<State, Action>) -> String {
    let steps: Vec<String> = path.into_actions().iter().map(|action| format!("\n    {action:?}")).collect();
    format!("{} steps:{}", steps.len(), steps.concat())
}

/// Shown with `--nocapture`: the numbers in docs/protocol.md come from here.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr is open");
}
