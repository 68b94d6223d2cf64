//! Which volume a device is, for udev: a file for each device in the runtime folder, in the form that
//! `IMPORT{file}` of a udev rule takes. It is there before the device is, so that udev knows the device's
//! stable name when it first sees it.

use crate::api::LvName;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

fn file(runtime_dir: &Path, id: u32) -> PathBuf {
    runtime_dir.join("ublk").join(id.to_string())
}

/// Says which volume the device is.
pub fn announce(runtime_dir: &Path, id: u32, name: &LvName, volume: Uuid) -> io::Result<()> {
    let path = file(runtime_dir, id);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Names of groups and volumes have no characters that would need quoting.
    let text = format!(
        "VOLMGR_VG={}\nVOLMGR_LV={}\nVOLMGR_LV_UUID={volume}\n",
        name.vg, name.lv
    );
    fs::write(path, text)
}

/// The device is gone.
pub fn forget(runtime_dir: &Path, id: u32) -> io::Result<()> {
    match fs::remove_file(file(runtime_dir, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_announced_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let name = LvName {
            vg: "vg0".into(),
            lv: "web".into(),
        };
        announce(dir.path(), 7, &name, Uuid::from_u128(1)).unwrap();
        let text = fs::read_to_string(dir.path().join("ublk/7")).unwrap();
        assert!(text.starts_with("VOLMGR_VG=vg0\nVOLMGR_LV=web\nVOLMGR_LV_UUID="));
        forget(dir.path(), 7).unwrap();
        forget(dir.path(), 7).unwrap();
        assert!(!dir.path().join("ublk/7").exists());
    }
}
