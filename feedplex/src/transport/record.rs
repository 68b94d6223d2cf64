//! A socket that is read one TLS record at a time.
//!
//! A TLS session that reads as much as there is may hold bytes of the next record when the kernel is to take the connection over,
//! and they would be lost. Reading in whole records costs a second system call for each, which is nothing for the
//! control stream and for handshakes; a data stream is read like this only until it is one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Type, version and length, in bytes.
const HEADER_LEN: usize = 5;

/// A TCP connection whose reads end where a TLS record does.
#[derive(Debug)]
pub(super) struct RecordSocket<T = TcpStream> {
    inner: T,
    header: [u8; HEADER_LEN],
    /// Bytes of the header that have been read; 0 between records and within a body.
    have: usize,
    /// Bytes of the body that are missing.
    body_left: usize,
}

impl<T> RecordSocket<T> {
    /// Of a connection that stands before a record.
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            header: [0; HEADER_LEN],
            have: 0,
            body_left: 0,
        }
    }

    /// Has every record that was begun been read to its end?
    pub(super) fn between_records(&self) -> bool {
        self.have == 0 && self.body_left == 0
    }

    /// The connection.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// Takes note of bytes that were read; never more than [`Self::want`].
    fn seen(&mut self, bytes: &[u8]) {
        if self.body_left > 0 {
            self.body_left = self.body_left.saturating_sub(bytes.len());
            return;
        }
        for byte in bytes {
            if let Some(slot) = self.header.get_mut(self.have) {
                *slot = *byte;
                self.have += 1;
            }
        }
        if self.have == HEADER_LEN {
            self.body_left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            self.have = 0;
        }
    }

    /// Bytes that may be read now.
    fn want(&self) -> usize {
        match self.body_left {
            0 => HEADER_LEN - self.have,
            left => left,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for RecordSocket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let want = self.want().min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(want));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        self.seen(part.filled());
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for RecordSocket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn record(len: usize) -> Vec<u8> {
        let mut record = vec![23, 3, 3];
        record.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        record.resize(HEADER_LEN + len, 0xa5);
        record
    }

    #[tokio::test]
    async fn no_read_passes_the_end_of_a_record() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let mut sent = Vec::new();
        for len in [0, 1, 700, 16384] {
            sent.extend(record(len));
        }
        far.write_all(&sent).await.unwrap();
        let mut socket = RecordSocket::new(near);
        let mut ends = Vec::new();
        let mut read = 0;
        let mut buf = vec![0; 1 << 20];
        while read < sent.len() {
            read += socket.read(&mut buf[read..]).await.unwrap();
            if socket.between_records() {
                ends.push(read);
            }
        }
        assert_eq!(buf[..read], sent);
        assert_eq!(ends, [5, 11, 716, 17105], "the end of each record was seen");
    }

    #[tokio::test]
    async fn reads_of_single_bytes_are_followed_too() {
        let (mut far, near) = tokio::io::duplex(1 << 10);
        far.write_all(&record(3)).await.unwrap();
        let mut socket = RecordSocket::new(near);
        for left in (0..HEADER_LEN + 3).rev() {
            socket.read_u8().await.unwrap();
            assert_eq!(socket.between_records(), left == 0, "{left} bytes to go");
        }
    }
}
