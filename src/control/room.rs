//! How much the table takes, and how much of it one caller may fill.

use crate::route::{RouteSpec, Weight};

/// How much the table takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All routes together.
    pub max: Weight,
    /// Those below the prefixes of one caller who is limited to some, in percent of that.
    pub share_percent: usize,
}

impl Room {
    /// The part of a caller who may change routes below these prefixes only; `None` if that is all routes.
    pub(super) fn share(&self, below: &[RouteSpec]) -> Option<Weight> {
        let part = |all: usize| (all / 100).saturating_mul(self.share_percent) + all % 100 * self.share_percent / 100;
        let max = Weight { routes: part(self.max.routes), bytes: part(self.max.bytes) };
        (!below.iter().any(RouteSpec::is_root)).then_some(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_both_limits_and_who_may_do_everything_has_none() {
        let spec = |path: &str| RouteSpec::from_decoded(path).expect("valid");
        let share = |routes, bytes, share_percent| {
            Room { max: Weight { routes, bytes }, share_percent }.share(&[spec("/a"), spec("/b")])
        };
        assert_eq!(share(50_000, 64 << 20, 10), Some(Weight { routes: 5_000, bytes: 6_710_886 }));
        assert_eq!(share(30, 130, 10), Some(Weight { routes: 3, bytes: 13 }));
        assert_eq!(share(usize::MAX, usize::MAX, 100), Some(Weight { routes: usize::MAX, bytes: usize::MAX }));
        let everything = Room { max: Weight { routes: 1, bytes: 1 }, share_percent: 1 };
        assert_eq!(everything.share(&[spec("/a"), RouteSpec::root()]), None);
    }
}
