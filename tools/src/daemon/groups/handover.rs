//! Carrying on with `vgsplit` and `vgmerge`: at once, and after a crash in between with the next scan.

use super::scan::ScanOutcome;
use super::{Groups, News, Orphan};
use crate::daemon::disks::FilePv;
use crate::daemon::verbs::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;
use volmgr::metadata;
use volmgr::model::{Group, Handover, HandoverSide};
use volmgr::plan::{self, HandoverStep};

/// A disk whose label names a group that does not list it.
#[derive(Debug)]
pub(super) struct Loose {
    /// Its PV UUID.
    pub uuid: Uuid,
    /// The disk, claimed.
    pub disk: FilePv,
    /// Number of the newest commit of that group on it.
    pub seqno: u64,
    /// What to tell where nobody is waiting for it.
    pub warning: String,
}

/// What became of a handover.
#[derive(Debug, PartialEq, Eq)]
pub enum Carried {
    /// There was none, or it is over; with what happened.
    Over(Vec<News>),
    /// It waits, and what for.
    Waits(String),
}

impl Groups {
    /// Carries on with whatever is on its way between groups. Disks that nobody waits for are let go of.
    pub(super) fn carry_on(&self, loose: Vec<Loose>, outcome: &mut ScanOutcome) {
        let mut loose: BTreeMap<Uuid, Loose> = loose.into_iter().map(|l| (l.uuid, l)).collect();
        for view in self.views() {
            let usable = view.trouble.is_none() && !view.group.exported;
            if view.group.handover.is_none() || !usable {
                continue;
            }
            let vg = view.group.name.clone();
            match self.carry(&vg, &mut loose, false) {
                Ok(Carried::Over(news)) => {
                    outcome.events.extend(news);
                    outcome.changed.push(vg);
                }
                Ok(Carried::Waits(why)) => outcome.warnings.push(format!("group {vg}: {why}")),
                Err(why) => outcome.warnings.push(format!(
                    "group {vg}: what is on its way to or from it cannot arrive: {why}"
                )),
            }
        }
        let told: BTreeSet<String> = loose.into_values().map(|l| l.warning).collect();
        outcome.warnings.extend(told);
    }

    /// Does what is left of the group's handover. With `give_up` it does not wait for disks that are away:
    /// they arrive as missing ones, and where none is here, nothing arrives. Blocks.
    pub fn hand_over(&self, vg: &str, give_up: bool) -> Result<Carried, String> {
        self.carry(vg, &mut BTreeMap::new(), give_up)
    }

    fn carry(
        &self,
        vg: &str,
        loose: &mut BTreeMap<Uuid, Loose>,
        give_up: bool,
    ) -> Result<Carried, String> {
        let slot = self.slot(vg).ok_or("no such group")?;
        let view = slot.view();
        let Some(handover) = view.group.handover.clone() else {
            return Ok(Carried::Over(Vec::new()));
        };
        // The version that says so must be on all its disks before others are let go of for it.
        if !view.missing().is_empty() && !give_up {
            return Ok(Carried::Waits(format!(
                "{} waits for this group's own disks",
                describe(&handover)
            )));
        }
        self.settle(vg)?;
        let other = self.other(&handover);
        let other = match &other {
            Some(other) if other.trouble.is_some() || other.group.exported => {
                return Ok(Carried::Waits(format!(
                    "{} waits for group {}, which cannot be used",
                    describe(&handover),
                    other.group.name
                )));
            }
            other => other.as_ref(),
        };
        let mut free: BTreeSet<Uuid> = self.orphans().iter().map(|o| o.uuid).collect();
        free.extend(loose.keys());
        let known = other.map(|other| (&other.group, other.missing().is_empty()));
        let mut news = Vec::new();
        let mut step = plan::handover_step(&handover, known, &free);
        if let (true, HandoverStep::Wait { pvs }) = (give_up, &step) {
            let all = pvs.len() == handover.pvs.len();
            step = match handover.side {
                _ if all => HandoverStep::End,
                HandoverSide::Giving if other.is_none() && !handover.fresh => step,
                HandoverSide::Giving => HandoverStep::Deliver,
                HandoverSide::Taking if other.is_some() => HandoverStep::End,
                HandoverSide::Taking => HandoverStep::Receive,
            };
        }
        match step {
            HandoverStep::Wait { pvs } => {
                let pvs: Vec<String> = pvs.iter().map(|pv| place(&handover, *pv)).collect();
                let what = match pvs.is_empty() {
                    true => format!("group {}", handover.name),
                    false => format!("disk(s) {}", pvs.join(", ")),
                };
                return Ok(Carried::Waits(format!(
                    "{} waits for {what}",
                    describe(&handover)
                )));
            }
            HandoverStep::End => {}
            HandoverStep::Deliver => {
                let disks = self.gather(&handover, loose, give_up)?;
                news.extend(match other {
                    Some(other) => self.deliver(&other.group.name.clone(), disks, &handover)?,
                    None => self.found(disks, &handover, view.group.extent_size)?,
                });
            }
            HandoverStep::Receive => {
                let disks = self.gather(&handover, loose, give_up)?;
                news.extend(self.deliver(vg, disks, &handover)?);
                return Ok(Carried::Over(news));
            }
        }
        let (_, more) = self
            .commit(vg, |group| {
                Ok::<_, std::convert::Infallible>(plan::end_handover(group))
            })
            .map_err(|error| error.to_string())?;
        news.extend(more);
        Ok(Carried::Over(news))
    }

    fn other(&self, handover: &Handover) -> Option<Arc<super::GroupView>> {
        let table = self.read();
        table.groups.get(&handover.group).map(|slot| slot.view())
    }

    /// The disks, out of the list of those without a group; labels that still name one are cleared.
    fn gather(
        &self,
        handover: &Handover,
        loose: &mut BTreeMap<Uuid, Loose>,
        give_up: bool,
    ) -> Result<Vec<Orphan>, String> {
        let awaited = handover.pvs.iter().map(|pv| pv.uuid);
        let mut named: Vec<Loose> = awaited.filter_map(|pv| loose.remove(&pv)).collect();
        // A group may have been removed on some of its disks only. Those go last: without them, the others
        // would be that group again.
        named.sort_by_key(|l| l.seqno);
        for Loose { uuid, mut disk, .. } in named {
            metadata::free_pv(&mut disk)
                .map_err(|error| format!("{}: {}", disk.path().display(), chain(&error)))?;
            self.put_orphan(Orphan { uuid, disk });
        }
        let mut disks = Vec::new();
        for pv in &handover.pvs {
            match self.take_orphan(pv.uuid) {
                Some(orphan) => disks.push(orphan),
                None if give_up => {}
                None => {
                    disks.into_iter().for_each(|disk| self.put_orphan(disk));
                    return Err(format!("{} has gone", place(handover, pv.uuid)));
                }
            }
        }
        Ok(disks)
    }

    fn deliver(
        &self,
        vg: &str,
        disks: Vec<Orphan>,
        handover: &Handover,
    ) -> Result<Vec<News>, String> {
        let (_, news) = self
            .commit_with(vg, disks, |group| plan::receive(group, handover))
            .map_err(|error| error.to_string())?;
        Ok(news)
    }

    fn found(
        &self,
        disks: Vec<Orphan>,
        handover: &Handover,
        extent_size: u64,
    ) -> Result<Vec<News>, String> {
        let made = match self.view(&handover.name) {
            Some(_) => Err(format!(
                "there is another group {} by now: rename that",
                handover.name
            )),
            None => plan::receive(&plan::fresh_group(handover, extent_size), handover)
                .map_err(|error| error.to_string()),
        };
        match made {
            Ok(group) => self.create(group, disks),
            Err(why) => {
                disks.into_iter().for_each(|disk| self.put_orphan(disk));
                Err(why)
            }
        }
    }
}

/// For messages: what is going on.
pub fn describe(handover: &Handover) -> String {
    match handover.side {
        HandoverSide::Giving => format!("a vgsplit to {}", handover.name),
        HandoverSide::Taking => format!("a vgmerge with {}", handover.name),
    }
}

fn place(handover: &Handover, pv: Uuid) -> String {
    let known = handover.pvs.iter().find(|known| known.uuid == pv);
    known.map_or_else(|| pv.to_string(), |known| known.path_hint.clone())
}

/// A group that waits for these disks to arrive may not be left by others, nor get volumes whose names
/// may be taken.
pub fn unfinished(group: &Group) -> Option<String> {
    let handover = group.handover.as_ref()?;
    let disks: Vec<&str> = handover.pvs.iter().map(|p| p.path_hint.as_str()).collect();
    Some(format!(
        "{} with {} is not finished",
        describe(handover),
        disks.join(", ")
    ))
}

#[cfg(test)]
#[path = "handover_tests.rs"]
mod tests;
