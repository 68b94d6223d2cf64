//! The kernel's side: ABI structures, the control ring, the descriptor mapping.

pub(crate) mod map;
pub(crate) mod ring;
pub(crate) mod uapi;
