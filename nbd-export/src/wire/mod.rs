//! The bytes of the protocol: constants and total codecs, in network byte order.
//!
//! Nothing here keeps state, allocates by a length that a client chose, or panics on its bytes.

mod option;
mod transmission;

pub use option::{
    BlockSizes, InfoRequest, MetaQuery, OptionHeader, decode_info_request, decode_meta_query,
    encode_info_block_sizes, encode_info_export, encode_info_text, encode_meta_context,
    encode_option_reply, encode_server,
};
pub use transmission::{
    Header, RequestHeader, WireError, block_status, error_chunk, offset_data, simple_reply,
};

use bitflags::bitflags;
use thiserror::Error;

/// First word of the server's greeting.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting, and first of each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of each answer to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a structured reply's chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Longest string (export name, context name) in bytes.
pub const MAX_STRING: usize = 4096;
/// Longest read or write in bytes that is served, and announced as the maximum block size.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Number of the metadata context that every export has; the others of an export follow it.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// Name of the metadata context that every export has.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// Options, by number.
pub mod opt {
    /// Choose an export, the old way: without an answer that could be an error.
    pub const EXPORT_NAME: u32 = 1;
    /// Give up.
    pub const ABORT: u32 = 2;
    /// List exports.
    pub const LIST: u32 = 3;
    /// Start TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and use it.
    pub const GO: u32 = 7;
    /// Use structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Answers to options, by number; those with the top bit set are errors.
pub mod rep {
    /// Done.
    pub const ACK: u32 = 1;
    /// An export's name.
    pub const SERVER: u32 = 2;
    /// A piece of information.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The server does not know the option.
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    /// The option's data is wrong.
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    /// The option's data is too long.
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Kinds of information in [`rep::INFO`].
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Proper name.
    pub const NAME: u16 = 1;
    /// For a human.
    pub const DESCRIPTION: u16 = 2;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands, by number.
pub mod cmd {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// The client hangs up.
    pub const DISC: u16 = 2;
    /// Make completed writes durable.
    pub const FLUSH: u16 = 3;
    /// Discard.
    pub const TRIM: u16 = 4;
    /// Read ahead.
    pub const CACHE: u16 = 5;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Which parts are allocated.
    pub const BLOCK_STATUS: u16 = 7;
}

bitflags! {
    /// Flags of the greeting, either way.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HandshakeFlags: u32 {
        /// Options are answered.
        const FIXED_NEWSTYLE = 1;
        /// The 124 zeroes after [`opt::EXPORT_NAME`] are left out.
        const NO_ZEROES = 1 << 1;
    }

    /// What an export can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TransmissionFlags: u16 {
        /// Always set.
        const HAS_FLAGS = 1;
        /// Writes are refused.
        const READ_ONLY = 1 << 1;
        /// [`cmd::FLUSH`].
        const SEND_FLUSH = 1 << 2;
        /// [`CommandFlags::FUA`].
        const SEND_FUA = 1 << 3;
        /// The medium spins.
        const ROTATIONAL = 1 << 4;
        /// [`cmd::TRIM`].
        const SEND_TRIM = 1 << 5;
        /// [`cmd::WRITE_ZEROES`].
        const SEND_WRITE_ZEROES = 1 << 6;
        /// [`CommandFlags::DF`].
        const SEND_DF = 1 << 7;
        /// Connections share what a flush covers.
        const CAN_MULTI_CONN = 1 << 8;
        /// [`cmd::CACHE`].
        const SEND_CACHE = 1 << 10;
        /// [`CommandFlags::FAST_ZERO`].
        const SEND_FAST_ZERO = 1 << 11;
    }

    /// Modifiers of a command.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CommandFlags: u16 {
        /// Durable when answered.
        const FUA = 1;
        /// Write-zeroes leaves the space allocated.
        const NO_HOLE = 1 << 1;
        /// A read is answered in one piece.
        const DF = 1 << 2;
        /// Block status of one extent, within the request.
        const REQ_ONE = 1 << 3;
        /// Write-zeroes fails where it would be no faster than a write.
        const FAST_ZERO = 1 << 4;
    }
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A magic number is wrong.
    #[error("wrong magic {0:#x}")]
    Magic(u64),
    /// The data ends too early, or goes on after its end.
    #[error("data has the wrong length")]
    Length,
    /// A string is longer than [`MAX_STRING`].
    #[error("a string of {0} bytes")]
    StringTooLong(u32),
    /// A string is not UTF-8, or has a NUL.
    #[error("a string that is not text")]
    NotText,
}

/// Takes bytes off a slice, never past its end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Length)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string with its length in front.
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.u32()?;
        let wanted = usize::try_from(len).map_err(|_| DecodeError::Length)?;
        if wanted > MAX_STRING {
            return Err(DecodeError::StringTooLong(len));
        }
        let (head, tail) = self.0.split_at_checked(wanted).ok_or(DecodeError::Length)?;
        self.0 = tail;
        text(head)
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Length)
        }
    }
}

/// The bytes as a string of the protocol.
pub fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    if bytes.contains(&0) {
        return Err(DecodeError::NotText);
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotText)
}
