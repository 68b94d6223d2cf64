//! Which ways of moving payload to try for a new device, and what to say of the one it got.

use crate::daemon::config::UblkMode;
use ublk_driver::probe::{lacks, user_lacks};
use ublk_driver::{Features, Mode, Owner};

/// A mode to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The mode.
    pub mode: Mode,
    /// Whose the device is to be.
    pub owner: Owner,
    /// Why it is not a better one.
    pub reason: Option<String>,
}

/// Why a device of an ordinary user is as it is.
const OF_USER: &str =
    "the kernel gives an ordinary user no better one, and none that outlives volmgrd";

/// The only way for an ordinary user.
pub fn of_user(wanted: UblkMode, features: Features) -> Result<Choice, String> {
    if !matches!(wanted, UblkMode::Auto | UblkMode::Mapped) {
        return Err(
            "an ordinary user's block devices work in mapped mode only, and another is configured"
                .into(),
        );
    }
    match user_lacks(features) {
        Some(why) => Err(format!("only root has block devices here: {why}")),
        None => Ok(Choice {
            mode: Mode::Mapped,
            owner: Owner::User,
            reason: Some(OF_USER.to_owned()),
        }),
    }
}

/// The modes to try, best first. The first that a device can be started in is taken: some of what
/// the kernel promises can only be found out by trying.
pub fn choices(wanted: UblkMode, features: Features) -> Result<Vec<Choice>, String> {
    let only = match wanted {
        UblkMode::Auto => None,
        UblkMode::ZeroCopy => Some(Mode::ZeroCopy),
        UblkMode::UserCopy => Some(Mode::UserCopy),
        UblkMode::Mapped => Some(Mode::Mapped),
    };
    if let Some(mode) = only {
        return match lacks(mode, features) {
            Some(why) => Err(format!("{} is configured and {why}", mode.name())),
            None => Ok(vec![Choice {
                mode,
                owner: Owner::Machine,
                reason: (mode != Mode::ZeroCopy).then(|| "configured".to_owned()),
            }]),
        };
    }
    let mut found = Vec::new();
    let mut reason = None;
    for mode in Mode::ALL {
        match lacks(mode, features) {
            None => found.push(Choice {
                mode,
                owner: Owner::Machine,
                reason: reason.clone(),
            }),
            Some(why) => reason = Some(why),
        }
    }
    match found.is_empty() {
        false => Ok(found),
        true => Err(reason.unwrap_or_else(|| "this kernel's ublk can do nothing".to_owned())),
    }
}

/// Why a device that an earlier daemon made works in this mode.
pub fn kept(mode: Mode, features: Features) -> Option<String> {
    (mode != Mode::ZeroCopy).then(|| {
        lacks(Mode::ZeroCopy, features)
            .unwrap_or_else(|| "it was made so by the daemon before".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_comes_first_and_the_rest_says_why() {
        let modes = |features| {
            let found = choices(UblkMode::Auto, features).expect("modes");
            found.into_iter().map(|c| c.mode).collect::<Vec<_>>()
        };
        assert_eq!(modes(Features::all()), Mode::ALL);
        let older = Features::all() - Features::AUTO_BUF_REG;
        assert_eq!(modes(older), [Mode::UserCopy, Mode::Mapped]);
        assert_eq!(modes(older - Features::USER_COPY), [Mode::Mapped]);
        let first = choices(UblkMode::Auto, older).expect("modes").remove(0);
        assert!(first.reason.expect("a reason").contains("6.16"));
        assert!(choices(UblkMode::Auto, Features::empty()).is_err());
    }

    #[test]
    fn an_ordinary_user_gets_one_mode_and_the_reason() {
        let choice = of_user(UblkMode::Auto, Features::all()).expect("a choice");
        assert_eq!((choice.mode, choice.owner), (Mode::Mapped, Owner::User));
        assert!(choice.reason.expect("a reason").contains("outlives"));
        let error = of_user(UblkMode::ZeroCopy, Features::all()).unwrap_err();
        assert!(error.contains("mapped mode only"), "{error}");
        let older = Features::all() - Features::UNPRIVILEGED_DEV;
        let error = of_user(UblkMode::Mapped, older).unwrap_err();
        assert!(error.contains("UNPRIVILEGED_DEV"), "{error}");
    }

    #[test]
    fn a_configured_mode_is_the_only_one() {
        for (wanted, mode) in [
            (UblkMode::UserCopy, Mode::UserCopy),
            (UblkMode::Mapped, Mode::Mapped),
        ] {
            let found = choices(wanted, Features::all()).expect("modes");
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].mode, mode);
            assert_eq!(found[0].reason.as_deref(), Some("configured"));
        }
        let older = Features::all() - Features::AUTO_BUF_REG;
        let error = choices(UblkMode::ZeroCopy, older).unwrap_err();
        assert!(error.contains("zero-copy is configured"), "{error}");
    }
}
