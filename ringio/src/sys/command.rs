//! Commands to a device's driver, whose meaning only the maker knows.

use crate::{BufMut, Handle};

/// A command for a driver (`uring_cmd`): operation and 16 bytes of arguments.
///
/// Most have no memory of their own: whatever the driver keeps of them lives in the kernel, so a
/// ring that ends need not wait for them. One that has leaves its memory behind where the ring ends
/// before it does.
#[derive(Debug)]
pub struct Command {
    pub(crate) file: Handle,
    pub(crate) op: u32,
    pub(crate) bytes: [u8; 16],
    pub(crate) addr: u64,
    memory: Option<BufMut>,
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
            memory: None,
        }
    }

    /// A command that gives memory to the driver behind `file`, by its address in the last eight of
    /// `bytes`. It comes back with the completion.
    ///
    /// # Safety
    /// The driver must read and write no more than the length of `memory` there, not after the
    /// command is completed, and must not take anything else in `bytes` for an address.
    pub unsafe fn with_memory(
        file: Handle,
        op: u32,
        mut bytes: [u8; 16],
        mut memory: BufMut,
    ) -> Self {
        let address = memory.as_mut_ptr().expose_provenance() as u64;
        bytes[8..].copy_from_slice(&address.to_ne_bytes());
        Self {
            file,
            op,
            bytes,
            addr: 0,
            memory: Some(memory),
        }
    }

    /// The memory that was given to the driver, now that the command is completed.
    pub fn into_memory(self) -> Option<BufMut> {
        self.memory
    }

    pub(crate) fn has_memory(&self) -> bool {
        self.memory.is_some()
    }
}
