//! The queues of the volume's ublk device, on the lane's ring.
//!
//! ```text
//!   fetch/commit ──kernel has a request──> [arrived] ──memory──> [submitted] ──engine──> commit …
//!        │                                     └─ pool empty: waits in turn
//!        └─ the device is stopped: the tag is gone; with the last one, so is the device
//! ```
//!
//! Payload is copied between the kernel's request and a slice of the pool by reading and writing the
//! character device (user copy): a write before it is submitted, a read when it is done. So all
//! plexes and feeds of a write see the same bytes, whatever its owner does to the pages meanwhile.

use super::LaneError;
use super::command::Reply;
use super::thread::{Lane, Requester, Tag, Waiter};
use blockio::{IoError, IoErrorKind, Op as DeviceOp, Origin, PayloadId};
use ringio::{Completed, MAX_SLICE, Op};
use std::collections::VecDeque;
use tokio::sync::oneshot;
use ublk_driver::command::{self, Fetched};
use ublk_driver::{CharDevice, QueueMap};

/// Largest request that a device may have for a lane to serve it, in bytes.
pub const UBLK_MAX_IO: u32 = MAX_SLICE as u32;

/// A device whose queues a lane is to serve.
pub struct UblkQueues {
    /// Where they are.
    pub device: CharDevice,
    /// The requests of each queue.
    pub maps: Vec<QueueMap>,
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

impl Lane {
    /// Begins to fetch requests.
    pub(super) fn add_ublk(&mut self, queues: UblkQueues, reply: Reply<()>) {
        if self.stopping() {
            return self.answer(reply, Err(LaneError::Stopped));
        }
        if self.ublk.is_some() {
            return self.answer(reply, Err(LaneError::DeviceTwice));
        }
        self.ublk_number += 1;
        let device = self.ublk_number;
        self.ring.fix_file(&queues.device.handle());
        let mut live = 0;
        for (queue, map) in queues.maps.iter().enumerate() {
            for tag in 0..map.depth() {
                let fetch = command::fetch(&queues.device, map.queue(), tag);
                let tag = UblkTag { queue, tag, device };
                self.ring.push(Op::Command(fetch), Tag::Ublk(tag));
                live += 1;
            }
        }
        self.ublk = Some(Ublk {
            queues,
            number: device,
            live,
            blocked: VecDeque::new(),
        });
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
        let map = &ublk.queues.maps[tag.queue];
        let (queue, descriptor) = (map.queue(), map.descriptor(tag.tag));
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
            let Some(mut buf) = self.alloc(range.len() as usize, Waiter::Ublk) else {
                return false;
            };
            payload = Some(if op == DeviceOp::Read {
                self.payloads.add_empty(buf)
            } else {
                let copied = match self.ublk(tag) {
                    Some(ublk) => ublk
                        .queues
                        .device
                        .read_payload(queue, tag.tag, buf.as_mut()),
                    None => return true,
                };
                if let Err(error) = copied {
                    self.ublk_commit(tag, Err(error));
                    return true;
                }
                self.payloads.add_ready(buf.freeze())
            });
        }
        let read = op == DeviceOp::Read;
        let requester = Requester::Ublk { tag, read, payload };
        self.submit(requester, op, range, descriptor.flags, Origin::Client);
        true
    }

    /// A request of the device is done; `len` is its length in bytes.
    pub(super) fn ublk_done(
        &mut self,
        tag: UblkTag,
        read: Option<PayloadId>,
        len: u64,
        mut result: Result<(), IoError>,
    ) {
        if let (Some(payload), Ok(())) = (read, result) {
            // The whole buffer, always: what a short copy left would be kernel memory.
            result = self.payloads.share(payload).and_then(|slice| {
                let Some(ublk) = self.ublk(tag) else {
                    return Ok(());
                };
                let queue = ublk.queues.maps[tag.queue].queue();
                ublk.queues
                    .device
                    .write_payload(queue, tag.tag, slice.as_ref())
            });
        }
        let bytes = u32::try_from(len).unwrap_or(u32::MAX);
        self.ublk_commit(tag, result.map(|()| bytes));
    }

    fn ublk_commit(&mut self, tag: UblkTag, result: Result<u32, IoError>) {
        let Some(ublk) = self.ublk(tag) else {
            return;
        };
        let queue = ublk.queues.maps[tag.queue].queue();
        let commit = command::commit(&ublk.queues.device, queue, tag.tag, result);
        self.ring.push(Op::Command(commit), Tag::Ublk(tag));
    }
}
