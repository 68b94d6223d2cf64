//! From the client's first byte until it has chosen an export ("fixed newstyle").
//!
//! ```text
//!   greeting sent --client flags--> Options --GO, EXPORT_NAME of an export--> Chosen
//!                                     |  ^ |
//!                                     |  +-+ any other option, answered
//!                                     +--ABORT, end of the budget, nonsense--> over
//! ```
//!
//! A client that does not speak the protocol is dropped at its first four bytes (unknown flags:
//! any text, any TLS hello), or at its first option's magic.

mod info;
#[cfg(test)]
mod tests;

use crate::wire::{
    DecodeError, HandshakeFlags, MAGIC, OPTION_MAGIC, OptionHeader, encode_option_reply, opt, rep,
    text,
};
use crate::{ExportInfo, Exports};
use thiserror::Error;

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The export as it was described to the client.
    pub export: ExportInfo,
    /// Replies are structured.
    pub structured: bool,
    /// What the client may ask for by block status, and the number of each on the wire. None: it may not.
    pub contexts: Vec<Context>,
    /// The client did without the 124 zeroes after `EXPORT_NAME`.
    pub no_zeroes: bool,
}

/// A metadata context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its number in replies.
    pub id: u32,
    /// `base:allocation`, or one of [`ExportInfo::contexts`].
    pub name: String,
}

/// Where the negotiation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Send what was put out, then go on.
    Continue,
    /// Send what was put out; the transmission phase begins with the bytes not consumed.
    Chosen(Box<Negotiated>),
    /// Send what was put out and hang up: the client has said that it is done.
    Aborted,
}

/// The client is to be dropped without further words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NegotiationError {
    /// Flags that no client has: it speaks something else.
    #[error("client flags {0:#x} are not NBD's")]
    ClientFlags(u32),
    /// The client does not speak "fixed newstyle" and sent something that only that has.
    #[error("option {0} from a client without fixed newstyle")]
    NotFixedNewstyle(u32),
    /// An option that cannot be read.
    #[error("option")]
    Option(#[source] DecodeError),
    /// An option longer than anyone drains.
    #[error("option {option} with {len} bytes of data")]
    OptionTooLong {
        /// Its number.
        option: u32,
        /// Its length in bytes.
        len: u32,
    },
    /// More options than a client needs.
    #[error("too many options")]
    TooManyOptions,
    /// `EXPORT_NAME` of an export that there is not; it has no way to answer an error.
    #[error("no export of that name")]
    NoSuchExport,
    /// More bytes after the end.
    #[error("the negotiation is over")]
    Over,
}

/// The negotiation with one client.
#[derive(Debug)]
pub struct Negotiation {
    state: State,
    /// The message being collected; never longer than [`Negotiation::MAX_OPTION`].
    buffer: Vec<u8>,
    /// Options that may still come.
    budget: usize,
    listed: bool,
    client: HandshakeFlags,
    structured: bool,
    /// The export for which contexts were chosen, as the client named it, and which.
    chosen_contexts: Option<(String, Vec<Context>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ClientFlags,
    OptionHeader,
    OptionData(OptionHeader),
    /// Throwing away the data of an option that is too long, then answering so.
    Drain {
        option: u32,
        left: u32,
    },
    Over,
}

impl Negotiation {
    /// Longest option data that is looked at, in bytes: a name, and some queries.
    pub const MAX_OPTION: u32 = 16 << 10;
    /// Longest option data that is drained and refused, in bytes. A longer one ends it.
    pub const MAX_DRAIN: u32 = 256 << 10;
    /// Options a client may send. Listing the exports adds [`Negotiation::OPTIONS_PER_EXPORT`]
    /// for each, since clients go on to ask about every one.
    pub const MAX_OPTIONS: usize = 64;
    /// See [`Negotiation::MAX_OPTIONS`].
    pub const OPTIONS_PER_EXPORT: usize = 4;

    /// A negotiation, and the greeting that opens it.
    pub fn start() -> (Self, [u8; 18]) {
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        let mut greeting = [0; 18];
        greeting[0..8].copy_from_slice(&MAGIC.to_be_bytes());
        greeting[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
        greeting[16..18].copy_from_slice(&(flags.bits() as u16).to_be_bytes());
        let negotiation = Self {
            state: State::ClientFlags,
            buffer: Vec::new(),
            budget: Self::MAX_OPTIONS,
            listed: false,
            client: HandshakeFlags::empty(),
            structured: false,
            chosen_contexts: None,
        };
        (negotiation, greeting)
    }

    /// Takes bytes from the client, up to the end of one message at most, and appends the answer
    /// to `out`. Returns how many bytes were consumed: call again with the rest, after `out` has
    /// been sent, as long as there is [`Progress::Continue`] and a rest.
    ///
    /// So the output of one call is bounded by one answer, the longest being the list of exports.
    pub fn on_bytes(
        &mut self,
        bytes: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Progress), NegotiationError> {
        let mut consumed = 0;
        loop {
            if let State::Drain { option, left } = self.state {
                let here = bytes.len().saturating_sub(consumed).min(left as usize);
                consumed += here;
                let left = left - here as u32;
                if left > 0 {
                    self.state = State::Drain { option, left };
                    return Ok((consumed, Progress::Continue));
                }
                self.state = State::OptionHeader;
                encode_option_reply(out, option, rep::ERR_TOO_BIG, &[]);
                return Ok((consumed, Progress::Continue));
            }
            let wanted = match self.state {
                State::ClientFlags => 4,
                State::OptionHeader => OptionHeader::LEN,
                State::OptionData(header) => header.len as usize,
                State::Drain { .. } => unreachable!("handled above"),
                State::Over => return Err(NegotiationError::Over),
            };
            let missing = wanted - self.buffer.len();
            let here = &bytes[consumed..];
            let here = &here[..here.len().min(missing)];
            self.buffer.extend_from_slice(here);
            consumed += here.len();
            if self.buffer.len() < wanted {
                return Ok((consumed, Progress::Continue));
            }
            let message = std::mem::take(&mut self.buffer);
            match self.state {
                State::ClientFlags => {
                    self.on_client_flags(&message)?;
                    return Ok((consumed, Progress::Continue));
                }
                State::OptionHeader => self.on_option_header(&message)?,
                State::OptionData(header) => {
                    self.state = State::OptionHeader;
                    let progress = self.on_option(header.option, &message, exports, out)?;
                    if progress != Progress::Continue {
                        self.state = State::Over;
                    }
                    return Ok((consumed, progress));
                }
                State::Drain { .. } | State::Over => unreachable!("handled above"),
            }
        }
    }

    fn on_client_flags(&mut self, message: &[u8]) -> Result<(), NegotiationError> {
        let flags = u32::from_be_bytes(message.try_into().expect("four bytes were collected"));
        self.client =
            HandshakeFlags::from_bits(flags).ok_or(NegotiationError::ClientFlags(flags))?;
        self.state = State::OptionHeader;
        Ok(())
    }

    fn on_option_header(&mut self, message: &[u8]) -> Result<(), NegotiationError> {
        let message = message.try_into().expect("a header was collected");
        let header = OptionHeader::decode(message).map_err(NegotiationError::Option)?;
        let OptionHeader { option, len } = header;
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or(NegotiationError::TooManyOptions)?;
        if !self.client.contains(HandshakeFlags::FIXED_NEWSTYLE) && option != opt::EXPORT_NAME {
            return Err(NegotiationError::NotFixedNewstyle(option));
        }
        if len <= Self::MAX_OPTION {
            self.state = State::OptionData(header);
        } else if len <= Self::MAX_DRAIN && option != opt::EXPORT_NAME {
            self.state = State::Drain { option, left: len };
        } else {
            return Err(NegotiationError::OptionTooLong { option, len });
        }
        Ok(())
    }

    fn on_option(
        &mut self,
        option: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<Progress, NegotiationError> {
        let without_data = matches!(option, opt::LIST | opt::STRUCTURED_REPLY);
        if without_data && !data.is_empty() {
            encode_option_reply(out, option, rep::ERR_INVALID, &[]);
            return Ok(Progress::Continue);
        }
        match option {
            opt::EXPORT_NAME => return self.export_name(data, exports, out),
            opt::ABORT => {
                encode_option_reply(out, option, rep::ACK, &[]);
                return Ok(Progress::Aborted);
            }
            opt::LIST => self.list(exports, out),
            opt::INFO | opt::GO => return Ok(self.info(option, data, exports, out)),
            opt::STRUCTURED_REPLY => {
                self.structured = true;
                encode_option_reply(out, option, rep::ACK, &[]);
            }
            opt::LIST_META_CONTEXT => self.list_meta_context(data, exports, out),
            opt::SET_META_CONTEXT => self.set_meta_context(data, exports, out),
            // STARTTLS among them: there is no TLS here.
            _ => encode_option_reply(out, option, rep::ERR_UNSUP, &[]),
        }
        Ok(Progress::Continue)
    }

    /// The old way of choosing an export: the whole data is the name, and there is no error reply.
    fn export_name(
        &mut self,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<Progress, NegotiationError> {
        let name = text(data).map_err(NegotiationError::Option)?;
        let export = exports
            .describe(name)
            .ok_or(NegotiationError::NoSuchExport)?;
        out.extend_from_slice(&export.limits.size.to_be_bytes());
        let flags = export.transmission_flags(self.structured);
        out.extend_from_slice(&flags.bits().to_be_bytes());
        if !self.client.contains(HandshakeFlags::NO_ZEROES) {
            out.extend_from_slice(&[0; 124]);
        }
        Ok(self.chosen(name, export))
    }

    fn chosen(&self, name: &str, export: ExportInfo) -> Progress {
        Progress::Chosen(Box::new(Negotiated {
            export,
            structured: self.structured,
            contexts: match &self.chosen_contexts {
                Some((export, contexts)) if export == name => contexts.clone(),
                _ => Vec::new(),
            },
            no_zeroes: self.client.contains(HandshakeFlags::NO_ZEROES),
        }))
    }
}
