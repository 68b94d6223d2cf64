//! A connection to a peer, asynchronous; plain or TLS.

use super::{DataStream, SocketOptions, TransportError, tls};
use crate::identity::Fingerprint;
use rustls::ClientConfig;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

/// First byte that the accepting side sends in a TLS session, when it has accepted the peer's key.
pub const ADMITTED: u8 = 0x06;

/// How a connection is to be protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS 1.3 with this configuration.
    Tls(Arc<ClientConfig>),
    /// Not at all.
    Plaintext,
}

/// A connection to a peer: bytes in both directions.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Option<Fingerprint>,
    address: SocketAddr,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects, and shakes hands; all of it within `timeout`.
pub async fn connect(
    address: SocketAddr,
    security: &Security,
    options: &SocketOptions,
    timeout: Duration,
) -> Result<Connection, TransportError> {
    let steps = async {
        let tcp = TcpStream::connect(address)
            .await
            .map_err(TransportError::from_io("connecting"))?;
        options
            .apply(&tcp)
            .map_err(TransportError::from_io("setting socket options"))?;
        let config = match security {
            Security::Plaintext => return Ok(Connection::plain(tcp, address)),
            Security::Tls(config) => config.clone(),
        };
        let stream = TlsConnector::from(config)
            .connect(tls::nameless(), tcp)
            .await
            .map_err(TransportError::from_io("TLS handshake"))?;
        let peer = tls::peer_fingerprint(stream.get_ref().1.peer_certificates())?;
        let mut connection = Connection::tls(TlsStream::Client(stream), peer, address);
        let admitted = connection
            .read_u8()
            .await
            .map_err(TransportError::from_io("waiting for admission"))?;
        if admitted != ADMITTED {
            return Err(TransportError::NotAdmitted(admitted));
        }
        Ok(connection)
    };
    match tokio::time::timeout(timeout, steps).await {
        Ok(result) => result,
        Err(_) => Err(TransportError::Timeout {
            operation: "connecting to the peer",
            limit: timeout,
        }),
    }
}

impl Connection {
    pub(super) fn plain(tcp: TcpStream, address: SocketAddr) -> Self {
        Self {
            stream: Stream::Plain(tcp),
            peer: None,
            address,
        }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        peer: Fingerprint,
        address: SocketAddr,
    ) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            peer: Some(peer),
            address,
        }
    }

    /// The key that the peer has proved to have; `None` in plaintext, where nothing is proved.
    pub fn peer(&self) -> Option<Fingerprint> {
        self.peer
    }

    /// Address of the other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Is it TLS?
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Turns it into a data stream. Whatever was written has to be flushed before; what was
    /// received and not yet read is not lost.
    pub fn into_data(self) -> io::Result<DataStream> {
        let blocking = |tcp: TcpStream| {
            let tcp = tcp.into_std()?;
            tcp.set_nonblocking(false)?;
            io::Result::Ok(tcp)
        };
        match self.stream {
            Stream::Plain(tcp) => Ok(DataStream::plain(blocking(tcp)?)),
            Stream::Tls(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (tcp, session) = stream.into_inner();
                    Ok(DataStream::tls_client(session, blocking(tcp)?))
                }
                TlsStream::Server(stream) => {
                    let (tcp, session) = stream.into_inner();
                    Ok(DataStream::tls_server(session, blocking(tcp)?))
                }
            },
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
