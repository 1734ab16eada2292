//! How everything on one machine starts, and how a start is given up.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::one_machine::OneMachine;
use crate::support::process::{Running, free_port, program};
use crate::support::wait::eventually;

/// The hub gives a proxy 1 s; this machine may have much to do. Where a wait is not given up it takes 8 s.
const PROMPTLY: Duration = Duration::from_secs(4);

/// Starts `pointsman` with its data in `data`, and waits for nothing.
fn begin(folder: &Path, more: &[&str]) -> Running {
    let [port, api] = [free_port(), free_port()].map(|port| port.to_string());
    let traefik = program("traefik").display().to_string();
    let flags = ["--ip", "127.0.0.1", "--port", &port, "--api-ip", "127.0.0.1", "--api-port", &api];
    let names = ["--traefik-binary", &traefik, "--data-dir", "data"];
    Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &[flags.as_slice(), &names, more].concat(), &[], folder)
}

/// Whether a process catches SIGTERM; until it does it ends as any other.
fn catches_term(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & (1 << 14) != 0)
}

#[tokio::test]
async fn a_stop_during_the_start_is_prompt_and_the_next_one_can_start() {
    let folder = tempfile::tempdir().unwrap();
    // Later and later into the start, and beyond it.
    for ms in [0, 10, 25, 50, 100, 200, 300, 400, 500, 700] {
        let mut process = begin(folder.path(), &[]);
        eventually("SIGTERM is caught", PROMPTLY * 3, || async {
            if catches_term(process.pid()) { Ok(()) } else { Err(process.log()) }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let began = Instant::now();
        process.signal("TERM");
        let code = process.end(Duration::from_secs(10)).await;
        let log = process.log();
        assert!(code == 0 && began.elapsed() < PROMPTLY, "after {ms} ms: {code} in {:?}\n{log}", began.elapsed());
        assert!(log.contains("Pointsman has stopped"), "after {ms} ms:\n{log}");
    }
    let machine = OneMachine::start_in(folder, &["--data-dir", "data"], &[]).await;
    machine.stop().await;
}

/// Another one has the folder, and is waited for.
#[tokio::test]
async fn a_start_that_waits_for_its_folder_can_be_stopped() {
    let machine = OneMachine::start(&["--data-dir", "data"]).await;
    let data = machine.file("data");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut second = begin(elsewhere.path(), &["--data-dir", data.to_str().unwrap()]);
    eventually("SIGTERM is caught", PROMPTLY * 3, || async {
        if catches_term(second.pid()) { Ok(()) } else { Err(second.log()) }
    })
    .await;
    let began = Instant::now();
    second.signal("TERM");
    let code = second.end(Duration::from_secs(10)).await;
    assert!(code == 0 && began.elapsed() < PROMPTLY, "{code} in {:?}\n{}", began.elapsed(), second.log());
    machine.stop().await;
}

#[tokio::test]
async fn a_folder_that_others_may_write_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for mode in [0o775, 0o777, 0o702] {
        std::fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        let mut process = begin(folder.path(), &[]);
        let code = process.end(Duration::from_secs(10)).await;
        let log = process.log();
        let remedy = format!("--data-dir: other users may write to {} (mode 0{mode:03o})", data.display());
        assert!(code == 1 && log.contains(&remedy) && log.contains("chmod go-w"), "{code}: {log}");
        assert!(std::fs::read_dir(&data).unwrap().next().is_none(), "nothing is made there");
    }
    // As in a container, which has no other users.
    let machine = OneMachine::start_in(folder, &["--data-dir", "data", "--shared-folders"], &[]).await;
    machine.stop().await;
}

/// On a full disk nothing could be written, and users would reach no server.
#[tokio::test]
async fn a_start_without_a_change_writes_nothing() {
    async fn marker(machine: &OneMachine) -> String {
        eventually("Traefik serves the routes", PROMPTLY * 5, || async {
            let reply = machine.get("/_chp_healthz").await;
            let marker = reply.header("x-pointsman-revision").map(str::to_owned);
            marker.filter(|_| reply.status == 200).ok_or_else(|| format!("{reply:?}\n{}", machine.process.log()))
        })
        .await
    }
    let machine = OneMachine::start(&["--data-dir", "data"]).await;
    machine.add("/user/a", "http://127.0.0.1:1").await;
    let before = marker(&machine).await;
    let machine = OneMachine::start_in(machine.stop().await, &["--data-dir", "data"], &[]).await;
    assert_eq!(marker(&machine).await, before, "the tree was written anew\n{}", machine.process.log());
    // What this test would see otherwise: without the port the next start has another one.
    std::fs::remove_file(machine.file("data/pages-port")).unwrap();
    let machine = OneMachine::start_in(machine.stop().await, &["--data-dir", "data"], &[]).await;
    assert_ne!(marker(&machine).await, before);
    machine.stop().await;
}
