//! The last versions of each group as readable text in the state directory, for rescue.

use crate::daemon::state::write_atomically;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use volmgr::metadata::group_to_text;
use volmgr::model::Group;

/// Versions kept of each group.
const VERSIONS_MAX: usize = 20;

/// A folder of old versions, `VG_SEQNO.json`.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// In that folder, which is made when first needed.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Keeps a version. The disks have it already: failing here is worth a warning, no more.
    pub fn keep(&self, group: &Group) {
        if let Err(error) = self.try_keep(group) {
            tracing::warn!(vg = group.name, %error, "cannot archive the group's metadata");
        }
    }

    fn try_keep(&self, group: &Group) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let file = format!("{}_{:010}.json", group.name, group.seqno);
        write_atomically(&self.dir.join(file), group_to_text(group).as_bytes())?;
        let mut versions = self.versions(&group.name)?;
        let keep = VERSIONS_MAX.min(versions.len());
        versions.truncate(versions.len() - keep);
        for path in versions {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Files of a group, oldest first.
    fn versions(&self, vg: &str) -> io::Result<Vec<PathBuf>> {
        let mut versions = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if version_of(&path, vg).is_some() {
                versions.push(path);
            }
        }
        versions.sort_by_key(|path| version_of(path, vg));
        Ok(versions)
    }
}

/// The sequence number in a file's name, where the file is of this group. Group names may contain
/// underscores: what follows the last one is the number.
fn version_of(path: &Path, vg: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let (group, seqno) = name.rsplit_once('_')?;
    (group == vg).then(|| seqno.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_newest_versions_stay_and_other_groups_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(dir.path().join("archive"));
        let mut group = Group {
            uuid: Uuid::from_u128(1),
            name: "vg_a".into(),
            extent_size: 4 << 20,
            seqno: 1,
            commit: Uuid::from_u128(2),
            exported: false,
            pvs: Vec::new(),
            volumes: Default::default(),
        };
        archive.try_keep(&group).unwrap();
        group.name = "vg".into();
        for seqno in 1..=30 {
            group.seqno = seqno;
            archive.try_keep(&group).unwrap();
        }
        let versions = archive.versions("vg").unwrap();
        assert_eq!(versions.len(), VERSIONS_MAX);
        assert_eq!(version_of(&versions[0], "vg"), Some(11));
        assert_eq!(archive.versions("vg_a").unwrap().len(), 1);
    }
}
