//! A folder of error pages that an administrator has written: `CODE.html`, else `error.html`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderValue, StatusCode};
use tracing::{debug, warn};

use super::super::files;
use super::{PAGE_BYTES_MAX, Page, PagesError};

/// Pages in files. They are read at each request, so a change is seen at once.
pub(super) struct Folder(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// What was last complained of: users can ask for a broken page as often as they like.
    told: Mutex<Option<String>>,
}

impl Folder {
    /// The folder at `path`, which must be there.
    pub(super) fn new(path: &Path) -> Result<Self, PagesError> {
        let refuse = |reason: String| Err(PagesError { setting: "--error-path", reason });
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                Ok(Self(Arc::new(Inner { path: path.to_owned(), told: Mutex::default() })))
            }
            Ok(_) => refuse(format!("{} is no folder", path.display())),
            Err(error) => refuse(format!("{}: {error}", path.display())),
        }
    }

    /// The page for `status`, if there is one.
    pub(super) async fn page(&self, status: StatusCode) -> Option<Page> {
        let inner = self.0.clone();
        let body = tokio::task::spawn_blocking(move || inner.find(status)).await.ok().flatten()?;
        let content_type = Some(HeaderValue::from_static("text/html"));
        Some(Page { body: body.into(), content_type, content_encoding: None })
    }
}

impl Inner {
    fn find(&self, status: StatusCode) -> Option<Vec<u8>> {
        let mut trouble = None;
        let names = [format!("{}.html", status.as_u16()), "error.html".to_owned()];
        let found = names.iter().find_map(|name| match self.read(name) {
            Ok(body) => Some(body),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                trouble = Some(format!("{}: {error}", self.path.join(name).display()));
                None
            }
        });
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = trouble {
            if told.as_ref() == Some(&reason) {
                debug!(reason, "A page of --error-path still can't be used: {reason}");
            } else {
                warn!(reason, "A page of --error-path can't be used: {reason}");
                *told = Some(reason);
            }
        }
        found
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        // Links are fine as long as they stay inside: a mounted ConfigMap is made of them.
        let folder = self.path.canonicalize()?;
        let file = folder.join(name).canonicalize()?;
        if !file.starts_with(&folder) {
            return Err(io::Error::other("it is a link that leads out of the folder"));
        }
        files::read(&file, PAGE_BYTES_MAX as u64)
    }
}
