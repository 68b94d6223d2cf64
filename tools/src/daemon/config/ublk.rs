//! `[ublk]`: block devices.

use serde::Deserialize;

/// Most hardware queues of a device: as many tags as a volume's lane has room for.
pub const QUEUES_MAX: u16 = 4;

/// How block devices are to move their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UblkMode {
    /// The best that the running kernel can do.
    #[default]
    Auto,
    /// Request pages registered in the volume's ring, or no block device at all.
    ZeroCopy,
    /// One copy through the character device.
    UserCopy,
    /// One copy by the kernel, to and from memory of the daemon.
    Mapped,
}

/// The section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UblkConfig {
    /// How data moves; other than `auto` is for tests and for kernels that lie.
    pub mode: UblkMode,
    /// Hardware queues of a device that is made from now on.
    pub queues: u16,
}

impl Default for UblkConfig {
    fn default() -> Self {
        Self {
            mode: UblkMode::Auto,
            queues: 1,
        }
    }
}

impl UblkConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        match self.queues {
            1..=QUEUES_MAX => Ok(()),
            queues => Err(format!(
                "ublk.queues is {queues}, must be 1 to {QUEUES_MAX}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_bounds() {
        let read = |text: &str| toml::from_str::<UblkConfig>(text).expect("config");
        assert_eq!(read(""), UblkConfig::default());
        let config = read("mode = \"mapped\"\nqueues = 4");
        assert_eq!((config.mode, config.check()), (UblkMode::Mapped, Ok(())));
        for wrong in [0, QUEUES_MAX + 1] {
            let error = read(&format!("queues = {wrong}")).check().unwrap_err();
            assert!(error.contains("ublk.queues"), "{error}");
        }
    }
}
