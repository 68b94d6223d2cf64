//! The queues of the volume's ublk device, on the lane's ring.
//!
//! ```text
//!   fetch/commit ──kernel has a request──> [arrived] ──memory──> [submitted] ──engine──> commit …
//!        │                                     └─ pool empty: waits in turn
//!        └─ the device is stopped: the tag is gone; with the last one, so is the device
//! ```
//!
//! In zero-copy mode the payload stays in the request's pages, which the kernel puts into the ring's
//! table of buffers with the request and takes out with its commit; each tag has a slot of its own.
//! Otherwise, for a request whose pages cannot be registered, and for writes where the volume wants a
//! stable copy, it is copied between the pages and a slice of the pool by reading and writing the
//! character device (user copy): a write before it is submitted, a read when it is done. Every such
//! copy is counted. In mapped mode the kernel copies to and from memory of the tag: see
//! [`super::ublk_memory`].

use super::LaneError;
use super::command::Reply;
use super::payload::KernelBytes;
use super::thread::{Lane, Requester, Tag, Waiter};
use super::ublk_memory::TagMemory;
use blockio::{IoError, IoErrorKind, Op as DeviceOp, Origin, PayloadId};
use ringio::{BufSlice, Completed, MAX_SLICE, Op, RingError};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use ublk_driver::command::{self, Fetched, Payload};
use ublk_driver::{CharDevice, Descriptor, Mode, QueueMap};

/// Tags of all queues that a device in zero-copy mode may have: slots that a lane's ring keeps.
pub const UBLK_SLOTS: u16 = 512;

/// Largest request that a device may have for a lane to serve it, in bytes.
pub const UBLK_MAX_IO: u32 = MAX_SLICE as u32;

/// A device whose queues a lane is to serve.
pub struct UblkQueues {
    /// Where they are.
    pub device: CharDevice,
    /// The requests of each queue.
    pub maps: Vec<QueueMap>,
    /// How payload moves.
    pub mode: Mode,
    /// Dropped when the lane has let go of the device.
    pub hold: oneshot::Sender<()>,
}

/// A tag of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UblkTag {
    /// Place of the queue in the list of maps.
    queue: usize,
    tag: u16,
    /// The device's number in this lane: completions of a former one are recognised by it.
    device: u64,
}

/// The device being served.
pub(super) struct Ublk {
    queues: UblkQueues,
    number: u64,
    /// Tags that may still bring requests, or are being worked on.
    live: usize,
    /// Need memory first.
    blocked: VecDeque<UblkTag>,
    /// Memory of the tags, in mapped mode.
    memory: Option<TagMemory>,
}

impl Ublk {
    /// The tag among those of all queues.
    fn index(&self, tag: UblkTag) -> u16 {
        let before = self.queues.maps[..tag.queue].iter().map(QueueMap::depth);
        before.sum::<u16>() + tag.tag
    }

    /// The tag's place in the ring's table of buffers, in zero-copy mode. Slot 0 is the pool's.
    fn slot(&self, tag: UblkTag) -> Option<u16> {
        (self.queues.mode == Mode::ZeroCopy).then(|| 1 + self.index(tag))
    }

    /// Where the payload of the tag's next request is to be.
    fn place(&mut self, tag: UblkTag) -> Result<Payload, RingError> {
        let index = usize::from(self.index(tag));
        Ok(match (self.slot(tag), &mut self.memory) {
            (Some(slot), _) => Payload::Slot(slot),
            (None, Some(memory)) => Payload::Memory(memory.give(index)?),
            (None, None) => Payload::Copied,
        })
    }

    /// The memory of a tag, in mapped mode.
    fn memory(&mut self, tag: UblkTag) -> Option<(&mut TagMemory, usize)> {
        let index = usize::from(self.index(tag));
        self.memory.as_mut().map(|memory| (memory, index))
    }
}

impl Lane {
    /// Begins to fetch requests.
    pub(super) fn add_ublk(&mut self, queues: UblkQueues, reply: Reply<()>) {
        if self.stopping() {
            return self.answer(reply, Err(LaneError::Stopped));
        }
        if self.ublk.is_some() {
            return self.answer(reply, Err(LaneError::DeviceTwice));
        }
        let tags = queues.maps.iter().map(|map| usize::from(map.depth())).sum();
        let last = u16::try_from(tags).unwrap_or(u16::MAX);
        if queues.mode == Mode::ZeroCopy && self.ring.kernel_slot(last, 0, 0).is_none() {
            return self.answer(reply, Err(LaneError::NoSlots));
        }
        let result = self.fetch_all(queues, tags);
        self.answer(reply, result);
    }

    fn fetch_all(&mut self, queues: UblkQueues, tags: usize) -> Result<(), LaneError> {
        let memory = match queues.mode {
            Mode::Mapped => Some(TagMemory::new(tags)?),
            Mode::ZeroCopy | Mode::UserCopy => None,
        };
        self.ublk_number += 1;
        let device = self.ublk_number;
        let handle = queues.device.handle();
        let mut ublk = Ublk {
            queues,
            number: device,
            live: tags,
            blocked: VecDeque::new(),
            memory,
        };
        let mut fetches = Vec::with_capacity(tags);
        for queue in 0..ublk.queues.maps.len() {
            for tag in 0..ublk.queues.maps[queue].depth() {
                let tag = UblkTag { queue, tag, device };
                let place = ublk.place(tag)?;
                let number = ublk.queues.maps[queue].queue();
                let fetch = command::fetch(&ublk.queues.device, number, tag.tag, place);
                fetches.push((fetch, tag));
            }
        }
        self.ring.fix_file(&handle);
        for (fetch, tag) in fetches {
            self.ring.push(Op::Command(fetch), Tag::Ublk(tag));
        }
        self.ublk = Some(ublk);
        Ok(())
    }

    /// Tags whose fetches are on the ring or could be.
    pub(super) fn ublk_tags(&self) -> usize {
        self.ublk.as_ref().map_or(0, |ublk| ublk.live)
    }

    fn ublk(&self, tag: UblkTag) -> Option<&Ublk> {
        self.ublk.as_ref().filter(|ublk| ublk.number == tag.device)
    }

    fn ublk_mut(&mut self, tag: UblkTag) -> Option<&mut Ublk> {
        self.ublk.as_mut().filter(|ublk| ublk.number == tag.device)
    }

    pub(super) fn ublk_completed(&mut self, completed: Completed<Tag>, tag: UblkTag) {
        let Some(ublk) = self.ublk_mut(tag) else {
            return;
        };
        if let Op::Command(command) = completed.op
            && let Some(buffer) = command.into_memory()
            && let Some((memory, index)) = ublk.memory(tag)
        {
            memory.keep(index, buffer);
        }
        match command::fetched(completed.result) {
            Fetched::Request => self.ublk_arrived(tag),
            Fetched::Aborted => self.ublk_tag_gone(),
            Fetched::Failed(error) => {
                tracing::error!(volume = %self.name, ?tag, %error, "ublk gives no more requests");
                self.ublk_tag_gone();
            }
        }
    }

    fn ublk_tag_gone(&mut self) {
        if let Some(ublk) = &mut self.ublk {
            ublk.live -= 1;
            if ublk.live == 0 {
                self.drop_ublk();
            }
        }
    }

    /// Lets go of the device. Requests under way are done but not committed: the kernel gives them
    /// to whoever serves the device next, or fails them with the device.
    pub(super) fn drop_ublk(&mut self) {
        if let Some(ublk) = self.ublk.take() {
            self.ring.unfix_file(&ublk.queues.device.handle());
            self.waiters.retain(|waiter| *waiter != Waiter::Ublk);
        }
    }

    fn ublk_arrived(&mut self, tag: UblkTag) {
        let waits = self.ublk(tag).is_some_and(|ublk| !ublk.blocked.is_empty());
        if (waits || !self.ublk_start(tag))
            && let Some(ublk) = &mut self.ublk
        {
            ublk.blocked.push_back(tag);
        }
    }

    /// Those who waited for memory try again.
    pub(super) fn pump_ublk(&mut self) {
        while let Some(tag) = self.ublk.as_ref().and_then(|ublk| ublk.blocked.front()) {
            if !self.ublk_start(*tag) {
                return;
            }
            if let Some(ublk) = &mut self.ublk {
                ublk.blocked.pop_front();
            }
        }
        // The device has gone meanwhile, with all that waited.
        self.waiters.retain(|waiter| *waiter != Waiter::Ublk);
    }

    /// Submits the request of a tag; false where it must wait for memory.
    fn ublk_start(&mut self, tag: UblkTag) -> bool {
        let Some(ublk) = self.ublk(tag) else {
            return true;
        };
        let descriptor = ublk.queues.maps[tag.queue].descriptor(tag.tag);
        let Some(op) = descriptor.op else {
            self.ublk_commit(tag, Err(IoError::new(IoErrorKind::Unsupported)));
            return true;
        };
        let range = descriptor.range;
        let has_payload = matches!(op, DeviceOp::Read | DeviceOp::Write);
        let mut payload = None;
        if has_payload {
            if range.is_empty() || range.len() > u64::from(UBLK_MAX_IO) {
                self.ublk_commit(tag, Err(IoError::new(IoErrorKind::Invalid)));
                return true;
            }
            payload = match self.request_payload(tag, op, &descriptor) {
                Ok(Some(payload)) => Some(payload),
                Ok(None) => return false,
                Err(error) => {
                    self.ublk_commit(tag, Err(error));
                    return true;
                }
            };
        }
        let read = op == DeviceOp::Read;
        let requester = Requester::Ublk { tag, read, payload };
        self.submit(requester, op, range, descriptor.flags, Origin::Client);
        true
    }

    /// Where the bytes of a request are: in its pages, or in memory of the lane. `None` where it
    /// must wait for memory.
    fn request_payload(
        &mut self,
        tag: UblkTag,
        op: DeviceOp,
        request: &Descriptor,
    ) -> Result<Option<PayloadId>, IoError> {
        let len = request.range.len();
        let slot = self.ublk(tag).and_then(|ublk| ublk.slot(tag));
        let copy = op == DeviceOp::Write && self.shared.stable_copy.load(Ordering::Relaxed);
        if let Some(index) = slot.filter(|_| !request.unregistered && !copy)
            && let Some(slot) = self.ring.kernel_slot(index, 0, len as u32)
        {
            let bytes = KernelBytes { slot, tag };
            return Ok(Some(self.payloads.add_kernel(bytes)));
        }
        if self.ublk(tag).is_some_and(|ublk| ublk.memory.is_some()) {
            return self.mapped_payload(tag, op, len as usize);
        }
        let Some(mut buf) = self.alloc(len as usize, Waiter::Ublk) else {
            return Ok(None);
        };
        if op == DeviceOp::Read {
            return Ok(Some(self.payloads.add_empty(buf)));
        }
        self.copy_from_request(tag, 0, buf.as_mut())?;
        Ok(Some(self.payloads.add_ready(buf.freeze())))
    }

    /// The memory that the kernel has copied the request to, or will copy it from.
    fn mapped_payload(
        &mut self,
        tag: UblkTag,
        op: DeviceOp,
        len: usize,
    ) -> Result<Option<PayloadId>, IoError> {
        let lost = IoError::from_errno(libc::ENOMEM);
        // A feed may hold bytes for long after the request is done, and a tag's buffer is large for
        // a small write: it gets a copy of its own.
        let copy = op == DeviceOp::Write && !self.outlets.is_empty();
        let mut own = None;
        if copy {
            let Some(buf) = self.alloc(len, Waiter::Ublk) else {
                return Ok(None);
            };
            own = Some(buf);
        }
        let ublk = self.ublk_mut(tag).ok_or(IoError::new(IoErrorKind::Gone))?;
        let (memory, index) = ublk.memory(tag).ok_or(lost)?;
        if let Some(mut buf) = own {
            let bytes = memory.bytes(index, len).ok_or(lost)?;
            buf.as_mut().copy_from_slice(bytes);
            self.copied(2 * len as u64);
            return Ok(Some(self.payloads.add_ready(buf.freeze())));
        }
        let buf = memory.take(index, len).ok_or(lost)?;
        // By the kernel: a write before it arrived, a read when it is committed.
        self.copied(len as u64);
        Ok(Some(match op {
            DeviceOp::Read => self.payloads.add_empty(buf),
            _ => self.payloads.add_ready(buf.freeze()),
        }))
    }

    /// Copies what a write brought, `skip` bytes on, into memory of the lane.
    pub(super) fn copy_from_request(
        &mut self,
        tag: UblkTag,
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), IoError> {
        let ublk = self.ublk(tag).ok_or(IoError::new(IoErrorKind::Gone))?;
        let queue = ublk.queues.maps[tag.queue].queue();
        ublk.queues
            .device
            .read_payload(queue, tag.tag, skip, into)?;
        self.copied(into.len() as u64);
        Ok(())
    }

    /// Copies memory of the lane into the pages of a read, `skip` bytes on.
    pub(super) fn copy_to_request(
        &mut self,
        tag: UblkTag,
        skip: u64,
        from: &[u8],
    ) -> Result<(), IoError> {
        let ublk = self.ublk(tag).ok_or(IoError::new(IoErrorKind::Gone))?;
        let queue = ublk.queues.maps[tag.queue].queue();
        ublk.queues
            .device
            .write_payload(queue, tag.tag, skip, from)?;
        self.copied(from.len() as u64);
        Ok(())
    }

    /// A request of the device is done; `len` is its length in bytes.
    pub(super) fn ublk_done(
        &mut self,
        tag: UblkTag,
        payload: Option<PayloadId>,
        read: bool,
        len: u64,
        mut result: Result<(), IoError>,
    ) {
        if let Some(payload) = payload
            && self.payloads.kernel(payload).is_none()
            && let Some(ublk) = self.ublk(tag)
        {
            let mapped = ublk.memory.is_some();
            // The whole buffer, always: what a short copy left would be kernel memory.
            let bytes = self.payloads.share(payload);
            match bytes {
                Ok(slice) if mapped => {
                    self.payloads.remove(payload);
                    self.put_back(tag, read, slice);
                }
                Ok(slice) if read && result.is_ok() => {
                    result = self.copy_to_request(tag, 0, slice.as_ref());
                }
                Err(error) if read => result = result.and(Err(error)),
                _ => {}
            }
        }
        let bytes = u32::try_from(len).unwrap_or(u32::MAX);
        self.ublk_commit(tag, result.map(|()| bytes));
    }

    /// The tag's memory is with the kernel next. A write may have had other memory instead.
    fn put_back(&mut self, tag: UblkTag, read: bool, payload: BufSlice) {
        if let Some(ublk) = self.ublk_mut(tag)
            && let Some((memory, index)) = ublk.memory(tag)
            && (read || memory.bytes(index, 0).is_none())
        {
            memory.put_back(index, payload);
        }
    }

    fn ublk_commit(&mut self, tag: UblkTag, result: Result<u32, IoError>) {
        let Some(ublk) = self.ublk_mut(tag) else {
            return;
        };
        let queue = ublk.queues.maps[tag.queue].queue();
        match ublk.place(tag) {
            Ok(place) => {
                let commit = command::commit(&ublk.queues.device, queue, tag.tag, place, result);
                self.ring.push(Op::Command(commit), Tag::Ublk(tag));
            }
            Err(error) => {
                // Without memory the kernel takes no answer: the request waits for the next server.
                tracing::error!(volume = %self.name, ?tag, %error, "a request cannot be answered");
                self.ublk_tag_gone();
            }
        }
    }
}
