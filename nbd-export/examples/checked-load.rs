//! A client that knows what it wrote: random writes whose every block says what it is, checked after each loss of the server.
//!
//! `checked-load SOCKET EXPORT SECONDS SEED [STOP]`: it ends after SECONDS, or when the file STOP is there. The export is new, and all zeroes. Four connections write 4 KiB blocks, each to blocks of its own, one at a time. When the
//! server goes away, each connects again, for as long as it takes within a minute, and reads all its blocks: one holds the last write
//! that was acknowledged, or the one that was under way; anything else ends the program with 1. At the end all is read once more.

use nbd_export::wire::{OPTION_MAGIC, SIMPLE_REPLY_MAGIC, cmd, opt, rep};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bytes of a block.
const BLOCK: usize = 4096;
/// Connections, and threads.
const CONNECTIONS: u64 = 4;
/// Blocks that one connection uses at most.
const BLOCKS_MAX: u64 = 1024;
/// A server that has not come back by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server that takes so long for one request hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A random number generator that needs no crate: xorshift64*.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

struct Client {
    socket: UnixStream,
    cookie: u64,
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn number<const N: usize>(socket: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    socket.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Client {
    /// Connects; says how large the export is.
    fn connect(path: &str, export: &str) -> io::Result<(Self, u64)> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(HANGS))?;
        number::<18>(&mut socket)?;
        socket.write_all(&3u32.to_be_bytes())?;
        let mut go = OPTION_MAGIC.to_be_bytes().to_vec();
        go.extend_from_slice(&opt::GO.to_be_bytes());
        go.extend_from_slice(&(export.len() as u32 + 6).to_be_bytes());
        go.extend_from_slice(&(export.len() as u32).to_be_bytes());
        go.extend_from_slice(export.as_bytes());
        go.extend_from_slice(&[0, 0]);
        socket.write_all(&go)?;
        let mut size = 0;
        loop {
            let head = number::<20>(&mut socket)?;
            let field = |at: usize| {
                u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            let mut data = vec![0; field(16) as usize];
            socket.read_exact(&mut data)?;
            match field(12) {
                rep::ACK => break,
                // An export that is not there yet: the daemon has just started.
                reply if reply & 1 << 31 != 0 => return Err(io::ErrorKind::NotConnected.into()),
                _ => {}
            }
            if data.len() >= 10 && data[..2] == [0, 0] {
                size = data[2..10]
                    .iter()
                    .fold(0, |size, byte| size << 8 | u64::from(*byte));
            }
        }
        Ok((Self { socket, cookie: 0 }, size))
    }

    fn request(&mut self, command: u16, offset: u64, len: u32, payload: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&command.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.socket.write_all(&bytes)?;
        let magic = u32::from_be_bytes(number(&mut self.socket)?);
        let error = u32::from_be_bytes(number(&mut self.socket)?);
        let cookie = u64::from_be_bytes(number(&mut self.socket)?);
        if magic != SIMPLE_REPLY_MAGIC || cookie != self.cookie {
            return Err(wrong("not the reply to what was asked"));
        }
        match error {
            0 => Ok(()),
            // The server says goodbye.
            108 => Err(io::ErrorKind::ConnectionReset.into()),
            error => Err(wrong(format!("error {error} at byte {offset}"))),
        }
    }

    fn read(&mut self, offset: u64) -> io::Result<[u8; BLOCK]> {
        self.request(cmd::READ, offset, BLOCK as u32, &[])?;
        number(&mut self.socket)
    }
}

/// What a write puts into a block: its place and number, again and again.
fn content(block: u64, serial: u64) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    // A block that was never written is zero.
    if serial > 0 {
        for (n, part) in bytes.chunks_exact_mut(16).enumerate() {
            part[..8].copy_from_slice(&(block << 8 | n as u64).to_be_bytes());
            part[8..].copy_from_slice(&serial.to_be_bytes());
        }
    }
    bytes
}

/// The blocks of one connection: the last write to each that was acknowledged.
struct Worker {
    path: String,
    export: String,
    number: u64,
    acknowledged: Vec<u64>,
    /// Block and serial of the write under way.
    under_way: Option<(usize, u64)>,
    losses: u64,
    writes: u64,
    /// It ends early where this file is.
    stop: Option<String>,
}

impl Worker {
    fn place(&self, block: usize) -> u64 {
        (block as u64 * CONNECTIONS + self.number) * BLOCK as u64
    }

    fn connect(&self) -> io::Result<(Client, u64)> {
        let began = Instant::now();
        loop {
            match Client::connect(&self.path, &self.export) {
                Err(error)
                    if began.elapsed() < PATIENCE && error.kind() != io::ErrorKind::InvalidData =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    /// Everything is what it may be.
    fn check(&mut self, client: &mut Client) -> io::Result<()> {
        for block in 0..self.acknowledged.len() {
            let found = client.read(self.place(block))?;
            let due = self.acknowledged[block];
            let name = self.place(block) / BLOCK as u64;
            let under_way = self
                .under_way
                .filter(|(at, _)| *at == block)
                .map(|(_, serial)| serial);
            if found == content(name, due) {
                continue;
            }
            match under_way {
                Some(serial) if found == content(name, serial) => self.acknowledged[block] = serial,
                _ => {
                    let first =
                        u64::from_be_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at| found[at]));
                    return Err(wrong(format!(
                        "LOST: byte {}: write {due} was acknowledged, {under_way:?} under way, found is {first}",
                        self.place(block)
                    )));
                }
            }
        }
        self.under_way = None;
        Ok(())
    }

    fn write(&mut self, client: &mut Client, rng: &mut Rng) -> io::Result<()> {
        let block = (rng.next() % self.acknowledged.len() as u64) as usize;
        self.writes += 1;
        let serial = self.writes;
        self.under_way = Some((block, serial));
        let place = self.place(block);
        let bytes = content(place / BLOCK as u64, serial);
        client.request(cmd::WRITE, place, BLOCK as u32, &bytes)?;
        self.acknowledged[block] = serial;
        self.under_way = None;
        if rng.next().is_multiple_of(64) {
            client.request(cmd::FLUSH, 0, 0, &[])?;
        }
        Ok(())
    }

    /// Connects again, until all has been read and is what it may be.
    fn again(&mut self) -> io::Result<Client> {
        loop {
            self.losses += 1;
            let (mut client, _) = self.connect()?;
            match self.check(&mut client) {
                Ok(()) => return Ok(client),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // Gone again while it was read.
                Err(_) => {}
            }
        }
    }

    fn stopped(&self) -> bool {
        let stop = self.stop.as_ref();
        stop.is_some_and(|file| std::path::Path::new(file).exists())
    }

    fn run(mut self, until: Instant, mut rng: Rng) -> io::Result<(u64, u64)> {
        let gone = |error: &io::Error| error.kind() != io::ErrorKind::InvalidData;
        let (mut client, size) = self.connect()?;
        let blocks = (size / BLOCK as u64 / CONNECTIONS).min(BLOCKS_MAX);
        if blocks == 0 {
            return Err(wrong("the export is too small"));
        }
        self.acknowledged = vec![0; blocks as usize];
        let mut finished = false;
        loop {
            let done = match finished {
                true => self.check(&mut client).map(|()| true),
                false => self.write(&mut client, &mut rng).map(|()| false),
            };
            match done {
                Ok(true) => return Ok((self.writes, self.losses)),
                Ok(false) => finished = Instant::now() >= until || self.stopped(),
                Err(error) if gone(&error) => client = self.again()?,
                Err(error) => return Err(error),
            }
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let numbers = (
        args.get(3).and_then(|n| n.parse::<u64>().ok()),
        args.get(4).and_then(|n| n.parse::<u64>().ok()),
    );
    let (Some(path), Some(export), (Some(seconds), Some(seed))) =
        (args.get(1), args.get(2), numbers)
    else {
        eprintln!("usage: checked-load SOCKET EXPORT SECONDS SEED [STOP]");
        return ExitCode::from(3);
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let worker = Worker {
                path: path.clone(),
                export: export.clone(),
                number,
                acknowledged: Vec::new(),
                under_way: None,
                losses: 0,
                writes: 0,
                stop: args.get(5).cloned(),
            };
            let rng = Rng((seed * CONNECTIONS + number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            std::thread::spawn(move || worker.run(until, rng))
        })
        .collect();
    let (mut writes, mut losses, mut failed) = (0, 0, false);
    for worker in workers {
        match worker.join() {
            Ok(Ok((wrote, lost))) => {
                writes += wrote;
                losses += lost;
            }
            Ok(Err(error)) => {
                eprintln!("checked-load: {error}");
                failed = true;
            }
            Err(_) => failed = true,
        }
    }
    println!("{writes} writes, {losses} losses of the server");
    ExitCode::from(u8::from(failed))
}
