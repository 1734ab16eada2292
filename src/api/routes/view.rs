//! Routes as JSON, as the hub reads them: what was posted, when it was last used if that is known, and the host with host routing.

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::route::Route;

/// All routes: an object from path to record.
pub(super) struct Listing<'a> {
    /// The routes, and when each was last used.
    pub(super) routes: &'a [(&'a Route, Option<Timestamp>)],
    /// The first segment of each is a host.
    pub(super) host_routing: bool,
}

/// One route's record. An unknown `last_activity` is absent: `null` breaks the hub.
pub(super) struct RouteView<'a> {
    /// The route.
    pub(super) route: &'a Route,
    /// When it was last used, if that is known.
    pub(super) last: Option<Timestamp>,
    /// Its first segment is a host.
    pub(super) host_routing: bool,
}

impl Serialize for Listing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let host_routing = self.host_routing;
        let views = self.routes.iter().map(|(route, last)| (*route, RouteView { route, last: *last, host_routing }));
        serializer.collect_map(views.map(|(route, view)| (route.spec.as_str(), view)))
    }
}

impl Serialize for RouteView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.route.data {
            if key != "target" {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("target", self.route.target.as_str())?;
        if let Some(last) = self.last {
            // Three digits, as JavaScript writes times.
            map.serialize_entry("last_activity", &format_args!("{last:.3}"))?;
        }
        if self.host_routing && !self.route.spec.is_root() {
            map.serialize_entry("host", self.route.spec.as_str()[1..].split('/').next().unwrap_or_default())?;
        }
        map.end()
    }
}
