//! Options and their answers.

use super::{DecodeError, OPTION_MAGIC, OPTION_REPLY_MAGIC, Reader, TransmissionFlags, info, rep};

/// Head of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which: one of [`super::opt`], or anything.
    pub option: u32,
    /// Bytes of data that follow.
    pub len: u32,
}

impl OptionHeader {
    /// Length on the wire in bytes.
    pub const LEN: usize = 16;

    /// From the wire.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let magic = reader.u64()?;
        if magic != OPTION_MAGIC {
            return Err(DecodeError::Magic(magic));
        }
        Ok(Self {
            option: reader.u32()?,
            len: reader.u32()?,
        })
    }
}

/// Data of [`super::opt::INFO`] and [`super::opt::GO`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// The export.
    pub name: &'a str,
    /// Kinds of information the client asks for, of [`info`] or not.
    pub kinds: Vec<u16>,
}

/// Decodes [`InfoRequest`].
pub fn decode_info_request(data: &[u8]) -> Result<InfoRequest<'_>, DecodeError> {
    let mut reader = Reader(data);
    let name = reader.string()?;
    let count = reader.u16()?;
    if reader.0.len() != usize::from(count) * 2 {
        return Err(DecodeError::Length);
    }
    let kinds = (0..count).map(|_| reader.u16()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(InfoRequest { name, kinds })
}

/// Data of [`super::opt::LIST_META_CONTEXT`] and [`super::opt::SET_META_CONTEXT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaQuery<'a> {
    /// The export.
    pub name: &'a str,
    /// What the client asks for.
    pub queries: Vec<&'a str>,
}

/// Decodes [`MetaQuery`].
pub fn decode_meta_query(data: &[u8]) -> Result<MetaQuery<'_>, DecodeError> {
    let mut reader = Reader(data);
    let name = reader.string()?;
    let count = reader.u32()?;
    // Each takes four bytes at least, so the data bounds the count before anything is allocated.
    if usize::try_from(count).map_or(true, |count| count > reader.0.len() / 4) {
        return Err(DecodeError::Length);
    }
    let queries = (0..count)
        .map(|_| reader.string())
        .collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(MetaQuery { name, queries })
}

/// Appends an answer to `option`.
pub fn encode_option_reply(out: &mut Vec<u8>, option: u32, reply: u32, data: &[u8]) {
    let len = u32::try_from(data.len()).expect("an answer is short");
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&reply.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends a [`rep::SERVER`] answer: the name of an export.
pub fn encode_server(out: &mut Vec<u8>, option: u32, name: &str) {
    let len = u32::try_from(name.len()).expect("a name is short");
    let data = [&len.to_be_bytes(), name.as_bytes()].concat();
    encode_option_reply(out, option, rep::SERVER, &data);
}

/// Appends a [`rep::INFO`] answer: size in bytes and flags.
pub fn encode_info_export(out: &mut Vec<u8>, option: u32, size: u64, flags: TransmissionFlags) {
    let mut data = Vec::with_capacity(12);
    data.extend_from_slice(&info::EXPORT.to_be_bytes());
    data.extend_from_slice(&size.to_be_bytes());
    data.extend_from_slice(&flags.bits().to_be_bytes());
    encode_option_reply(out, option, rep::INFO, &data);
}

/// Appends a [`rep::INFO`] answer of a kind that is a text: [`info::NAME`],
/// [`info::DESCRIPTION`].
pub fn encode_info_text(out: &mut Vec<u8>, option: u32, kind: u16, text: &str) {
    let data = [&kind.to_be_bytes(), text.as_bytes()].concat();
    encode_option_reply(out, option, rep::INFO, &data);
}

/// What I/O an export takes and likes; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of it.
    pub minimum: u32,
    /// Fastest.
    pub preferred: u32,
    /// Longest payload.
    pub maximum: u32,
}

/// Appends a [`rep::INFO`] answer: block sizes.
pub fn encode_info_block_sizes(out: &mut Vec<u8>, option: u32, sizes: BlockSizes) {
    let mut data = Vec::with_capacity(14);
    data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
    for size in [sizes.minimum, sizes.preferred, sizes.maximum] {
        data.extend_from_slice(&size.to_be_bytes());
    }
    encode_option_reply(out, option, rep::INFO, &data);
}

/// Appends a [`rep::META_CONTEXT`] answer: a context's number and name.
pub fn encode_meta_context(out: &mut Vec<u8>, option: u32, id: u32, name: &str) {
    let data = [&id.to_be_bytes(), name.as_bytes()].concat();
    encode_option_reply(out, option, rep::META_CONTEXT, &data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_count_larger_than_the_data_is_refused_before_it_is_believed() {
        let mut data = vec![0, 0, 0, 0];
        data.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(decode_meta_query(&data), Err(DecodeError::Length));
        assert_eq!(
            decode_info_request(&[0, 0, 0, 0, 0, 9]),
            Err(DecodeError::Length)
        );
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(decode_info_request(&[0, 0, 0, 1, b'a', 0, 0]).is_ok());
        assert_eq!(
            decode_info_request(&[0, 0, 0, 1, b'a', 0, 0, 0]),
            Err(DecodeError::Length)
        );
        assert_eq!(
            decode_meta_query(&[0, 0, 0, 0, 0, 0, 0, 0, 1]),
            Err(DecodeError::Length)
        );
    }

    #[test]
    fn strings_must_be_text() {
        for byte in [0, 0xff] {
            assert_eq!(
                decode_info_request(&[0, 0, 0, 1, byte, 0, 0]),
                Err(DecodeError::NotText)
            );
        }
    }

    proptest! {
        #[test]
        fn decoders_are_total(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(request) = decode_info_request(&data) {
                prop_assert_eq!(data.len(), 6 + request.name.len() + 2 * request.kinds.len());
            }
            if let Ok(query) = decode_meta_query(&data) {
                let queries: usize = query.queries.iter().map(|q| 4 + q.len()).sum();
                prop_assert_eq!(data.len(), 8 + query.name.len() + queries);
            }
        }
    }
}
