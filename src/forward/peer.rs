//! Whose process is at the other end of a loopback connection.
//!
//! Anybody with a shell on this machine can connect to a loopback address, while the Unix socket behind it lets in only
//! whom its mode allows. So before a byte is carried the kernel is asked who owns the client's end of the connection.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use tracing::debug;

/// The kernel answers at once; if not, something is broken.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The states of a TCP socket whose process may still write or read: established, and closed in one direction.
const OPEN_STATES: [u8; 4] = [1, 4, 5, 8];

/// Asks the kernel who owns sockets, and knows whom to let in.
#[derive(Debug)]
pub(super) struct Doorman {
    users: BTreeSet<u32>,
    /// Connections to the kernel's socket diagnosis; `None` where it isn't to be had.
    kernel: Mutex<Option<Diagnosis>>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of a user who may connect.
    LetIn,
    /// A process of another user.
    Foreign(u32),
    /// The process has closed its end already, and then nobody can tell any more whose it was. The kernel lists such
    /// sockets as root's: a foreign process that sends and closes quickly must not pass for root.
    Gone,
}

impl Doorman {
    /// Lets in our own user and root.
    pub(super) fn ours() -> Self {
        Self::of([rustix::process::geteuid().as_raw(), 0])
    }

    /// Lets in these users.
    pub(super) fn of(users: impl IntoIterator<Item = u32>) -> Self {
        let kernel = Diagnosis::open().inspect_err(|error| {
            debug!(%error, "The kernel's socket diagnosis can't be used ({error}); reading /proc/net/tcp instead");
        });
        Self { users: users.into_iter().collect(), kernel: Mutex::new(kernel.ok()) }
    }

    /// Who has connected from `client` to our `listener`. An error means that nobody could be asked: let nobody in.
    pub(super) fn look(&self, client: SocketAddrV4, listener: SocketAddrV4) -> io::Result<Peer> {
        let asked = self
            .kernel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .map(|kernel| kernel.owner(client, listener));
        let owner = match asked {
            Some(Ok(owner)) => owner,
            Some(Err(error)) => {
                debug!(%error, "The kernel's socket diagnosis failed: {error}");
                from_proc(client, listener)?
            }
            None => from_proc(client, listener)?,
        };
        Ok(match owner {
            // Without an inode the socket has no process any more, whatever user is shown.
            Some(Owner { inode: 1.., state, user }) if OPEN_STATES.contains(&state) => {
                if self.users.contains(&user) {
                    Peer::LetIn
                } else {
                    Peer::Foreign(user)
                }
            }
            _ => Peer::Gone,
        })
    }
}

/// What the kernel says about one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    state: u8,
    user: u32,
    inode: u64,
}

/// A netlink socket for questions about sockets. One exact question costs microseconds, however many sockets there are.
#[derive(Debug)]
struct Diagnosis {
    kernel: OwnedFd,
    questions: u32,
}

/// The lengths of netlink's header and of `inet_diag_req_v2`, in bytes.
const HEADER: usize = 16;
const QUESTION: usize = 56;

impl Diagnosis {
    fn open() -> io::Result<Self> {
        let kernel =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        set_socket_timeout(&kernel, Timeout::Recv, Some(ANSWER_MAX))?;
        let mut diagnosis = Self { kernel, questions: 0 };
        // Where a question isn't allowed, this one isn't either.
        let nobody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        diagnosis.owner(nobody, nobody)?;
        Ok(diagnosis)
    }

    /// The socket with these two ends, seen from `client`.
    fn owner(&mut self, client: SocketAddrV4, listener: SocketAddrV4) -> io::Result<Option<Owner>> {
        self.questions = self.questions.wrapping_add(1);
        let question = question(self.questions, client, listener);
        sendto(&self.kernel, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let mut answer = [0; 4096];
            let (length, _) = recv(&self.kernel, &mut answer, RecvFlags::empty())?;
            match answered(&answer[..length], self.questions, client)? {
                Answer::Found(owner) => return Ok(Some(owner)),
                Answer::NoSuchSocket => return Ok(None),
                Answer::ToAnotherQuestion => {}
            }
        }
    }
}

fn question(number: u32, client: SocketAddrV4, listener: SocketAddrV4) -> Vec<u8> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST: u16 = 1;
    const IPV4: u8 = 2;
    const TCP: u8 = 6;
    const ANY: u32 = u32::MAX;
    let mut bytes = Vec::with_capacity(HEADER + QUESTION);
    bytes.extend(u32::try_from(HEADER + QUESTION).unwrap_or_default().to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([IPV4, TCP, 0, 0]);
    bytes.extend(ANY.to_ne_bytes());
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(listener.port().to_be_bytes());
    for address in [client, listener] {
        bytes.extend(address.ip().octets());
        bytes.extend([0; 12]);
    }
    // Any interface, and the kernel need not check that the socket is still the same one.
    for value in [0, ANY, ANY] {
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}

/// What the kernel answers to a question.
enum Answer {
    Found(Owner),
    NoSuchSocket,
    ToAnotherQuestion,
}

fn answered(bytes: &[u8], number: u32, client: SocketAddrV4) -> io::Result<Answer> {
    const ERROR: u16 = 2;
    const NO_SUCH_SOCKET: i32 = -2;
    const STATE: usize = HEADER + 1;
    const PORT: usize = HEADER + 4;
    const USER: usize = HEADER + 64;
    const INODE: usize = HEADER + 68;
    let short = || io::Error::other("the kernel's answer is too short");
    let word = |at: usize| -> io::Result<[u8; 4]> {
        bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).ok_or_else(short)
    };
    let (kind, sequence) = (word(4)?, word(8)?);
    if u32::from_ne_bytes(sequence) != number {
        return Ok(Answer::ToAnotherQuestion);
    }
    if u16::from_ne_bytes([kind[0], kind[1]]) == ERROR {
        return match i32::from_ne_bytes(word(HEADER)?) {
            NO_SUCH_SOCKET => Ok(Answer::NoSuchSocket),
            code => Err(io::Error::from_raw_os_error(-code)),
        };
    }
    let port = word(PORT)?;
    if u16::from_be_bytes([port[0], port[1]]) != client.port() {
        return Ok(Answer::NoSuchSocket);
    }
    let state = *bytes.get(STATE).ok_or_else(short)?;
    let user = u32::from_ne_bytes(word(USER)?);
    Ok(Answer::Found(Owner { state, user, inode: u32::from_ne_bytes(word(INODE)?).into() }))
}

/// The slow way, for places where netlink is forbidden: the whole table of sockets, as text.
fn from_proc(client: SocketAddrV4, listener: SocketAddrV4) -> io::Result<Option<Owner>> {
    let own = find_in_table(&std::fs::read_to_string("/proc/net/tcp")?, &ends(client, listener, ""));
    // A socket of IPv6 may have connected to an address of IPv4.
    Ok(own.or_else(|| {
        let table = std::fs::read_to_string("/proc/net/tcp6").ok()?;
        find_in_table(&table, &ends(client, listener, MAPPED))
    }))
}

/// What `/proc/net/tcp6` puts before an address of IPv4.
const MAPPED: &str =
    if cfg!(target_endian = "little") { "0000000000000000FFFF0000" } else { "00000000000000000000FFFF" };

/// Both ends of a connection as the table has them.
fn ends(client: SocketAddrV4, listener: SocketAddrV4, before: &str) -> [String; 2] {
    [client, listener].map(|end| {
        let address = u32::from_ne_bytes(end.ip().octets());
        format!("{before}{address:08X}:{:04X}", end.port())
    })
}

fn find_in_table(table: &str, ends: &[String; 2]) -> Option<Owner> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, remote, state, _, _, _, user, _, inode, ..] = fields[..] else { return None };
        if local != ends[0] || remote != ends[1] {
            return None;
        }
        let state = u8::from_str_radix(state, 16).ok()?;
        Some(Owner { state, user: user.parse().ok()?, inode: inode.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    fn v4(address: io::Result<SocketAddr>) -> SocketAddrV4 {
        match address.expect("an address") {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address}"),
        }
    }

    /// A connection, and the two ends as the doorman is told them.
    fn connection() -> (TcpStream, TcpStream, SocketAddrV4, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
        let (server, from) = listener.accept().expect("accepts");
        let to = v4(server.local_addr());
        (client, server, v4(Ok(from)), to)
    }

    /// Every way to ask.
    fn both(users: &[u32]) -> [Doorman; 2] {
        let asking = Doorman::of(users.iter().copied());
        assert!(asking.kernel.lock().expect("sound").is_some(), "no netlink here");
        let reading = Doorman { users: users.iter().copied().collect(), kernel: Mutex::new(None) };
        [asking, reading]
    }

    #[test]
    fn our_own_process_is_let_in_and_a_stranger_is_named() {
        let us = rustix::process::geteuid().as_raw();
        let (_client, _server, from, to) = connection();
        assert_eq!(Doorman::ours().look(from, to).expect("asked"), Peer::LetIn);
        for doorman in both(&[us + 1]) {
            assert_eq!(doorman.look(from, to).expect("asked"), Peer::Foreign(us), "{doorman:?}");
        }
    }

    #[test]
    fn who_has_closed_already_is_nobody_and_never_root() {
        let us = rustix::process::geteuid().as_raw();
        let (client, _server, from, to) = connection();
        drop(client);
        for doorman in both(&[us, 0]) {
            assert_eq!(doorman.look(from, to).expect("asked"), Peer::Gone, "{doorman:?}");
        }
        let nowhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        assert_eq!(Doorman::ours().look(nowhere, to).expect("asked"), Peer::Gone);
    }

    #[test]
    fn a_client_that_has_only_stopped_sending_is_known() {
        let (client, _server, from, to) = connection();
        client.shutdown(std::net::Shutdown::Write).expect("shut down");
        for doorman in both(&[rustix::process::geteuid().as_raw()]) {
            assert_eq!(doorman.look(from, to).expect("asked"), Peer::LetIn, "{doorman:?}");
        }
    }

    #[test]
    fn a_client_of_ipv6_is_found_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let to = v4(listener.local_addr());
        let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), to.port()));
        let Ok(_client) = TcpStream::connect(mapped) else { return };
        let (_server, from) = listener.accept().expect("accepts");
        for doorman in both(&[rustix::process::geteuid().as_raw()]) {
            assert_eq!(doorman.look(v4(Ok(from)), to).expect("asked"), Peer::LetIn, "{doorman:?}");
        }
    }

    #[test]
    fn a_listener_on_the_clients_port_does_not_vouch_for_it() {
        let (port, to) = (TcpListener::bind("127.0.0.1:0").expect("binds"), connection().3);
        let from = v4(port.local_addr());
        for doorman in both(&[rustix::process::geteuid().as_raw()]) {
            assert_eq!(doorman.look(from, to).expect("asked"), Peer::Gone, "{doorman:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_and_no_table_breaks_the_reader(bytes in any::<Vec<u8>>(), table in any::<String>()) {
            let client = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
            let _ = answered(&bytes, 1, client);
            let _ = find_in_table(&table, &ends(client, client, ""));
        }
    }
}
