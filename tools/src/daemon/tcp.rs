//! Listening on TCP. An address that this machine does not have yet is bound all the same: at boot the
//! daemon is there before the network is, because file systems wait for its volumes.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Opens a listener. Must be called on the runtime.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_not_here_yet_can_be_bound() {
        // TEST-NET-1: no machine has it.
        assert!(listen("192.0.2.1:0".parse().unwrap()).is_ok());
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
