use std::collections::BTreeMap;
use std::time::Duration;

use super::{EmbeddedSettings, EmbeddedStore, OpenError};
use crate::store::embedded::folder::Folder;
use crate::store::{Commit, Op, Revision, Store, StoreError, Txn};
