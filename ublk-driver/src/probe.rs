//! What the running kernel can do for us.

use crate::{Control, Features, Mode, Owner, UblkError};

/// The answer to "can volumes be block devices here, and how".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The best mode, or `None` where ublk cannot be used.
    pub mode: Option<Mode>,
    /// Why not, or why not better; for the admin.
    pub reason: Option<String>,
}

/// Asks the running kernel.
pub fn probe() -> Probe {
    match Control::open().and_then(|control| control.features()) {
        Ok(features) => judge(features),
        Err(error) => Probe {
            mode: None,
            reason: Some(sentence(&error)),
        },
    }
}

fn sentence(error: &UblkError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Features without which no mode works.
const BASE: Features = Features::CMD_IOCTL_ENCODE.union(Features::USER_RECOVERY_REISSUE);

/// Features of a device of an ordinary user.
const OF_USER: Features = Features::CMD_IOCTL_ENCODE.union(Features::UNPRIVILEGED_DEV);

impl Mode {
    /// Best first.
    pub const ALL: [Self; 3] = [Self::ZeroCopy, Self::UserCopy, Self::Mapped];

    /// As listings and the configuration call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::UserCopy => "user-copy",
            Self::Mapped => "mapped",
        }
    }

    /// What a device needs to work in this mode.
    pub fn needs(self) -> Features {
        BASE.union(Features::USER_RECOVERY).union(match self {
            // And user copy: for the requests whose bytes are needed in memory after all.
            Self::ZeroCopy => Features::SUPPORT_ZERO_COPY
                .union(Features::AUTO_BUF_REG)
                .union(Features::USER_COPY)
                // To make its pages stable before it has a size.
                .union(Features::UPDATE_SIZE),
            Self::UserCopy => Features::USER_COPY,
            Self::Mapped => Features::empty(),
        })
    }
}

/// What a device of this owner needs. A user's works in mapped mode whatever is asked for.
pub(crate) fn needs(mode: Mode, owner: Owner) -> Features {
    match owner {
        Owner::Machine => mode.needs(),
        Owner::User => OF_USER,
    }
}

/// Why an ordinary user cannot have devices of his own with these features, or `None` where he can.
pub fn user_lacks(features: Features) -> Option<String> {
    let missing = OF_USER - features;
    (!missing.is_empty()).then(|| format!("this kernel's ublk lacks {missing:?}"))
}

/// Why this mode cannot be had with these features, or `None` where it can.
pub fn lacks(mode: Mode, features: Features) -> Option<String> {
    let missing = mode.needs() - features;
    if missing.is_empty() {
        return None;
    }
    Some(match mode {
        Mode::ZeroCopy if !missing.intersects(BASE) => {
            "this kernel cannot register request pages (Linux 6.16 can)".to_owned()
        }
        Mode::UserCopy if !missing.intersects(BASE) => {
            "this kernel's ublk device cannot be read and written (Linux 6.5's can)".to_owned()
        }
        _ => format!("this kernel's ublk lacks {missing:?}"),
    })
}

fn judge(features: Features) -> Probe {
    let mode = Mode::ALL
        .into_iter()
        .find(|mode| lacks(*mode, features).is_none());
    let better = mode.map_or(Mode::ALL.last().copied(), |mode| {
        Mode::ALL.into_iter().take_while(|m| *m != mode).last()
    });
    Probe {
        mode,
        reason: better.and_then(|mode| lacks(mode, features)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_mode_is_chosen() {
        assert_eq!(judge(Features::all()).mode, Some(Mode::ZeroCopy));
        let older = Features::all() - Features::AUTO_BUF_REG;
        assert_eq!(judge(older).mode, Some(Mode::UserCopy));
        let oldest = older - Features::USER_COPY;
        let probe = judge(oldest);
        assert_eq!(probe.mode, Some(Mode::Mapped));
        assert!(probe.reason.expect("a reason").contains("6.5"));
        let probe = judge(oldest - Features::USER_RECOVERY_REISSUE);
        assert_eq!(probe.mode, None);
        assert!(probe.reason.expect("a reason").contains("USER_RECOVERY"));
    }
}
