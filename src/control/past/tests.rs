use proptest::prelude::*;

use super::*;

fn head(epoch: &str, n: u64, nonce: &str) -> Head {
    Head { epoch: epoch.to_owned(), n, nonce: nonce.to_owned() }
}

fn known() -> Past {
    Past::of(head("e", 5, "x-w"), 105)
}

fn is_back(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Back(_))
}

#[test]
fn a_store_that_goes_on_is_left_alone() {
    let past = known();
    for (now, revision) in [
        (head("e", 5, "x-w"), 105),
        (head("e", 5, "x-w"), 200),
        (head("e", 6, "y-x"), 106),
        (head("e", 6, "from an older version"), 106),
        (head("e", 9, "z-y"), 106),
    ] {
        assert_eq!(past.judge(Some(&now), revision, &[("e", now.n), ("f", 99)]), Verdict::Onward, "{now} {revision}");
    }
    assert_eq!(Past::default().judge(None, 1, &[("e", 7)]), Verdict::Onward, "an empty store, and nothing known");
    assert_eq!(Past::default().judge(Some(&head("e", 5, "x")), 1, &[]), Verdict::Onward);
}

#[test]
fn every_sign_of_a_restore_counts() {
    let past = known();
    for (what, now, revision, shown) in [
        ("a lower number", head("e", 4, "w-v"), 200, None),
        ("the same number by another", head("e", 5, "q-w"), 105, None),
        ("a next one that follows another", head("e", 6, "y-q"), 106, None),
        ("a lower revision only", head("e", 5, "x-w"), 104, None),
        ("a Traefik knows more", head("e", 6, "y-x"), 106, Some(7)),
    ] {
        let shown: Vec<Shown<'_>> = shown.map(|n| ("e", n)).into_iter().collect();
        let verdict = past.judge(Some(&now), revision, &shown);
        assert!(is_back(&verdict), "{what}: {verdict:?}");
    }
    let nothing = Past::default();
    assert!(is_back(&nothing.judge(Some(&head("e", 3, "x")), 9, &[("e", 4)])), "by a Traefik alone");
}

#[test]
fn a_wipe_and_another_history_are_told_apart() {
    let past = known();
    assert_eq!(past.judge(None, 1, &[]), Verdict::Wiped);
    assert_eq!(past.judge(Some(&head("f", 6, "y-w")), 104, &[("e", 5)]), Verdict::Other, "somebody began a new epoch");
}

#[test]
fn who_has_begun_anew_is_content_until_the_old_returns() {
    let mut past = known();
    past.begin_anew(Some(head("f", 4, "y-w")), 104);
    assert_eq!(past.judge(Some(&head("f", 4, "y-w")), 104, &[("e", 5)]), Verdict::Onward);
    assert!(is_back(&past.judge(Some(&head("e", 3, "v")), 300, &[])), "the same backup once more");
    past.begin_anew(None, 1);
    assert_eq!(past.judge(None, 1, &[]), Verdict::Onward, "a wipe is told once");
    past.see_head(&head("g", 0, "a-"));
    assert!(is_back(&past.judge(Some(&head("f", 4, "y-w")), 300, &[])));
}

#[test]
fn another_epoch_is_no_progress() {
    let mut past = known();
    past.see_head(&head("f", 99, "y"));
    past.see_head(&head("e", 4, "w"));
    past.see_revision(3);
    assert_eq!(past, known());
}

/// What is done to a store.
#[derive(Debug, Clone)]
enum Act {
    Commit,
    /// Something that is no change of the records.
    Other,
    Backup,
    Restore,
    Look,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => Just(Act::Commit),
        2 => Just(Act::Other),
        1 => Just(Act::Backup),
        1 => Just(Act::Restore),
        4 => Just(Act::Look),
    ];
    prop::collection::vec(act, 0..60)
}

/// A store as it really is: its heads, the last one being the present one, and its revision.
type World = (Vec<Head>, Revision);

proptest! {
    /// Whoever has seen something that the store lacks now notices at the next look; and nobody cries wolf.
    #[test]
    fn a_restore_is_noticed_by_who_knew_more(acts in acts()) {
        let mut store: World = (vec![head("e", 0, "0-")], 1);
        let (mut backup, mut past, mut draws) = (store.clone(), Past::default(), 0_u64);
        for act in acts {
            let last = store.0.last().expect("a head").clone();
            draws += 1;
            let commit = |store: &mut World, epoch: &str| {
                let nonce = chain::link(&draws.to_string(), &last.nonce);
                store.0.push(head(epoch, last.n + 1, &nonce));
                store.1 += 1;
            };
            match act {
                Act::Commit => commit(&mut store, &last.epoch),
                Act::Other => store.1 += 1,
                Act::Backup => backup = store.clone(),
                Act::Restore => store = backup.clone(),
                Act::Look => {
                    let verdict = past.judge(Some(&last), store.1, &[]);
                    let is_gone = past.head().is_some_and(|known| !store.0.contains(known));
                    // When the store has come further than we knew by more than one change, nothing that we read tells.
                    let is_hidden = past.head().is_some_and(|known| last.n > known.n + 1) && store.1 >= past.revision();
                    let lacks = is_gone || past.revision() > store.1;
                    match &verdict {
                        Verdict::Back(_) => prop_assert!(lacks, "{verdict:?}"),
                        Verdict::Onward => prop_assert!(!lacks || is_hidden, "{past:?} {store:?}"),
                        other => prop_assert!(false, "{other:?}"),
                    }
                    if is_back(&verdict) {
                        commit(&mut store, &format!("e{draws}"));
                        backup = store.clone();
                    }
                    past.begin_anew(store.0.last().cloned(), store.1);
                }
            }
        }
    }
}
