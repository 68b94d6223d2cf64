//! Little-endian fields in byte slices: total readers for decoders, and writers.

use uuid::Uuid;

/// The `N` bytes at `at`, or `None` where the slice is too short.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    let end = at.checked_add(N)?;
    bytes.get(at..end)?.try_into().ok()
}

/// The little-endian `u16` at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

/// The little-endian `u32` at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

/// The little-endian `u64` at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

/// The UUID at `at`, in the byte order of its text.
pub(crate) fn uuid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    array_at(bytes, at).map(Uuid::from_bytes)
}

/// Stores `field` at `at`.
///
/// # Panics
/// Where it does not fit: the offsets are constants of the formats.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_slices_are_none() {
        assert_eq!(u32_at(&[1, 2, 3], 0), None);
        assert_eq!(u16_at(&[1, 2, 3], usize::MAX), None);
        assert_eq!(u16_at(&[1, 2, 3], 1), Some(0x0302));
    }
}
