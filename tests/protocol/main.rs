//! The commit protocol (docs/protocol.md), small enough to look at every state it can reach.
//!
//! **What is in it.** A store with guarded transactions on a head and a marker; two routes, one below the other, and a bucket
//! that comes and goes; calls of the hub, overlapping in every way; up to three Traefiks that load any revision at any
//! time; commits whose answer gets lost, or that arrive long after everybody has stopped waiting; replicas that die between
//! any two steps; a store that is wiped, or goes back to what it was; Traefiks that lag and are withdrawn, or restart and are
//! given a fallback; replicas of two layouts; a foreign hand in the tree. Record-only commits and the fast path, projections of
//! several transactions (one leaf each), calls that change nothing, retries by nonce, epochs.
//!
//! **Replicas are not in the state.** All that a replica has of its own is a view of the store, which may lag. So every step
//! here may be taken from *any* revision the store ever had, which covers two replicas or twenty, each watch delayed as
//! you like, a replica that is paused between planning and sending, and one that restarts; after the store went back one that
//! has slept through it, one that knows what was lost, and one that has a snapshot of any age. A transaction whose guards
//! fail changes nothing; such steps are left out.
//!
//! **What is left out.** Batches (a batch is one commit with several calls: what holds for one call holds for it), time (a
//! deadline may pass at any moment), and how keys and rules are spelled. docs/protocol.md has the whole list.
//! A Traefik lags by at most `longest_history` different revisions.
//!
//! Each guard has a variant of the protocol that lacks it, and a test that the checker finds out.

mod broken;
mod calls;
mod coverage;
mod model;
mod rules;
mod state;
mod steps;
mod tree;
mod trouble;
mod world;

use std::io::Write;

pub(crate) use broken::Broken;
use model::{Action, EXPLAINED, MARKER_RISES, MARKER_TRUE, NO_FIGHT, PROGRESS, ROUTED, SOMEBODY_SERVES, TREE_RIGHT};
use rstest::rstest;
use state::State;
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use world::{ADD, ADD_LAB, CHANGE, DELETE, GET, ONE_WAY, THERE_AND_BACK, World, world};

/// One protocol, and the worlds to check it in.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    broken: Broken,
    worlds: Vec<World>,
    /// What must be seen to happen.
    sights: fn() -> Vec<Property<Protocol>>,
    longest_history: usize,
}

#[rstest]
#[case::calls_and_trees(world::calls_and_trees(), coverage::calls_and_trees, 150_000)]
#[case::going_back(world::going_back(), coverage::going_back, 150_000)]
#[case::laggards(world::laggards(), coverage::laggards, 1_000)]
#[case::fallback(world::fallback(), coverage::fallback, 1_000)]
#[case::layouts(world::layouts(), coverage::layouts, 1_000)]
#[case::foreign_hands(world::foreign_hands(), coverage::foreign_hands, 1_000)]
fn the_protocol_holds(
    #[case] worlds: Vec<World>,
    #[case] sights: fn() -> Vec<Property<Protocol>>,
    #[case] states_min: usize,
) {
    let checker = Protocol { broken: Broken::Nothing, worlds, sights, longest_history: 4 }
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    say(&format!("{states} states, {depth} steps deep, {} things seen to happen", checker.discoveries().len()));
    for (name, path) in checker.discoveries() {
        assert!(!is_invariant(name), "{name}: broken after {}", told(path));
    }
    // What should happen sometimes must have happened; and a space this small would not be the one meant here.
    checker.assert_properties();
    assert!(states > states_min, "only {states} states were looked at");
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
#[case::marker_without_nonce(Broken::MarkerWithoutNonce, ROUTED, world([ADD, CHANGE, DELETE], 1, [0, 0, 0]).going_back())]
#[case::head_guard_by_revision(Broken::HeadGuardByRevision, EXPLAINED, world([ADD, DELETE, ADD_LAB, DELETE], 1, [0, 0, 0]).going_back().in_turn())]
#[case::projection_without_head_guard(Broken::ProjectionWithoutHeadGuard, MARKER_TRUE, world([ADD, CHANGE], 1, [0, 0, 0]).going_back())]
#[case::marker_with_heads_nonce(Broken::MarkerWithHeadsNonce, ROUTED, world([ADD, ADD], 1, [0, 0, 0]).going_back())]
#[case::new_epoch_counts_anew(Broken::NewEpochCountsAnew, PROGRESS, world([ADD, CHANGE, DELETE, CHANGE], 1, [0, 0, 0]).going_back().in_turn())]
#[case::lost_heads_settle(Broken::LostHeadsSettle, EXPLAINED, world([ADD, CHANGE, ADD_LAB], 1, [1, 0, 0]).going_back().in_turn())]
#[case::get_from_lost_mirror(Broken::GetFromLostMirror, EXPLAINED, world([ADD, CHANGE, GET], 1, [0, 0, 0]).going_back())]
#[case::nobody_pushes(Broken::NobodyPushes, PROGRESS, world([ADD, CHANGE], 1, [0, 0, 0]).going_back())]
#[case::excused_before_withdrawn(Broken::ExcusedBeforeWithdrawn, ROUTED, world([ADD], 2, [0, 0, 0]).proceeding())]
#[case::excused_by_an_old_look(Broken::ExcusedByAnOldLook, ROUTED, world([ADD, CHANGE], 2, [0, 0, 0]).proceeding())]
#[case::back_before_caught_up(Broken::BackBeforeCaughtUp, ROUTED, world([ADD], 2, [0, 0, 0]).proceeding())]
#[case::withdrawn_by_the_store(Broken::WithdrawnByTheStore, SOMEBODY_SERVES, world([ADD], 2, [0, 0, 0]).proceeding())]
#[case::withdrawn_by_the_past(Broken::WithdrawnByThePast, SOMEBODY_SERVES, world([ADD, CHANGE], 2, [0, 0, 1]).proceeding())]
#[case::floor_for_ever(Broken::FloorForEver, PROGRESS, world([ADD, CHANGE], 2, [0, 0, 1]).proceeding())]
#[case::floor_ends_too_early(Broken::FloorEndsTooEarly, ROUTED, world([ADD, CHANGE], 2, [0, 0, 0]).proceeding().going_back().in_turn())]
#[case::fallback_puts_others_behind(Broken::FallbackPutsOthersBehind, SOMEBODY_SERVES, world([ADD], 2, [0, 0, 0]).proceeding().restarting())]
#[case::fallback_ahead_of_the_tree(Broken::BarrierIgnoresTheTree, ROUTED, world([ADD, CHANGE], 1, [0, 0, 0]).restarting())]
#[case::fallback_goes_back(Broken::FallbackGoesBack, MARKER_RISES, world([ADD, CHANGE], 1, [0, 0, 0]).restarting())]
#[case::fallback_stays(Broken::FallbackStaysInFront, ROUTED, world([ADD, CHANGE], 1, [0, 0, 0]).restarting())]
#[case::older_layout_writes_on(Broken::OlderLayoutWritesOn, NO_FIGHT, world([ADD], 1, [0, 0, 0]).upgraded(THERE_AND_BACK))]
#[case::newer_layout_looks_on(Broken::NewerLayoutLooksOn, PROGRESS, world([ADD, CHANGE], 1, [0, 0, 0]).upgraded(ONE_WAY))]
#[case::adopts_always(Broken::AdoptsAlways, NO_FIGHT, world([ADD], 1, [0, 0, 0]).upgraded(THERE_AND_BACK))]
#[case::foreign_keys_stay(Broken::ForeignKeysStay, PROGRESS, world([ADD], 1, [0, 0, 0]).tampered())]
fn a_missing_guard_is_found_out(#[case] broken: Broken, #[case] invariant: &'static str, #[case] world: World) {
    let protocol = Protocol { broken, worlds: vec![world], sights: coverage::nothing, longest_history: 12 };
    // Step by step deeper, so that the counterexample is a shortest one.
    let found = (1..=14).find_map(|depth| {
        let checker = protocol
            .clone()
            .checker()
            .target_max_depth(depth + 1)
            .finish_when(HasDiscoveries::AnyOf([invariant].into()))
            .spawn_bfs()
            .join();
        Some((checker.unique_state_count(), checker.discovery(invariant)?))
    });
    let (states, path) = found.unwrap_or_else(|| panic!("{broken:?} does not break \"{invariant}\" within 14 steps"));
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
