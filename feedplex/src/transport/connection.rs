//! A connection to a peer, asynchronous; plain or TLS.

use super::from::{From, connect_tcp};
use super::ktls::{KernelTls, UserTls};
use super::record::RecordSocket;
use super::{DataStream, SocketOptions, TransportError, tls};
use crate::identity::Fingerprint;
use rustls::{ClientConfig, ConnectionCommon};
use std::io::{self, BufRead};
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
    Tls(Box<TlsStream<RecordSocket>>),
}

/// Connects, and shakes hands; all of it within `timeout`.
pub async fn connect(
    address: SocketAddr,
    from: Option<&From>,
    security: &Security,
    options: &SocketOptions,
    timeout: Duration,
) -> Result<Connection, TransportError> {
    let steps = async {
        let tcp = connect_tcp(address, from)
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
            .connect(tls::nameless(), RecordSocket::new(tcp))
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
        stream: TlsStream<RecordSocket>,
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
    /// received and not yet read is not lost. Under TLS the kernel takes the records over, where it can.
    pub fn into_data(self, kernel: &KernelTls) -> io::Result<DataStream> {
        let blocking = |tcp: TcpStream| {
            let tcp = tcp.into_std()?;
            tcp.set_nonblocking(false)?;
            io::Result::Ok(tcp)
        };
        match self.stream {
            Stream::Plain(tcp) => Ok(DataStream::plain(blocking(tcp)?)),
            Stream::Tls(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (socket, mut session) = stream.into_inner();
                    let idle = socket.between_records() && is_idle(&mut session);
                    let tcp = blocking(socket.into_inner())?;
                    match prepare(kernel, &tcp, idle) {
                        Ok(()) => {
                            let secrets = session.dangerous_extract_secrets();
                            let secrets = secrets.map_err(io::Error::other)?;
                            Ok(DataStream::kernel(kernel.take_over(tcp, secrets)?))
                        }
                        Err(why) => Ok(DataStream::tls_client(session, tcp, why)),
                    }
                }
                TlsStream::Server(stream) => {
                    let (socket, mut session) = stream.into_inner();
                    let idle = socket.between_records() && is_idle(&mut session);
                    let tcp = blocking(socket.into_inner())?;
                    match prepare(kernel, &tcp, idle) {
                        Ok(()) => {
                            let secrets = session.dangerous_extract_secrets();
                            let secrets = secrets.map_err(io::Error::other)?;
                            Ok(DataStream::kernel(kernel.take_over(tcp, secrets)?))
                        }
                        Err(why) => Ok(DataStream::tls_server(session, tcp, why)),
                    }
                }
            },
        }
    }
}

/// Does the session keep no bytes, in either direction?
fn is_idle<Data>(session: &mut ConnectionCommon<Data>) -> bool {
    let unread = matches!(session.reader().fill_buf(), Ok(bytes) if !bytes.is_empty());
    !unread && !session.wants_write()
}

fn prepare(kernel: &KernelTls, tcp: &std::net::TcpStream, idle: bool) -> Result<(), UserTls> {
    match idle {
        true => kernel.prepare(tcp),
        false => Err(UserTls::UnderWay),
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
