//! The ring: what is in flight, and who owns its memory until it is not.
//!
//! User data on the wire is `generation << 32 | slab key`, so that a late cancel never hits a
//! later operation in the same slab entry.

use crate::pool::Region;
use crate::{
    BufPool, Completed, FallocateMode, Handle, KernelSlot, Op, OpToken, RingError, Source, Target,
};
use blockio::IoError;
use io_uring::squeue::Entry as Sqe;
use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Builds an entry for either kind of descriptor: the opcodes are generic over it.
macro_rules! at_place {
    ($place:expr, |$fd:ident| $build:expr) => {
        match $place {
            Place::Fd($fd) => $build,
            Place::Fixed($fd) => $build,
        }
    };
}

/// As `at_place!`, from a handle.
macro_rules! on_file {
    ($ring:expr, $handle:expr, |$fd:ident| $build:expr) => {
        at_place!($ring.lookup($handle), |$fd| $build)
    };
}

/// Longest single transfer, in bytes: what the kernel's result fits.
const TRANSFER_MAX: usize = 1 << 30;
/// User data of the ring's own cancels, which nobody waits for.
const NOBODY: u64 = u64::MAX;

/// How to set up a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Entries of the submission queue (rounded up to a power of two). More operations than that
    /// may be in flight.
    pub entries: u32,
    /// Fixed files to make room for; 0 for none.
    pub files: u32,
    /// Slots of the registered-buffer table that the kernel may fill (ublk); slot 0 is the pool's.
    pub kernel_slots: u16,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            entries: 256,
            files: 64,
            kernel_slots: 0,
        }
    }
}

/// Memory that the kernel looks at besides buffers, at a stable address.
#[expect(dead_code, reason = "owned for the kernel, which reads it by address")]
enum Aside {
    None,
    Time(Box<Timespec>),
    Message(Box<Message>),
}

/// What `sendmsg` looks at.
struct Message {
    header: libc::msghdr,
    parts: Vec<libc::iovec>,
}

struct Entry<T> {
    generation: u32,
    op: Op,
    data: T,
    _aside: Aside,
}

/// An io_uring whose operations carry a `T`. Lives on the thread that made it.
pub struct Ring<T> {
    uring: IoUring,
    ops: Slab<Entry<T>>,
    generation: u32,
    /// Entries for which the submission queue had no room.
    backlog: VecDeque<Sqe>,
    /// The pool's memory where it is registered (as slot 0).
    registered: Option<Arc<Region>>,
    unregistered_why: Option<io::Error>,
    kernel_slots: u16,
    /// Fixed files: fd, slot; the handle keeps the fd from being closed and reused. By fd: each operation
    /// looks its file up, and there are few.
    fixed: Vec<(RawFd, u32, Handle)>,
    fixed_free: Vec<u32>,
    /// The kernel ties the ring to the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl<T> Ring<T> {
    /// A ring, with `pool` registered where the kernel permits it.
    pub fn new(config: RingConfig, pool: Option<&BufPool>) -> Result<Self, RingError> {
        let entries = config.entries.clamp(8, 4096);
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(entries * 4)
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Else a submit that waits for nothing would not notice completions.
            .setup_taskrun_flag()
            .setup_submit_all()
            .dontfork();
        let uring = match builder.build(entries) {
            // Before 6.1 there is no deferred task work; everything else is the same.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
                .setup_cqsize(entries * 4)
                .dontfork()
                .build(entries),
            other => other,
        }
        .map_err(RingError::from_setup)?;
        let mut ring = Self {
            uring,
            ops: Slab::with_capacity(entries as usize),
            generation: 0,
            backlog: VecDeque::new(),
            registered: None,
            unregistered_why: None,
            kernel_slots: 0,
            fixed: Vec::new(),
            fixed_free: Vec::new(),
            _thread: PhantomData,
        };
        if let Err(error) = ring.register_buffers(pool, config.kernel_slots) {
            ring.unregistered_why = Some(error);
        }
        if config.files > 0
            && ring
                .uring
                .submitter()
                .register_files_sparse(config.files)
                .is_ok()
        {
            ring.fixed_free = (0..config.files).rev().collect();
        }
        Ok(ring)
    }

    fn register_buffers(&mut self, pool: Option<&BufPool>, kernel_slots: u16) -> io::Result<()> {
        if pool.is_none() && kernel_slots == 0 {
            return Ok(());
        }
        let submitter = self.uring.submitter();
        submitter.register_buffers_sparse(u32::from(kernel_slots) + 1)?;
        self.kernel_slots = kernel_slots;
        if let Some(pool) = pool {
            let (base, len) = pool.region().extent();
            let buffer = libc::iovec {
                iov_base: base.cast(),
                iov_len: len,
            };
            // SAFETY: the mapping is valid for its whole length and `registered` keeps it until
            // the ring is gone.
            unsafe { submitter.register_buffers_update(0, &[buffer], None)? };
            self.registered = Some(Arc::clone(pool.region()));
        }
        Ok(())
    }

    /// Why the pool is not registered with the kernel (then transfers map their pages each time),
    /// or `None` where it is.
    pub fn unregistered_why(&self) -> Option<&io::Error> {
        self.unregistered_why.as_ref()
    }

    /// Names `len` bytes from `offset` of the kernel's buffer in slot `index` (1 and up).
    pub fn kernel_slot(&self, index: u16, offset: u64, len: u32) -> Option<KernelSlot> {
        (index > 0 && index <= self.kernel_slots).then_some(KernelSlot { index, offset, len })
    }

    /// Puts a file into the fixed-file table: saves the kernel a lookup for each operation. Where
    /// the table is full or missing, operations work all the same. Says whether it did.
    pub fn fix_file(&mut self, handle: &Handle) -> bool {
        let fd = handle.as_fd().as_raw_fd();
        let Err(place) = self.fixed_place(fd) else {
            return true;
        };
        let Some(slot) = self.fixed_free.pop() else {
            return false;
        };
        match self.uring.submitter().register_files_update(slot, &[fd]) {
            Ok(_) => {
                self.fixed.insert(place, (fd, slot, handle.clone()));
                true
            }
            Err(_) => {
                self.fixed_free.push(slot);
                false
            }
        }
    }

    /// Takes a file out of the fixed-file table.
    pub fn unfix_file(&mut self, handle: &Handle) {
        let fd = handle.as_fd().as_raw_fd();
        let Ok(place) = self.fixed_place(fd) else {
            return;
        };
        let (_, slot, kept) = self.fixed.remove(place);
        // A slot that cannot be emptied is not used again; the file stays open in it.
        if self
            .uring
            .submitter()
            .register_files_update(slot, &[-1])
            .is_ok()
        {
            self.fixed_free.push(slot);
        }
        drop(kept);
    }

    /// Operations in flight, queued ones included.
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// Queues an operation. It is submitted by the next [`Ring::submit_and_wait`] at the latest.
    pub fn push(&mut self, mut op: Op, data: T) -> OpToken {
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let generation = self.generation;
        let (sqe, aside) = self.prepare(&mut op);
        let key = self.ops.insert(Entry {
            generation,
            op,
            data,
            _aside: aside,
        });
        let user_data = u64::from(generation) << 32 | key as u64;
        debug_assert!(key <= u32::MAX as usize);
        self.enqueue(sqe.user_data(user_data));
        OpToken(user_data)
    }

    fn enqueue(&mut self, sqe: Sqe) {
        if self.backlog.is_empty() {
            // SAFETY: all that the entry points to is owned by the slab entry just made, which
            // stays until its completion was seen.
            if unsafe { self.uring.submission().push(&sqe) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(sqe);
    }

    /// Submits what is queued, then waits until `want` completions are there or `timeout` is over.
    pub fn submit_and_wait(
        &mut self,
        want: usize,
        timeout: Option<Duration>,
    ) -> Result<(), RingError> {
        while !self.backlog.is_empty() {
            self.enter(0, None)?;
            let before = self.backlog.len();
            {
                let mut queue = self.uring.submission();
                while let Some(sqe) = self.backlog.front() {
                    // SAFETY: as in `enqueue`.
                    if unsafe { queue.push(sqe) }.is_err() {
                        break;
                    }
                    self.backlog.pop_front();
                }
            }
            if self.backlog.len() == before {
                // The kernel wants completions taken away before it accepts more.
                return Ok(());
            }
        }
        self.enter(want, timeout)
    }

    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> Result<(), RingError> {
        let entered = match timeout {
            Some(timeout) => {
                let time = timespec(timeout);
                let args = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(want, &args)
            }
            None => self.uring.submit_and_wait(want),
        };
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // Time over, a signal, or completions to be taken away first: the caller looks at the
            // completions in any case.
            Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
            Err((_, error)) => Err(RingError::Enter(error)),
        }
    }

    /// Takes all completions that are there, at the end of `into`.
    pub fn completions(&mut self, into: &mut Vec<Completed<T>>) {
        for cqe in self.uring.completion() {
            let user_data = cqe.user_data();
            if user_data == NOBODY {
                continue;
            }
            let key = (user_data & u64::from(u32::MAX)) as usize;
            let known = self
                .ops
                .get(key)
                .is_some_and(|entry| u64::from(entry.generation) == user_data >> 32);
            assert!(known, "a completion for an operation that is not in flight");
            let entry = self.ops.remove(key);
            let result = match cqe.result() {
                value if value >= 0 => Ok(value as u32),
                // `EAGAIN` here means "not now" from the kernel, not from a feed.
                error => Err(IoError::from_errno(-error)),
            };
            into.push(Completed {
                data: entry.data,
                op: entry.op,
                result,
            });
        }
    }

    fn prepare(&mut self, op: &mut Op) -> (Sqe, Aside) {
        let mut aside = Aside::None;
        let sqe = match op {
            Op::Read {
                file,
                at,
                into,
                done,
            } => {
                let fd = self.lookup(file);
                self.read_sqe(fd, *at, into, *done)
            }
            Op::Write {
                file,
                at,
                from,
                done,
                dsync,
            } => {
                let fd = self.lookup(file);
                self.write_sqe(fd, *at, from, *done, *dsync)
            }
            Op::Datasync { file } => on_file!(self, file, |fd| opcode::Fsync::new(fd)
                .flags(FsyncFlags::DATASYNC)
                .build()),
            Op::Fallocate { file, mode, range } => {
                let mode = libc::FALLOC_FL_KEEP_SIZE
                    | match mode {
                        FallocateMode::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                        FallocateMode::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
                    };
                on_file!(self, file, |fd| opcode::Fallocate::new(fd, range.len())
                    .offset(range.start())
                    .mode(mode)
                    .build())
            }
            Op::WillNeed { file, range } => {
                let len = range.len().min(u64::from(u32::MAX)) as libc::off_t;
                on_file!(self, file, |fd| opcode::Fadvise::new(
                    fd,
                    len,
                    libc::POSIX_FADV_WILLNEED
                )
                .offset(range.start())
                .build())
            }
            Op::Recv { socket, into, done } => {
                let done = (*done).min(into.len());
                let len = (into.len() - done).min(TRANSFER_MAX) as u32;
                let buf = into.as_mut()[done..].as_mut_ptr();
                on_file!(self, socket, |fd| opcode::Recv::new(fd, buf, len).build())
            }
            Op::SendMsg {
                socket,
                parts,
                done,
            } => {
                let message = message(parts, *done);
                let header: *const libc::msghdr = &raw const message.header;
                aside = Aside::Message(message);
                on_file!(self, socket, |fd| opcode::SendMsg::new(fd, header)
                    .flags(libc::MSG_NOSIGNAL as u32)
                    .build())
            }
            Op::Poll { file, events } => {
                on_file!(self, file, |fd| opcode::PollAdd::new(fd, *events).build())
            }
            Op::Cancel { op } => opcode::AsyncCancel::new(op.0).build(),
            Op::Timeout { after } => {
                let time = Box::new(timespec(*after));
                let sqe = opcode::Timeout::new(&raw const *time).build();
                aside = Aside::Time(time);
                sqe
            }
            Op::Command(command) => {
                let (op, bytes) = (command.op, command.bytes);
                let addr = Some(command.addr);
                on_file!(self, &command.file, |fd| opcode::UringCmd16::new(fd, op)
                    .cmd(bytes)
                    .addr(addr)
                    .build())
            }
            Op::Nop => opcode::Nop::new().build(),
        };
        (sqe, aside)
    }

    fn lookup(&self, handle: &Handle) -> Place {
        let fd = handle.as_fd().as_raw_fd();
        match self.fixed_place(fd) {
            Ok(place) => Place::Fixed(Fixed(self.fixed[place].1)),
            Err(_) => Place::Fd(Fd(fd)),
        }
    }

    /// Where the file is in the list, or would be.
    fn fixed_place(&self, fd: RawFd) -> Result<usize, usize> {
        self.fixed.binary_search_by_key(&fd, |(fd, ..)| *fd)
    }

    fn is_registered(&self, region: &Arc<Region>) -> bool {
        self.registered
            .as_ref()
            .is_some_and(|registered| Arc::ptr_eq(registered, region))
    }

    fn read_sqe(&self, fd: Place, at: u64, into: &mut Target, done: usize) -> Sqe {
        let done = done.min(into.len());
        let len = (into.len() - done).min(TRANSFER_MAX) as u32;
        let offset = at.wrapping_add(done as u64);
        let (buf, index) = match into {
            Target::Pool(buf) => {
                let index = self.is_registered(buf.region()).then_some(0);
                (buf.as_mut()[done..].as_mut_ptr(), index)
            }
            Target::Slot(slot) => (
                std::ptr::without_provenance_mut(slot.offset as usize + done),
                Some(slot.index),
            ),
        };
        match index {
            Some(index) => at_place!(fd, |fd| opcode::ReadFixed::new(fd, buf, len, index)
                .offset(offset)
                .build()),
            None => at_place!(fd, |fd| opcode::Read::new(fd, buf, len)
                .offset(offset)
                .build()),
        }
    }

    fn write_sqe(&self, fd: Place, at: u64, from: &Source, done: usize, dsync: bool) -> Sqe {
        let done = done.min(from.len());
        let len = (from.len() - done).min(TRANSFER_MAX) as u32;
        let offset = at.wrapping_add(done as u64);
        let flags = if dsync { libc::RWF_DSYNC } else { 0 };
        let (buf, index) = match from {
            Source::Pool(buf) => {
                let index = self.is_registered(buf.region()).then_some(0);
                (buf.as_ref()[done..].as_ptr(), index)
            }
            Source::Slot(slot) => (
                std::ptr::without_provenance(slot.offset as usize + done),
                Some(slot.index),
            ),
        };
        match index {
            Some(index) => at_place!(fd, |fd| opcode::WriteFixed::new(fd, buf, len, index)
                .offset(offset)
                .rw_flags(flags)
                .build()),
            None => at_place!(fd, |fd| opcode::Write::new(fd, buf, len)
                .offset(offset)
                .rw_flags(flags)
                .build()),
        }
    }
}

/// A descriptor, or its place in the fixed-file table.
#[derive(Clone, Copy)]
enum Place {
    Fd(Fd),
    Fixed(Fixed),
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::new()
        .sec(duration.as_secs())
        .nsec(duration.subsec_nanos())
}

fn message(parts: &[crate::SendPart], done: usize) -> Box<Message> {
    let mut skip = done;
    let mut vector = Vec::with_capacity(parts.len());
    for part in parts {
        let bytes = part.as_ref();
        let skipped = skip.min(bytes.len());
        skip -= skipped;
        let rest = &bytes[skipped..];
        if !rest.is_empty() {
            vector.push(libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
    }
    // SAFETY: all zeroes is a valid `msghdr`: null pointers and no lengths.
    let header = unsafe { std::mem::zeroed() };
    let mut message = Box::new(Message {
        header,
        parts: vector,
    });
    message.header.msg_iov = message.parts.as_mut_ptr();
    message.header.msg_iovlen = message.parts.len() as _;
    message
}

impl<T> Drop for Ring<T> {
    /// Cancels what is in flight and waits for it, so that its memory may be freed.
    fn drop(&mut self) {
        // A driver's command cannot be cancelled this way: the kernel ends it after the ring.
        let waits = |entry: &Entry<T>| !matches!(entry.op, Op::Command(_));
        let tokens: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, entry)| waits(entry))
            .map(|(key, entry)| u64::from(entry.generation) << 32 | key as u64)
            .collect();
        for token in tokens {
            self.enqueue(opcode::AsyncCancel::new(token).build().user_data(NOBODY));
        }
        let mut done = Vec::new();
        while self.ops.iter().any(|(_, entry)| waits(entry)) {
            if self.submit_and_wait(1, None).is_err() {
                // The kernel may still write to these buffers: never free them.
                std::mem::forget(std::mem::take(&mut self.ops));
                return;
            }
            self.completions(&mut done);
            done.clear();
        }
        // By then its driver may still write to memory that was given to it: never free that.
        for entry in self.ops.drain() {
            if matches!(&entry.op, Op::Command(command) if command.has_memory()) {
                std::mem::forget(entry.op);
            }
        }
    }
}
