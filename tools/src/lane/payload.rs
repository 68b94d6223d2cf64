//! Where the bytes behind a [`PayloadId`] are.
//!
//! A payload is *filling* (exclusive pieces, each of which may be with the kernel) or *ready* (one
//! shared slice). Reads need the first, writes and feeds the second; it changes by itself. The
//! payload of a block device in zero-copy mode is in the *kernel* and stays there.

use super::ublk::UblkTag;
use blockio::{IoError, IoErrorKind, PayloadId};
use ringio::{BufMut, BufPool, BufSlice, KernelSlot};
use slab::Slab;

enum Bytes {
    /// Pieces with their offsets, ascending; gaps are with the kernel.
    Filling(Vec<(usize, BufMut)>),
    /// All of it, shared.
    Ready(BufSlice),
    /// In a socket: the delegated write of this number.
    Elsewhere(u64),
    /// In the pages of a block device's request, which this process never maps.
    Kernel(KernelBytes),
}

/// The pages of a block device's request.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelBytes {
    /// In the ring's table of buffers, all of them.
    pub slot: KernelSlot,
    /// The request.
    pub tag: UblkTag,
}

struct Entry {
    generation: u32,
    len: usize,
    bytes: Bytes,
}

/// The payloads of one lane. Ids are never reused: a late use finds nothing.
#[derive(Default)]
pub(super) struct Payloads {
    all: Slab<Entry>,
    generation: u32,
}

impl Payloads {
    fn add(&mut self, len: usize, bytes: Bytes) -> PayloadId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let key = self.all.insert(Entry {
            generation,
            len,
            bytes,
        });
        PayloadId(u64::from(generation) << 32 | key as u64)
    }

    /// A payload to be read into.
    pub fn add_empty(&mut self, buf: BufMut) -> PayloadId {
        self.add(buf.len(), Bytes::Filling(vec![(0, buf)]))
    }

    /// A payload to be written.
    pub fn add_ready(&mut self, buf: BufSlice) -> PayloadId {
        self.add(buf.len(), Bytes::Ready(buf))
    }

    /// A payload that a delegated write moves.
    pub fn add_elsewhere(&mut self, len: usize, delegated: u64) -> PayloadId {
        self.add(len, Bytes::Elsewhere(delegated))
    }

    /// A payload that stays in the kernel, for reads and writes alike.
    pub fn add_kernel(&mut self, bytes: KernelBytes) -> PayloadId {
        self.add(bytes.slot.len(), Bytes::Kernel(bytes))
    }

    /// The pages, where the payload is in the kernel.
    pub fn kernel(&mut self, id: PayloadId) -> Option<KernelBytes> {
        match self.entry(id)?.bytes {
            Bytes::Kernel(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn key(id: PayloadId) -> (usize, u32) {
        ((id.0 & u64::from(u32::MAX)) as usize, (id.0 >> 32) as u32)
    }

    fn entry(&mut self, id: PayloadId) -> Option<&mut Entry> {
        let (key, generation) = Self::key(id);
        self.all
            .get_mut(key)
            .filter(|entry| entry.generation == generation)
    }

    /// The delegated write that moves this payload, if one does.
    pub fn delegated(&mut self, id: PayloadId) -> Option<u64> {
        match self.entry(id)?.bytes {
            Bytes::Elsewhere(number) => Some(number),
            _ => None,
        }
    }

    /// `len` bytes from `skip`, to be read into. `pool` replaces shared memory that others still
    /// look at.
    pub fn take(
        &mut self,
        id: PayloadId,
        skip: u64,
        len: u64,
        pool: &BufPool,
    ) -> Result<BufMut, IoError> {
        let unknown = IoError::new(IoErrorKind::Invalid);
        let entry = self.entry(id).ok_or(unknown)?;
        let skip = usize::try_from(skip).map_err(|_| unknown)?;
        let len = usize::try_from(len).map_err(|_| unknown)?;
        if skip.checked_add(len).is_none_or(|end| end > entry.len) {
            return Err(unknown);
        }
        if let Bytes::Ready(_) = &entry.bytes {
            let Bytes::Ready(old) = std::mem::replace(&mut entry.bytes, Bytes::Filling(Vec::new()))
            else {
                unreachable!("matched just above")
            };
            let buf = old.try_into_mut().or_else(|old| replace(&old, pool))?;
            entry.bytes = Bytes::Filling(vec![(0, buf)]);
        }
        let Bytes::Filling(pieces) = &mut entry.bytes else {
            return Err(unknown);
        };
        let at = pieces
            .iter()
            .position(|(start, buf)| *start <= skip && skip + len <= start + buf.len())
            .ok_or(unknown)?;
        let (start, mut buf) = pieces.remove(at);
        let head = buf.split_to(skip - start);
        let taken = buf.split_to(len);
        if !buf.is_empty() {
            pieces.insert(at, (skip + len, buf));
        }
        if !head.is_empty() {
            pieces.insert(at, (start, head));
        }
        Ok(taken)
    }

    /// Puts back what `take` gave. Where the payload is gone meanwhile, so are the bytes.
    pub fn put(&mut self, id: PayloadId, skip: u64, buf: BufMut) {
        let Some(Entry {
            bytes: Bytes::Filling(pieces),
            ..
        }) = self.entry(id)
        else {
            return;
        };
        let skip = skip as usize;
        let at = pieces.partition_point(|(start, _)| *start < skip);
        pieces.insert(at, (skip, buf));
        // Neighbours become one again, so that any later range finds its bytes in one piece.
        for at in [Some(at), at.checked_sub(1)].into_iter().flatten() {
            if at + 1 < pieces.len() && pieces[at].0 + pieces[at].1.len() == pieces[at + 1].0 {
                let (_, next) = pieces.remove(at + 1);
                let (start, first) = pieces.remove(at);
                match first.join(next) {
                    Ok(joined) => pieces.insert(at, (start, joined)),
                    Err((first, next)) => {
                        let middle = start + first.len();
                        pieces.insert(at, (middle, next));
                        pieces.insert(at, (start, first));
                    }
                }
            }
        }
    }

    /// The whole payload, shared: for writes, feeds and replies.
    pub fn share(&mut self, id: PayloadId) -> Result<BufSlice, IoError> {
        let unknown = IoError::new(IoErrorKind::Invalid);
        let entry = self.entry(id).ok_or(unknown)?;
        if let Bytes::Filling(pieces) = &mut entry.bytes {
            let whole = pieces.len() == 1 && pieces[0].1.len() == entry.len;
            if !whole {
                return Err(unknown);
            }
            let (_, buf) = pieces.pop().ok_or(unknown)?;
            entry.bytes = Bytes::Ready(buf.freeze());
        }
        match &entry.bytes {
            Bytes::Ready(slice) => Ok(slice.clone()),
            _ => Err(unknown),
        }
    }

    /// Part of the payload, shared.
    pub fn share_part(&mut self, id: PayloadId, skip: u64, len: u64) -> Result<BufSlice, IoError> {
        let invalid = IoError::new(IoErrorKind::Invalid);
        let whole = self.share(id)?;
        let end = skip.checked_add(len).ok_or(invalid)?;
        if end > whole.len() as u64 {
            return Err(invalid);
        }
        Ok(whole.slice(skip as usize, len as usize))
    }

    /// The request is over; whoever still holds bytes keeps them.
    pub fn remove(&mut self, id: PayloadId) {
        let (key, generation) = Self::key(id);
        if self
            .all
            .get(key)
            .is_some_and(|entry| entry.generation == generation)
        {
            self.all.remove(key);
        }
    }
}

/// New memory with the old content: parts that are not read now stay what they were.
fn replace(old: &BufSlice, pool: &BufPool) -> Result<BufMut, IoError> {
    let mut buf = match pool.alloc(old.len()) {
        Some(buf) => buf,
        None => BufMut::standalone(old.len()).map_err(|_| IoError::from_errno(libc::ENOMEM))?,
    };
    buf.as_mut().copy_from_slice(old.as_ref());
    Ok(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(len: usize) -> (Payloads, BufPool, PayloadId) {
        let pool = BufPool::new(1 << 20).expect("pool");
        let mut payloads = Payloads::default();
        let id = payloads.add_empty(pool.alloc(len).expect("buf"));
        (payloads, pool, id)
    }

    #[test]
    fn pieces_taken_in_any_order_make_a_whole_again() {
        let (mut payloads, pool, id) = setup(16384);
        let mut b = payloads.take(id, 4096, 4096, &pool).expect("b");
        let a = payloads.take(id, 0, 4096, &pool).expect("a");
        let c = payloads.take(id, 8192, 8192, &pool).expect("c");
        assert!(payloads.take(id, 0, 512, &pool).is_err(), "with the kernel");
        assert!(payloads.share(id).is_err());
        b.as_mut().fill(2);
        payloads.put(id, 8192, c);
        payloads.put(id, 0, a);
        payloads.put(id, 4096, b);
        let whole = payloads.share(id).expect("whole");
        assert_eq!((whole.len(), whole.as_ref()[4096]), (16384, 2));
        assert!(payloads.share_part(id, 16383, 2).is_err());
    }

    #[test]
    fn shared_memory_is_replaced_before_it_is_read_into() {
        let (mut payloads, pool, id) = setup(8192);
        let old = payloads.share(id).expect("share");
        let mut part = payloads.take(id, 0, 4096, &pool).expect("take");
        part.as_mut().fill(9);
        assert_eq!(old.as_ref()[0], 0, "who still holds it sees the old bytes");
        payloads.put(id, 0, part);
        assert_eq!(payloads.share(id).expect("share").as_ref()[0], 9);
    }

    #[test]
    fn a_removed_payload_is_unknown_even_when_its_place_is_used_again() {
        let (mut payloads, pool, id) = setup(4096);
        let taken = payloads.take(id, 0, 4096, &pool).expect("take");
        payloads.remove(id);
        let next = payloads.add_ready(pool.alloc(512).expect("buf").freeze());
        payloads.put(id, 0, taken);
        payloads.remove(id);
        assert!(payloads.share(id).is_err());
        assert!(payloads.share(next).is_ok());
        assert_eq!(pool.free(), (1 << 20) - 4096);
    }
}
