//! The volume manager's core: model, metadata, planning and the volume engine.
//!
//! No sockets, no io_uring, no clock: everything here is a state machine or a pure function.
//!
//! * [`model`]: volume groups, disks, volumes, plexes, subdisks, feeds, points.
//! * [`engine`]: the data path of one active volume.
#![forbid(unsafe_code)]

pub mod engine;
pub mod model;
