//! The truth table, walked whole; the views, by example.

use super::*;
use RefusalCode as Code;
use std::collections::BTreeSet;

fn splits_and_ages() -> impl Iterator<Item = (Split, Older)> {
    let splits = [Split::No, Split::Finish, Split::Forgotten];
    let ages = [Older::Neither, Older::Source, Older::Sink, Older::Both];
    splits
        .into_iter()
        .flat_map(move |split| ages.map(|older| (split, older)))
}

fn all_facts() -> Vec<Facts> {
    let mut all = Vec::new();
    for bits in 0u32..1 << 10 {
        let bit = |n: u32| bits >> n & 1 == 1;
        for epochs in [Epochs::Common, Epochs::NoneYet, Epochs::Foreign] {
            for (split, older) in splits_and_ages() {
                for relation in [
                    Relation::Same,
                    Relation::SinkBehind,
                    Relation::SinkAhead,
                    Relation::Siblings,
                    Relation::Unrelated,
                ] {
                    all.push(Facts {
                        size_fits: bit(0),
                        source_good: bit(1),
                        source_knows: bit(2),
                        sink_knows: bit(3),
                        fresh: bit(4),
                        epochs,
                        older,
                        split,
                        seeded: bit(5),
                        consistent: bit(6),
                        relation,
                        dirty: bit(7),
                        own: bit(8),
                        consent: bit(9),
                    });
                }
            }
        }
    }
    all
}

#[test]
fn every_case_has_a_row_and_every_row_a_case() {
    let mut hit = BTreeSet::new();
    for facts in all_facts() {
        let (row, _) = facts
            .decide()
            .unwrap_or_else(|| panic!("no row for {facts:?}"));
        hit.insert(row);
    }
    assert_eq!(hit, (1..=TABLE.len()).collect());
}

#[test]
fn the_documentation_is_the_table() {
    let source = include_str!("generation.rs");
    let mut rows = 0;
    for line in source.lines() {
        let Some(text) = line.strip_prefix("//! ") else {
            continue;
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some(number) = words.first().and_then(|w| w.parse::<usize>().ok()) else {
            continue;
        };
        let pattern = words[1..=COLUMNS].concat();
        let (expected, verdict) = TABLE[number - 1];
        assert_eq!(pattern.as_bytes(), expected, "row {number}");
        let name = match verdict {
            Verdict::Flow(flow) => format!("{flow:?}"),
            Verdict::Refused(code) => format!("{code:?}"),
        };
        assert_eq!(words[COLUMNS + 1], name, "row {number}");
        rows += 1;
    }
    assert_eq!(rows, TABLE.len());
}

/// Rules of the design that must hold whatever the rows say.
#[test]
fn no_row_breaks_an_invariant() {
    for facts in all_facts() {
        let (row, verdict) = facts.decide().expect("covered");
        let at = || format!("row {row}: {facts:?}");
        let Verdict::Flow(flow) = verdict else {
            continue;
        };
        assert!(facts.size_fits && facts.source_good, "{}", at());
        let copies = flow != FlowKind::FinishSplit;
        // Foreign data is not overwritten without a word from the admin.
        if !facts.sink_knows && !facts.fresh {
            assert!(facts.consent, "{}", at());
        }
        // Nor what a consistent sink has of its own.
        if facts.sink_knows && facts.seeded && facts.consistent && facts.own && copies {
            assert!(facts.consent || facts.epochs == Epochs::NoneYet, "{}", at());
        }
        // A map is believed only within one history of sessions.
        if matches!(
            flow,
            FlowKind::Nothing | FlowKind::Incremental | FlowKind::IncrementalUnion
        ) {
            assert!(facts.source_knows && facts.sink_knows, "{}", at());
            assert_eq!(facts.epochs, Epochs::Common, "{}", at());
            // Nor is one that has lost its end.
            assert_eq!(facts.older, Older::Neither, "{}", at());
        }
        // The sink's own changes are never left standing under the source's name.
        if facts.own && matches!(flow, FlowKind::Nothing | FlowKind::Incremental) {
            panic!("{}", at());
        }
        if flow == FlowKind::Nothing {
            assert!(!facts.dirty && facts.consistent && facts.seeded, "{}", at());
        }
    }
}

/// Consent opens doors; it never closes one, and never makes more flow than needed.
#[test]
fn consent_never_changes_a_flow_that_needs_none() {
    for facts in all_facts().into_iter().filter(|f| !f.consent) {
        let with = Facts {
            consent: true,
            ..facts
        };
        let (without, with) = (facts.decide(), with.decide());
        if let Some((_, Verdict::Flow(flow))) = without {
            assert_eq!(with.map(|w| w.1), Some(Verdict::Flow(flow)), "{facts:?}");
        }
    }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn lineage(current: u128, history: &[u128]) -> Lineage {
    Lineage {
        current: id(current),
        history: history.iter().copied().map(id).collect(),
    }
}

/// A feed that was live and was cut: both at generation 1, session epoch 100.
fn cut() -> (SourceView, SinkView) {
    let source = SourceView {
        size: 1 << 20,
        known: true,
        good: true,
        dirty: true,
        point: SourcePoint::None,
        epochs: vec![id(100)],
        stamp: 7,
        seen: 7,
        lineage: lineage(1, &[]),
    };
    let sink = SinkView {
        size: 1 << 20,
        known: true,
        fresh: false,
        seeded: true,
        consistent: true,
        own_changes: false,
        split: None,
        epochs: vec![id(100)],
        stamp: 7,
        seen: 7,
        lineage: lineage(1, &[]),
    };
    (source, sink)
}

#[test]
fn a_cut_feed_resyncs_by_the_source_map() {
    let (source, sink) = cut();
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Flow(FlowKind::Incremental)
    );
}

#[test]
fn a_handshake_cut_between_the_two_commits_is_no_rollback() {
    let (source, mut sink) = cut();
    sink.epochs = vec![id(101), id(100)];
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Flow(FlowKind::Incremental)
    );
}

/// A feed that ended at a point is attached anew, and the source has not committed that.
#[test]
fn an_attach_cut_between_the_two_commits_goes_on() {
    let (mut source, mut sink) = cut();
    let point = id(2);
    source.point = SourcePoint::Split(point);
    (source.lineage, sink.lineage) = (lineage(3, &[2, 1]), lineage(2, &[1]));
    sink.epochs = vec![id(101), id(100)];
    let asked = verdict(&source, &sink, false);
    assert_eq!(asked, Verdict::Flow(FlowKind::Incremental));
    // What was written there meanwhile counts as ever.
    sink.lineage = lineage(4, &[2, 1]);
    sink.own_changes = true;
    let asked = verdict(&source, &sink, false);
    assert_eq!(asked, Verdict::Refused(Code::Diverged));
    // A sink that has never come to the point is older than the source has seen it.
    sink.own_changes = false;
    sink.lineage = lineage(1, &[]);
    let asked = verdict(&source, &sink, false);
    assert_eq!(asked, Verdict::Refused(Code::RolledBack));
}

/// The sink has committed that it holds nothing worth keeping, the source has not committed the session.
#[test]
fn a_first_copy_cut_between_the_two_commits_goes_on() {
    let (mut source, mut sink) = cut();
    (sink.seeded, sink.consistent) = (false, false);
    // What the admin has agreed to is not asked again, also where there was an earlier history,
    sink.epochs = vec![id(101)];
    for own in [false, true] {
        sink.own_changes = own;
        assert_eq!(
            verdict(&source, &sink, false),
            Verdict::Flow(FlowKind::Full)
        );
    }
    // nor where it was the first contact.
    (source.known, source.epochs) = (false, Vec::new());
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Flow(FlowKind::Full)
    );
    // A sink that holds something is not the like of it.
    sink.seeded = true;
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Refused(Code::UnknownAtSource)
    );
}

#[test]
fn an_older_disk_is_recognised() {
    let (mut source, sink) = cut();
    source.epochs = vec![id(102)];
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Refused(Code::RolledBack)
    );
    assert_eq!(verdict(&source, &sink, true), Verdict::Flow(FlowKind::Full));
}

/// The known words for the cases that an admin meets.
#[test]
fn a_side_that_was_rolled_back_within_the_session_is_named() {
    let (mut source, mut sink) = cut();
    source.stamp = 6;
    let older = |source: &SourceView, sink: &SinkView| verdict(source, sink, false);
    assert_eq!(
        older(&source, &sink),
        Verdict::Refused(Code::SourceOlder),
        "the sink has writes that the source does not know of"
    );
    assert_eq!(verdict(&source, &sink, true), Verdict::Flow(FlowKind::Full));
    source.stamp = 8;
    sink.stamp = 6;
    assert_eq!(
        older(&source, &sink),
        Verdict::Refused(Code::SinkOlder),
        "the sink has lost what it told to be durable"
    );
    source.stamp = 6;
    assert_eq!(older(&source, &sink), Verdict::Refused(Code::RolledBack));
    // A log that has gone on is no news.
    (source.stamp, sink.stamp) = (9, 9);
    assert_eq!(older(&source, &sink), Verdict::Flow(FlowKind::Incremental));
}

#[test]
fn an_older_disk_of_another_session_is_named_where_the_log_tells() {
    let (mut source, mut sink) = cut();
    sink.epochs = vec![id(99)];
    sink.stamp = 3;
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Refused(Code::SinkOlder)
    );
    (sink.stamp, source.stamp) = (7, 3);
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Refused(Code::SourceOlder)
    );
}

#[test]
fn a_source_that_went_back_to_before_the_first_session_does_not_overwrite_the_backup() {
    let (mut source, sink) = cut();
    source.epochs.clear();
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Refused(Code::RolledBack)
    );
}

#[test]
fn after_a_split_both_ways_are_incremental() {
    let (mut source, mut sink) = cut();
    source.lineage = lineage(3, &[2, 1]);
    sink.lineage = lineage(2, &[1]);
    sink.split = Some(id(2));
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Flow(FlowKind::Incremental)
    );
    // Restore: the old source is the sink, and was written since the point.
    let (new_source, new_sink) = (
        SourceView {
            dirty: false,
            lineage: lineage(2, &[1]),
            ..source.clone()
        },
        SinkView {
            own_changes: true,
            split: None,
            lineage: lineage(3, &[2, 1]),
            ..sink
        },
    );
    assert_eq!(
        verdict(&new_source, &new_sink, false),
        Verdict::Refused(Code::SinkAhead)
    );
    assert_eq!(
        verdict(&new_source, &new_sink, true),
        Verdict::Flow(FlowKind::IncrementalUnion)
    );
}

#[test]
fn a_sink_written_since_the_split_has_diverged() {
    let (mut source, mut sink) = cut();
    source.lineage = lineage(3, &[2, 1]);
    sink.lineage = lineage(4, &[2, 1]);
    sink.own_changes = true;
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Refused(Code::Diverged)
    );
    assert_eq!(
        verdict(&source, &sink, true),
        Verdict::Flow(FlowKind::IncrementalUnion)
    );
}

#[test]
fn a_lost_mark_done_ends_the_detach() {
    let (mut source, mut sink) = cut();
    source.point = SourcePoint::Detaching(id(2));
    sink.split = Some(id(2));
    sink.lineage = lineage(2, &[1]);
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Flow(FlowKind::FinishSplit)
    );
    // Another point: that detach is long over, this one has not reached the sink.
    sink.split = Some(id(9));
    assert_eq!(
        verdict(&source, &sink, false),
        Verdict::Flow(FlowKind::Incremental)
    );
}

#[test]
fn roles_follow_the_higher_epoch_symmetrically() {
    for ours in [Role::Source, Role::Sink] {
        for theirs in [Role::Source, Role::Sink] {
            for (a, b) in [(1, 1), (1, 2), (2, 1)] {
                let ours = RoleClaim {
                    role: ours,
                    epoch: a,
                };
                let theirs = RoleClaim {
                    role: theirs,
                    epoch: b,
                };
                let settled = |r| match r {
                    RoleResolution::AsClaimed(c)
                    | RoleResolution::Adopt(c)
                    | RoleResolution::PeerAdopts(c) => Some(c),
                    RoleResolution::Conflict => None,
                };
                let here = settled(resolve_roles(ours, theirs));
                let there = settled(resolve_roles(theirs, ours));
                match (here, there) {
                    (Some(here), Some(there)) => {
                        assert_eq!(here.role, there.role.other());
                        assert_eq!(here.epoch, there.epoch);
                        assert_eq!(here.epoch, a.max(b));
                    }
                    (None, None) => assert!(a == b && ours.role == theirs.role),
                    other => panic!("the sides disagree: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn lineage_is_bounded() {
    let mut lineage = lineage(0, &[]);
    for n in 1..100 {
        lineage.advance(id(n));
    }
    assert_eq!(lineage.history.len(), Lineage::HISTORY_MAX);
    assert_eq!(lineage.history[0], id(98));
}
