//! The character device of a ublk device, which its queues talk to.

use crate::command::payload_offset;
use blockio::IoError;
use ringio::Handle;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// An open `/dev/ublkcN`. The device cannot be deleted before the last clone has gone.
#[derive(Clone, Debug)]
pub struct CharDevice {
    file: Arc<File>,
    max_io: u32,
}

impl CharDevice {
    /// `max_io` is the device's largest request in bytes.
    pub(crate) fn new(file: File, max_io: u32) -> Self {
        let file = Arc::new(file);
        Self { file, max_io }
    }

    pub(crate) fn max_io(&self) -> u32 {
        self.max_io
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// As a ring knows it.
    pub fn handle(&self) -> Handle {
        Arc::clone(&self.file).into()
    }

    /// Copies what the write request of `tag` brought, `skip` bytes on (user copy). A copy between
    /// memories: it does no I/O, and through a ring it would cost a worker thread, because the
    /// device knows no "would block".
    pub fn read_payload(
        &self,
        queue: u16,
        tag: u16,
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), IoError> {
        let at = payload_offset(queue, tag) + skip;
        self.file.read_exact_at(into, at).map_err(io_error)
    }

    /// Copies what the read request of `tag` gets, `skip` bytes on (user copy).
    pub fn write_payload(
        &self,
        queue: u16,
        tag: u16,
        skip: u64,
        from: &[u8],
    ) -> Result<(), IoError> {
        let at = payload_offset(queue, tag) + skip;
        self.file.write_all_at(from, at).map_err(io_error)
    }
}

fn io_error(error: io::Error) -> IoError {
    IoError::from_errno(error.raw_os_error().unwrap_or(libc::EIO))
}
