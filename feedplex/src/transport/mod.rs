//! Connections between peers: TCP, with TLS 1.3 unless both sides said `plaintext`.
//!
//! * A connection begins asynchronous (connect, handshake, first bytes) as a [`Connection`]. A
//!   control stream stays one; a data stream becomes a blocking [`DataStream`] with a thread of its
//!   own, because `splice` has no asynchronous form.
//! * Nobody who is not pinned gets past the handshake: [`tls`]. Nobody gets the daemon to wait or
//!   to hold memory before that: [`Acceptor`].
//! * The accepting side sends one byte, [`ADMITTED`], as the first byte of a TLS session. In
//!   TLS 1.3 a client's handshake ends before the server has looked at the client's certificate;
//!   the byte makes a refusal appear where it belongs, in `connect`.

mod accept;
mod connection;
mod data;
mod from;
pub mod ktls;
mod record;
mod socket;
pub mod tls;
mod watch;

pub use accept::{Accepted, Acceptor, AcceptorLimits};
pub use connection::{ADMITTED, Connection, Security, connect};
pub use data::{DataStream, Stopper};
pub use from::From;
pub use socket::SocketOptions;
pub use watch::LinkWatch;

use crate::identity::Fingerprint;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The network said no.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Nothing came of it in time.
    #[error("{operation} took longer than {limit:?}")]
    Timeout {
        /// What was tried.
        operation: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The peer's key is not one that is pinned here.
    #[error("the peer's key {0} is not known here")]
    UnknownPeer(Fingerprint),
    /// The peer has another key than the pinned one.
    #[error("the peer's key is {found}, pinned is {expected}")]
    WrongPeer {
        /// Pinned.
        expected: Fingerprint,
        /// Shown by the peer, and proved.
        found: Fingerprint,
    },
    /// The peer does not know this node's key (or refuses it).
    #[error("the peer refused this node's key in the handshake")]
    RefusedByPeer,
    /// The TLS handshake failed otherwise.
    #[error("TLS handshake")]
    Tls(#[source] rustls::Error),
    /// The first bytes belong to another protocol.
    #[error("the first bytes {0:02x?} are not a feed's")]
    NotAFeed([u8; 8]),
    /// The peer's first byte under TLS is not [`ADMITTED`].
    #[error("the peer began the session with {0:#04x}")]
    NotAdmitted(u8),
    /// The peer speaks plaintext and this node was not told to accept it.
    #[error("the peer speaks plaintext, which is not allowed here")]
    PlaintextRefused,
    /// Too many connections are in their handshakes.
    #[error("more than {0} connections wait for their handshake")]
    TooManyPending(usize),
    /// The peer closed the connection in the handshake.
    #[error("the peer closed the connection in the handshake")]
    Closed,
}

impl TransportError {
    /// For `map_err`: an I/O error with its context, or what lies behind it.
    fn from_io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let inner = source
                .get_ref()
                .and_then(|e| e.downcast_ref::<rustls::Error>());
            match inner {
                Some(error) => tls::explain(error),
                None if source.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
                None => Self::Io { operation, source },
            }
        }
    }
}
