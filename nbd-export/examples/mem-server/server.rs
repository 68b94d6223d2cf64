//! The blocking driver: one thread per connection over a disk in memory.
//!
//! It completes what is submitted together in reverse order, so that clients see their requests
//! and the pieces of their reads overtake each other.

use blockio::{ByteRange, Flags, Limits, Op};
use nbd_export::{
    Action, Connection, ConnectionConfig, ExportInfo, Exports, Extent, Negotiated, Negotiation,
    Outgoing, Progress, Token, Wants,
};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard};

/// Unit of allocation in bytes.
const CLUSTER: u64 = 64 << 10;

/// A disk in memory that knows which of its clusters were written.
pub struct Disk {
    name: String,
    limits: Limits,
    content: Mutex<Content>,
}

struct Content {
    bytes: Vec<u8>,
    allocated: Vec<bool>,
    /// Operations seen, with their flags.
    seen: HashMap<(Op, Flags), u64>,
}

impl Disk {
    /// `size` bytes of holes, with blocks of `block` bytes.
    pub fn new(name: &str, size: u64, block: u32) -> Self {
        Self {
            name: name.to_owned(),
            limits: Limits {
                size,
                logical_block: block,
                physical_block: 4096.max(block),
                minimum_io: 0,
                optimal_io: 0,
                read_only: false,
                discard: true,
                fast_zero: true,
                rotational: false,
            },
            content: Mutex::new(Content {
                bytes: vec![0; size as usize],
                allocated: vec![false; size.div_ceil(CLUSTER) as usize],
                seen: HashMap::new(),
            }),
        }
    }

    /// How often this was asked of the disk.
    #[allow(
        dead_code,
        reason = "the test that shares this file asks; the program does not"
    )]
    pub fn seen(&self, op: Op, flags: Flags) -> u64 {
        let content = self.lock();
        content.seen.get(&(op, flags)).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("nobody panics with it")
    }

    fn perform(&self, op: Op, range: ByteRange, flags: Flags, buffer: &mut [u8]) {
        let mut content = self.lock();
        let content = &mut *content;
        *content.seen.entry((op, flags)).or_default() += 1;
        let at = range.start() as usize..range.end() as usize;
        match op {
            Op::Read => buffer.copy_from_slice(&content.bytes[at]),
            Op::Write => content.bytes[at].copy_from_slice(buffer),
            Op::WriteZeroes | Op::Discard => content.bytes[at].fill(0),
            Op::Flush | Op::Prefetch => {}
        }
        let unmap = !flags.contains(Flags::NO_UNMAP);
        for (index, allocated) in content.allocated.iter_mut().enumerate() {
            let cluster = ByteRange::new(index as u64 * CLUSTER, CLUSTER);
            match op {
                Op::Discard | Op::WriteZeroes if unmap => *allocated &= !range.contains(cluster),
                Op::Write | Op::WriteZeroes => *allocated |= range.overlaps(cluster),
                _ => {}
            }
        }
    }

    fn extents(&self, asked: ByteRange) -> Vec<Extent> {
        let content = self.lock();
        let clusters = content.allocated.iter().enumerate();
        let clusters = clusters
            .map(|(index, hole)| (ByteRange::new(index as u64 * CLUSTER, CLUSTER), !hole))
            .filter(|(range, _)| range.overlaps(asked));
        clusters
            .map(|(range, hole)| Extent::allocation(range, hole, hole))
            .collect()
    }
}

impl Exports for Disk {
    fn list(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self, name: &str) -> Option<ExportInfo> {
        (name.is_empty() || name == self.name).then(|| ExportInfo {
            name: self.name.clone(),
            description: "a disk in memory".into(),
            limits: self.limits,
            multi_conn: true,
            contexts: Vec::new(),
        })
    }
}

/// Serves one client to its end, and says what that was.
pub fn serve(mut socket: impl Read + Write, disk: &Disk) -> io::Result<String> {
    let mut input = Vec::new();
    let Some(negotiated) = negotiate(&mut socket, disk, &mut input)? else {
        return Ok("the client chose nothing".into());
    };
    Driver {
        connection: Connection::new(&negotiated, ConnectionConfig::default()),
        socket,
        disk,
        input,
        buffers: HashMap::new(),
        at_device: Vec::new(),
        receiving: None,
    }
    .run()
}

fn negotiate(
    socket: &mut (impl Read + Write),
    disk: &Disk,
    input: &mut Vec<u8>,
) -> io::Result<Option<Box<Negotiated>>> {
    let (mut negotiation, greeting) = Negotiation::start();
    socket.write_all(&greeting)?;
    loop {
        if !fill(socket, input)? {
            return Ok(None);
        }
        while !input.is_empty() {
            let mut out = Vec::new();
            let (consumed, progress) = negotiation
                .on_bytes(input, disk, &mut out)
                .map_err(io::Error::other)?;
            input.drain(..consumed);
            socket.write_all(&out)?;
            match progress {
                Progress::Continue => {}
                Progress::Chosen(negotiated) => return Ok(Some(negotiated)),
                Progress::Aborted => return Ok(None),
            }
        }
    }
}

/// Reads some more; false at the end.
fn fill(socket: &mut impl Read, input: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 64 << 10];
    let n = socket.read(&mut chunk)?;
    input.extend_from_slice(&chunk[..n]);
    Ok(n > 0)
}

struct Driver<'a, S> {
    connection: Connection,
    socket: S,
    disk: &'a Disk,
    /// Received and not taken yet.
    input: Vec<u8>,
    buffers: HashMap<Token, Vec<u8>>,
    at_device: Vec<Action>,
    receiving: Option<(Token, usize)>,
}

impl<S: Read + Write> Driver<'_, S> {
    fn run(mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.work()? {
                return Ok(end);
            }
            let taken = match self.connection.wants() {
                Wants::Payload => self.take_payload(),
                Wants::Bytes => {
                    let taken = self.connection.on_bytes(&self.input);
                    self.input.drain(..taken);
                    taken
                }
                // With nothing at the device and everything sent, there is always room.
                Wants::Nothing => return Err(io::Error::other("held back by nothing")),
                Wants::End => continue,
            };
            if taken == 0 && !fill(&mut self.socket, &mut self.input)? {
                self.connection.on_eof();
            }
        }
    }

    fn take_payload(&mut self) -> usize {
        let (token, len) = self.receiving.expect("an action said so");
        let buffer = self.buffers.get_mut(&token).expect("it was made");
        let taken = self.input.len().min(len - buffer.len());
        buffer.extend(self.input.drain(..taken));
        if buffer.len() == len {
            self.receiving = None;
            self.connection.on_payload(token);
        }
        taken
    }

    /// Does all there is to do; says how it ended, if it did.
    fn work(&mut self) -> io::Result<Option<String>> {
        loop {
            let mut end = None;
            while let Some(action) = self.connection.next_action() {
                match action {
                    Action::Receive { token, len } => {
                        self.buffers.insert(token, Vec::new());
                        self.receiving = Some((token, len as usize));
                    }
                    Action::Release { token } => {
                        self.buffers.remove(&token);
                    }
                    Action::Close { reason } => end = Some(reason.to_string()),
                    Action::Submit { .. } | Action::QueryExtents { .. } => {
                        self.at_device.push(action);
                    }
                }
            }
            let sent = self.send()?;
            if end.is_some() {
                return Ok(end);
            }
            if self.at_device.is_empty() && !sent {
                return Ok(None);
            }
            for action in std::mem::take(&mut self.at_device).into_iter().rev() {
                self.complete(action);
            }
        }
    }

    fn complete(&mut self, action: Action) {
        match action {
            Action::Submit {
                token,
                op,
                range,
                flags,
            } => {
                let buffer = self.buffers.entry(token).or_default();
                if op == Op::Read {
                    buffer.resize(range.len() as usize, 0);
                }
                self.disk.perform(op, range, flags, buffer);
                if op != Op::Read {
                    self.buffers.remove(&token);
                }
                self.connection.on_complete(token, Ok(()));
            }
            Action::QueryExtents { token, range, .. } => {
                let extents = self.disk.extents(range);
                self.connection.on_extents(token, Ok(&[extents]));
            }
            other => unreachable!("{other:?} does not go to the device"),
        }
    }

    fn send(&mut self) -> io::Result<bool> {
        let mut any = false;
        while let Some(outgoing) = self.connection.next_send() {
            any = true;
            match outgoing {
                Outgoing::Header(header) => self.socket.write_all(&header)?,
                Outgoing::Payload { token, .. } => {
                    let buffer = self.buffers.remove(&token).expect("it was read into");
                    self.socket.write_all(&buffer)?;
                    self.connection.on_payload_sent(token);
                }
            }
        }
        Ok(any)
    }
}
