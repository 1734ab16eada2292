//! The kernel's table of TCP connections, as `ss -ti` shows it: where each leads, how much was sent, and when last.
//!
//! It shows the connections of one network namespace, to anybody, and tells nothing of what is in them.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

use super::servers::normal;
use super::streams::Connection;

/// The kernel sends pieces of up to 32 KiB.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Where in `struct tcp_info` of `linux/tcp.h` the fields lie; the structure only ever grew at its end.
mod tcp_info {
    /// Milliseconds since data was last sent.
    pub(super) const LAST_DATA_SENT: usize = 44;
    /// Bytes sent, repeated ones included; since Linux 4.19.
    pub(super) const BYTES_SENT: usize = 200;
    /// Bytes that were sent again.
    pub(super) const BYTES_RETRANS: usize = 208;
}

/// The open connections of this network namespace to these ports, or to any if none is named; only those of this process,
/// if one is named. Takes some milliseconds for thousands of them; how long each was idle is true for the moment of the return.
pub fn connections(ports: &[u16], process: Option<u32>) -> io::Result<Vec<Connection>> {
    let owned = process.map(sockets_of).transpose()?;
    read(ports, |header| owned.as_ref().is_none_or(|owned| owned.contains(&header.inode)))
}

/// The same without those that came in, of users or anybody: what may be told to others.
pub fn outgoing(ports: &[u16]) -> io::Result<Vec<Connection>> {
    let socket = open()?;
    let mut listening = HashSet::new();
    for family in [AF_INET, AF_INET6] {
        dump(&socket, family, 0, StateFlags::LISTEN, |response| {
            listening.insert(response.header.socket_id.source_port);
        })?;
    }
    // Linux never takes a port that somebody listens on for a connection of its own.
    read(ports, |header| !listening.contains(&header.socket_id.source_port))
}

fn read(ports: &[u16], wanted: impl Fn(&InetResponseHeader) -> bool) -> io::Result<Vec<Connection>> {
    let socket = open()?;
    let (mut found, mut unreadable): (Vec<(Connection, Instant)>, _) = (Vec::new(), false);
    let every_port = [0];
    for port in if ports.is_empty() { &every_port } else { ports } {
        for family in [AF_INET, AF_INET6] {
            dump(&socket, family, *port, StateFlags::ESTABLISHED, |response| {
                if wanted(&response.header) {
                    match connection(response) {
                        Some(connection) => found.push((connection, Instant::now())),
                        None => unreadable = true,
                    }
                }
            })?;
        }
    }
    if unreadable {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it needs Linux 4.19 or newer"));
    }
    // Each dump goes through a table that is as large as the machine's memory allows, which takes milliseconds.
    let until_now =
        |(connection, at): (Connection, Instant)| Connection { idle: connection.idle + at.elapsed(), ..connection };
    Ok(found.into_iter().map(until_now).collect())
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn dump(
    socket: &Socket,
    family: u8,
    port: u16,
    states: StateFlags,
    mut each: impl FnMut(&InetResponse),
) -> io::Result<()> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.destination_port = port;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::INFO, states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut piece = Vec::with_capacity(PIECE_BYTES_MAX);
    loop {
        piece.clear();
        let length = socket.recv(&mut piece, 0)?;
        let mut rest = &piece[..length.min(piece.len())];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match &message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => each(response),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
            // Messages begin at multiples of four bytes.
            let step = (message.header.length as usize).next_multiple_of(4);
            if step == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an empty message"));
            }
            rest = rest.get(step..).unwrap_or_default();
        }
    }
}

fn connection(response: &InetResponse) -> Option<Connection> {
    let info = response.nlas.iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None })?;
    let idle = info.get(tcp_info::LAST_DATA_SENT..)?.first_chunk().copied().map(u32::from_ne_bytes)?;
    let sum = |at: usize| info.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes);
    let sent = sum(tcp_info::BYTES_SENT)?.saturating_sub(sum(tcp_info::BYTES_RETRANS)?);
    let id = &response.header.socket_id;
    Some(Connection {
        server: normal(id.destination_address, id.destination_port),
        id: u64::from_ne_bytes(id.cookie),
        sent,
        idle: Duration::from_millis(u64::from(idle)),
    })
}

/// The inodes of a process's sockets.
fn sockets_of(process: u32) -> io::Result<HashSet<u32>> {
    let mut inodes = HashSet::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        // One that was closed meanwhile is no error.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        inodes.extend(inode.and_then(|inode| inode.parse::<u32>().ok()));
    }
    Ok(inodes)
}
