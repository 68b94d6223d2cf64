//! The kernel's side: ABI structures, the control ring, commands on queues, the descriptor mapping,
//! the read-only flag of a block device.

pub(crate) mod block;
pub(crate) mod command;
pub(crate) mod map;
pub(crate) mod ring;
pub(crate) mod uapi;
