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
//! * [`scrub`]: which plex is believed where they differ.
//!
//! # Example
//!
//! A mirror of two plexes in memory: the engine says what to do, whoever drives it does that and says how it went.
//!
//! ```
//! use blockio::{ByteRange, Flags, Op, Origin, PayloadId, Request, Ticket};
//! use regionmap::log::Geometry;
//! use uuid::Uuid;
//! use volmgr::engine::{
//!     Action, DiskId, DiskOp, DiskRange, Engine, EngineConfig, Piece, PlexId, PlexLayout, VolumeLayout,
//! };
//! use volmgr::model::PlexState;
//!
//! const SIZE: u64 = 1 << 20; // bytes of the volume; each disk holds the volume, then a copy of its log
//! let at = |disk, start, len| DiskRange { disk: DiskId(disk), range: ByteRange::new(start, len) };
//!
//! // The volume's log, empty, as it is made together with the volume.
//! let geometry = Geometry { volume: Uuid::from_u128(1), size: SIZE, region_size: 65536 };
//! let mut log = vec![0; geometry.log_bytes().expect("no overflow") as usize];
//! for (start, bytes) in geometry.format(&[]) {
//!     log[start as usize..][..bytes.len()].copy_from_slice(&bytes);
//! }
//! let plex = |disk| PlexLayout {
//!     id: PlexId(disk),
//!     state: PlexState::Active,
//!     map_slot: 1 + disk,
//!     map: vec![Piece::Concat(at(disk, 0, SIZE))],
//! };
//! let layout = VolumeLayout {
//!     size: SIZE,
//!     region_size: 65536,
//!     plexes: vec![plex(0), plex(1)],
//!     feeds: Vec::new(),
//!     points: Vec::new(),
//!     restore: None,
//!     log: vec![at(0, SIZE, log.len() as u64), at(1, SIZE, log.len() as u64)],
//!     fed: false,
//!     whole: true,
//! };
//! let mut disks = vec![vec![0; SIZE as usize + log.len()]; 2];
//! let logs = vec![log.clone(), log];
//! let mut engine = Engine::new(layout, EngineConfig::default(), logs)?;
//!
//! // A write of 4096 bytes; the engine knows its payload by a number only.
//! let payload = vec![7; 4096];
//! let mut out = Vec::new();
//! engine.submit(
//!     Request {
//!         ticket: Ticket::new(1),
//!         op: Op::Write,
//!         range: ByteRange::new(8192, 4096),
//!         flags: Flags::empty(),
//!         payload: Some(PayloadId(0)),
//!         origin: Origin::Client,
//!     },
//!     &mut out,
//! );
//! let mut acknowledged = None;
//! while !out.is_empty() {
//!     for action in std::mem::take(&mut out) {
//!         match action {
//!             // The region is in the log of both disks before the write reaches either.
//!             Action::Log(log) => {
//!                 let range = log.at.range;
//!                 disks[log.at.disk.0 as usize][range.start() as usize..range.end() as usize]
//!                     .copy_from_slice(&log.bytes);
//!                 engine.io_done(log.io, Ok(()), &mut out);
//!             }
//!             Action::Disk(io) if io.op == DiskOp::Write => {
//!                 let (range, skip) = (io.at.range, io.payload.map_or(0, |part| part.skip) as usize);
//!                 disks[io.at.disk.0 as usize][range.start() as usize..range.end() as usize]
//!                     .copy_from_slice(&payload[skip..][..range.len() as usize]);
//!                 engine.io_done(io.io, Ok(()), &mut out);
//!             }
//!             Action::Complete { ticket, result } => acknowledged = Some((ticket.complete(), result)),
//!             other => panic!("a write alone needs no {other:?}"),
//!         }
//!     }
//! }
//! assert_eq!(acknowledged, Some((1, Ok(()))));
//! assert_eq!(disks[0][8192..12288], payload);
//! assert_eq!(disks[0][..SIZE as usize], disks[1][..SIZE as usize]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bytes;
pub mod engine;
pub mod label;
pub mod metadata;
pub mod model;
pub mod names;
pub mod plan;
pub mod scrub;
pub mod signature;
