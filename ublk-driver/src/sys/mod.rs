//! The kernel's side: ABI structures, the control ring, commands on queues, the descriptor mapping,
//! what block devices are told by `ioctl`.

pub(crate) mod block;
pub(crate) mod command;
pub(crate) mod map;
pub(crate) mod ring;
pub(crate) mod uapi;
