//! A data stream: blocking, for a thread of its own.

use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

/// A blocking connection that carries frames.
#[derive(Debug)]
pub struct DataStream(Inner);

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    TlsClient(Box<StreamOwned<ClientConnection, TcpStream>>),
    TlsServer(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl DataStream {
    /// Over a bare socket in blocking mode.
    pub fn plain(tcp: TcpStream) -> Self {
        Self(Inner::Plain(tcp))
    }

    pub(super) fn tls_client(session: ClientConnection, tcp: TcpStream) -> Self {
        Self(Inner::TlsClient(Box::new(StreamOwned::new(session, tcp))))
    }

    pub(super) fn tls_server(session: ServerConnection, tcp: TcpStream) -> Self {
        Self(Inner::TlsServer(Box::new(StreamOwned::new(session, tcp))))
    }

    /// The socket, for calls that move bytes inside the kernel; `None` under TLS, where the bytes
    /// have to be encrypted here.
    pub fn bare_socket(&self) -> Option<&TcpStream> {
        match &self.0 {
            Inner::Plain(tcp) => Some(tcp),
            Inner::TlsClient(_) | Inner::TlsServer(_) => None,
        }
    }

    /// Something that ends this stream from any thread.
    pub fn stopper(&self) -> io::Result<Stopper> {
        let tcp = match &self.0 {
            Inner::Plain(tcp) => tcp,
            Inner::TlsClient(stream) => &stream.sock,
            Inner::TlsServer(stream) => &stream.sock,
        };
        Ok(Stopper(Arc::new(tcp.try_clone()?)))
    }

    /// Writes all of the slices, in order.
    pub(crate) fn write_all_vectored(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Empty slices at the front would look like a connection that takes nothing.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => IoSlice::advance_slices(&mut slices, sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }
}

impl Read for DataStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.read(buf),
            Inner::TlsClient(stream) => stream.read(buf),
            Inner::TlsServer(stream) => stream.read(buf),
        }
    }
}

impl Write for DataStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.write(buf),
            Inner::TlsClient(stream) => stream.write(buf),
            Inner::TlsServer(stream) => stream.write(buf),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.write_vectored(slices),
            Inner::TlsClient(stream) => stream.write_vectored(slices),
            Inner::TlsServer(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.flush(),
            Inner::TlsClient(stream) => stream.flush(),
            Inner::TlsServer(stream) => stream.flush(),
        }
    }
}

/// Ends a data stream from any thread: a thread that waits in the socket returns at once.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<TcpStream>);

impl Stopper {
    /// Shuts the socket down in both directions. More than once is once.
    pub fn stop(&self) {
        // The one error is "not connected": then it has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
