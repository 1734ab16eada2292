//! From an address, as an administrator may write it, to sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;
use tracing::debug;

use crate::socket::lengthen_queue;

/// Sockets for `ip`: an address, a host name (all its addresses), or every interface if it is empty or `*`. The error says
/// which address, and why.
pub(super) async fn bind(ip: &str, port: u16) -> Result<Vec<TcpListener>, (String, String)> {
    // With port 0 the kernel chooses for the first address, and for the second that port may be taken.
    let mut attempts = if port == 0 { 8 } else { 1 };
    loop {
        let sockets = match host_of(ip) {
            Some(host) => bind_host(host, port).await,
            None => bind_everywhere(port).await,
        };
        attempts -= 1;
        match sockets {
            Ok(sockets) => return Ok(sockets),
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err((address, error)) => return Err((address, explain(&error, port))),
        }
    }
}

/// The host to listen on, without the brackets that IPv6 has in URLs; `None`: every interface.
fn host_of(ip: &str) -> Option<&str> {
    let ip = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    (!ip.is_empty() && ip != "*").then_some(ip)
}

type BindError = (String, io::Error);

async fn bind_everywhere(port: u16) -> Result<Vec<TcpListener>, BindError> {
    let mut sockets = Vec::new();
    // On most machines the IPv6 socket takes IPv4 as well, and then the second one is refused: that is no fault.
    match bind_one((Ipv6Addr::UNSPECIFIED, port).into()).await {
        Ok(socket) => sockets.push(socket),
        Err((_, error)) if lacks_address(&error) => {}
        Err(error) => return Err(error),
    }
    let port = sockets.first().and_then(|socket| socket.local_addr().ok()).map_or(port, |address| address.port());
    match bind_one((Ipv4Addr::UNSPECIFIED, port).into()).await {
        Ok(socket) => sockets.push(socket),
        Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && !sockets.is_empty() => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

async fn bind_host(host: &str, port: u16) -> Result<Vec<TcpListener>, BindError> {
    let several = |error| (format!("{host}:{port}"), error);
    let mut ips: Vec<IpAddr> = match host {
        // Not every machine's files say so, and clients try both.
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => tokio::net::lookup_host((host, port)).await.map_err(several)?.map(|address| address.ip()).collect(),
    };
    ips.dedup();
    let alone = ips.len() == 1;
    let (mut sockets, mut port) = (Vec::<TcpListener>::new(), port);
    for ip in ips {
        match bind_one((ip, port).into()).await {
            Ok(socket) => {
                port = socket.local_addr().map_err(several)?.port();
                sockets.push(socket);
            }
            Err((address, error)) if lacks_address(&error) && !alone => {
                debug!(address, "This machine has no {address}, one of the addresses of {host}");
            }
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        return Err(several(io::ErrorKind::AddrNotAvailable.into()));
    }
    Ok(sockets)
}

async fn bind_one(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = async {
        let socket = TcpListener::bind(address).await?;
        lengthen_queue(&socket)?;
        Ok(socket)
    };
    bind.await.map_err(|error: io::Error| (address.to_string(), error))
}

/// Whether the machine doesn't have the address, or not even its family.
fn lacks_address(error: &io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

fn explain(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there. 'ss -ltnp sport = :{port}' shows which; stop it, or choose another port"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("not permitted; ports below 1024 belong to root, and this is {port}: choose a higher one")
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    }
}
