//! Which buckets there should be, and which bucket each route belongs in.
//!
//! Traefik looks at its routers one by one, so a flat list of 10,000 is slow for everybody. A *bucket* is a router that
//! takes every request whose place begins with its prefix and hands it to its children. Three rules keep that right:
//! a route belongs in the longest bucket that holds it; a bucket never reaches below a route (a route and those under it
//! share a bucket); and a route that covers more than a bucket may hold becomes a *domain*: not a leaf, but the catch-all
//! of the buckets below it. The root route is a domain always.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::name;
use super::rule::{self, Space};

/// How large buckets may get and how small.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A bucket with more children than this is split.
    pub split_above: usize,
    /// A split takes the largest groups away until no more than this many children are left.
    pub split_down_to: usize,
    /// A bucket or domain with fewer routes than this is dissolved. Far below the first limit, so that a busy morning
    /// doesn't split and merge in turns.
    pub merge_below: usize,
    /// A group with fewer routes than this is not worth a router of its own.
    pub group_min: usize,
}

impl Default for Sizes {
    /// Anything between 100 and 500 was measured to be equally fast.
    fn default() -> Self {
        Self { split_above: 200, split_down_to: 100, merge_below: 60, group_min: 4 }
    }
}

/// A bucket, by what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// The text its members' places begin with; empty for the root.
    pub prefix: String,
    /// Whether it holds whole segments only (`/a` and what is below, not `/ab`): the bucket of a domain.
    pub whole: bool,
}

impl Bucket {
    /// A bucket.
    #[must_use]
    pub fn new(prefix: &str, whole: bool) -> Self {
        Self { prefix: prefix.to_owned(), whole }
    }

    /// The bucket that holds everything.
    #[must_use]
    pub fn root() -> Self {
        Self::new("", false)
    }

    /// How much of a place it fixes: of two buckets that hold a place, the one that reaches further is the nearer.
    #[must_use]
    pub fn reach(&self) -> usize {
        2 * self.prefix.len() + usize::from(self.whole)
    }

    /// Its router's name.
    #[must_use]
    pub fn name(&self) -> String {
        name::bucket(&self.prefix, self.whole)
    }

    /// Its router's priority: above the catch-all (1), below every route, and higher for the nearer of two buckets.
    #[must_use]
    pub fn priority(&self) -> usize {
        10 + self.reach()
    }

    /// Whether a place lies in this bucket.
    #[must_use]
    pub fn holds(&self, place: &str) -> bool {
        match place.strip_prefix(self.prefix.as_str()) {
            None => false,
            Some(rest) => !self.whole || rest.is_empty() || rest.starts_with('/'),
        }
    }

    /// Whether every place of `other` lies in this bucket.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self != other
            && if self.whole { is_below(&other.prefix, &self.prefix) } else { other.prefix.starts_with(&self.prefix) }
    }
}

/// Whether `place` lies strictly below `upper`, by whole segments. Everything is below the root (the empty place).
#[must_use]
pub fn is_below(place: &str, upper: &str) -> bool {
    if upper.is_empty() {
        return !place.is_empty();
    }
    place.strip_prefix(upper).is_some_and(|rest| rest.starts_with('/'))
}

/// A set of buckets that finds the nearest one that holds a place.
#[derive(Debug, Clone, Default)]
pub struct Buckets {
    members: HashSet<Bucket>,
    /// The prefix lengths that occur: only these are worth trying.
    lengths: BTreeSet<usize>,
}

impl Buckets {
    /// Adds a bucket.
    pub fn insert(&mut self, bucket: Bucket) {
        self.lengths.insert(bucket.prefix.len());
        self.members.insert(bucket);
    }

    /// Removes a bucket.
    pub fn remove(&mut self, bucket: &Bucket) {
        self.members.remove(bucket);
    }

    /// Whether a bucket is there.
    #[must_use]
    pub fn contains(&self, bucket: &Bucket) -> bool {
        self.members.contains(bucket)
    }

    /// All buckets, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Bucket> {
        self.members.iter()
    }

    /// The nearest bucket that holds a place; the root if no other does.
    #[must_use]
    pub fn nearest(&self, place: &str) -> Bucket {
        self.find(place, |_| true)
    }

    /// The nearest bucket that contains another one; the root if no other does.
    #[must_use]
    pub fn parent(&self, bucket: &Bucket) -> Bucket {
        self.find(&bucket.prefix, |candidate| candidate.contains(bucket))
    }

    fn find(&self, place: &str, fits: impl Fn(&Bucket) -> bool) -> Bucket {
        for &length in self.lengths.range(..=place.len()).rev() {
            if !place.is_char_boundary(length) {
                continue;
            }
            for whole in [true, false] {
                let candidate = Bucket::new(&place[..length], whole);
                if self.members.contains(&candidate) && candidate.holds(place) && fits(&candidate) {
                    return candidate;
                }
            }
        }
        Bucket::root()
    }
}

/// The buckets and domains that there should be. The root bucket is not listed: it is always there.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// All buckets but the root.
    pub buckets: Buckets,
    /// The places of the routes that are domains; the root's is the empty text.
    pub domains: HashSet<String>,
    /// For each place that isn't a domain: the bucket of the uppermost route of its family, and so its own.
    tops: HashMap<String, String>,
}

impl Layout {
    /// The bucket that a route (not a domain) belongs in.
    #[must_use]
    pub fn bucket_of(&self, place: &str) -> Bucket {
        self.buckets.nearest(self.tops.get(place).map_or(place, String::as_str))
    }
}

/// A route with everything below it: it goes into a bucket as one.
#[derive(Debug, Clone, Copy)]
struct Family<'a> {
    top: &'a str,
    weight: usize,
}

/// Decides on buckets and domains for routes at `places`, changing as little as possible of what is `present`.
#[must_use]
pub fn layout<'a>(space: Space, sizes: Sizes, places: impl Iterator<Item = &'a str>, present: &Buckets) -> Layout {
    let mut places: Vec<&str> = places.collect();
    places.sort_unstable_by(|a, b| families_together(a, b));
    let mut layout = Layout::default();

    let weights = weights(&places);
    let reached_below = reached_below(present);
    for (place, weight) in places.iter().zip(&weights) {
        // A bucket that reaches below a leaf would never be asked: as long as one is there, the route stays a domain.
        let is_domain = place.is_empty() || reached_below.contains(place) || {
            let limit =
                if present.contains(&Bucket::new(place, true)) { sizes.merge_below } else { sizes.split_above + 1 };
            *weight >= limit && rule::bucket(space, place, true).is_some()
        };
        if is_domain {
            layout.domains.insert((*place).to_owned());
            if !place.is_empty() {
                layout.buckets.insert(Bucket::new(place, true));
            }
        }
    }

    let families = families(&places, &mut layout);
    for bucket in present.iter().filter(|b| !b.whole && !b.prefix.is_empty()) {
        if weight_below(&families, &bucket.prefix) >= sizes.merge_below {
            layout.buckets.insert(bucket.clone());
        }
    }
    split_all(space, sizes, &families, &mut layout.buckets);
    layout
}

/// Orders places so that a route is followed by those below it, and those of one prefix stand together.
fn families_together(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    a.bytes().map(rank).cmp(b.bytes().map(rank))
}

/// For each place: how many routes lie at or below it.
fn weights(places: &[&str]) -> Vec<usize> {
    let mut weights = vec![1; places.len()];
    let mut above: Vec<usize> = Vec::new();
    for i in 0..places.len() {
        while let Some(&top) = above.last() {
            if is_below(places[i], places[top]) {
                break;
            }
            above.pop();
            if let Some(&next) = above.last() {
                weights[next] += weights[top];
            }
        }
        above.push(i);
    }
    while let Some(top) = above.pop() {
        if let Some(&next) = above.last() {
            weights[next] += weights[top];
        }
    }
    weights
}

/// The places that a bucket reaches below.
fn reached_below(present: &Buckets) -> HashSet<&str> {
    present.iter().flat_map(|b| b.prefix.match_indices('/').map(|(cut, _)| &b.prefix[..cut])).collect()
}

fn families<'a>(places: &[&'a str], layout: &mut Layout) -> Vec<Family<'a>> {
    let mut families: Vec<Family<'a>> = Vec::new();
    for &place in places.iter().filter(|p| !layout.domains.contains(**p)) {
        match families.last_mut() {
            Some(family) if is_below(place, family.top) => {
                family.weight += 1;
                layout.tops.insert(place.to_owned(), family.top.to_owned());
            }
            _ => families.push(Family { top: place, weight: 1 }),
        }
    }
    families
}

fn weight_below(families: &[Family<'_>], prefix: &str) -> usize {
    let from = families.partition_point(|f| families_together(f.top, prefix) == Ordering::Less);
    families[from..].iter().take_while(|f| f.top.starts_with(prefix)).map(|f| f.weight).sum()
}

fn split_all(space: Space, sizes: Sizes, families: &[Family<'_>], buckets: &mut Buckets) {
    let mut members: HashMap<Bucket, Vec<Family<'_>>> = HashMap::new();
    for family in families {
        members.entry(buckets.nearest(family.top)).or_default().push(*family);
    }
    let mut children: HashMap<Bucket, usize> = HashMap::new();
    for bucket in buckets.iter() {
        *children.entry(buckets.parent(bucket)).or_default() += 1;
    }
    let mut open: Vec<(Bucket, Vec<Family<'_>>)> = members.into_iter().collect();
    while let Some((bucket, families)) = open.pop() {
        let others = children.get(&bucket).copied().unwrap_or_default();
        if families.iter().map(|f| f.weight).sum::<usize>() + others > sizes.split_above {
            for (new, families) in split(space, sizes, &bucket, &families, others) {
                buckets.insert(new.clone());
                open.push((new, families));
            }
        }
    }
}

/// Cuts a bucket's families by their next character, and gives the largest groups buckets of their own.
fn split<'a>(
    space: Space,
    sizes: Sizes,
    bucket: &Bucket,
    families: &[Family<'a>],
    mut others: usize,
) -> Vec<(Bucket, Vec<Family<'a>>)> {
    let mut prefix = if bucket.whole { format!("{}/", bucket.prefix) } else { bucket.prefix.clone() };
    let mut groups: Vec<(String, Vec<Family<'a>>)>;
    loop {
        groups = Vec::new();
        let mut whole_group = true;
        for family in families {
            let Some(next) = family.top.get(prefix.len()..).and_then(|rest| rest.chars().next()) else {
                whole_group = false;
                continue;
            };
            match groups.iter_mut().find(|(p, _)| p[prefix.len()..].starts_with(next)) {
                Some((_, group)) => group.push(*family),
                None => groups.push((format!("{prefix}{next}"), vec![*family])),
            }
        }
        match &groups[..] {
            [(longer, _)] if whole_group && families.len() > 1 => prefix.clone_from(longer),
            _ => break,
        }
    }
    let weight = |group: &[Family<'_>]| group.iter().map(|f| f.weight).sum::<usize>();
    groups.sort_by_key(|(prefix, group)| (std::cmp::Reverse(weight(group)), prefix.clone()));
    let mut left = families.iter().map(|f| f.weight).sum::<usize>();
    let mut new = Vec::new();
    for (prefix, group) in groups {
        if left + others <= sizes.split_down_to {
            break;
        }
        if weight(&group) < sizes.group_min || group.len() < 2 {
            continue;
        }
        if let Some(bucket) = common_prefix(space, sizes, &prefix, &group) {
            left -= weight(&group);
            others += 1;
            new.push((bucket, group));
        }
    }
    new
}

/// The bucket of a group: at the longest prefix its families share, so that no bucket has a single child.
fn common_prefix(space: Space, sizes: Sizes, at_least: &str, group: &[Family<'_>]) -> Option<Bucket> {
    let first = group[0].top;
    let shared = group[1..].iter().fold(first.len(), |shared, family| {
        first.bytes().zip(family.top.bytes()).take(shared).take_while(|(a, b)| a == b).count()
    });
    let worth_more = group.iter().map(|f| f.weight).sum::<usize>() > sizes.split_above;
    let longest = if worth_more { shared } else { at_least.len() };
    (at_least.len()..=longest)
        .rev()
        .filter(|length| first.is_char_boundary(*length))
        .map(|length| &first[..length])
        .find(|prefix| rule::bucket(space, prefix, false).is_some())
        .map(|prefix| Bucket::new(prefix, false))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn laid_out(places: &[String]) -> Layout {
        layout(Space::Paths, Sizes::default(), places.iter().map(String::as_str), &Buckets::default())
    }

    fn users(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("/user/{}{i:05}", ["s", "anna", "bob.", "zoë"][i % 4])).collect()
    }

    #[test]
    fn a_small_table_has_no_buckets() {
        let mut places = users(Sizes::default().split_above);
        places.push(String::new());
        let layout = laid_out(&places);
        assert_eq!(layout.buckets.iter().count(), 0);
        assert_eq!(layout.domains, HashSet::from([String::new()]));
    }

    #[test]
    fn no_bucket_is_overfull() {
        let places = users(5000);
        let layout = laid_out(&places);
        let mut children: HashMap<Bucket, usize> = HashMap::new();
        for place in &places {
            *children.entry(layout.bucket_of(place)).or_default() += 1;
        }
        for bucket in layout.buckets.iter() {
            *children.entry(layout.buckets.parent(bucket)).or_default() += 1;
        }
        let fullest = children.values().max().copied().unwrap_or_default();
        assert!(fullest <= Sizes::default().split_above, "{fullest}");
    }

    #[test]
    fn a_base_url_is_a_domain() {
        let mut places: Vec<_> = users(500).iter().map(|p| format!("/jupyter{p}")).collect();
        places.push("/jupyter".to_owned());
        let layout = laid_out(&places);
        assert!(layout.domains.contains("/jupyter"));
        assert!(layout.buckets.contains(&Bucket::new("/jupyter", true)));
        assert!(layout.buckets.iter().all(|b| b.prefix.starts_with("/jupyter")));
    }

    #[test]
    fn what_is_there_stays_between_the_limits() {
        let full = users(1000);
        let first = laid_out(&full);
        let half: Vec<_> = full.iter().take(500).collect();
        let again = layout(Space::Paths, Sizes::default(), half.iter().map(|p| p.as_str()), &first.buckets);
        assert!(first.buckets.iter().filter(|b| again.buckets.contains(b)).count() > 0);
        let few = layout(Space::Paths, Sizes::default(), full.iter().take(20).map(String::as_str), &first.buckets);
        assert_eq!(few.buckets.iter().count(), 0);
    }

    proptest! {
        #[test]
        fn a_bucket_never_reaches_below_a_leaf(names in proptest::collection::vec("[ab@/é]{1,5}", 0..400)) {
            let mut places: Vec<String> = names.iter()
                .filter_map(|n| crate::route::RouteSpec::from_decoded(n).ok())
                .map(|s| Space::Paths.place(&s).to_owned())
                .collect();
            places.sort();
            places.dedup();
            let layout = laid_out(&places);
            for place in places.iter().filter(|p| !layout.domains.contains(*p)) {
                prop_assert!(layout.buckets.iter().all(|b| !is_below(&b.prefix, place)));
                prop_assert!(layout.bucket_of(place).holds(place));
            }
        }
    }
}
