//! The invariants.

use super::session::Wrong;
use super::world::*;
use crate::sim::record::Ask;
use feedplex::generation::Role;
use feedplex::session::{FeedState, RecordChange, Rights, decide};
use feedplex::wire::control::{FlowKind, RefusalCode};
use volmgr::model::Direction;

impl World {
    /// Checks the state, and what it would be if every connection were cut now.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        for link in 0..self.links.len() {
            self.claims(link)?;
        }
        let mut apart = self.clone();
        for link in 0..self.links.len() {
            if apart.links[link].conn.is_some() {
                apart.end(link, None)?;
            }
            apart.differences(link)?;
        }
        Ok(())
    }

    /// Invariant 6: what is told consistent is a moment of a source.
    fn claims(&self, link: usize) -> Result<(), Wrong> {
        for side in 0..2 {
            let node = &self.nodes[self.links[link].ends[side]];
            let record = self.record(link, side);
            if record.direction != Direction::In || record.epochs.is_empty() {
                continue;
            }
            let told = self.local(link, side, &Ask::default()).facts.consistent;
            let shown = self.is_open(link, side) && record.consistent;
            if (told || shown) && !self.moments.contains(&node.data) {
                return Err(format!(
                    "end {side} is told consistent with {:?}, which no source ever had",
                    node.data
                ));
            }
            if told && self.links[link].conn.is_none() && !self.moments.contains(&node.durable) {
                return Err(format!(
                    "end {side}: {:?} on the disk is no moment",
                    node.durable
                ));
            }
        }
        Ok(())
    }

    /// Invariant 7: what differs is in the maps that the verdict uses.
    fn differences(&self, link: usize) -> Result<(), Wrong> {
        // Where a new beginning after a point got as far as the sink alone, the admin says it again.
        let (first, second) = (self.is_split(link, 0), self.is_split(link, 1));
        let ask = Ask {
            attach: first != second,
            ..Ask::default()
        };
        let facts = |side: usize| self.local(link, side, &ask).facts;
        let (ours, theirs) = (facts(0), facts(1));
        if !ours.known || !theirs.known {
            return Ok(());
        }
        let rights = Rights {
            feed: true,
            read: true,
        };
        let [a, b] = self.links[link].ends.map(|node| self.nodes[node].data);
        let [mine, other] = self.links[link].maps;
        let (source, flow) = match decide(&ours, &theirs, rights, true) {
            Ok(decision) => (
                usize::from(decision.claim.role == Role::Sink),
                Ok(decision.flow),
            ),
            Err(code) => (0, Err(code)),
        };
        let known = match flow {
            Ok(FlowKind::Nothing | FlowKind::Incremental) => [mine, other][source],
            // Nothing flows yet, so both sides may have changed since.
            Ok(FlowKind::FinishSplit | FlowKind::IncrementalUnion) | Err(_) => {
                std::array::from_fn(|region| mine[region] || other[region])
            }
            Ok(FlowKind::Full) => {
                let needless = self.links[link].was_live && !self.links[link].consent;
                return match needless {
                    true => Err("a full copy would come, and both sides know better".into()),
                    false => Ok(()),
                };
            }
        };
        if let Err(
            code @ (RefusalCode::UnknownAtSource
            | RefusalCode::RolledBack
            | RefusalCode::Disagree
            | RefusalCode::Protocol
            | RefusalCode::SinkTooSmall
            | RefusalCode::SourceNotConsistent
            | RefusalCode::ForeignData),
        ) = flow
        {
            return Err(format!(
                "refused ({code:?}), though nothing was lost or taken back"
            ));
        }
        for region in 0..REGIONS {
            if a[region] != b[region] && !known[region] {
                return Err(format!(
                    "region {region} differs ({a:?}, {b:?}) and {flow:?} does not know"
                ));
            }
        }
        Ok(())
    }

    /// Invariant 9: what only the sink has goes with the admin's word alone.
    pub(super) fn may_overwrite(
        &self,
        link: usize,
        source: usize,
        region: usize,
    ) -> Result<(), Wrong> {
        let [there, here] =
            [source, 1 - source].map(|side| &self.nodes[self.links[link].ends[side]]);
        let lost = here.data[region];
        let elsewhere = there.seen | self.links[link].given_up;
        if lost != 0 && elsewhere >> lost & 1 == 0 {
            return Err(format!(
                "value {lost} is overwritten, nobody else has it, nobody agreed"
            ));
        }
        Ok(())
    }

    /// Looks at a commit that was made.
    pub(super) fn committed(
        &mut self,
        link: usize,
        side: usize,
        change: &RecordChange,
    ) -> Result<(), Wrong> {
        let node = &self.nodes[self.links[link].ends[side]];
        match change {
            RecordChange::Session {
                role: Role::Sink, ..
            } if self.links[link].consent => {
                let data = node.data;
                let link = &mut self.links[link];
                link.given_up |= data.iter().fold(0, |values, value| values | 1 << value);
                link.was_live = false;
                Ok(())
            }
            RecordChange::Consistent { .. } if !self.moments.contains(&node.durable) => Err(
                format!("committed consistent with {:?} on the disk", node.durable),
            ),
            RecordChange::Consistent { .. } => {
                self.links[link].was_live = true;
                Ok(())
            }
            RecordChange::Split { point, .. } | RecordChange::Swapped { point, .. } => {
                let sink = self.source(link).is_some_and(|source| source != side);
                let differs = self.marks.get(point) != Some(&node.durable);
                match sink && differs {
                    true => Err(format!(
                        "point {point} is {:?} on the disk, at its mark it was {:?}",
                        node.durable,
                        self.marks.get(point)
                    )),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Nothing more comes by itself: has everything come to its end?
    ///
    /// # Errors
    /// Says what is stuck.
    pub fn at_rest(&self) -> Result<(), Wrong> {
        for (n, link) in self.links.iter().enumerate() {
            let Some(conn) = &link.conn else {
                continue;
            };
            let states = [0, 1].map(|side| conn.sides[side].session.0.state());
            let [a, b] = link.ends.map(|node| self.nodes[node].data);
            match states {
                [FeedState::Live, FeedState::Live] if a == b || conn.marked => {}
                [FeedState::Live, FeedState::Live] => {
                    return Err(format!("feed {n} is live and at rest with {a:?} and {b:?}"));
                }
                _ => return Err(format!("feed {n} is stuck in {states:?}")),
            }
            if conn.marked {
                return Err(format!("feed {n} has sent its mark and nothing came of it"));
            }
        }
        Ok(())
    }
}
