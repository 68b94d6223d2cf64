//! Why a side refuses: numbers on the wire, words for the admin.

use super::codec::wire_enum;
use std::fmt;

wire_enum! {
    /// Why a side refuses or gives up; the number is the format, the text beside it is for people.
    pub enum RefusalCode {
        /// No protocol version in common.
        Version = 1,
        /// The volume is not there and may not or cannot be created.
        NoVolume = 2,
        /// The access list does not allow it.
        Access = 3,
        /// The sink is smaller than the source.
        SinkTooSmall = 4,
        /// The target has content of its own.
        ForeignData = 5,
        /// The source knows nothing of the feed that the sink has.
        UnknownAtSource = 6,
        /// One side is older than what the other has seen of it.
        RolledBack = 7,
        /// Both sides changed since they were last equal.
        Diverged = 8,
        /// Only the sink changed since they were last equal.
        SinkAhead = 9,
        /// The side that would become the source has no consistent content.
        SourceNotConsistent = 10,
        /// Both want the same role.
        RoleConflict = 11,
        /// The feed is paused by the admin.
        Paused = 12,
        /// A message that does not belong here.
        Protocol = 13,
        /// The volume is in use.
        Busy = 14,
        /// A commit or I/O failed here.
        Local = 15,
        /// The two sides judged the same facts differently.
        Disagree = 16,
        /// Shutting down.
        Shutdown = 17,
        /// Not possible in the present state.
        WrongState = 18,
        /// The source is older than what the sink has seen of it.
        SourceOlder = 19,
        /// The sink is older than what the source has seen of it.
        SinkOlder = 20,
        /// Two nodes have one identity.
        Twin = 21,
    }
}

impl fmt::Display for RefusalCode {
    /// For the admin: what happened, and what to do where it is for the admin to decide.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "no protocol version in common",
            Self::NoVolume => "no such volume at the peer",
            Self::Access => "the access list does not allow it",
            Self::SinkTooSmall => "the target is smaller than the source",
            Self::ForeignData => {
                "the target has content of its own (feedattach --discard-peer overwrites it)"
            }
            Self::UnknownAtSource => {
                "the source has no record of this feed any more: its disks are older than the feed, or \
                 it was forgotten there (feedattach --discard-peer copies everything anew)"
            }
            Self::RolledBack => {
                "the disks of one side are older than what the other has seen of them, or a copy of \
                 them was in use meanwhile (feedattach --discard-peer copies everything anew)"
            }
            Self::SourceOlder => {
                "the source's disks are older than what the target has seen of them: they were rolled \
                 back, or are a copy (feedswap --discard-local brings back what the target has, \
                 feedattach --discard-peer overwrites it)"
            }
            Self::SinkOlder => {
                "the target's disks are older than what the source has seen of them: they were rolled \
                 back, or are a copy (feedattach --discard-peer copies everything anew)"
            }
            Self::Diverged => {
                "both sides changed since they were last equal (feedattach --discard-peer gives up \
                 what changed at the target, feedswap --discard-local what changed at the source)"
            }
            Self::SinkAhead => {
                "the target was written by someone else since the two sides were last equal \
                 (feedattach --discard-peer gives that up, feedswap brings it to the source)"
            }
            Self::SourceNotConsistent => "the side to copy from is a half-done copy itself",
            Self::RoleConflict => "both sides want the same role",
            Self::Paused => "paused by the admin",
            Self::Protocol => "the peer broke the protocol",
            Self::Busy => "the volume is in use",
            Self::Local => "a commit or I/O failed",
            Self::Disagree => "the two sides judge the same facts differently",
            Self::Shutdown => "shutting down",
            Self::WrongState => "not possible in the present state",
            Self::Twin => {
                "two nodes have one identity: one's state directory is a copy of the other's (start \
                 that node with an empty one, then peeradd)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is for the admin to decide which side's content goes, the words name the verbs.
    #[test]
    fn a_refusal_over_content_says_what_to_do_next() {
        for code in [
            RefusalCode::ForeignData,
            RefusalCode::UnknownAtSource,
            RefusalCode::RolledBack,
            RefusalCode::SourceOlder,
            RefusalCode::SinkOlder,
            RefusalCode::Diverged,
            RefusalCode::SinkAhead,
        ] {
            let text = code.to_string();
            assert!(text.contains("feedattach --discard-peer"), "{text}");
        }
        for code in RefusalCode::ALL {
            let text = code.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
        }
    }
}
