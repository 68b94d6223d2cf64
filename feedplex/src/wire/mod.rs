//! What goes over the wire, as bytes: `docs/formats.md` is the reference.
//!
//! A connection starts with a [`preamble`]. On a control connection [`control`] messages follow,
//! their bodies written by [`codec`]; on a data stream, [`frame`]s. Everything is in network byte
//! order, every decoder is total: foreign bytes give an error, never a panic and never more memory
//! than the documented limits.

pub mod codec;
pub mod control;
pub mod frame;
pub mod preamble;
mod refusal;

#[cfg(test)]
mod tests {
    use super::frame::{Command, FrameFlags, FrameHeader};

    /// The whole header, its checksum included.
    #[test]
    fn golden_frame_header() {
        let header = FrameHeader {
            command: Command::Write,
            flags: FrameFlags::FUA | FrameFlags::PAYLOAD_CRC,
            sequence: 0x0102_0304_0506_0708,
            offset: 0x1000,
            length: 0x2000,
            aux: 0xdead_beef,
        };
        let golden = include_str!("../../golden/frame-write.hex");
        assert_eq!(hex::encode(header.encode()), golden.trim());
    }
}
