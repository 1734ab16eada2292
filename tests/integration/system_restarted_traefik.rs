//! A Traefik of our own that is killed and started again, as its users see it.

use std::collections::BTreeMap;
use std::process::Command;

use tokio::task::JoinSet;

use crate::support::http::{Connection, PATIENCE, Reply, Server, response};
use crate::support::one_machine::OneMachine;
use crate::support::wait::eventually;

/// Fewer than fit into the smallest queue that a listening socket has by default.
const CLIENTS: usize = 100;

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "{pid} gets no {name}");
}

fn visits(machine: &OneMachine) -> JoinSet<Reply> {
    let mut visits = JoinSet::new();
    for _ in 0..CLIENTS {
        let address = machine.public_address();
        visits.spawn(async move {
            let mut connection = Connection::open(address).await;
            connection.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
            connection.reply().await
        });
    }
    visits
}

/// How many got each answer: the status, and whether it says when to come again.
fn counted(replies: Vec<Reply>) -> BTreeMap<(u16, bool), usize> {
    replies.into_iter().fold(BTreeMap::new(), |mut counts, reply| {
        *counts.entry((reply.status, reply.header("retry-after").is_some())).or_default() += 1;
        counts
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_waits_for_a_restarted_traefik_gets_404() {
    let server = Server::start(|_| Some(response(200, "", "the server"))).await;
    let machine = OneMachine::start(&[]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    assert_eq!(machine.get("/x").await.status, 200);

    let pid = machine.traefik().expect("it runs");
    // It accepts no more, and all of them wait in the queue of its socket.
    signal(pid, "STOP");
    eventually("Traefik stands still", PATIENCE, || async {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
        if stat.contains("(traefik) T ") { Ok(()) } else { Err(stat) }
    })
    .await;
    let mut queued = Vec::new();
    for _ in 0..CLIENTS {
        let mut connection = machine.connect().await;
        connection.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
        queued.push(connection);
    }
    signal(pid, "KILL");
    let late = visits(&machine);
    let mut replies = Vec::new();
    for mut connection in queued {
        replies.push(connection.reply().await);
    }
    let queued = counted(replies);
    let late = counted(late.join_all().await);
    for (answer, count) in queued.iter().chain(&late) {
        assert!(
            matches!(answer, (200, _) | (503, true)),
            "{count} got {answer:?}; in the queue: {queued:?}, came then: {late:?}"
        );
    }
    assert_ne!(machine.traefik(), Some(pid));
    assert_eq!(machine.get("/x").await.status, 200);
    machine.stop().await;
}
