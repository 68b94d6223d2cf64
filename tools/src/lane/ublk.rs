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
//! Otherwise, and for a request whose pages cannot be registered, it is copied between the pages and
//! a slice of the pool by reading and writing the character device (user copy): a write before it is
//! submitted, a read when it is done. Every such copy is counted.

use super::LaneError;
use super::command::Reply;
use super::payload::KernelBytes;
use super::thread::{Lane, Requester, Tag, Waiter};
use blockio::{IoError, IoErrorKind, Op as DeviceOp, Origin, PayloadId};
use ringio::{Completed, MAX_SLICE, Op};
use std::collections::VecDeque;
use tokio::sync::oneshot;
use ublk_driver::command::{self, Fetched};
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
}

impl Ublk {
    /// The tag's place in the ring's table of buffers, in zero-copy mode. Slot 0 is the pool's.
    fn slot(&self, tag: UblkTag) -> Option<u16> {
        if self.queues.mode != Mode::ZeroCopy {
            return None;
        }
        let before = self.queues.maps[..tag.queue].iter().map(QueueMap::depth);
        Some(1 + before.sum::<u16>() + tag.tag)
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
        self.ublk_number += 1;
        let device = self.ublk_number;
        self.ring.fix_file(&queues.device.handle());
        let ublk = Ublk {
            queues,
            number: device,
            live: tags,
            blocked: VecDeque::new(),
        };
        for (queue, map) in ublk.queues.maps.iter().enumerate() {
            for tag in 0..map.depth() {
                let tag = UblkTag { queue, tag, device };
                let slot = ublk.slot(tag);
                let fetch = command::fetch(&ublk.queues.device, map.queue(), tag.tag, slot);
                self.ring.push(Op::Command(fetch), Tag::Ublk(tag));
            }
        }
        self.ublk = Some(ublk);
        self.answer(reply, Ok(()));
    }

    /// Tags whose fetches are on the ring or could be.
    pub(super) fn ublk_tags(&self) -> usize {
        self.ublk.as_ref().map_or(0, |ublk| ublk.live)
    }

    fn ublk(&self, tag: UblkTag) -> Option<&Ublk> {
        self.ublk.as_ref().filter(|ublk| ublk.number == tag.device)
    }

    pub(super) fn ublk_completed(&mut self, completed: &Completed<Tag>, tag: UblkTag) {
        if self.ublk(tag).is_none() {
            return;
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
        if let Some(index) = slot.filter(|_| !request.unregistered)
            && let Some(slot) = self.ring.kernel_slot(index, 0, len as u32)
        {
            let bytes = KernelBytes { slot, tag };
            return Ok(Some(self.payloads.add_kernel(bytes)));
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
        read: Option<PayloadId>,
        len: u64,
        mut result: Result<(), IoError>,
    ) {
        if let (Some(payload), Ok(())) = (read, result)
            && self.payloads.kernel(payload).is_none()
            && self.ublk(tag).is_some()
        {
            // The whole buffer, always: what a short copy left would be kernel memory.
            result = self
                .payloads
                .share(payload)
                .and_then(|slice| self.copy_to_request(tag, 0, slice.as_ref()));
        }
        let bytes = u32::try_from(len).unwrap_or(u32::MAX);
        self.ublk_commit(tag, result.map(|()| bytes));
    }

    fn ublk_commit(&mut self, tag: UblkTag, result: Result<u32, IoError>) {
        let Some(ublk) = self.ublk(tag) else {
            return;
        };
        let queue = ublk.queues.maps[tag.queue].queue();
        let slot = ublk.slot(tag);
        let commit = command::commit(&ublk.queues.device, queue, tag.tag, slot, result);
        self.ring.push(Op::Command(commit), Tag::Ublk(tag));
    }
}
