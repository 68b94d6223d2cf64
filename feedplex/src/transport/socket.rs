//! Options of a feed's sockets.

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How a feed's sockets are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Sent data that nobody acknowledges for this long breaks the connection. A sink whose disks
    /// stand still closes its window, and that counts too: so not too short.
    pub user_timeout: Duration,
    /// Idle time before the kernel asks whether the other end is still there, and between asking.
    pub keepalive: Duration,
    /// Bytes of socket buffer in each direction, beyond the system's limits where the process may
    /// do that; `None` leaves it to the kernel, which grows them to `net.ipv4.tcp_rmem` and
    /// `tcp_wmem` (4 to 6 MiB). A fixed size turns that growth off, so it is for networks with a
    /// larger product of bandwidth and delay.
    pub buffer: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            user_timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(5),
            buffer: None,
        }
    }
}

impl SocketOptions {
    /// Sets them on a connected socket.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let tcp = SockRef::from(socket);
        tcp.set_tcp_nodelay(true)?;
        tcp.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(self.keepalive)
                .with_interval(self.keepalive)
                .with_retries(3),
        )?;
        tcp.set_tcp_user_timeout(Some(self.user_timeout))?;
        if let Some(bytes) = self.buffer {
            let forced = setsockopt(socket, sockopt::SndBufForce, &bytes)
                .and_then(|()| setsockopt(socket, sockopt::RcvBufForce, &bytes));
            match forced {
                // Without the privilege the ordinary call would set *less* than the kernel's own
                // growth reaches.
                Ok(()) | Err(nix::errno::Errno::EPERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_in_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let options = SocketOptions {
            buffer: Some(1 << 20),
            ..SocketOptions::default()
        };
        options.apply(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
        let tcp = SockRef::from(&socket);
        assert!(tcp.keepalive().unwrap());
        assert_eq!(tcp.tcp_user_timeout().unwrap(), Some(options.user_timeout));
    }
}
