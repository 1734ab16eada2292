//! `Tree`: Traefik's tree as it is in the store, read key by key.

use std::collections::BTreeMap;

use super::fixed::{MARKER_KEY, MARKER_REQUEST_KEY, Settings};
use super::marker::Marker;
use super::name::{self, Kind};

/// The fields of one router or service: what stands behind its name in the keys, and the value.
pub type Fields = Vec<(Box<str>, Box<str>)>;

/// Traefik's tree at one revision, apart from values that no other part of us looks at.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Routers of routes, buckets and catch-alls, by name.
    pub routers: BTreeMap<Box<str>, Fields>,
    /// Services of routes, by name.
    pub services: BTreeMap<Box<str>, Fields>,
    /// Middlewares of single routes, by name.
    pub middlewares: BTreeMap<Box<str>, Fields>,
    /// The keys of the fixed part, relative to the root key, without the marker.
    pub fixed: BTreeMap<String, String>,
    /// Keys under the root key that are none of ours.
    pub foreign: BTreeMap<String, String>,
    /// The marker, if it is there and can be read.
    pub marker: Option<Marker>,
    /// The marker as it is written, whether it can be read or not.
    pub marker_value: String,
    /// The revision of the marker's last change; 0 if its key is absent.
    pub marker_revision: i64,
}

/// What a name of ours may stand for; a key belongs to one, and is one of its fields.
#[derive(Clone, Copy)]
enum Entity {
    Router,
    Service,
    Middleware,
}

impl Tree {
    /// A key (relative to the root key) was written.
    pub fn put(&mut self, key: &str, value: &str, revision: i64) {
        if key == MARKER_KEY {
            self.marker = Marker::parse(value);
            value.clone_into(&mut self.marker_value);
            self.marker_revision = revision;
            return;
        }
        match place(key) {
            Some((entity, name, field)) => set(self.entities(entity).entry(name.into()).or_default(), field, value),
            None if Settings::owns(key) => drop(self.fixed.insert(key.to_owned(), value.to_owned())),
            None => drop(self.foreign.insert(key.to_owned(), value.to_owned())),
        }
    }

    /// A key (relative to the root key) was removed.
    pub fn delete(&mut self, key: &str) {
        if key == MARKER_KEY {
            self.marker = None;
            self.marker_value.clear();
            self.marker_revision = 0;
            return;
        }
        if let Some((entity, name, field)) = place(key) {
            unset(self.entities(entity), name, field);
        } else {
            self.fixed.remove(key);
            self.foreign.remove(key);
        }
    }

    fn entities(&mut self, entity: Entity) -> &mut BTreeMap<Box<str>, Fields> {
        match entity {
            Entity::Router => &mut self.routers,
            Entity::Service => &mut self.services,
            Entity::Middleware => &mut self.middlewares,
        }
    }

    /// The fixed keys that hold something else than they should, and those that should not be there.
    #[must_use]
    pub fn fixed_difference(&self, wanted: &BTreeMap<String, String>) -> (BTreeMap<String, String>, Vec<String>) {
        let puts = wanted.iter().filter(|(k, v)| self.fixed.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone()));
        // The request header's key goes with the marker.
        let deletes = self.fixed.keys().filter(|k| !wanted.contains_key(*k) && *k != MARKER_REQUEST_KEY);
        (puts.collect(), deletes.cloned().collect())
    }

    /// Whether both keys of the marker say the same.
    #[must_use]
    pub fn is_marker_whole(&self) -> bool {
        self.fixed.get(MARKER_REQUEST_KEY).is_some_and(|value| *value == self.marker_value)
    }

    /// Whether the root router is there.
    #[must_use]
    pub fn has_root(&self) -> bool {
        self.fixed.contains_key(&format!("http/routers/{}/rule", name::ROOT))
    }
}

/// One field of a router or service.
#[must_use]
pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| &**field == name).map(|(_, value)| &**value)
}

fn place(key: &str) -> Option<(Entity, &str, &str)> {
    let (kind, rest) = key.strip_prefix("http/")?.split_once('/')?;
    let (name, field) = rest.split_once('/')?;
    match (kind, name::kind(name)) {
        (_, Kind::Other) => None,
        _ if name == name::ROOT => None,
        ("routers", _) => Some((Entity::Router, name, field)),
        ("services", Kind::Route) => Some((Entity::Service, name, field)),
        ("middlewares", Kind::Route) => Some((Entity::Middleware, name, field)),
        _ => None,
    }
}

fn set(fields: &mut Fields, field: &str, value: &str) {
    match fields.iter_mut().find(|(name, _)| &**name == field) {
        Some((_, old)) => *old = value.into(),
        None => fields.push((field.into(), value.into())),
    }
}

fn unset(entities: &mut BTreeMap<Box<str>, Fields>, name: &str, field: &str) {
    if let Some(fields) = entities.get_mut(name) {
        fields.retain(|(name, _)| &**name != field);
        if fields.is_empty() {
            entities.remove(name);
        }
    }
}
