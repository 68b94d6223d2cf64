//! The decoders of what comes from disks and wires, and what their targets share: a reader that cuts an input into values, and blocks
//! that are sealed so that an input gets past checksums.
//!
//! An execution costs what it does to memory: a target writes to what it has, or to the stack, and what is checked of a value is checked
//! of those inputs that decode. `fuzz/run` says how long an input may be.

pub mod control;
pub mod frame;
pub mod group;
pub mod label;
pub mod log;
pub mod metadata;
pub mod nbd_options;
pub mod nbd_requests;
pub mod preamble;
pub mod record;
pub mod session;
pub mod signature;

/// A target: takes an input, panics where something is wrong.
pub type Target = fn(&[u8]);

/// Their names, by which `src/bin`, `corpus` and `dict` know them.
pub const ALL: [(&str, Target); 12] = [
    ("control", control::run),
    ("frame", frame::run),
    ("group", group::run),
    ("label", label::run),
    ("log", log::run),
    ("metadata", metadata::run),
    ("nbd_options", nbd_options::run),
    ("nbd_requests", nbd_requests::run),
    ("preamble", preamble::run),
    ("record", record::run),
    ("session", session::run),
    ("signature", signature::run),
];

/// Cuts values off the front of an input; past its end there are zeroes.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let bytes = self.bytes(N);
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Is there nothing left?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A block of `N` bytes that begins with the input.
pub fn block<const N: usize>(data: &[u8]) -> [u8; N] {
    Input(data).array()
}

/// Writes bytes at a place of a block that has room for them.
pub fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disk that is zero except for these places.
pub struct Patches {
    /// Its size in bytes.
    pub size: u64,
    /// Places and what is there; the later ones are on top.
    pub patches: Vec<(u64, Vec<u8>)>,
}

impl volmgr::metadata::PvIo for Patches {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        for (start, bytes) in &self.patches {
            let from = at.max(*start);
            let to = end.unwrap_or(at).min(start + bytes.len() as u64);
            if from < to {
                let (from, to) = (from as usize, to as usize);
                let (at, start) = (at as usize, *start as usize);
                buf[from - at..to - at].copy_from_slice(&bytes[from - start..to - start]);
            }
        }
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.patches.push((at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
