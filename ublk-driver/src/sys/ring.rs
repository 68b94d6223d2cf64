//! The control ring: one command at a time, waited for.

use super::uapi::ControlCommand;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Sends control commands to `/dev/ublk-control` through a ring of 128-byte entries.
pub(crate) struct ControlRing {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    control: File,
}

impl ControlRing {
    pub(crate) fn new(control: File) -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::builder().build(4)?,
            control,
        })
    }

    /// Sends `command`; where `buffer` is given, the kernel reads it and may write to it. Returns the
    /// command's result.
    pub(crate) fn run(
        &mut self,
        op: u32,
        mut command: ControlCommand,
        buffer: Option<&mut [u8]>,
    ) -> io::Result<i32> {
        if let Some(buffer) = buffer {
            command.addr = buffer.as_mut_ptr() as u64;
            command.len = u16::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        }
        let entry = opcode::UringCmd80::new(types::Fd(self.control.as_raw_fd()), op)
            .cmd(command.bytes())
            .build();
        // SAFETY: the entry refers to `self.control`, which outlives the ring's use of it, and to
        // `buffer`, which is mutably borrowed until this function returns; the loop below does not
        // return before the command's completion has been seen.
        unsafe {
            self.ring
                .submission()
                .push(&entry)
                .map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        }
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Nothing has been submitted, so nothing refers to the buffer.
                Err(e) if self.ring.submission().len() == 1 => {
                    let error = e;
                    return Err(error);
                }
                Err(_) => {}
            }
            if let Some(completion) = self.ring.completion().next() {
                let result = completion.result();
                return if result < 0 {
                    Err(io::Error::from_raw_os_error(-result))
                } else {
                    Ok(result)
                };
            }
        }
    }
}
