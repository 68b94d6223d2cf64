//! Plexes that have lost their disk go to a spare one.
//!
//! Not at once: a cable that is put back costs a copy of what was missed, a spare disk costs a copy of
//! everything. What happens then is a `pvmove` off the disk that is gone: the new plex is named as the one that
//! replaces the lost one in the commit that makes it, is filled while the volume is in use, and takes its place when
//! it is in step. A lost disk that comes back meanwhile catches up, and is replaced all the same.

use super::Node;
use super::groups::GroupView;
use super::verbs::pvmove;
use crate::api::LvName;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use volmgr::model::{Plex, PlexState, Volume};
use volmgr::plan;

/// How often the daemon looks.
const LOOK: Duration = Duration::from_secs(1);
const WHAT: &str = "cannot use a spare disk";

/// A plex that has lost its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lost {
    volume: Uuid,
    plex: Uuid,
}

/// Looks again and again.
pub async fn watch(node: Arc<Node>) {
    let mut since: HashMap<Lost, Instant> = HashMap::new();
    // What could not be helped is said once.
    let mut told: HashSet<Lost> = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        let lost: Vec<(Lost, LvName)> = node
            .groups
            .views()
            .iter()
            .filter(|view| view.trouble.is_none() && !view.group.exported)
            .flat_map(|view| lost_in(view, |volume| node.is_active(volume)))
            .collect();
        let listed: HashSet<&Lost> = lost.iter().map(|(lost, _)| lost).collect();
        since.retain(|lost, _| listed.contains(lost));
        told.retain(|lost| listed.contains(lost));
        let grace = Duration::from_secs(node.settings().spares.after);
        for (lost, name) in lost {
            let seen = *since.entry(lost.clone()).or_insert(now);
            if now.duration_since(seen) < grace {
                continue;
            }
            let _one_at_a_time = node.verb_lock().await;
            match replace(&node, &name, &lost).await {
                Ok(()) => {
                    told.remove(&lost);
                }
                Err(why) if told.insert(lost) => {
                    node.event("spare-unusable", &name.to_string(), &why);
                }
                Err(_already_told) => {}
            }
        }
    }
}

/// Plexes of served volumes that do not get their disk back by themselves, where the group has disks to spare.
fn lost_in(view: &GroupView, active: impl Fn(Uuid) -> bool) -> Vec<(Lost, LvName)> {
    let group = &view.group;
    let spare = |pv: &volmgr::model::Pv| pv.spare && view.disks.contains_key(&pv.uuid);
    if !group.pvs.iter().any(spare) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for volume in group.volumes.iter().filter(|volume| active(volume.uuid)) {
        for plex in &volume.plexes {
            if is_lost(view, volume, plex) {
                let name = LvName {
                    vg: group.name.clone(),
                    lv: volume.name.clone(),
                };
                let lost = Lost {
                    volume: volume.uuid,
                    plex: plex.uuid,
                };
                found.push((lost, name));
            }
        }
    }
    found
}

/// Is the plex without its disk, and is nothing done about it yet? A plex that an admin has taken off line is
/// not lost: it was meant.
fn is_lost(view: &GroupView, volume: &Volume, plex: &Plex) -> bool {
    let replaced = |other: &Plex| other.replaces == Some(plex.uuid);
    let gone = || {
        volume
            .pvs_of(plex)
            .iter()
            .any(|pv| !view.disks.contains_key(pv))
    };
    let lost = match plex.state {
        PlexState::Failed => true,
        PlexState::Active | PlexState::Offline => false,
        _ => gone(),
    };
    lost && plex.replaces.is_none() && !volume.plexes.iter().any(replaced)
}

async fn replace(node: &Node, name: &LvName, lost: &Lost) -> Result<(), String> {
    // Things may have changed while the verb lock was waited for.
    let Some((view, volume)) = node.volume(name) else {
        return Ok(());
    };
    let Some(plex) = volume.plexes.iter().find(|plex| plex.uuid == lost.plex) else {
        return Ok(());
    };
    if volume.uuid != lost.volume || !node.is_active(volume.uuid) || !is_lost(&view, &volume, plex)
    {
        return Ok(());
    }
    let uuid = Uuid::new_v4();
    let present = pvmove::present(&view);
    let planned =
        plan::replace_by_spare(&present, &name.lv, plex.number, uuid).map_err(|error| {
            format!(
                "{} has lost its disk, and no spare disk helps: {error}",
                plex.name()
            )
        })?;
    let (new, disks) = planned
        .volume(&name.lv)
        .and_then(|of| {
            of.plexes
                .iter()
                .find(|new| new.uuid == uuid)
                .map(|new| (of, new))
        })
        .map(|(of, new)| (new.name(), of.pvs_of(new)))
        .ok_or("the plan has no such plex")?;
    let begun = [(name.clone(), vec![uuid])];
    let object = name.to_string();
    pvmove::add_plexes(node, &name.vg, &planned, &begun, &object, WHAT)
        .await
        .map_err(|failure| failure.to_string())?;
    let places: Vec<String> = disks
        .iter()
        .filter_map(|pv| Some(view.disks.get(pv)?.path.display().to_string()))
        .collect();
    node.event(
        "spare-used",
        &object,
        &format!(
            "{} has lost its disk: {new} on {} takes its place",
            plex.name(),
            places.join(", ")
        ),
    );
    Ok(())
}
