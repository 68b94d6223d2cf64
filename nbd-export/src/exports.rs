//! What the negotiation wants to know about the volumes.

use crate::wire::{BlockSizes, MAX_PAYLOAD, TransmissionFlags};
use blockio::Limits;

/// The volumes that clients may open.
pub trait Exports {
    /// The names to show to a client that asks for a list.
    fn list(&self) -> Vec<String>;

    /// What a client may know of the export it named, or `None` where there is none. The empty
    /// name is the default export; answer `None` where there is none.
    fn describe(&self, name: &str) -> Option<ExportInfo>;
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its proper name, which may differ from the one the client used (the default export).
    pub name: String,
    /// For a human; may be empty.
    pub description: String,
    /// Size, block sizes, abilities.
    pub limits: Limits,
    /// A flush on one connection covers writes completed on the others.
    pub multi_conn: bool,
    /// Names of the metadata contexts that it has besides `base:allocation`, `NAMESPACE:…`.
    pub contexts: Vec<String>,
}

impl ExportInfo {
    /// The transmission flags that this export announces.
    pub fn transmission_flags(&self, structured: bool) -> TransmissionFlags {
        let mut flags = TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_CACHE;
        let writable = !self.limits.read_only;
        flags.set(TransmissionFlags::READ_ONLY, !writable);
        flags.set(TransmissionFlags::ROTATIONAL, self.limits.rotational);
        flags.set(
            TransmissionFlags::SEND_TRIM,
            writable && self.limits.discard,
        );
        flags.set(TransmissionFlags::SEND_WRITE_ZEROES, writable);
        flags.set(
            TransmissionFlags::SEND_FAST_ZERO,
            writable && self.limits.fast_zero,
        );
        flags.set(TransmissionFlags::SEND_DF, structured);
        flags.set(TransmissionFlags::CAN_MULTI_CONN, self.multi_conn);
        flags
    }

    /// The block sizes that this export announces.
    pub fn block_sizes(&self) -> BlockSizes {
        let minimum = self.limits.logical_block;
        BlockSizes {
            minimum,
            preferred: self
                .limits
                .physical_block
                .max(minimum)
                .clamp(4096, MAX_PAYLOAD),
            maximum: MAX_PAYLOAD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(limits: Limits) -> ExportInfo {
        ExportInfo {
            name: "vg/lv".into(),
            description: String::new(),
            limits,
            multi_conn: true,
            contexts: Vec::new(),
        }
    }

    const LIMITS: Limits = Limits {
        size: 1 << 20,
        logical_block: 512,
        physical_block: 512,
        minimum_io: 0,
        optimal_io: 0,
        read_only: false,
        discard: true,
        fast_zero: true,
        rotational: false,
    };

    #[test]
    fn a_read_only_export_announces_nothing_that_writes() {
        let flags = info(Limits {
            read_only: true,
            ..LIMITS
        })
        .transmission_flags(true);
        assert!(flags.contains(TransmissionFlags::READ_ONLY | TransmissionFlags::SEND_DF));
        assert!(!flags.intersects(
            TransmissionFlags::SEND_TRIM
                | TransmissionFlags::SEND_WRITE_ZEROES
                | TransmissionFlags::SEND_FAST_ZERO
        ));
    }

    #[test]
    fn block_sizes_are_ordered_powers_of_two() {
        for (logical_block, physical_block) in [(512, 512), (512, 4096), (4096, 16384)] {
            let sizes = info(Limits {
                logical_block,
                physical_block,
                ..LIMITS
            })
            .block_sizes();
            assert!(sizes.minimum <= sizes.preferred && sizes.preferred <= sizes.maximum);
            assert!(sizes.preferred.is_power_of_two());
            assert_eq!(sizes.maximum % sizes.minimum, 0);
        }
    }
}
