//! Memory that the kernel copies requests of a ublk device to and from (mapped mode).
//!
//! Each tag has a buffer with room for the largest request. The kernel has it from a fetch until a
//! request arrives, then it is the payload, and with the commit the kernel has it again:
//!
//! ```text
//!   with the kernel ──request──> [kept] ──taken──> payload of the request ──> [kept] ──commit──> with the kernel
//! ```

use ringio::{BufMut, BufPool, BufSlice, MAX_SLICE, RingError};

/// The buffers of a device's tags.
pub(super) struct TagMemory {
    pool: BufPool,
    /// By tag; `None` for those with the kernel or with a payload.
    kept: Vec<Option<BufMut>>,
}

impl TagMemory {
    /// For so many tags. Memory is taken when the kernel first uses it.
    pub fn new(tags: usize) -> Result<Self, RingError> {
        let pool = BufPool::new(tags * MAX_SLICE)?;
        let kept = (0..tags).map(|_| pool.alloc(MAX_SLICE)).collect();
        Ok(Self { pool, kept })
    }

    /// A tag's buffer has come back.
    pub fn keep(&mut self, tag: usize, buffer: BufMut) {
        if let Some(kept) = self.kept.get_mut(tag) {
            *kept = Some(buffer);
        }
    }

    /// What the kernel has copied into a tag's buffer.
    pub fn bytes(&self, tag: usize, len: usize) -> Option<&[u8]> {
        self.kept.get(tag)?.as_ref()?.as_ref().get(..len)
    }

    /// The first `len` bytes of a tag's buffer, as a payload.
    pub fn take(&mut self, tag: usize, len: usize) -> Option<BufMut> {
        let mut buffer = self.kept.get_mut(tag)?.take()?;
        if len > buffer.len() {
            self.keep(tag, buffer);
            return None;
        }
        // The rest is there again when this part is alone: see `put_back`.
        Some(buffer.split_to(len))
    }

    /// A payload that was taken is done with. Where somebody else still looks at it, or it is now
    /// other memory, the tag gets another buffer with the same content.
    pub fn put_back(&mut self, tag: usize, payload: BufSlice) {
        let fits = |buffer: &BufMut| buffer.len() == MAX_SLICE;
        let own = match payload.try_into_mut().map(BufMut::regrow) {
            Ok(Ok(buffer)) if fits(&buffer) => Ok(buffer),
            Ok(Ok(other) | Err(other)) => Err(other.freeze()),
            Err(shared) => Err(shared),
        };
        let buffer = own.or_else(|other| {
            let mut fresh = self.fresh()?;
            let len = other.len().min(MAX_SLICE);
            fresh.as_mut()[..len].copy_from_slice(&other.as_ref()[..len]);
            Ok::<_, RingError>(fresh)
        });
        match buffer {
            Ok(buffer) => self.keep(tag, buffer),
            Err(error) => tracing::error!(tag, %error, "no memory for requests of a block device"),
        }
    }

    fn fresh(&self) -> Result<BufMut, RingError> {
        self.pool
            .alloc(MAX_SLICE)
            .map_or_else(|| BufMut::standalone(MAX_SLICE), Ok)
    }

    /// The tag's buffer, for the kernel.
    pub fn give(&mut self, tag: usize) -> Result<BufMut, RingError> {
        match self.kept.get_mut(tag).and_then(Option::take) {
            Some(buffer) => Ok(buffer),
            None => self.fresh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_round_without_being_copied() {
        let mut memory = TagMemory::new(2).expect("memory");
        let mut first = memory.give(1).expect("buffer");
        let place = first.as_ref().as_ptr().addr();
        first.as_mut()[..3].copy_from_slice(b"new");
        memory.keep(1, first);
        assert_eq!(memory.bytes(1, 3), Some(&b"new"[..]));
        assert!(memory.take(1, MAX_SLICE + 1).is_none());
        let payload = memory.take(1, 512).expect("payload");
        assert_eq!((payload.len(), memory.bytes(1, 3)), (512, None));
        memory.put_back(1, payload.freeze());
        let again = memory.give(1).expect("buffer");
        assert_eq!(
            (again.len(), again.as_ref().as_ptr().addr()),
            (MAX_SLICE, place)
        );
    }

    #[test]
    fn a_buffer_that_someone_still_reads_is_replaced() {
        let mut memory = TagMemory::new(1).expect("memory");
        let mut buffer = memory.give(0).expect("buffer");
        buffer.as_mut()[..4].copy_from_slice(b"data");
        memory.keep(0, buffer);
        let payload = memory.take(0, 4).expect("payload").freeze();
        let feed = payload.clone();
        memory.put_back(0, payload);
        let mut other = memory.give(0).expect("buffer");
        assert_eq!(
            (other.len(), &other.as_ref()[..4]),
            (MAX_SLICE, &b"data"[..])
        );
        other.as_mut()[..4].copy_from_slice(b"next");
        assert_eq!(feed.as_ref(), b"data");
        // Memory from elsewhere is no tag's buffer, even where it grows.
        let pool = BufPool::new(MAX_SLICE).expect("pool");
        let mut elsewhere = pool.alloc(8192).expect("buffer");
        elsewhere.as_mut().fill(9);
        memory.put_back(0, elsewhere.freeze());
        let other = memory.give(0).expect("buffer");
        assert_eq!((other.len(), other.as_ref()[8191]), (MAX_SLICE, 9));
    }
}
