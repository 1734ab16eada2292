//! What another hand does to our keys is mended, whatever it is.

use super::*;

/// What another hand does, to some key of ours.
#[derive(Debug, Clone)]
enum Damage {
    Delete(usize),
    DeleteRouter(usize),
    /// Traefik can't read it where a number is wanted.
    Poison(usize),
    /// A field that we never write.
    Foreign(usize),
    /// The value of another key.
    Copy(usize, usize),
    /// A router with a name of ours that stands for nothing.
    Router(usize, usize),
}

const POISON: &str = "high";

fn any_damage() -> impl Strategy<Value = Damage> {
    let key = any::<usize>();
    prop_oneof![
        4 => key.prop_map(Damage::Delete),
        3 => key.prop_map(Damage::DeleteRouter),
        4 => key.prop_map(Damage::Poison),
        2 => key.prop_map(Damage::Foreign),
        2 => (key, any::<usize>()).prop_map(|(a, b)| Damage::Copy(a, b)),
        2 => (key, 0..3_usize).prop_map(|(a, b)| Damage::Router(a, b)),
    ]
}

fn edits(damage: &Damage, keys: &BTreeMap<String, String>, routes: &RouteTable) -> Vec<Edit> {
    let key = |at: usize| keys.keys().nth(at % keys.len().max(1)).cloned().unwrap_or_default();
    let entity = |at: usize| {
        let key = key(at);
        let end = key.match_indices('/').nth(2).map_or(key.len(), |(at, _)| at + 1);
        key[..end].to_owned()
    };
    let put = |key: String, value: &str| vec![Edit::Put { key, value: value.to_owned() }];
    match damage {
        Damage::Delete(at) => vec![Edit::Delete { key: key(*at) }],
        Damage::DeleteRouter(at) => vec![Edit::DeletePrefix { prefix: entity(*at) }],
        Damage::Poison(at) => put(key(*at), POISON),
        Damage::Foreign(at) => put(format!("{}tls/options", entity(*at)), POISON),
        Damage::Copy(from, to) => put(key(*to), &keys.get(&key(*from)).cloned().unwrap_or_default()),
        Damage::Router(at, kind) => {
            let place = routes.iter().nth(at % routes.len().max(1)).map_or("/gone", |route| route.spec.as_str());
            let place = place.trim_end_matches('/');
            let name = [name::route(place), name::catch_all(place), name::bucket(place, true)][*kind].clone();
            put(format!("http/routers/{name}/priority"), POISON)
        }
    }
}

/// Builds a tree, damages it, and has it mended.
fn mend(variant: Variant, routes: &BTreeMap<String, u16>, damages: &[Damage]) -> Result<(), TestCaseError> {
    let (settings, table) = (settings(variant), table(routes));
    let (mut keys, mut tree) = (BTreeMap::new(), Tree::default());
    let plan = |tree: &Tree| plan(&table, tree, &settings, SMALL, limits(1000), &BTreeSet::new());
    let settle = |keys: &mut BTreeMap<String, String>, tree: &mut Tree| {
        for _ in 0..8 {
            let steps = plan(tree);
            if steps.iter().all(|step| step.edits.is_empty()) {
                return Ok(());
            }
            for step in &steps {
                apply(keys, tree, step);
            }
        }
        Err(TestCaseError::fail(format!("the plans don't come to an end: {:?}", plan(tree))))
    };
    settle(&mut keys, &mut tree)?;
    for damage in damages {
        if keys.is_empty() {
            break;
        }
        let edits = edits(damage, &keys, &table);
        apply(&mut keys, &mut tree, &Step { edits, complete: false });
    }
    settle(&mut keys, &mut tree)?;
    let left: Vec<_> = keys.iter().filter(|(key, value)| *value == POISON || key.contains("/tls/")).collect();
    prop_assert!(left.is_empty(), "poison is left: {left:?}");
    for (key, value) in settings.keys().iter().filter(|_| !table.is_empty()) {
        prop_assert_eq!(keys.get(key), Some(value), "{}", key);
    }
    check(variant, &keys, (&table, &table), &probes(&table, &table), (true, variant.pages && tree.has_root()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_another_hand_does_is_mended(
        routes in any_table("[ab@]{1,4}(/[ab]{1,2}){0,2}"),
        damages in proptest::collection::vec(any_damage(), 1..6),
        pages in any::<bool>(),
        cut in any::<bool>(),
    ) {
        mend(Variant { pages, cut, ..PATHS }, &routes, &damages)?;
    }

    #[test]
    fn whatever_another_hand_does_to_families_is_mended(
        routes in families(), damages in proptest::collection::vec(any_damage(), 1..6),
    ) {
        mend(PATHS, &routes, &damages)?;
    }
}
