//! What the running kernel can do for us.

use crate::{Control, Features, Mode, UblkError};

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

fn judge(features: Features) -> Probe {
    let base = Features::CMD_IOCTL_ENCODE | Features::USER_RECOVERY_REISSUE;
    let user_copy = base | Features::USER_COPY;
    let zero_copy = user_copy | Features::SUPPORT_ZERO_COPY | Features::AUTO_BUF_REG;
    if features.contains(zero_copy) {
        Probe {
            mode: Some(Mode::ZeroCopy),
            reason: None,
        }
    } else if features.contains(user_copy) {
        let reason = "this kernel cannot register request pages (Linux 6.16 can)".to_owned();
        Probe {
            mode: Some(Mode::UserCopy),
            reason: Some(reason),
        }
    } else {
        let reason = format!("this kernel's ublk lacks {:?}", user_copy - features);
        Probe {
            mode: None,
            reason: Some(reason),
        }
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
        assert_eq!(probe.mode, None);
        assert!(probe.reason.expect("a reason").contains("USER_COPY"));
    }
}
