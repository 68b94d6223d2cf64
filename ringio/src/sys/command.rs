//! Commands to a device's driver, whose meaning only the maker knows.

use crate::Handle;

/// A command for a driver (`uring_cmd`): operation and 16 bytes of arguments.
///
/// It has no buffer of its own: whatever the driver keeps of it lives in the kernel, so a ring that
/// ends need not wait for it.
#[derive(Clone, Debug)]
pub struct Command {
    pub(crate) file: Handle,
    pub(crate) op: u32,
    pub(crate) bytes: [u8; 16],
    pub(crate) addr: u64,
}

impl Command {
    /// A command for the driver behind `file`. `addr` is the `addr` field of the submission entry,
    /// which some drivers give a meaning of their own.
    ///
    /// # Safety
    /// The driver must not take `bytes` or `addr` for the address of memory of this process.
    pub unsafe fn new(file: Handle, op: u32, bytes: [u8; 16], addr: u64) -> Self {
        Self {
            file,
            op,
            bytes,
            addr,
        }
    }
}
