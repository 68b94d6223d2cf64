//! Is the other end of a data stream still there?
//!
//! Sent data that stays unacknowledged ends a connection after [`super::SocketOptions::user_timeout`], but that is long, because it
//! counts a peer whose disks stand still, too: such a peer goes on acknowledging with a closed window. The kernel knows
//! the difference: to a dead path it has sent the same again and again, and has heard nothing at all.

use nix::sys::socket::getsockopt;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

mod option {
    #![allow(
        missing_docs,
        clippy::undocumented_unsafe_blocks,
        reason = "of the macro"
    )]
    use nix::{getsockopt_impl, sockopt_impl};

    sockopt_impl!(
        TcpInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        TcpInfoHead
    );

    /// The beginning of the kernel's `struct tcp_info`. The struct grows from kernel to kernel, and the C library's may be newer
    /// than the running one: asked for more than it has, a kernel fills in less, which counts as a failure. This much is in all.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    pub struct TcpInfoHead {
        pub states: [u8; 2],
        pub retransmits: u8,
        pub flags: [u8; 5],
        pub timeouts_and_sizes: [u32; 4],
        pub unacked: u32,
        pub losses: [u32; 4],
        pub last_sent_and_received: [u32; 3],
        pub last_ack_recv: u32,
    }
}

/// Repeats without an answer, from which on a silence is taken seriously.
const REPEATS_MIN: u8 = 2;

/// Looks at a data stream's connection from any thread.
#[derive(Clone, Debug)]
pub struct LinkWatch(pub(super) Arc<TcpStream>);

impl LinkWatch {
    /// For how long nothing has come from the other end, although the kernel has repeated what it wants an answer to;
    /// zero while all is well, or when the kernel does not say.
    pub fn silence(&self) -> Duration {
        match getsockopt(&*self.0, option::TcpInfo) {
            Ok(info) if info.unacked > 0 && info.retransmits >= REPEATS_MIN => {
                Duration::from_millis(info.last_ack_recv.into())
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn every_kernel_has_what_is_asked_for() {
        use libc::tcp_info as whole;
        use option::TcpInfoHead;
        use std::mem::{offset_of, size_of};
        let found = [
            offset_of!(TcpInfoHead, retransmits),
            offset_of!(TcpInfoHead, unacked),
            offset_of!(TcpInfoHead, last_ack_recv),
        ];
        let wanted = [
            offset_of!(whole, tcpi_retransmits),
            offset_of!(whole, tcpi_unacked),
            offset_of!(whole, tcpi_last_ack_recv),
        ];
        assert_eq!(found, wanted);
        // As it was before Linux 3.15 began to add to it.
        assert!(size_of::<TcpInfoHead>() <= 104);
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        // Until the window is closed.
        while near.write(&[0; 65536]).is_ok() {}
        let watch = LinkWatch(Arc::new(near));
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(watch.silence(), Duration::ZERO);
    }
}
