//! The NBD protocol, server side, as two state machines without I/O.
//!
//! * [`Negotiation`] talks to a client from its first byte until it has chosen an export: bytes
//!   in, bytes out. It asks an [`Exports`] what there is.
//! * [`Connection`] takes over: it is fed request headers, says what is to be submitted to the
//!   device ([`Action`]) and what is to be sent ([`Outgoing`]). Payload never passes through it;
//!   a [`Token`] names the buffer of each piece, and whoever drives it moves the bytes.
//!
//! What the two must hold whatever the client sends: no panic; memory bounded by
//! [`ConnectionConfig`] and the constants of [`Negotiation`]; every request that was read is
//! answered once, in whole messages; a refused write's payload is drained, so that the stream
//! never loses its place.
//!
//! `docs/formats.md` lists what of the protocol is there and what is not.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod exports;
mod negotiation;
pub mod wire;

pub use config::ConnectionConfig;
pub use connection::{Action, CloseReason, Connection, Extent, Outgoing, Token, Wants};
pub use exports::{ExportInfo, Exports};
pub use negotiation::{Context, Negotiated, Negotiation, NegotiationError, Progress};
