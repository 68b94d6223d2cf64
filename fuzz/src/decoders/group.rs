//! The JSON of groups and deltas: the payload of records, the text of an archive.

use volmgr::metadata::{Delta, group_from_text, group_to_text};
use volmgr::model::{self, Group};

/// One execution.
pub fn run(data: &[u8]) {
    // Two texts, the second a delta of the first.
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (Some(first), second) = (parts.next(), parts.next()) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(first) else {
        return;
    };
    let Ok(group) = group_from_text(text) else {
        let _ = serde_json::from_slice::<Delta>(first);
        return;
    };
    let sound = model::check(&group).is_empty();
    let again = group_from_text(&group_to_text(&group)).expect("written here");
    assert_eq!(again, group);
    if sound {
        group.extents_used();
        group.extents_total();
        for volume in group.volumes.iter() {
            group.bytes_of(volume);
        }
    }
    if let Some(Ok(delta)) = second.map(serde_json::from_slice::<Delta>) {
        let mut next: Group = group.clone();
        delta.apply(
            &mut next,
            group.seqno.saturating_add(1),
            uuid::Uuid::from_u128(99),
        );
        model::check(&next);
        model::check_change(&group, &next);
        if let Some(change) = Delta::between(&group, &next) {
            let mut replayed = group.clone();
            change.apply(&mut replayed, next.seqno, next.commit);
            if sound && model::check(&next).is_empty() {
                assert_eq!(replayed, next);
            }
        }
    }
}
