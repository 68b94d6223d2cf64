//! Where to look for disks: paths known from before, globs of the configuration, and (for root) the
//! machine's block devices. Our own devices are never among them: opening one would wait for us.

use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Most paths one glob may yield, so that a careless `/**` does not stop the daemon.
const GLOB_MATCHES_MAX: usize = 4096;

/// Block devices that cannot hold a PV, or are made by this program.
const NOT_SCANNED: [&str; 7] = ["ublk", "nbd", "ram", "zram", "sr", "fd", "mtdblock"];

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct ScanRoots {
    /// Paths known from before or given by the admin.
    pub paths: BTreeSet<PathBuf>,
    /// Shell globs.
    pub globs: Vec<String>,
    /// The block devices of the machine.
    pub devices: bool,
}

/// The paths to look at, and what was wrong with the places.
pub fn candidates(roots: &ScanRoots) -> (BTreeSet<PathBuf>, Vec<String>) {
    let mut found = roots.paths.clone();
    let mut warnings = Vec::new();
    for pattern in &roots.globs {
        if let Err(why) = expand(pattern, &mut found) {
            warnings.push(format!("{pattern}: {why}"));
        }
    }
    if roots.devices {
        match block_devices(Path::new("/sys/class/block")) {
            Ok(devices) => found.extend(devices),
            Err(error) => warnings.push(format!("/sys/class/block: {error}")),
        }
    }
    (found, warnings)
}

fn block_devices(sys: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut devices = Vec::new();
    for entry in std::fs::read_dir(sys)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = NOT_SCANNED.iter().any(|prefix| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == 'b'))
        });
        let empty =
            std::fs::read_to_string(entry.path().join("size")).is_ok_and(|size| size.trim() == "0");
        if !ours && !empty {
            // In sysfs a slash of the name is written as an exclamation mark.
            devices.push(Path::new("/dev").join(name.replace('!', "/")));
        }
    }
    Ok(devices)
}

fn expand(pattern: &str, found: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    if !pattern.starts_with('/') {
        return Err("must be an absolute path".into());
    }
    let mut level = vec![PathBuf::from("/")];
    for component in Path::new(pattern).components() {
        let Component::Normal(part) = component else {
            continue;
        };
        let part = part.to_str().ok_or("is not UTF-8")?;
        if part.contains(['*', '?', '[', '{']) {
            let matcher = GlobBuilder::new(part)
                .literal_separator(true)
                .build()
                .map_err(|error| error.to_string())?
                .compile_matcher();
            level = level
                .iter()
                .flat_map(|dir| matching(dir, &matcher))
                .take(GLOB_MATCHES_MAX + 1)
                .collect();
        } else {
            for path in &mut level {
                path.push(part);
            }
        }
        if level.len() > GLOB_MATCHES_MAX {
            return Err(format!("matches more than {GLOB_MATCHES_MAX} paths"));
        }
    }
    found.extend(level.into_iter().filter(|path| path.exists()));
    Ok(())
}

/// Entries of a folder that match; an unreadable folder has none, as in a shell.
fn matching(dir: &Path, matcher: &GlobMatcher) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| matcher.is_match(Path::new(&entry.file_name())))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_expand_level_by_level() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/disk0", "a/disk1", "b/disk0", "b/other"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let mut found = BTreeSet::new();
        let pattern = format!("{}/*/disk?", dir.path().display());
        expand(&pattern, &mut found).unwrap();
        assert_eq!(found.len(), 3);
        assert!(expand("rel/*", &mut found).is_err());
        assert!(expand("/tmp/[", &mut found).is_err());
    }

    #[test]
    fn our_own_devices_are_left_alone() {
        let sys = tempfile::tempdir().unwrap();
        for (name, size) in [
            ("sda", "100"),
            ("ublkb0", "100"),
            ("nbd3", "100"),
            ("loop0", "0"),
            ("loop1", "8"),
            ("cciss!c0d0", "100"),
            ("srv", "100"),
        ] {
            let dir = sys.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("size"), size).unwrap();
        }
        let mut devices = block_devices(sys.path()).unwrap();
        devices.sort();
        let expected: Vec<PathBuf> = ["/dev/cciss/c0d0", "/dev/loop1", "/dev/sda", "/dev/srv"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(devices, expected);
    }
}
