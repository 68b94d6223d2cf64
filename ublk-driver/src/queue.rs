//! The requests of a queue, as the kernel describes them.

use crate::sys::map::DescriptorMap;
use crate::sys::uapi::{self, IO_DESC_LEN};
use crate::{CharDevice, UblkError};
use blockio::{ByteRange, Flags, Op};

/// Shows the requests of one queue of a device.
pub struct QueueMap {
    map: DescriptorMap,
    queue: u16,
}

/// One request of the kernel. Sectors have become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What; `None` for an operation that is not served (the answer is "not supported").
    pub op: Option<Op>,
    /// Where; empty for a flush.
    pub range: ByteRange,
    /// How.
    pub flags: Flags,
    /// In zero-copy mode: the pages could not be registered, the slot is empty.
    pub unregistered: bool,
}

impl QueueMap {
    /// Maps the descriptors of `queue`, of `depth` tags, of the device whose character device this is.
    pub fn new(device: &CharDevice, queue: u16, depth: u16) -> Result<Self, UblkError> {
        let map =
            DescriptorMap::new(device.file(), queue, depth).map_err(|source| UblkError::Io {
                what: format!("cannot map the descriptors of ublk queue {queue}"),
                source,
            })?;
        Ok(Self { map, queue })
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Number of tags.
    pub fn depth(&self) -> u16 {
        self.map.depth()
    }

    /// The request that a completed fetch command delivered for `tag`.
    pub fn descriptor(&self, tag: u16) -> Descriptor {
        decode(&self.map.read(tag))
    }
}

fn decode(b: &[u8; IO_DESC_LEN]) -> Descriptor {
    let op_flags = u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    let sectors = u32::from_ne_bytes([b[4], b[5], b[6], b[7]]);
    let start = u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
    let op = match (op_flags & 0xff) as u8 {
        uapi::IO_OP_READ => Some(Op::Read),
        uapi::IO_OP_WRITE => Some(Op::Write),
        uapi::IO_OP_FLUSH => Some(Op::Flush),
        uapi::IO_OP_DISCARD => Some(Op::Discard),
        uapi::IO_OP_WRITE_ZEROES => Some(Op::WriteZeroes),
        _ => None,
    };
    let mut flags = Flags::empty();
    flags.set(Flags::FUA, op_flags & uapi::IO_F_FUA != 0);
    flags.set(Flags::NO_UNMAP, op_flags & uapi::IO_F_NOUNMAP != 0);
    let range = match op {
        Some(Op::Flush) => ByteRange::default(),
        _ => start
            .checked_mul(512)
            .and_then(|start| ByteRange::checked(start, u64::from(sectors) * 512))
            .unwrap_or_default(),
    };
    Descriptor {
        op,
        range,
        flags,
        unregistered: op_flags & uapi::IO_F_NEED_REG_BUF != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(op_flags: u32, sectors: u32, start: u64) -> [u8; IO_DESC_LEN] {
        let mut b = [0u8; IO_DESC_LEN];
        b[0..4].copy_from_slice(&op_flags.to_ne_bytes());
        b[4..8].copy_from_slice(&sectors.to_ne_bytes());
        b[8..16].copy_from_slice(&start.to_ne_bytes());
        b
    }

    #[test]
    fn a_fua_write() {
        let d = decode(&raw(u32::from(uapi::IO_OP_WRITE) | uapi::IO_F_FUA, 8, 16));
        assert_eq!(d.op, Some(Op::Write));
        assert_eq!(d.range, ByteRange::new(8192, 4096));
        assert_eq!(d.flags, Flags::FUA);
        assert!(!d.unregistered);
        let refused = raw(u32::from(uapi::IO_OP_WRITE) | uapi::IO_F_NEED_REG_BUF, 8, 0);
        assert!(decode(&refused).unregistered);
    }

    #[test]
    fn zone_operations_are_not_served() {
        assert_eq!(decode(&raw(11, 0, 0)).op, None);
    }

    #[test]
    fn a_flush_has_no_range() {
        let d = decode(&raw(u32::from(uapi::IO_OP_FLUSH), 0, u64::MAX));
        assert_eq!((d.op, d.range), (Some(Op::Flush), ByteRange::default()));
    }
}
