//! Front ends: what makes a volume usable. A block device (ublk), an NBD export, or both.

use super::config::NbdAddress;
use crate::api::LvName;
use ublk_driver::probe::{Probe, probe};

/// The front ends of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// An NBD export.
    Nbd,
    /// A block device.
    Ublk,
    /// Both. Their users do not see each other's caches: not for one file system at a time in two.
    Both,
}

impl Frontend {
    /// Is the volume exported by NBD?
    pub fn nbd(self) -> bool {
        matches!(self, Self::Nbd | Self::Both)
    }

    /// Is it a block device?
    pub fn ublk(self) -> bool {
        matches!(self, Self::Ublk | Self::Both)
    }
}

/// Why a front end cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// There is no such front end.
    #[error("there is no front end `{0}`")]
    Unknown(String),
    /// The kernel has no ublk, or the user may not.
    #[error("ublk cannot be used: {0}")]
    NoUblk(String),
}

/// What was asked for, as what can be had here: by default a block device where the kernel has
/// ublk and this user may.
pub fn choose(wanted: &str) -> Result<Frontend, FrontendError> {
    judge(wanted, probe)
}

fn judge(wanted: &str, probe: impl FnOnce() -> Probe) -> Result<Frontend, FrontendError> {
    let wanted = match wanted {
        "auto" => None,
        "nbd" => return Ok(Frontend::Nbd),
        "ublk" => Some(Frontend::Ublk),
        "both" => Some(Frontend::Both),
        other => return Err(FrontendError::Unknown(other.to_owned())),
    };
    let Probe { mode, reason } = probe();
    match (wanted, mode) {
        (Some(wanted), Some(_)) => Ok(wanted),
        (Some(_), None) => Err(FrontendError::NoUblk(reason.unwrap_or_default())),
        (None, Some(_)) => Ok(Frontend::Ublk),
        (None, None) => Ok(Frontend::Nbd),
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
        let none = || Probe {
            mode: None,
            reason: Some("no driver".into()),
        };
        let some = || Probe {
            mode: Some(ublk_driver::Mode::UserCopy),
            reason: None,
        };
        assert_eq!(judge("auto", none), Ok(Frontend::Nbd));
        assert_eq!(judge("auto", some), Ok(Frontend::Ublk));
        assert_eq!(judge("both", some), Ok(Frontend::Both));
        let refused = judge("ublk", none).map_err(|error| error.to_string());
        assert_eq!(refused, Err("ublk cannot be used: no driver".into()));
        assert_eq!(
            judge("scsi", some),
            Err(FrontendError::Unknown("scsi".into()))
        );
    }
}
