//! Listening sockets: one per worker and address, sharing the port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for us; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// `count` sockets that share `address`, and the address they got (another one if its port was 0).
///
/// # Errors
/// If somebody else has the address: only then is the port ours alone, because processes that share ports on purpose
/// would not notice each other.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let address = with_ipv4_in_place_of_missing_ipv6(address)?;
    if address.port() != 0 {
        drop(open(address, false)?);
    }
    let first = open(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(open(address, true)?);
    }
    Ok((address, sockets))
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// `[::]` means every address of the machine, also where the kernel has no IPv6.
fn with_ipv4_in_place_of_missing_ipv6(address: SocketAddr) -> io::Result<SocketAddr> {
    match Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)) {
        Ok(_) => Ok(address),
        Err(_) if address.ip() == IpAddr::from([0u16; 8]) => {
            Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_one_process_but_all_its_workers() {
        let (address, sockets) = bind(([127, 0, 0, 1], 0).into(), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
