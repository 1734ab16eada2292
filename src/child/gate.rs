//! The gate before the sockets for users: closed from the end of one Traefik until the next one serves.
//!
//! Traefik accepts connections before it has read its configuration, and answers all that wait with 404. While the gate
//! is closed the kernel drops the packets of new clients, and they send them again after 1 s, as the TCP of every system
//! does. Who waits when the gate closes is answered by us.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use socket2::{SockFilter, SockRef};
use tracing::{debug, warn};

/// A socket for users.
#[derive(Debug, Clone)]
pub struct Door {
    /// It listens. Shared with every Traefik.
    pub socket: Arc<TcpListener>,
    /// What a client is answered that waits there when Traefik ends: a whole answer in HTTP. `None` where TLS is spoken:
    /// such a connection is closed.
    pub busy: Option<Arc<[u8]>>,
}

/// A program for the kernel that drops every packet: it returns how much of each is kept.
const DROP_ALL: [(u16, u8, u8, u32); 1] = [(0x06, 0, 0, 0)];

/// So many clients are answered at most when the gate closes.
const ANSWERS_MAX: usize = 8192;

/// A request that is longer than so many reads of 16 KiB is not read to its end.
const READS_MAX: usize = 8;

/// Lets no new client in from now on, and answers those that wait.
pub(super) fn close(doors: &[Door]) {
    for door in doors {
        let filter = DROP_ALL.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k));
        if let Err(error) = SockRef::from(&*door.socket).attach_filter(&filter) {
            warn!(%error, "New clients can't be held back until Traefik serves: {error}; some may get 404");
        }
    }
    let answered: usize = doors.iter().map(answer_all).sum();
    if answered > 0 {
        debug!(clients = answered, "Answered the clients that waited when Traefik ended");
    }
}

/// Lets clients in, whether they were held back or not.
pub(super) fn open(doors: &[Door]) {
    for door in doors {
        // Without a filter it is an error that says so.
        let _ = SockRef::from(&*door.socket).detach_filter();
    }
}

fn answer_all(door: &Door) -> usize {
    // Nobody else accepts now, and nobody new arrives: so this ends.
    let waiting = std::iter::from_fn(|| door.socket.accept().ok()).take(ANSWERS_MAX);
    waiting
        .map(|(stream, _)| {
            if let Some(busy) = &door.busy
                && let Err(error) = answer(stream, busy)
            {
                debug!(%error, "A client could not be answered: {error}");
            }
        })
        .count()
}

fn answer(mut stream: TcpStream, busy: &[u8]) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // What is left unread would reset the connection, and the answer with it.
    let mut bytes = [0; 16 * 1024];
    for _ in 0..READS_MAX {
        if !matches!(stream.read(&mut bytes), Ok(1..)) {
            break;
        }
    }
    stream.write_all(busy)?;
    stream.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    fn listening(busy: Option<&[u8]>) -> (Door, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("set");
        let address = socket.local_addr().expect("an address");
        (Door { socket: Arc::new(socket), busy: busy.map(Arc::from) }, address)
    }

    #[test]
    fn who_waits_is_answered_and_nobody_else_comes_in_until_it_opens() {
        let (door, address) = listening(Some(b"HTTP/1.1 503 Later\r\n\r\n"));
        let mut waiting = TcpStream::connect(address).expect("connects");
        waiting.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        close(std::slice::from_ref(&door));
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).expect("an answer, and its end");
        assert_eq!(answer, "HTTP/1.1 503 Later\r\n\r\n");

        let refused = TcpStream::connect_timeout(&address, Duration::from_millis(100)).expect_err("no way in");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let late = std::thread::spawn(move || TcpStream::connect_timeout(&address, Duration::from_secs(10)));
        // One that knocks while it is closed comes in when it opens.
        open(std::slice::from_ref(&door));
        late.join().expect("no panic").expect("it comes in");
        assert!(door.socket.accept().is_ok());
        // Twice is no harm.
        open(std::slice::from_ref(&door));
    }

    #[test]
    fn over_tls_the_connection_is_closed() {
        let (door, address) = listening(None);
        let mut waiting = TcpStream::connect(address).expect("connects");
        close(std::slice::from_ref(&door));
        assert_eq!(waiting.read(&mut [0]).expect("the end"), 0);
    }
}
