//! Routes as JSON, as the hub reads them: what was posted, and the host with host routing.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::route::Route;

/// All routes: an object from path to record.
pub(super) struct Listing<'a> {
    /// The routes.
    pub(super) routes: &'a [Arc<Route>],
    /// The first segment of each is a host.
    pub(super) host_routing: bool,
}

/// One route's record. There is no `last_activity` in it: absent means unknown, while `null` breaks the hub.
pub(super) struct RouteView<'a> {
    /// The route.
    pub(super) route: &'a Route,
    /// Its first segment is a host.
    pub(super) host_routing: bool,
}

impl Serialize for Listing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let host_routing = self.host_routing;
        serializer.collect_map(self.routes.iter().map(|route| (route.spec.as_str(), RouteView { route, host_routing })))
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
        if self.host_routing && !self.route.spec.is_root() {
            map.serialize_entry("host", self.route.spec.as_str()[1..].split('/').next().unwrap_or_default())?;
        }
        map.end()
    }
}
