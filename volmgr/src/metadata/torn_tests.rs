//! Tests of what several torn commits leave together.

use super::*;
use crate::metadata::HEADER_BYTES;

/// Two attempts at the same change, both cut short: the header of the first and the rest of the second are a whole record.
#[test]
fn what_two_torn_commits_leave_is_no_conflict() {
    let mut world = World::new(2);
    let mut store = world.group();
    let first = with_volume(store.group(), "v");
    world.commit(&mut store, first).unwrap();
    let next = plan::rename_group(store.group(), "other").unwrap();
    let before = world.clone();
    // The first attempt: on one disk its header, and nothing of what the header tells of.
    world.commit(&mut clone(&store), next.clone()).unwrap();
    let torn = world.scan(1).areas.into_iter().map(|area| {
        let chain = area.newest(None).unwrap();
        (chain.records.last().unwrap().offset, chain.records.len())
    });
    let torn: Vec<(u64, usize)> = torn.collect();
    let mut after = before;
    after.next_commit = world.next_commit;
    let disk = after.disks.get_mut(&uuid(1)).unwrap();
    let whole = world.disks.get_mut(&uuid(1)).unwrap();
    for (at, records) in &torn {
        assert!(*records > 1, "it is a delta, in the same place again");
        let mut header = [0; HEADER_BYTES];
        whole.read_at(*at, &mut header).unwrap();
        disk.scribble(*at, &header);
    }
    let mut second = after.reopen().unwrap();
    assert_eq!(second.group(), store.group());
    let report = after.commit_on(&mut second, next, &[1, 2]).unwrap();
    assert_eq!(report.seqno, store.group().seqno + 2);
    // The second attempt reaches the other disk, and of this one all but the header.
    let disk = after.disks.get_mut(&uuid(1)).unwrap();
    for (at, _) in &torn {
        let mut header = [0; HEADER_BYTES];
        whole.read_at(*at, &mut header).unwrap();
        disk.scribble(*at, &header);
    }
    let found = after.assemble().unwrap();
    assert_eq!(found.chosen(), Some(second.group()));
    assert_eq!(
        after.scan(1).version.unwrap().group.seqno,
        store.group().seqno + 1,
        "the first attempt is whole"
    );
}
