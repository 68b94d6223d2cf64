//! The disk operations for a range of one plex.

use super::mapping::segments;
use super::slab::Slab;
use super::*;
use blockio::{Flags, Payload};

/// What is to be done with a range.
#[derive(Clone, Copy)]
pub(super) struct Transfer {
    pub op: DiskOp,
    /// The bytes of the range's beginning; those of the rest follow them.
    pub payload: Option<Payload>,
    pub flags: Flags,
}

impl Transfer {
    /// Into a payload, from `skip` bytes in.
    pub fn read(id: PayloadId, skip: u64) -> Self {
        Self {
            op: DiskOp::Read,
            payload: Some(Payload { id, skip }),
            flags: Flags::empty(),
        }
    }

    /// From a payload, from `skip` bytes in.
    pub fn write(id: PayloadId, skip: u64) -> Self {
        Self {
            op: DiskOp::Write,
            ..Self::read(id, skip)
        }
    }

    /// Emits an operation for each place of the range on the plex's disks; `tag` says for which part of the volume it is.
    /// Returns how many, and whether the plex has all of the range.
    pub fn emit(
        self,
        tags: &mut Slab<Tag>,
        map: &[Piece],
        range: ByteRange,
        tag: impl Fn(ByteRange) -> Tag,
        out: Out<'_>,
    ) -> (u32, bool) {
        let mut count = 0;
        let whole = segments(map, range, |part, at| {
            out.push(Action::Disk(DiskIo {
                io: IoId(tags.insert(tag(part))),
                op: self.op,
                at,
                payload: self.payload.map(|payload| Payload {
                    skip: payload.skip + part.start() - range.start(),
                    ..payload
                }),
                flags: self.flags,
            }));
            count += 1;
        });
        (count, whole)
    }
}
