//! The only place that knows bincode.
//!
//! A message body is a sequence of fields in big-endian order with fixed widths. What a field looks
//! like is written down by its [`Field`] impl, never by the order in which Rust sees declarations:
//!
//! * integers: fixed width; `bool`: one byte, 0 or 1
//! * UUIDs: 16 bytes; tokens and hashes: 32 bytes
//! * text: u32 length in bytes, UTF-8; at most [`TEXT_MAX`]
//! * lists: u32 count, then the items; `Option`: one byte 0 or 1, then the value
//! * enums: their explicit u16 number ([`wire_enum!`])
//!
//! Limits hold before memory is taken: the body is bounded, and a list may not claim more items
//! than the bytes that are left could hold.

use bincode::config::{BigEndian, Configuration, Fixint, Limit};
use bincode::de::{Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use thiserror::Error;
use uuid::Uuid;

/// Longest message body in bytes.
pub const BODY_MAX: usize = 1 << 20;

/// Longest text in bytes.
pub const TEXT_MAX: usize = 4096;

type Config = Configuration<BigEndian, Fixint, Limit<BODY_MAX>>;

fn config() -> Config {
    bincode::config::standard()
        .with_big_endian()
        .with_fixed_int_encoding()
        .with_limit::<BODY_MAX>()
}

/// Why a body could not be written or read. The text is for the log only.
#[derive(Debug, Error)]
pub enum CodecError {
    /// A value cannot be written.
    #[error("cannot encode a message body")]
    Encode(#[source] EncodeError),
    /// The bytes are not such a body.
    #[error("cannot decode a message body")]
    Decode(#[source] DecodeError),
    /// Too long.
    #[error("a message body of {0} bytes is too long")]
    TooLong(usize),
    /// Bytes are left over.
    #[error("{0} bytes too many in a message body")]
    Trailing(usize),
}

/// A value with a fixed form in a message body.
pub trait Field: Sized {
    /// Fewest bytes that the value takes.
    const LEN_MIN: usize;
    /// Writes it.
    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError>;
    /// Reads it.
    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError>;
}

struct Body<T>(T);

impl<T: Field> Encode for Body<&T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.put(encoder)
    }
}

impl<T: Field, C> Decode<C> for Body<T> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        T::take(decoder).map(Body)
    }
}

/// The bytes of a body.
pub fn to_bytes<T: Field>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::encode_to_vec(Body(value), config()).map_err(CodecError::Encode)?;
    if bytes.len() > BODY_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// The value in these bytes, all of them.
pub fn from_bytes<T: Field>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > BODY_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let (Body(value), used) =
        bincode::decode_from_slice(bytes, config()).map_err(CodecError::Decode)?;
    match bytes.len().checked_sub(used) {
        Some(0) => Ok(value),
        left => Err(CodecError::Trailing(left.unwrap_or(0))),
    }
}

macro_rules! plain_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const LEN_MIN: usize = size_of::<$type>();
            fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.encode(encoder)
            }
            fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    )*};
}

plain_field!(u8, u16, u32, u64, bool, [u8; 16], [u8; 32]);

impl Field for Uuid {
    const LEN_MIN: usize = 16;
    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_bytes().put(encoder)
    }
    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        <[u8; 16]>::take(decoder).map(Uuid::from_bytes)
    }
}

impl Field for String {
    const LEN_MIN: usize = 4;
    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        if self.len() > TEXT_MAX {
            return Err(EncodeError::Other("text is too long"));
        }
        self.as_bytes().to_vec().put(encoder)
    }
    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::take(decoder)?;
        if bytes.len() > TEXT_MAX {
            return Err(DecodeError::Other("text is too long"));
        }
        String::from_utf8(bytes).map_err(|_| DecodeError::Other("text is not UTF-8"))
    }
}

impl<T: Field> Field for Vec<T> {
    const LEN_MIN: usize = 4;
    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let count =
            u32::try_from(self.len()).map_err(|_| EncodeError::Other("list is too long"))?;
        count.put(encoder)?;
        self.iter().try_for_each(|item| item.put(encoder))
    }
    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count = u32::take(decoder)? as usize;
        if count.saturating_mul(T::LEN_MIN) > BODY_MAX {
            return Err(DecodeError::LimitExceeded);
        }
        // Grows as items really arrive: a claim alone takes at most this much memory.
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(T::take(decoder)?);
        }
        Ok(items)
    }
}

impl<T: Field> Field for Option<T> {
    const LEN_MIN: usize = 1;
    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.is_some().put(encoder)?;
        self.iter().try_for_each(|value| value.put(encoder))
    }
    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        bool::take(decoder)?.then(|| T::take(decoder)).transpose()
    }
}

/// Declares a struct whose fields go over the wire in the order written here.
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl $crate::wire::codec::Field for $name {
            const LEN_MIN: usize = 0 $(+ <$type as $crate::wire::codec::Field>::LEN_MIN)*;
            fn put<E: bincode::enc::Encoder>(
                &self,
                #[allow(unused_variables)] encoder: &mut E,
            ) -> Result<(), bincode::error::EncodeError> {
                $($crate::wire::codec::Field::put(&self.$field, encoder)?;)*
                Ok(())
            }
            fn take<D: bincode::de::Decoder>(
                #[allow(unused_variables)] decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                Ok(Self { $($field: $crate::wire::codec::Field::take(decoder)?,)* })
            }
        }
    };
}

/// Declares an enum that goes over the wire as the u16 number written here.
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $code:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum $name { $($(#[$variant_meta])* $variant = $code,)* }

        impl $name {
            /// All of them, by declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire.
            pub fn code(self) -> u16 {
                self as u16
            }

            /// The value with this number.
            pub fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl $crate::wire::codec::Field for $name {
            const LEN_MIN: usize = 2;
            fn put<E: bincode::enc::Encoder>(
                &self,
                encoder: &mut E,
            ) -> Result<(), bincode::error::EncodeError> {
                self.code().put(encoder)
            }
            fn take<D: bincode::de::Decoder>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                Self::from_code(u16::take(decoder)?)
                    .ok_or(bincode::error::DecodeError::Other(concat!(
                        "unknown number of ",
                        stringify!($name)
                    )))
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_cannot_claim_more_than_there_is() {
        let mut bytes = vec![0xff; 4];
        assert!(from_bytes::<Vec<u64>>(&bytes).is_err());
        bytes = vec![0, 0, 0x10, 0];
        assert!(from_bytes::<Vec<u64>>(&bytes).is_err());
        assert!(from_bytes::<Vec<u64>>(&[0, 0, 0, 0]).is_ok());
    }

    #[test]
    fn text_is_bounded_and_utf8() {
        assert!(to_bytes(&"x".repeat(TEXT_MAX)).is_ok());
        assert!(to_bytes(&"x".repeat(TEXT_MAX + 1)).is_err());
        assert!(from_bytes::<String>(&[0, 0, 0, 1, 0xff]).is_err());
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        assert!(matches!(
            from_bytes::<u16>(&[0, 1, 2]),
            Err(CodecError::Trailing(1))
        ));
    }

    #[test]
    fn integers_are_big_endian_and_fixed() {
        let bytes = to_bytes(&0x0102_u64).expect("encodes");
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
