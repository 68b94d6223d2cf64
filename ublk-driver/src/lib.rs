//! Linux block devices served from user space through ublk.
//!
//! This crate knows the kernel's interface and nothing of volumes: [`Control`] creates, starts, stops
//! and deletes devices; [`QueueMap`] shows the requests of a queue; [`command`] builds the commands
//! with which a queue's thread fetches and commits them. The thread, its io_uring and the device
//! behind it belong to the caller.
//!
//! * `sys`: the kernel's structures and the places that need `unsafe` (raw buffers, the mapping of
//!   the descriptors, an ioctl).
//! * [`probe`]: what the running kernel can do, and the sentence the admin gets where it cannot.

mod block;
pub mod command;
mod control;
mod device;
mod error;
mod params;
pub mod probe;
mod queue;
mod sys;

pub use control::{Control, Device, Stopped};
pub use device::CharDevice;
pub use error::UblkError;
pub use params::{DeviceConfig, Mode, Owner};
pub use queue::{Descriptor, QueueMap};
pub use sys::uapi::Features;
