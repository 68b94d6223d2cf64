//! One group with its disks: commits, and what becomes of disks that fail under one.

use super::view::{DiskPlace, GroupView};
use super::{Memory, News, scan};
use crate::daemon::disks::{DiskKey, FilePv, Identity};
use crate::daemon::verbs::chain;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::metadata::{self, PvIo, Store};
use volmgr::model::Group;
use volmgr::plan;

/// Why a group was not changed. The old version stands.
#[derive(Debug, thiserror::Error)]
pub enum CommitError<E> {
    /// There is no such group.
    #[error("no such group")]
    NoGroup,
    /// The group cannot be used.
    #[error("{0}")]
    Trouble(String),
    /// The change itself was refused.
    #[error("{0}")]
    Refused(E),
    /// The disks did not take it.
    #[error("{0}")]
    Disks(String),
}

#[derive(Debug)]
pub(super) struct Entry {
    /// None where there is trouble.
    pub store: Option<Store>,
    /// The version that stands.
    pub group: Group,
    /// The disks that are here.
    pub disks: BTreeMap<Uuid, FilePv>,
    /// Why the group cannot be used.
    pub trouble: Option<String>,
    /// The trouble is that disks that are away have a newer version.
    pub older: bool,
    /// What this node remembers of its groups.
    pub memory: Arc<Memory>,
    /// Disks that have gone while this daemon runs, and which they were.
    pub gone: BTreeMap<Uuid, Identity>,
}

impl Entry {
    pub fn create(group: Group, disks: BTreeMap<Uuid, FilePv>, memory: Arc<Memory>) -> Self {
        Self {
            store: Some(Store::create(group.clone())),
            group,
            disks,
            trouble: None,
            older: false,
            memory,
            gone: BTreeMap::new(),
        }
    }

    pub fn view(&self) -> GroupView {
        GroupView {
            group: self.group.clone(),
            disks: self
                .disks
                .iter()
                .map(|(uuid, disk)| {
                    let place = DiskPlace {
                        path: disk.path().to_owned(),
                        key: disk.key(),
                        epoch: disk.epoch(),
                    };
                    (*uuid, place)
                })
                .collect(),
            trouble: self.trouble.clone(),
        }
    }

    /// The first commit of a new group.
    pub fn create_on_disks(&mut self) -> Result<Vec<News>, String> {
        let mut news = Vec::new();
        self.write(self.group.clone(), &mut news)?;
        Ok(news)
    }

    pub fn commit<E>(
        &mut self,
        change: impl FnOnce(&Group) -> Result<Group, E>,
    ) -> Result<Vec<News>, CommitError<E>> {
        if let Some(trouble) = &self.trouble {
            return Err(CommitError::Trouble(trouble.clone()));
        }
        let next = change(&self.group).map_err(CommitError::Refused)?;
        let mut news = Vec::new();
        self.write(next, &mut news).map_err(CommitError::Disks)?;
        Ok(news)
    }

    /// Writes a version; disks that are not here, or fail, are marked missing: first those known
    /// to be away, in the same commit, then those that failed it, in another one.
    fn write(&mut self, mut next: Group, news: &mut Vec<News>) -> Result<(), String> {
        loop {
            let given_up;
            (next, given_up) = self.mark_absent(next, news)?;
            let Some(store) = &mut self.store else {
                return Err("the group cannot be used".into());
            };
            let mut disks: BTreeMap<Uuid, &mut dyn PvIo> = self
                .disks
                .iter_mut()
                .map(|(uuid, disk)| (*uuid, disk as &mut dyn PvIo))
                .collect();
            // Before the commit: a disk that it leaves behind will not know of it.
            self.memory.meet(next.uuid);
            self.memory.give_up(next.uuid, &given_up, next.seqno + 1);
            let report = store
                .commit(next, Uuid::new_v4(), &mut disks)
                .map_err(|error| chain(&error))?;
            self.group = store.group().clone();
            for failure in &report.degraded {
                tracing::warn!(pv = %failure.pv, error = %failure.error, "a metadata area could not be written");
            }
            if report.failed.is_empty() {
                self.memory.agree(&self.group);
                return Ok(());
            }
            for failure in report.failed {
                if let Some(disk) = self.disks.remove(&failure.pv) {
                    self.gone.insert(failure.pv, disk.identity());
                    news.push((
                        "pv-failed",
                        disk.path().display().to_string(),
                        format!("metadata cannot be written: {}", failure.error),
                    ));
                }
            }
            next = self.group.clone();
        }
    }

    fn mark_absent(
        &self,
        mut next: Group,
        news: &mut Vec<News>,
    ) -> Result<(Group, Vec<Uuid>), String> {
        let absent: Vec<(Uuid, String)> = next
            .pvs
            .iter()
            .filter(|pv| pv.missing_since.is_none() && !self.disks.contains_key(&pv.uuid))
            .map(|pv| (pv.uuid, pv.path_hint.clone()))
            .collect();
        let given_up = absent.iter().map(|(uuid, _)| *uuid).collect();
        for (uuid, path) in absent {
            next = plan::mark_pv_missing(&next, uuid).map_err(|error| error.to_string())?;
            news.push((
                "pv-missing",
                path,
                format!("disk {uuid} of {} is given up until it returns", next.name),
            ));
        }
        Ok((next, given_up))
    }

    /// Makes sure that what stands is on all disks, before anything relies on it.
    pub fn settle(&mut self) -> Result<Vec<News>, String> {
        let absent = self
            .group
            .pvs
            .iter()
            .any(|pv| pv.missing_since.is_none() && !self.disks.contains_key(&pv.uuid));
        let settled = self.store.as_ref().is_some_and(Store::is_settled);
        let mut news = Vec::new();
        if absent || !settled {
            self.write(self.group.clone(), &mut news)?;
        }
        Ok(news)
    }

    /// Takes a grown disk's new room into use.
    pub fn grow(&mut self, key: DiskKey) -> Result<Vec<News>, String> {
        let (uuid, disk) = self
            .disks
            .iter_mut()
            .find(|(_, disk)| disk.key() == key)
            .ok_or("the disk has gone")?;
        let uuid = *uuid;
        disk.refresh_size().map_err(|error| error.to_string())?;
        let label = metadata::grow_pv(disk).map_err(|error| chain(&error))?;
        let mut next = self.group.clone();
        for pv in next.pvs.iter_mut().filter(|pv| pv.uuid == uuid) {
            pv.size = label.pv_size;
            pv.extent_count = label.extent_count(self.group.extent_size);
        }
        if let Some(store) = &mut self.store {
            store.forget(uuid);
        }
        let mut news = Vec::new();
        self.write(next, &mut news)?;
        Ok(news)
    }

    /// Ends the claims and keeps looking only.
    pub fn release(&mut self) {
        for disk in self.disks.values_mut() {
            match FilePv::look(disk.path()) {
                Ok(look) => *disk = look,
                Err(error) => {
                    tracing::warn!(path = %disk.path().display(), %error, "cannot let go of a disk");
                }
            }
        }
    }

    /// Claims what was only looked at, and starts from what is there now.
    pub fn reopen(&mut self) -> Result<Vec<String>, String> {
        let mut claimed = Vec::new();
        for disk in self.disks.values() {
            let again = FilePv::claim(disk.path())
                .map_err(|error| format!("{}: {error}", disk.path().display()))?;
            claimed.push(again);
        }
        self.look_again(claimed)
    }

    /// Starts from what is on the disks that are here.
    pub fn open_again(&mut self) -> Result<Vec<String>, String> {
        self.look_again(self.disks.values().cloned().collect())
    }

    fn look_again(&mut self, claimed: Vec<FilePv>) -> Result<Vec<String>, String> {
        let mut outcome = scan::ScanOutcome::default();
        *self = scan::reopen(self.group.uuid, claimed, &self.memory, &mut outcome)?;
        Ok(outcome.warnings)
    }
}
