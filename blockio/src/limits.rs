//! What a device can do, as answers to questions.

/// Properties of a device that front ends announce to their clients. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the device.
    pub size: u64,
    /// Smallest unit of I/O (a power of two, 512 to 4096).
    pub logical_block: u32,
    /// Unit the medium likes to be written in (a power of two).
    pub physical_block: u32,
    /// Least size that costs no more than it must; 0 where there is no preference. A striped plex says what
    /// lies together on one disk.
    pub minimum_io: u32,
    /// Best size for large I/O; 0 where there is no preference. A striped plex says its full
    /// stripe.
    pub optimal_io: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Discards are passed on.
    pub discard: bool,
    /// Write-zeroes never costs more than the disk's own way of doing it.
    pub fast_zero: bool,
    /// Some disk below spins.
    pub rotational: bool,
}
