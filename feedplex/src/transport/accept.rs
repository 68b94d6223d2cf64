//! The accepting side: who gets in, within which limits.
//!
//! Until a connection has shown a known key (TLS) or a feed's first bytes (plaintext), it costs at
//! most one task, one socket and a bounded time; there are at most so many of them.

use super::connection::ADMITTED;
use super::record::RecordSocket;
use super::{Connection, SocketOptions, TransportError, tls};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, TlsStream};

/// First byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Bounds on what strangers can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptorLimits {
    /// Connections in their handshake at one time.
    pub pending: usize,
    /// From the accept to the end of the preamble.
    pub timeout: Duration,
}

impl Default for AcceptorLimits {
    fn default() -> Self {
        Self {
            pending: 32,
            timeout: Duration::from_secs(10),
        }
    }
}

/// A connection that got in, and its first bytes.
#[derive(Debug)]
pub struct Accepted<const N: usize> {
    /// The rest of it.
    pub connection: Connection,
    /// The preamble; nobody has checked more of it than its magic.
    pub preamble: [u8; N],
}

/// Takes connections through their handshake.
pub struct Acceptor {
    tls: Arc<ServerConfig>,
    magic: [u8; 8],
    plaintext: bool,
    options: SocketOptions,
    limits: AcceptorLimits,
    pending: Semaphore,
}

impl Acceptor {
    /// `magic` are the first eight bytes of a feed's preamble (`wire::preamble::MAGIC`). `plaintext` says whether plaintext is
    /// taken at all; whether a peer may use it for a feed is decided later, by its name.
    pub fn new(
        tls: Arc<ServerConfig>,
        magic: [u8; 8],
        plaintext: bool,
        options: SocketOptions,
        limits: AcceptorLimits,
    ) -> Self {
        Self {
            tls,
            magic,
            plaintext,
            options,
            limits,
            pending: Semaphore::new(limits.pending),
        }
    }

    /// Shakes hands and reads the preamble of `N` bytes.
    ///
    /// A connection that is refused has been closed and logged, in one line, when this returns.
    pub async fn accept<const N: usize>(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<Accepted<N>, TransportError> {
        const { assert!(N >= 8, "a preamble begins with its magic") };
        let result = match self.pending.try_acquire() {
            Err(_) => Err(TransportError::TooManyPending(self.limits.pending)),
            Ok(_permit) => tokio::time::timeout(self.limits.timeout, self.handshake(tcp, address))
                .await
                .unwrap_or(Err(TransportError::Timeout {
                    operation: "the handshake",
                    limit: self.limits.timeout,
                })),
        };
        if let Err(error) = &result {
            let cause = std::error::Error::source(error).map(|source| source.to_string());
            tracing::warn!(%address, cause, "connection refused: {error}");
        }
        result
    }

    async fn handshake<const N: usize>(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<Accepted<N>, TransportError> {
        self.options
            .apply(&tcp)
            .map_err(TransportError::from_io("setting socket options"))?;
        let mut first = [0; 1];
        let seen = tcp
            .peek(&mut first)
            .await
            .map_err(TransportError::from_io("reading the first bytes"))?;
        if seen == 0 {
            return Err(TransportError::Closed);
        }
        let mut connection = if first[0] == TLS_HANDSHAKE {
            self.tls_handshake(tcp, address).await?
        } else {
            Connection::plain(tcp, address)
        };

        let mut preamble = [0; N];
        let mut head = [0; 8];
        connection
            .read_exact(&mut head)
            .await
            .map_err(TransportError::from_io("reading the preamble"))?;
        if head != self.magic {
            return Err(TransportError::NotAFeed(head));
        }
        if !connection.is_tls() && !self.plaintext {
            return Err(TransportError::PlaintextRefused);
        }
        preamble[..8].copy_from_slice(&head);
        connection
            .read_exact(&mut preamble[8..])
            .await
            .map_err(TransportError::from_io("reading the preamble"))?;
        Ok(Accepted {
            connection,
            preamble,
        })
    }

    async fn tls_handshake(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<Connection, TransportError> {
        let stream = TlsAcceptor::from(self.tls.clone())
            .accept(RecordSocket::new(tcp))
            .await
            .map_err(TransportError::from_io("TLS handshake"))?;
        let peer = tls::peer_fingerprint(stream.get_ref().1.peer_certificates())?;
        let mut connection = Connection::tls(TlsStream::Server(stream), peer, address);
        connection
            .write_all(&[ADMITTED])
            .await
            .map_err(TransportError::from_io("admitting the peer"))?;
        connection
            .flush()
            .await
            .map_err(TransportError::from_io("admitting the peer"))?;
        Ok(connection)
    }
}
