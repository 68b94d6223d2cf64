//! The volume manager's core: model, metadata, planning and the volume engine.
//!
//! No sockets, no io_uring, no clock: everything here is a state machine or a pure function.
//!
//! * [`model`]: volume groups, disks, volumes, plexes, subdisks, feeds, points.
//! * [`names`]: which names they may have.
//! * [`label`]: the sector that makes a disk a PV, and where things lie on it.
//! * [`signature`]: what else may be on a disk, so that nothing foreign is overwritten.
//! * [`metadata`]: the group's configuration on its PVs: records, commits, assembly.
//! * [`plan`]: requests of the admin as functions from one [`model::Group`] to the next.
//! * [`engine`]: the data path of one active volume.
#![forbid(unsafe_code)]

mod bytes;
pub mod engine;
pub mod label;
pub mod metadata;
pub mod model;
pub mod names;
pub mod plan;
pub mod signature;
