//! The API at a Unix socket: its file, and what is there before and after.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pointsman::api::listen::{Limits, Listener};
use pointsman::api::pages;
use pointsman::lifecycle::Lifecycle;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::support::api::request;
use crate::support::http::{Connection, PATIENCE, Reply};

async fn bind(path: &Path) -> Result<Listener, String> {
    Listener::bind_unix("--api-socket", path, Limits::default()).await.map_err(|error| error.to_string())
}

async fn serve(path: &Path) -> Lifecycle {
    let lifecycle = Lifecycle::new();
    let listener = bind(path).await.expect("listens");
    assert!(listener.addresses().is_empty());
    let router = pages::router(&pages::PagesSettings::default()).expect("usable");
    lifecycle.spawn_front("api", listener.serve("api", router, lifecycle.draining()));
    lifecycle
}

async fn ask(path: &Path) -> Reply {
    let mut connection = Connection::over(UnixStream::connect(path).await.expect("connects"));
    connection.send(request("GET /_chp_healthz", "", "")).await;
    connection.reply().await
}

async fn end(lifecycle: Lifecycle) {
    lifecycle.stop();
    timeout(PATIENCE, lifecycle.finished()).await.expect("ends").expect("nothing crashed");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// What a process leaves behind that was killed.
fn leave_stale(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).expect("binds"));
    assert!(path.exists());
}

#[tokio::test]
async fn it_serves_and_removes_its_file_at_the_stop() {
    let folder = folder();
    let path = folder.path().join("api.sock");
    let lifecycle = serve(&path).await;
    assert_eq!(ask(&path).await.status, 200);
    // A folder gets exactly what the umask leaves.
    std::fs::create_dir(folder.path().join("x")).expect("a folder");
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode("api.sock"), mode("x"));
    end(lifecycle).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_relative_path_will_do() {
    let folder = tempfile::tempdir_in(".").expect("a folder here");
    let path = PathBuf::from(folder.path().file_name().expect("a name")).join("api.sock");
    assert!(path.is_relative());
    let lifecycle = serve(&path).await;
    assert_eq!(ask(&path).await.status, 200);
    end(lifecycle).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_file_makes_room() {
    let folder = folder();
    let path = folder.path().join("api.sock");
    leave_stale(&path);
    let lifecycle = serve(&path).await;
    assert_eq!(ask(&path).await.status, 200);
    end(lifecycle).await;
}

#[tokio::test]
async fn a_socket_where_somebody_answers_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("api.sock");
    let lifecycle = serve(&path).await;
    let error = bind(&path).await.expect_err("it is in use");
    assert!(error.contains("another program listens there") && error.contains("--api-socket"), "{error}");
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert_eq!(ask(&path).await.status, 200, "the first one goes on");
    end(lifecycle).await;
}

#[tokio::test]
async fn nothing_but_a_socket_is_ever_removed() {
    let folder = folder();
    let path = folder.path().join("precious.txt");
    std::fs::write(&path, "precious").expect("a file");
    let error = bind(&path).await.expect_err("it is a file");
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    assert!(bind(&link).await.expect_err("it is a link").contains("no socket"));
}

#[tokio::test]
async fn the_file_of_a_successor_stays() {
    let folder = folder();
    let path = folder.path().join("api.sock");
    let lifecycle = serve(&path).await;
    std::fs::remove_file(&path).expect("removed by somebody");
    let _successor = UnixListener::bind(&path).expect("binds");
    end(lifecycle).await;
    assert!(path.exists());
}

#[tokio::test]
async fn what_is_wrong_with_a_path_is_said() {
    let folder = folder();
    for (path, says) in [
        (folder.path().join("none/api.sock"), "folder does not exist"),
        (folder.path().join("x".repeat(120)), "107 bytes at most"),
        (PathBuf::new(), "the path is empty"),
    ] {
        let error = bind(&path).await.expect_err("no such place");
        assert!(error.contains(says) && error.contains("--api-socket"), "{error}");
    }
}
