//! What changed between two versions of a group.

use crate::model::{Group, Handover, Pv, Volume};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// Objects put and deleted, against the previous commit. Its JSON form is the payload of a delta
/// record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Name of the group.
    name: String,
    /// Exported?
    exported: bool,
    /// Its handover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handover: Option<Handover>,
    /// Tags of the group.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<String>,
    /// PVs that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pvs_gone: Vec<Uuid>,
    /// PVs that are new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pvs: Vec<Pv>,
    /// Volumes that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes_gone: Vec<Uuid>,
    /// Volumes that are new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume>,
}

trait Object: Clone + PartialEq {
    fn uuid(&self) -> Uuid;
}

impl Object for Pv {
    fn uuid(&self) -> Uuid {
        self.uuid
    }
}

fn between<T: Object>(old: &[T], new: &[T]) -> (Vec<Uuid>, Vec<T>) {
    let before: HashMap<Uuid, &T> = old.iter().map(|o| (o.uuid(), o)).collect();
    let after: HashSet<Uuid> = new.iter().map(T::uuid).collect();
    let gone = old
        .iter()
        .map(T::uuid)
        .filter(|uuid| !after.contains(uuid))
        .collect();
    let put = new
        .iter()
        .filter(|o| before.get(&o.uuid()) != Some(o))
        .cloned()
        .collect();
    (gone, put)
}

/// Deletes, replaces in place, appends what is new.
fn apply<T: Object>(objects: &mut Vec<T>, gone: &[Uuid], put: &[T]) {
    if !gone.is_empty() {
        let gone: HashSet<&Uuid> = gone.iter().collect();
        objects.retain(|o| !gone.contains(&o.uuid()));
    }
    if put.is_empty() {
        return;
    }
    let mut changed: HashMap<Uuid, &T> = put.iter().map(|o| (o.uuid(), o)).collect();
    for object in objects.iter_mut() {
        if let Some(new) = changed.remove(&object.uuid()) {
            object.clone_from(new);
        }
    }
    // `put` keeps the order, the map says which of them are still to come.
    for object in put {
        if let Some(new) = changed.remove(&object.uuid()) {
            objects.push(new.clone());
        }
    }
}

impl Delta {
    /// What leads from `old` to `new`, or `None` where only a snapshot can say it: another extent
    /// size or identity, or objects in another order.
    pub fn between(old: &Group, new: &Group) -> Option<Self> {
        if old.uuid != new.uuid || old.extent_size != new.extent_size {
            return None;
        }
        let (pvs_gone, pvs) = between(&old.pvs, &new.pvs);
        let changes = new.volumes.changes_since(&old.volumes);
        if changes.reordered {
            return None;
        }
        let gone = changes.gone.iter().map(|place| old.volumes[*place].uuid);
        let put = changes.put.iter().map(|(place, _)| &new.volumes[*place]);
        let delta = Self {
            name: new.name.clone(),
            exported: new.exported,
            handover: new.handover.clone(),
            tags: new.tags.clone(),
            pvs_gone,
            pvs,
            volumes_gone: gone.collect(),
            volumes: put.cloned().collect(),
        };
        delta.keeps_order(old, new).then_some(delta)
    }

    fn keeps_order(&self, old: &Group, new: &Group) -> bool {
        fn same<T: Object>(old: &[T], new: &[T], gone: &[Uuid]) -> bool {
            let gone: HashSet<&Uuid> = gone.iter().collect();
            let stayed = old.iter().map(T::uuid).filter(|uuid| !gone.contains(uuid));
            // What stayed comes first and in its order; what is new follows.
            new.len() + gone.len() >= old.len()
                && stayed.eq(new.iter().take(old.len() - gone.len()).map(T::uuid))
        }
        same(&old.pvs, &new.pvs, &self.pvs_gone)
    }

    /// Leads `group` on to the commit that this delta made.
    pub fn apply(&self, group: &mut Group, seqno: u64, commit: Uuid) {
        group.seqno = seqno;
        group.commit = commit;
        group.name.clone_from(&self.name);
        group.exported = self.exported;
        group.handover.clone_from(&self.handover);
        group.tags.clone_from(&self.tags);
        apply(&mut group.pvs, &self.pvs_gone, &self.pvs);
        if !self.volumes_gone.is_empty() {
            let gone: HashSet<&Uuid> = self.volumes_gone.iter().collect();
            group.volumes.retain(|volume| !gone.contains(&volume.uuid));
        }
        for volume in &self.volumes {
            if let Some(mut now) = group.volumes.get_mut(volume.uuid) {
                now.clone_from(volume);
                continue;
            }
            group.volumes.push(volume.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(pvs: &[(u128, u64)]) -> Group {
        Group {
            uuid: Uuid::from_u128(1),
            name: "vg".into(),
            extent_size: 65536,
            seqno: 1,
            commit: Uuid::from_u128(2),
            exported: false,
            handover: None,
            tags: BTreeSet::new(),
            pvs: pvs
                .iter()
                .map(|(uuid, size)| Pv {
                    uuid: Uuid::from_u128(*uuid),
                    size: *size,
                    data_start: 0,
                    extent_count: 1,
                    path_hint: String::new(),
                    missing_since: None,
                    spare: false,
                    tags: Default::default(),
                })
                .collect(),
            volumes: Default::default(),
        }
    }

    #[test]
    fn a_change_of_order_needs_a_snapshot() {
        let old = group(&[(1, 1), (2, 2)]);
        let new = group(&[(2, 2), (1, 1)]);
        assert_eq!(Delta::between(&old, &new), None);
    }

    proptest! {
        /// `between`, through JSON, then `apply` is the identity.
        #[test]
        fn apply_undoes_between(
            old in proptest::collection::btree_map(0u128..20, 0u64..3, 0..10),
            new in proptest::collection::btree_map(0u128..20, 0u64..3, 0..10),
        ) {
            let old = group(&old.into_iter().collect::<Vec<_>>());
            // What stayed keeps its order, what is new comes last, as the planner does it.
            let (mut pvs, added): (Vec<_>, Vec<_>) = new
                .into_iter()
                .partition(|(uuid, _)| old.pvs.iter().any(|p| p.uuid == Uuid::from_u128(*uuid)));
            pvs.extend(added);
            let mut new = group(&pvs);
            new.seqno = 2;
            new.tags.extend(pvs.first().map(|(uuid, _)| format!("first={uuid}")));
            let delta = Delta::between(&old, &new).unwrap();
            let json = serde_json::to_vec(&delta).unwrap();
            let read: Delta = serde_json::from_slice(&json).unwrap();
            let mut result = old.clone();
            read.apply(&mut result, 2, new.commit);
            prop_assert_eq!(result, new);
        }
    }
}
