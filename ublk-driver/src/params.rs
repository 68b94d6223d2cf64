//! What a device is asked to be, and its limits in the kernel's encoding.

use crate::sys::uapi;
use blockio::Limits;

/// How payload gets between the kernel's request and the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does not: the request's pages are registered in the ring.
    ZeroCopy,
    /// By reading and writing the character device.
    UserCopy,
    /// The kernel copies it to and from memory of the daemon.
    Mapped,
}

/// Whose a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// The machine's: only an administrator makes such devices, and they outlive their server.
    #[default]
    Machine,
    /// The user's who makes it. The kernel trusts him less: payload is copied by the kernel only
    /// ([`Mode::Mapped`]), nothing is looked for on the device, and it ends with its server.
    User,
}

/// A device to create.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Number of hardware queues, at least 1.
    pub queues: u16,
    /// Requests per queue, a power of two up to 4096.
    pub depth: u16,
    /// Largest request in bytes.
    pub max_io: u32,
    /// How payload moves.
    pub mode: Mode,
    /// Who is to own it.
    pub owner: Owner,
    /// Size, blocks, abilities.
    pub limits: Limits,
    /// Wanted number N of `/dev/ublkbN`, or any.
    pub id: Option<u32>,
}

/// `struct ublk_params` with the basic and the discard part.
pub(crate) fn encode(config: &DeviceConfig) -> [u8; 64] {
    let limits = &config.limits;
    let mut attrs = uapi::ATTR_VOLATILE_CACHE | uapi::ATTR_FUA;
    if limits.read_only {
        attrs |= uapi::ATTR_READ_ONLY;
    }
    if limits.rotational {
        attrs |= uapi::ATTR_ROTATIONAL;
    }
    let physical = limits.physical_block.max(limits.logical_block);
    // The driver takes a power of two. Of a width that is none, one that it is a multiple of: who aligns
    // to it never straddles a stripe's edge.
    let power = |wanted: u32| match wanted {
        0 => physical,
        width => (1 << width.trailing_zeros()).max(physical),
    };
    let (minimum, optimal) = (power(limits.minimum_io), power(limits.optimal_io));
    // Sizes of one discard or write-zeroes request, in sectors: bounded so that the byte count
    // stays below 4 GiB in the kernel.
    let max_zero = u32::MAX >> 9;
    let mut b = [0u8; 64];
    let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &64u32.to_ne_bytes());
    put(
        4,
        &(uapi::PARAM_TYPE_BASIC | uapi::PARAM_TYPE_DISCARD).to_ne_bytes(),
    );
    put(8, &attrs.to_ne_bytes());
    put(
        12,
        &[
            shift(limits.logical_block),
            shift(physical),
            shift(optimal),
            shift(minimum),
        ],
    );
    put(16, &(config.max_io / 512).to_ne_bytes());
    put(24, &(limits.size / 512).to_ne_bytes());
    // At 40, how far the device's start is from a multiple of the granularity: not at all.
    put(44, &limits.logical_block.max(4096).to_ne_bytes());
    put(
        48,
        &(if limits.discard { max_zero } else { 0 }).to_ne_bytes(),
    );
    put(52, &max_zero.to_ne_bytes());
    put(56, &1u16.to_ne_bytes());
    b
}

/// log2, rounded down.
fn shift(value: u32) -> u8 {
    u32::BITS
        .saturating_sub(1)
        .saturating_sub(value.leading_zeros()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_encoded_where_the_kernel_reads_them() {
        let config = DeviceConfig {
            queues: 1,
            depth: 128,
            max_io: 256 << 10,
            mode: Mode::UserCopy,
            owner: Owner::Machine,
            limits: Limits {
                size: 1 << 30,
                logical_block: 512,
                physical_block: 4096,
                minimum_io: 1 << 18,
                optimal_io: 1 << 20,
                read_only: true,
                discard: true,
                fast_zero: true,
                rotational: false,
            },
            id: None,
        };
        let b = encode(&config);
        let u32_at = |at: usize| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        assert_eq!(
            u32_at(8),
            uapi::ATTR_READ_ONLY | uapi::ATTR_VOLATILE_CACHE | uapi::ATTR_FUA
        );
        assert_eq!(&b[12..16], &[9, 12, 20, 18]);
        assert_eq!(u32_at(16), 512);
        assert_eq!(
            u64::from_ne_bytes(b[24..32].try_into().expect("8 bytes")),
            1 << 21
        );
        assert_eq!((u32_at(40), u32_at(44)), (0, 4096));
        assert_eq!(u32_at(48), u32::MAX >> 9);
        let mut three = config.clone();
        three.limits.optimal_io = 3 * 65536;
        assert_eq!(encode(&three)[14], 16, "64 KiB");
        (three.limits.minimum_io, three.limits.optimal_io) = (0, 0);
        assert_eq!(&encode(&three)[14..16], &[12, 12]);
    }

    #[test]
    fn shifts() {
        assert_eq!((shift(512), shift(4096), shift(0)), (9, 12, 0));
    }
}
