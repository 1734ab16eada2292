//! Variants of the protocol that lack one of its guards.

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

    /// After the store went back: a marker counts by its number, whoever wrote that number.
    MarkerWithoutNonce,
    /// The marker has the nonce of the head that it covers.
    MarkerWithHeadsNonce,
    /// Heads are compared by revision only, and revisions are given a second time.
    HeadGuardByRevision,
    /// A projection within an epoch compares the marker only, which both lives of the store may share.
    ProjectionWithoutHeadGuard,
    /// The new epoch begins to count anew.
    NewEpochCountsAnew,
    /// What became of a commit is looked up among heads from before the store went back.
    LostHeadsSettle,
    /// A GET takes a mirror from before the store went back for one that has reached the head.
    GetFromLostMirror,
    /// Nobody pushes the store's revision past the one that a Traefik waits for.
    NobodyPushes,

    /// A Traefik that is behind is not waited for, although users still get to it.
    ExcusedBeforeWithdrawn,
    /// A Traefik that was withdrawn once is not waited for, although it may have come back.
    ExcusedByAnOldLook,
    /// A Traefik comes back when it is no longer far behind.
    BackBeforeCaughtUp,
    /// A Traefik is withdrawn for being behind the store, though no other one is ahead.
    WithdrawnByTheStore,
    /// A Traefik is withdrawn when another one shows anything that it doesn't cover, be it of an epoch that is over.
    WithdrawnByThePast,
    /// What was answered without a Traefik has to be there even when its epoch is over.
    FloorForEver,
    /// It need not be there any more once the head has another epoch, though the tree has not.
    FloorEndsTooEarly,
    /// A Traefik whose fallback is ahead of the tree puts the others behind.
    FallbackPutsOthersBehind,

    /// What the Traefiks show is enough, whether the tree itself has got there or not.
    BarrierIgnoresTheTree,
    /// Any replica hands out its fallback, however old.
    FallbackGoesBack,
    /// The fallback stays in front when the tree has been loaded.
    FallbackStaysInFront,

    /// A replica of the older layout goes on with a tree of the newer one.
    OlderLayoutWritesOn,
    /// A replica of the newer layout leaves a tree of the older one alone.
    NewerLayoutLooksOn,
    /// A replica that may adopt the tree adopts it whenever it sees another's.
    AdoptsAlways,

    /// Only the marker says whether there is anything to mend.
    ForeignKeysStay,
}

impl Broken {
    /// Whether steps may be taken from revisions that the right protocol has no use for.
    pub(crate) fn looks_back(self) -> bool {
        matches!(
            self,
            Broken::RecordsWithoutHeadGuard
                | Broken::FastPathWithoutMarkerGuard
                | Broken::ProjectionWithoutMarkerGuard
                | Broken::ProjectionFromOldRecords
                | Broken::NewEpochWithoutHeadGuard
                | Broken::NoChangeSkipsHeadRead
                | Broken::GetFromMirrorAlone
                | Broken::HeadGuardByRevision
                | Broken::ProjectionWithoutHeadGuard
                | Broken::LostHeadsSettle
                | Broken::GetFromLostMirror
        )
    }
}
