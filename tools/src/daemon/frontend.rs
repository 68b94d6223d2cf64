//! Front ends: what makes a volume usable. NBD today; ublk has its place in [`choose`].

use super::config::NbdAddress;
use crate::api::LvName;
use std::path::Path;

/// A front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// An NBD export.
    Nbd,
}

/// Why a front end cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// There is no such front end.
    #[error("there is no front end `{0}`")]
    Unknown(String),
    /// The kernel has no ublk, or the user may not.
    #[error("ublk cannot be used: {0}")]
    NoUblk(&'static str),
}

/// What was asked for, as what can be had.
pub fn choose(wanted: &str) -> Result<Frontend, FrontendError> {
    match wanted {
        "auto" | "nbd" => Ok(Frontend::Nbd),
        "ublk" | "both" => Err(FrontendError::NoUblk(
            if Path::new("/dev/ublk-control").exists() {
                "this volmgrd has no ublk front end yet"
            } else {
                "the kernel has no /dev/ublk-control (modprobe ublk_drv)"
            },
        )),
        other => Err(FrontendError::Unknown(other.to_owned())),
    }
}

/// Under which URIs the listeners serve a volume.
pub fn nbd_uris(listeners: &[NbdAddress], name: &LvName) -> Vec<String> {
    listeners
        .iter()
        .map(|listener| match listener {
            NbdAddress::Unix(path) => format!("nbd+unix:///{name}?socket={}", path.display()),
            NbdAddress::Tcp(addr) => format!("nbd://{addr}/{name}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_those_of_the_nbd_specification() {
        let name = LvName {
            vg: "vg0".into(),
            lv: "web".into(),
        };
        let listeners = ["unix:/run/nbd.sock", "tcp:[::1]:10809"].map(|text| text.parse().unwrap());
        assert_eq!(
            nbd_uris(&listeners, &name),
            [
                "nbd+unix:///vg0/web?socket=/run/nbd.sock",
                "nbd://[::1]:10809/vg0/web"
            ]
        );
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_a_reason() {
        assert_eq!(choose("auto"), Ok(Frontend::Nbd));
        assert!(matches!(choose("ublk"), Err(FrontendError::NoUblk(_))));
        assert!(matches!(choose("scsi"), Err(FrontendError::Unknown(_))));
    }
}
