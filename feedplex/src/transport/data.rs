//! A data stream: blocking, for a thread of its own.

use super::LinkWatch;
use super::ktls::{KernelStream, UserTls};
use crate::counters::PathReason;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

/// A blocking connection that carries frames.
#[derive(Debug)]
pub struct DataStream(Inner);

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    KernelTls(KernelStream),
    TlsClient(Box<StreamOwned<ClientConnection, TcpStream>>, UserTls),
    TlsServer(Box<StreamOwned<ServerConnection, TcpStream>>, UserTls),
}

impl DataStream {
    /// Over a bare socket in blocking mode.
    pub fn plain(tcp: TcpStream) -> Self {
        Self(Inner::Plain(tcp))
    }

    pub(super) fn kernel(stream: KernelStream) -> Self {
        Self(Inner::KernelTls(stream))
    }

    pub(super) fn tls_client(session: ClientConnection, tcp: TcpStream, why: UserTls) -> Self {
        Self(Inner::TlsClient(
            Box::new(StreamOwned::new(session, tcp)),
            why,
        ))
    }

    pub(super) fn tls_server(session: ServerConnection, tcp: TcpStream, why: UserTls) -> Self {
        Self(Inner::TlsServer(
            Box::new(StreamOwned::new(session, tcp)),
            why,
        ))
    }

    /// The socket, where its bytes are the stream's bytes: for everything that the kernel does with
    /// sockets. `None` under any TLS.
    pub fn bare_socket(&self) -> Option<&TcpStream> {
        match &self.0 {
            Inner::Plain(tcp) => Some(tcp),
            Inner::KernelTls(_) | Inner::TlsClient(..) | Inner::TlsServer(..) => None,
        }
    }

    /// The socket, for `splice` and for sends that copy, in the clear or with TLS records made by the kernel; `None`
    /// where the bytes have to be encrypted here. Nothing may be sent from pages that can change, or that
    /// the caller has to know to be free again: kernel TLS has a poor record with those.
    pub fn splice_socket(&self) -> Option<&TcpStream> {
        match &self.0 {
            Inner::Plain(tcp) => Some(tcp),
            Inner::KernelTls(stream) => Some(stream.socket()),
            Inner::TlsClient(..) | Inner::TlsServer(..) => None,
        }
    }

    /// The same connection for the direction that is not this end's: a source reads from it, a sink writes to it, by another thread.
    /// `None` under TLS in user space, which has one state for both.
    pub fn other_way(&self) -> io::Result<Option<Self>> {
        Ok(match &self.0 {
            Inner::Plain(tcp) => Some(Self(Inner::Plain(tcp.try_clone()?))),
            Inner::KernelTls(stream) => Some(Self(Inner::KernelTls(stream.other_way()?))),
            Inner::TlsClient(..) | Inner::TlsServer(..) => None,
        })
    }

    /// Why all payload of this stream has to be copied; `None` where it need not.
    pub fn copy_reason(&self) -> Option<PathReason> {
        match &self.0 {
            Inner::Plain(_) | Inner::KernelTls(_) => None,
            Inner::TlsClient(_, why) | Inner::TlsServer(_, why) => Some(PathReason::Tls(*why)),
        }
    }

    /// Are there TLS records, made by the kernel?
    pub fn is_kernel_tls(&self) -> bool {
        matches!(self.0, Inner::KernelTls(_))
    }

    /// To be called before a frame with this many bytes of payload is sent. `false`: the key has been used for as much as it is
    /// good for, and this side has no way to change it: the connection has to be made anew.
    pub(crate) fn spend_key(&mut self, bytes: u64) -> bool {
        match &mut self.0 {
            Inner::KernelTls(stream) => stream.spend(bytes),
            // In user space the key is changed in time by rustls.
            Inner::Plain(_) | Inner::TlsClient(..) | Inner::TlsServer(..) => true,
        }
    }

    /// Something that ends this stream from any thread.
    pub fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper(Arc::new(self.tcp().try_clone()?)))
    }

    /// Something that looks at this stream's connection from any thread.
    pub fn link_watch(&self) -> io::Result<LinkWatch> {
        Ok(LinkWatch(Arc::new(self.tcp().try_clone()?)))
    }

    fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Inner::Plain(tcp) => tcp,
            Inner::KernelTls(stream) => stream.socket(),
            Inner::TlsClient(stream, _) => &stream.sock,
            Inner::TlsServer(stream, _) => &stream.sock,
        }
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
            Inner::KernelTls(stream) => stream.read(buf),
            Inner::TlsClient(stream, _) => stream.read(buf),
            Inner::TlsServer(stream, _) => stream.read(buf),
        }
    }

    fn read_vectored(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.read_vectored(slices),
            Inner::KernelTls(stream) => stream.read_vectored(slices),
            Inner::TlsClient(stream, _) => stream.read_vectored(slices),
            Inner::TlsServer(stream, _) => stream.read_vectored(slices),
        }
    }
}

impl Write for DataStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.write(buf),
            Inner::KernelTls(stream) => stream.write(buf),
            Inner::TlsClient(stream, _) => stream.write(buf),
            Inner::TlsServer(stream, _) => stream.write(buf),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.write_vectored(slices),
            Inner::KernelTls(stream) => stream.write_vectored(slices),
            Inner::TlsClient(stream, _) => stream.write_vectored(slices),
            Inner::TlsServer(stream, _) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(stream) => stream.flush(),
            Inner::KernelTls(stream) => stream.flush(),
            Inner::TlsClient(stream, _) => stream.flush(),
            Inner::TlsServer(stream, _) => stream.flush(),
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
