//! What an import comes to: which routes are added, changed, removed and left alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::ApiSettings;
use crate::cli::routes::table::{Table, Understood};
use crate::control::bulk::Wish;
use crate::route::{RouteData, RouteSpec, RouteTable, Target};

/// The routes that are here already: where each leads and its record, if that is understood.
#[derive(Debug, Default)]
pub(super) struct There {
    pub(super) routes: BTreeMap<RouteSpec, Option<(Target, RouteData)>>,
}

/// What is to be done with one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Add,
    Change,
    Remove,
    Same,
    Kept,
}

/// All of it, ordered by path.
#[derive(Debug)]
pub(super) struct Plan {
    verdicts: Vec<(RouteSpec, Verdict)>,
    /// What makes it so.
    pub(super) wishes: Vec<Wish>,
}

impl There {
    /// The routes of a store.
    pub(super) fn recorded(table: &RouteTable) -> Self {
        let routes = table.iter().map(|route| (route.spec.clone(), Some((route.target.clone(), route.data.clone()))));
        Self { routes: routes.collect() }
    }

    /// The routes of an API. One that we wouldn't record is there all the same.
    pub(super) fn listed(table: Table, settings: &ApiSettings) -> Self {
        let understood = table.understand(settings);
        let strange = understood.refused.iter().filter_map(|(path, _)| RouteSpec::from_decoded(path).ok());
        let mut routes: BTreeMap<_, _> = strange.map(|spec| (spec, None)).collect();
        routes.extend(understood.routes.into_iter().map(|(spec, state)| (spec, Some(state))));
        Self { routes }
    }
}

impl Plan {
    /// Compares what is wanted with what is there. A route that the source has and that is refused stays as it is.
    pub(super) fn new(wanted: &Understood, there: &There, refused: &[(String, String)], replace: bool) -> Self {
        let named: BTreeSet<RouteSpec> =
            refused.iter().filter_map(|(path, _)| RouteSpec::from_decoded(path).ok()).collect();
        let (mut verdicts, mut wishes) = (BTreeMap::new(), Vec::new());
        for (spec, state) in &wanted.routes {
            let verdict = match there.routes.get(spec) {
                None => Verdict::Add,
                Some(Some(now)) if now == state => Verdict::Same,
                Some(_) => Verdict::Change,
            };
            if verdict != Verdict::Same {
                wishes.push(Wish {
                    spec: spec.clone(),
                    state: Some(state.clone()),
                    used: wanted.used.get(spec).copied(),
                });
            }
            verdicts.insert(spec.clone(), verdict);
        }
        for spec in there.routes.keys().filter(|spec| !wanted.routes.contains_key(*spec)) {
            let remove = replace && !named.contains(spec);
            if remove {
                wishes.push(Wish { spec: spec.clone(), state: None, used: None });
            }
            verdicts.insert(spec.clone(), if remove { Verdict::Remove } else { Verdict::Kept });
        }
        Self { verdicts: verdicts.into_iter().collect(), wishes }
    }

    /// One line a route.
    pub(super) fn sentences(&self) -> Vec<String> {
        let target = |spec: &RouteSpec| {
            let wish = self.wishes.iter().find(|wish| wish.spec == *spec)?;
            wish.state.as_ref().map(|(target, _)| format!(" -> {}", target.as_str()))
        };
        let line = |(spec, verdict): &(RouteSpec, Verdict)| match verdict {
            Verdict::Add => format!("add     {spec}{}", target(spec).unwrap_or_default()),
            Verdict::Change => format!("change  {spec}{}", target(spec).unwrap_or_default()),
            Verdict::Remove => format!("remove  {spec}"),
            Verdict::Same => format!("same    {spec}"),
            Verdict::Kept => format!("keep    {spec}, which the source does not have"),
        };
        self.verdicts.iter().map(line).collect()
    }

    /// One line for each route that is not the same on both sides, ordered by path. One that we wouldn't record is named
    /// with the reason.
    pub(super) fn differences(&self, refused: &[(String, String)]) -> Vec<String> {
        let reasons = refused.iter().map(|(path, reason)| (path.escape_debug().to_string(), reason));
        let mut lines: BTreeMap<String, String> =
            reasons.map(|(path, reason)| (path.clone(), format!("refused {path}: {reason}"))).collect();
        for (spec, verdict) in &self.verdicts {
            let path = spec.to_string();
            let line = match verdict {
                Verdict::Same => continue,
                Verdict::Add => format!("missing {path}, which only the source has"),
                Verdict::Change => format!("differs {path}"),
                Verdict::Kept | Verdict::Remove => format!("extra   {path}, which the source does not have"),
            };
            lines.entry(path).or_insert(line);
        }
        lines.into_values().collect()
    }

    /// How many routes there are on one side or both, and those that both have.
    pub(super) fn compared(&self) -> (usize, Vec<RouteSpec>) {
        let both = self.verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Same | Verdict::Change));
        (self.verdicts.len(), both.map(|(spec, _)| spec.clone()).collect())
    }

    /// All in one sentence. Those that were refused in the end are counted as such alone.
    pub(super) fn sum(&self, dry_run: bool, refused: &[(String, String)]) -> String {
        let late: BTreeSet<&str> = refused.iter().map(|(path, _)| path.as_str()).collect();
        let count = |wanted: Verdict| {
            self.verdicts.iter().filter(|(spec, verdict)| *verdict == wanted && !late.contains(spec.as_str())).count()
        };
        let [added, changed, removed] = [Verdict::Add, Verdict::Change, Verdict::Remove].map(count);
        let (same, kept) = (count(Verdict::Same), self.verdicts.iter().filter(|(_, v)| *v == Verdict::Kept).count());
        format!(
            "{}{added} added, {changed} changed, {removed} removed; {same} were here already, {kept} are only here and stay; {} \
             refused",
            if dry_run { "nothing was done; it would be: " } else { "" },
            refused.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> Understood {
        Table::parse(text.as_bytes()).expect("a table").understand(&ApiSettings::default())
    }

    fn plan(source: &str, here: &str, replace: bool) -> Plan {
        let there = There::listed(Table::parse(here.as_bytes()).expect("a table"), &ApiSettings::default());
        let wanted = understood(source);
        Plan::new(&wanted, &there, &wanted.refused, replace)
    }

    const SOURCE: &str = r#"{"/same":{"target":"http://a","last_activity":"x"},"/changed":{"target":"http://b"},
        "/new":{"target":"http://c"},"/bad":{"target":"c"}}"#;
    const HERE: &str = r#"{"/same":{"target":"http://a"},"/changed":{"target":"http://old"},"/bad":{"target":"http://d"},
        "/only":{"target":"http://e"}}"#;

    #[test]
    fn each_route_has_its_verdict() {
        let plan_of = |replace| plan(SOURCE, HERE, replace).sentences();
        let keep = "keep    /only, which the source does not have";
        let lines = [
            "keep    /bad, which the source does not have",
            "change  /changed -> http://b",
            "add     /new -> http://c",
            keep,
            "same    /same",
        ];
        assert_eq!(plan_of(false), lines);
        assert_eq!(plan_of(true), lines.map(|line| if line == keep { "remove  /only" } else { line }));
    }

    #[test]
    fn a_comparison_names_what_is_not_the_same() {
        let plan = plan(SOURCE, HERE, false);
        let refused = [("/bad".to_owned(), "no URL".to_owned())];
        let lines = [
            "refused /bad: no URL",
            "differs /changed",
            "missing /new, which only the source has",
            "extra   /only, which the source does not have",
        ];
        assert_eq!(plan.differences(&refused), lines);
        let (routes, both) = plan.compared();
        assert_eq!((routes, both.iter().map(RouteSpec::as_str).collect::<Vec<_>>()), (5, vec!["/changed", "/same"]));
    }

    #[test]
    fn the_sum_counts_the_refused_once() {
        let plan = plan(SOURCE, HERE, true);
        let refused = [("/bad".to_owned(), String::new()), ("/new".to_owned(), String::new())];
        let sum = plan.sum(false, &refused);
        assert_eq!(sum, "0 added, 1 changed, 1 removed; 1 were here already, 1 are only here and stay; 2 refused");
        assert!(plan.sum(true, &[]).starts_with("nothing was done; it would be: 1 added"));
    }
}
