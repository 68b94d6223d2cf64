//! Sizes as the admin gave them, in bytes.

use crate::api::SizeSpec;
use volmgr::model::Group;

/// Bytes of the group's space that are free.
pub fn free_bytes(group: &Group) -> u64 {
    group
        .extents_total()
        .saturating_sub(group.extents_used())
        .saturating_mul(group.extent_size)
}

/// The size meant, given the size now (0 for a new volume) and the most that is possible; `None`
/// where it makes no sense (relative to nothing, below zero).
pub fn resolve(spec: SizeSpec, now: u64, most: u64, group: &Group) -> Option<u64> {
    let percent = |of: u64, percent: u32| {
        let bytes = u128::from(of) * u128::from(percent) / 100;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        bytes - bytes % group.extent_size.max(1)
    };
    let free = || free_bytes(group);
    let total = || group.extents_total().saturating_mul(group.extent_size);
    // Percentages are wishes: logs and layouts may leave a little less than the free space.
    let size = match spec {
        SizeSpec::Bytes(bytes) => bytes,
        SizeSpec::Plus(bytes) if now > 0 => now.checked_add(bytes)?,
        SizeSpec::Minus(bytes) if now > 0 => now.checked_sub(bytes)?,
        SizeSpec::Extents(count) => count.checked_mul(group.extent_size)?,
        SizeSpec::PlusExtents(count) if now > 0 => {
            now.checked_add(count.checked_mul(group.extent_size)?)?
        }
        SizeSpec::MinusExtents(count) if now > 0 => {
            now.checked_sub(count.checked_mul(group.extent_size)?)?
        }
        SizeSpec::Plus(_)
        | SizeSpec::Minus(_)
        | SizeSpec::PlusExtents(_)
        | SizeSpec::MinusExtents(_) => return None,
        SizeSpec::PercentFree(wanted) => percent(free(), wanted).min(most),
        SizeSpec::PercentVg(wanted) => percent(total(), wanted).min(most),
        SizeSpec::PlusPercentFree(wanted) => now.checked_add(percent(free(), wanted))?.min(most),
    };
    (size > 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use volmgr::model::Pv;

    fn group() -> Group {
        Group {
            uuid: Uuid::from_u128(1),
            name: "vg0".into(),
            extent_size: 1 << 20,
            seqno: 1,
            commit: Uuid::from_u128(2),
            exported: false,
            handover: None,
            tags: Default::default(),
            pvs: vec![Pv {
                uuid: Uuid::from_u128(3),
                size: 200 << 20,
                data_start: 1 << 20,
                extent_count: 100,
                path_hint: String::new(),
                missing_since: None,
                spare: false,
                tags: Default::default(),
            }],
            volumes: Default::default(),
        }
    }

    #[test]
    fn every_form() {
        let mib = 1u64 << 20;
        let resolve = |spec, now| resolve(spec, now, 99 * mib, &group());
        assert_eq!(resolve(SizeSpec::Bytes(5), 0), Some(5));
        assert_eq!(resolve(SizeSpec::Plus(mib), mib), Some(2 * mib));
        assert_eq!(resolve(SizeSpec::Plus(mib), 0), None);
        assert_eq!(resolve(SizeSpec::Minus(mib), 3 * mib), Some(2 * mib));
        assert_eq!(resolve(SizeSpec::Minus(mib), mib), None);
        assert_eq!(resolve(SizeSpec::Minus(2 * mib), mib), None);
        assert_eq!(resolve(SizeSpec::PercentFree(100), 0), Some(99 * mib));
        assert_eq!(resolve(SizeSpec::PercentVg(50), 0), Some(50 * mib));
        assert_eq!(
            resolve(SizeSpec::PlusPercentFree(10), 5 * mib),
            Some(15 * mib)
        );
        assert_eq!(resolve(SizeSpec::Extents(3), 0), Some(3 * mib));
        assert_eq!(resolve(SizeSpec::PlusExtents(3), mib), Some(4 * mib));
        assert_eq!(resolve(SizeSpec::MinusExtents(3), 4 * mib), Some(mib));
        assert_eq!(resolve(SizeSpec::PlusExtents(3), 0), None);
        assert_eq!(resolve(SizeSpec::Extents(u64::MAX), 0), None);
        assert_eq!(resolve(SizeSpec::Bytes(0), 0), None);
        assert_eq!(resolve(SizeSpec::Plus(u64::MAX), mib), None);
    }
}
