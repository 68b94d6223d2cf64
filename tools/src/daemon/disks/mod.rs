//! Disks as the control plane uses them: opened, claimed, and read and written for metadata.

mod claim;
mod hardware;
mod scan;

#[cfg(test)]
pub(crate) use claim::cut;
pub use claim::{ClaimError, DiskKey, FilePv, Identity};
pub use scan::{ScanRoots, candidates};
