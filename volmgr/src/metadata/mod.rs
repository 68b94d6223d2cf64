//! The group's configuration on its PVs.
//!
//! Each PV has two metadata areas, front and back. An area is a ring of two *segments*, its halves.
//! A segment holds a chain: one snapshot of the group, then deltas, each a [record](RecordHeader)
//! that names the commit before it. A new snapshot goes to the segment that does not hold the
//! newest chain, so nothing is ever overwritten before its successor is complete and durable.
//!
//! * [`PvIo`]: how this module reaches a disk. [`MemPv`] is one for tests.
//! * [`inspect`]: what is on a PV; never writes.
//! * [`assemble`]: from what is on many PVs to groups: which version is right, who is missing.
//! * [`Store`]: commits. Any crash leaves the old or the new version.
//! * [`initialise_pv`], [`wipe_pv`], [`grow_pv`], [`free_pv`], [`mend_labels`]: the label's life.
//! * [`dump_text`], [`group_to_text`]: for people, on a dead machine.
//!
//! # Example
//!
//! Two disks become a group with a mirror; the power goes in the middle of the next commit; what is found afterwards is whole.
//!
//! ```
//! use std::collections::BTreeMap;
//! use uuid::Uuid;
//! use volmgr::metadata::{MemPv, PowerLoss, PvIo, Store, assemble, initialise_pv, inspect};
//! use volmgr::plan::{NewPv, VolumeRequest, create_group, create_volume, rename_volume};
//!
//! let mut numbers = 0;
//! let mut fresh = || { numbers += 1; Uuid::from_u128(numbers) };
//! let mut disks = BTreeMap::new();
//! let mut pvs = Vec::new();
//! for path in ["/dev/sdb", "/dev/sdc"] {
//!     let mut disk = MemPv::new(64 << 20);
//!     let label = initialise_pv(&mut disk, fresh())?;
//!     disks.insert(label.pv, disk);
//!     pvs.push(NewPv { label, path: path.to_owned() });
//! }
//! let group = create_group(fresh(), "vg0", 1 << 20, pvs)?;
//! let mirror = VolumeRequest { mirrors: 1, ..VolumeRequest::new("web", 16 << 20) };
//! let group = create_volume(&group, &mirror, &mut fresh)?;
//!
//! let mut store = Store::create(group.clone());
//! let report = store.commit(group, fresh(), &mut writable(&mut disks))?;
//! assert!(report.failed.is_empty(), "both disks have it");
//!
//! for disk in disks.values_mut() {
//!     disk.fail_after(1); // of the steps that a commit takes
//! }
//! let next = rename_volume(store.group(), "web", "www")?;
//! assert!(store.commit(next, fresh(), &mut writable(&mut disks)).is_err());
//!
//! let mut scans = Vec::new();
//! for (number, disk) in disks.values_mut().enumerate() {
//!     disk.repair();
//!     disk.power_loss(PowerLoss::Torn(7));
//!     scans.push((number, inspect(disk)?));
//! }
//! let found = assemble(scans);
//! let version = found.groups[0].chosen().expect("one of the two, never a mixture");
//! assert!(version.volume("web").is_some() != version.volume("www").is_some());
//!
//! fn writable(disks: &mut BTreeMap<Uuid, MemPv>) -> BTreeMap<Uuid, &mut dyn PvIo> {
//!     disks.iter_mut().map(|(pv, disk)| (*pv, disk as &mut dyn PvIo)).collect()
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod area;
mod assemble;
mod delta;
mod dump;
mod inspect;
mod mem;
mod record;
mod ring;
mod setup;
mod store;

pub use area::{AreaScan, Chain, RecordInfo, Stop};
pub use assemble::{Assembled, Assembly, Conflict, Member, MemberState, Verdict, assemble};
pub use delta::Delta;
pub use dump::{dump_label, dump_metadata, dump_text, group_from_text, group_to_text};
pub use inspect::{LabelScan, PvScan, Version, inspect};
pub use mem::{MemPv, PowerLoss};
pub use record::{
    HEADER_BYTES, RECORD_ALIGN, RECORD_MAGIC, RECORD_VERSION, RecordError, RecordHeader, RecordKind,
};
pub use setup::{free_pv, grow_pv, initialise_pv, mend_labels, wipe_pv};
pub use store::{CommitError, CommitReport, PvFailure, Store};

use std::io;
use thiserror::Error;

/// A disk, as far as its metadata is concerned. Offsets and lengths are in bytes; everything that
/// is written is aligned to 4096.
pub trait PvIo {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `buf`.
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`; durable after the next [`PvIo::sync`].
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// What can go wrong with one PV.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// The disk failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is too small to be a PV.
    #[error(transparent)]
    TooSmall(#[from] crate::label::TooSmall),
    /// There is no readable label.
    #[error("no PV label")]
    NoLabel,
}

impl MetadataError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

#[cfg(test)]
mod forged_tests;
