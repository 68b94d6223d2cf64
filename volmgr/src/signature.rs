//! What is on a disk already: filesystems, partition tables, other volume managers, our own label.
//!
//! A pure function over the first 128 KiB and the last 64 KiB. It answers the question "may this be
//! overwritten without asking?", so in doubt it says what it sees rather than nothing; an empty
//! disk (all zeroes) has no signature.

use crate::bytes::{array_at, u16_at, u32_at};
use crate::label::{FRONT_LABEL, LABEL_MAGIC, back_label_offset};

/// Bytes from the start of the disk that [`find`] wants to see.
pub const HEAD_BYTES: usize = 128 << 10;
/// Bytes from the end of the disk that [`find`] wants to see.
pub const TAIL_BYTES: usize = 64 << 10;

/// Something that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What it is, for the admin: `ext4`, `GPT`, `LVM2 PV`, …
    pub name: &'static str,
    /// Where its magic is, in bytes from the start of the disk.
    pub offset: u64,
}

/// Name of our own label as a signature.
pub const OWN: &str = "volmgr PV";

/// A magic at a fixed offset from the start.
const FIXED: &[(&str, u64, &[u8])] = &[
    (OWN, FRONT_LABEL, &LABEL_MAGIC),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("iso9660", 0x8001, b"CD001"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("vfat", 0x36, b"FAT12   "),
    ("vfat", 0x36, b"FAT16   "),
    ("vfat", 0x52, b"FAT32   "),
    ("squashfs", 0, b"hsqs"),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    (
        "bcache",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf7\x17\x02\x7e\xc0\x57",
    ),
];

/// md superblock magic.
const MD: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();

/// Looks for a signature. `head` are the first bytes of the disk ([`HEAD_BYTES`], or all of a
/// smaller one), `tail` the last ([`TAIL_BYTES`], or all), `size` its size in bytes.
///
/// ```
/// use volmgr::signature::{HEAD_BYTES, TAIL_BYTES, find};
///
/// let (mut head, tail) = (vec![0; HEAD_BYTES], vec![0; TAIL_BYTES]);
/// assert_eq!(find(&head, &tail, 1 << 30), None);
/// head[..4].copy_from_slice(b"XFSB");
/// assert_eq!(find(&head, &tail, 1 << 30).map(|found| found.name), Some("xfs"));
/// ```
pub fn find(head: &[u8], tail: &[u8], size: u64) -> Option<Signature> {
    let at = |name, offset| Some(Signature { name, offset });
    for (name, offset, magic) in FIXED {
        if starts_with_at(head, *offset, magic) {
            return at(name, *offset);
        }
    }
    lvm(head)
        .or_else(|| ext(head))
        .or_else(|| swap(head))
        .or_else(|| md(head, tail, size))
        .or_else(|| gpt(head, tail, size))
        .or_else(|| zfs(head, tail, size))
        .or_else(|| own_back(tail, size))
        // Last, because filesystems carry a boot sector's mark, too.
        .or_else(|| mbr(head))
}

fn starts_with_at(bytes: &[u8], offset: u64, magic: &[u8]) -> bool {
    usize::try_from(offset)
        .ok()
        .and_then(|at| bytes.get(at..))
        .is_some_and(|rest| rest.starts_with(magic))
}

/// Does the disk have `magic` at `offset`, as far as the tail shows it?
fn tail_has(tail: &[u8], size: u64, offset: u64, magic: &[u8]) -> bool {
    let Some(tail_start) = size.checked_sub(tail.len() as u64) else {
        return false;
    };
    offset
        .checked_sub(tail_start)
        .is_some_and(|at| starts_with_at(tail, at, magic))
}

/// LVM2 puts its label into one of the first four sectors.
fn lvm(head: &[u8]) -> Option<Signature> {
    (0..4u64)
        .map(|sector| sector * 512)
        .find(|at| {
            starts_with_at(head, *at, b"LABELONE") && starts_with_at(head, *at + 24, b"LVM2 001")
        })
        .map(|offset| Signature {
            name: "LVM2 PV",
            offset,
        })
}

fn ext(head: &[u8]) -> Option<Signature> {
    const SUPER: usize = 1024;
    const HAS_JOURNAL: u32 = 4;
    /// extents, 64bit, flex_bg: features that only ext4 knows.
    const EXT4: u32 = 0x40 | 0x80 | 0x200;
    if u16_at(head, SUPER + 0x38)? != 0xef53 {
        return None;
    }
    let compat = u32_at(head, SUPER + 0x5c)?;
    let incompat = u32_at(head, SUPER + 0x60)?;
    let name = if incompat & EXT4 != 0 {
        "ext4"
    } else if compat & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    Some(Signature {
        name,
        offset: SUPER as u64 + 0x38,
    })
}

/// Swap has its magic at the end of the first page, whose size the machine chooses.
fn swap(head: &[u8]) -> Option<Signature> {
    [4096u64, 8192, 16384, 65536]
        .into_iter()
        .map(|page| page - 10)
        .find(|at| {
            starts_with_at(head, *at, b"SWAPSPACE2") || starts_with_at(head, *at, b"SWAP-SPACE")
        })
        .map(|offset| Signature {
            name: "swap",
            offset,
        })
}

fn md(head: &[u8], tail: &[u8], size: u64) -> Option<Signature> {
    let name = "md raid";
    for offset in [0u64, 4096] {
        if starts_with_at(head, offset, &MD) {
            return Some(Signature { name, offset });
        }
    }
    // 1.0: at least 8 KiB from the end, aligned to 4 KiB.
    let end = (size & !511).checked_sub(8 << 10).map(|at| at & !4095);
    // 0.90: in the last whole 64 KiB but one; all of it is in the tail only where the size is a
    // multiple of 64 KiB, else up to 64 KiB before it.
    let old = (size & !0xffff).checked_sub(64 << 10);
    [end, old]
        .into_iter()
        .flatten()
        .find(|at| tail_has(tail, size, *at, &MD) || starts_with_at(head, *at, &MD))
        .map(|offset| Signature { name, offset })
}

fn gpt(head: &[u8], tail: &[u8], size: u64) -> Option<Signature> {
    const MAGIC: &[u8] = b"EFI PART";
    let name = "GPT";
    for sector in [512u64, 4096] {
        if starts_with_at(head, sector, MAGIC) {
            return Some(Signature {
                name,
                offset: sector,
            });
        }
        // The backup in the last sector.
        let last = (size & !(sector - 1)).checked_sub(sector);
        if let Some(offset) = last.filter(|at| tail_has(tail, size, *at, MAGIC)) {
            return Some(Signature { name, offset });
        }
    }
    None
}

/// ZFS keeps rings of uberblocks from 128 KiB on in each of its labels (256 KiB each, two at either
/// end); the head shows the name/value list of the first label, the tail the last ring's end.
fn zfs(head: &[u8], tail: &[u8], size: u64) -> Option<Signature> {
    const UBERBLOCK: u64 = 0x00ba_b10c;
    /// An XDR-encoded list that starts with its encoding, then `version` as the first name.
    const NVLIST: usize = 16 << 10;
    let nvlist = array_at::<4>(head, NVLIST)
        .is_some_and(|b| b[0] == 1 && b[1] <= 1 && b[2] == 0 && b[3] == 0)
        && head
            .get(NVLIST..NVLIST + 64)
            .is_some_and(|b| b.windows(7).any(|w| w == b"version"));
    if nvlist {
        return Some(Signature {
            name: "zfs",
            offset: NVLIST as u64,
        });
    }
    let start = size.checked_sub(tail.len() as u64)?;
    tail.chunks_exact(1024)
        .position(|block| {
            let word = array_at::<8>(block, 0);
            word == Some(UBERBLOCK.to_le_bytes()) || word == Some(UBERBLOCK.to_be_bytes())
        })
        .map(|at| Signature {
            name: "zfs",
            offset: start + at as u64 * 1024,
        })
}

fn own_back(tail: &[u8], size: u64) -> Option<Signature> {
    back_label_offset(size)
        .filter(|at| tail_has(tail, size, *at, &LABEL_MAGIC))
        .map(|offset| Signature { name: OWN, offset })
}

/// A partition table: the mark, and at least one entry that could be a partition. The mark alone is
/// also on disks that only have a boot loader, or a test pattern.
fn mbr(head: &[u8]) -> Option<Signature> {
    const TABLE: usize = 446;
    if array_at::<2>(head, 510)? != [0x55, 0xaa] {
        return None;
    }
    let entries = head.get(TABLE..510)?.chunks_exact(16);
    let mut used = 0;
    for entry in entries {
        let start = u32_at(entry, 8)?;
        let sectors = u32_at(entry, 12)?;
        match (entry[0], entry[4]) {
            (_, 0) => continue,
            (0 | 0x80, _) if start != 0 && sectors != 0 => used += 1,
            _ => return None,
        }
    }
    (used > 0).then_some(Signature {
        name: "MBR",
        offset: 510,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 8 << 20;

    fn look(disk: &[u8]) -> Option<Signature> {
        let head = &disk[..disk.len().min(HEAD_BYTES)];
        let tail = &disk[disk.len() - disk.len().min(TAIL_BYTES)..];
        find(head, tail, disk.len() as u64)
    }

    fn with(parts: &[(u64, &[u8])]) -> Option<&'static str> {
        let mut disk = vec![0; SIZE as usize];
        for (at, bytes) in parts {
            disk[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        look(&disk).map(|s| s.name)
    }

    #[test]
    fn an_empty_disk_has_none() {
        assert_eq!(with(&[]), None);
        assert_eq!(look(&[]), None);
        assert_eq!(look(&[0; 512]), None);
        assert_eq!(look(&[0xff; 4096]), None);
    }

    #[test]
    fn every_known_one_is_found() {
        let ext = |incompat: u8, compat: u8| {
            let mut block = vec![0; 1024];
            block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            block[0x5c] = compat;
            block[0x60] = incompat;
            with(&[(1024, &block)])
        };
        assert_eq!(ext(0, 0), Some("ext2"));
        assert_eq!(ext(0, 4), Some("ext3"));
        assert_eq!(ext(0x40, 4), Some("ext4"));
        for (name, at, magic) in FIXED {
            assert_eq!(with(&[(*at, magic)]), Some(*name));
        }
        assert_eq!(with(&[(4086, b"SWAPSPACE2")]), Some("swap"));
        let lvm: [(u64, &[u8]); 2] = [(512, b"LABELONE"), (536, b"LVM2 001")];
        assert_eq!(with(&lvm), Some("LVM2 PV"));
        assert_eq!(with(&[(512, b"EFI PART")]), Some("GPT"));
        assert_eq!(with(&[(SIZE - 512, b"EFI PART")]), Some("GPT"));
        assert_eq!(with(&[(4096, &MD)]), Some("md raid"));
        assert_eq!(with(&[(SIZE - 8192, &MD)]), Some("md raid"));
        assert_eq!(with(&[(SIZE - 65536, &MD)]), Some("md raid"));
        let uberblock = 0x00ba_b10c_u64.to_le_bytes();
        assert_eq!(with(&[(SIZE - 2048, &uberblock)]), Some("zfs"));
        assert_eq!(with(&[(SIZE - 4096, &LABEL_MAGIC)]), Some(OWN));
    }

    #[test]
    fn a_partition_table_needs_a_partition() {
        assert_eq!(with(&[(510, &[0x55, 0xaa])]), None);
        let mut entry = [0; 16];
        entry[4] = 0x83;
        entry[9] = 8;
        entry[13] = 8;
        assert_eq!(with(&[(446, &entry), (510, &[0x55, 0xaa])]), Some("MBR"));
        assert_eq!(with(&[(446, &entry)]), None);
        assert_eq!(with(&[(0, &vec![0xaa; 510]), (510, &[0x55, 0xaa])]), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(
            head in proptest::collection::vec(any::<u8>(), 0..2048),
            tail in proptest::collection::vec(any::<u8>(), 0..2048),
            size: u64,
        ) {
            find(&head, &tail, size);
        }
    }
}
