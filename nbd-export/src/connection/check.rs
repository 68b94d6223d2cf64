//! Is a request one that this export serves? One pure function says so, and how it is refused.

use crate::wire::{CommandFlags, MAX_PAYLOAD, RequestHeader, TransmissionFlags, WireError, cmd};
use blockio::{ByteRange, Flags, Limits};

/// What the connection has to do for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    Zeroes,
    Cache,
    BlockStatus {
        /// One extent, not longer than asked for.
        one: bool,
    },
}

/// A request that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub kind: Kind,
    pub range: ByteRange,
    pub flags: Flags,
}

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub limits: Limits,
    /// What was announced.
    pub flags: TransmissionFlags,
    /// Some context was chosen.
    pub block_status: bool,
    /// Longest read that is answered in one piece.
    pub max_chunk: u32,
}

impl Rules {
    pub(super) fn check(&self, header: &RequestHeader) -> Result<Accepted, WireError> {
        let kind = match header.command {
            cmd::READ => Kind::Read,
            cmd::WRITE => Kind::Write,
            cmd::FLUSH => Kind::Flush,
            cmd::TRIM if self.announced(TransmissionFlags::SEND_TRIM) => Kind::Trim,
            cmd::WRITE_ZEROES => Kind::Zeroes,
            cmd::CACHE => Kind::Cache,
            cmd::BLOCK_STATUS if self.block_status => Kind::BlockStatus {
                one: header.flags.contains(CommandFlags::REQ_ONE),
            },
            _ => return Err(WireError::Invalid),
        };
        let flags = self.check_flags(kind, header.flags)?;
        let writes = matches!(kind, Kind::Write | Kind::Trim | Kind::Zeroes);
        if writes && (self.limits.read_only || self.announced(TransmissionFlags::READ_ONLY)) {
            return Err(WireError::Perm);
        }
        let range = self.check_range(kind, header)?;
        let dont_fragment = header.flags.contains(CommandFlags::DF);
        if dont_fragment && header.len > self.max_chunk {
            return Err(WireError::Overflow);
        }
        Ok(Accepted { kind, range, flags })
    }

    fn announced(&self, flag: TransmissionFlags) -> bool {
        self.flags.contains(flag)
    }

    fn check_flags(&self, kind: Kind, flags: CommandFlags) -> Result<Flags, WireError> {
        // FUA may come with everything; where nothing is written it means nothing.
        let mut allowed = CommandFlags::FUA;
        match kind {
            Kind::Read => allowed.set(CommandFlags::DF, self.announced(TransmissionFlags::SEND_DF)),
            Kind::Zeroes => {
                allowed |= CommandFlags::NO_HOLE;
                let fast = self.announced(TransmissionFlags::SEND_FAST_ZERO);
                allowed.set(CommandFlags::FAST_ZERO, fast);
            }
            Kind::BlockStatus { .. } => allowed |= CommandFlags::REQ_ONE,
            Kind::Write | Kind::Flush | Kind::Trim | Kind::Cache => {}
        }
        if !allowed.contains(flags) {
            return Err(WireError::Invalid);
        }
        let mut device = Flags::empty();
        if matches!(kind, Kind::Write | Kind::Zeroes | Kind::Trim) {
            device.set(Flags::FUA, flags.contains(CommandFlags::FUA));
            device.set(Flags::NO_UNMAP, flags.contains(CommandFlags::NO_HOLE));
            device.set(Flags::FAST_ZERO, flags.contains(CommandFlags::FAST_ZERO));
        }
        Ok(device)
    }

    fn check_range(&self, kind: Kind, header: &RequestHeader) -> Result<ByteRange, WireError> {
        if kind == Kind::Flush {
            // Both are reserved.
            let clean = header.offset == 0 && header.len == 0;
            return clean
                .then_some(ByteRange::default())
                .ok_or(WireError::Invalid);
        }
        let has_payload = matches!(kind, Kind::Read | Kind::Write);
        if header.len == 0 || (has_payload && header.len > MAX_PAYLOAD) {
            return Err(WireError::Invalid);
        }
        let past_the_end = match kind {
            Kind::Write | Kind::Zeroes => WireError::NoSpace,
            _ => WireError::Invalid,
        };
        let range = ByteRange::checked(header.offset, header.len.into()).ok_or(past_the_end)?;
        if range.end() > self.limits.size {
            return Err(past_the_end);
        }
        if !range.is_aligned(self.limits.logical_block.into()) {
            return Err(WireError::Invalid);
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        limits: Limits {
            size: 64 << 20,
            logical_block: 4096,
            physical_block: 4096,
            minimum_io: 0,
            optimal_io: 0,
            read_only: false,
            discard: true,
            fast_zero: true,
            rotational: false,
        },
        flags: TransmissionFlags::all().difference(TransmissionFlags::READ_ONLY),
        block_status: true,
        max_chunk: 256 << 10,
    };

    fn check(rules: Rules, command: u16, flags: CommandFlags, at: (u64, u32)) -> Option<WireError> {
        let header = RequestHeader {
            flags,
            command,
            cookie: 1,
            offset: at.0,
            len: at.1,
        };
        rules.check(&header).err()
    }

    #[test]
    fn the_end_of_the_device_is_no_space_for_writers_and_invalid_for_others() {
        let none = CommandFlags::empty();
        for (command, error) in [
            (cmd::READ, WireError::Invalid),
            (cmd::WRITE, WireError::NoSpace),
            (cmd::WRITE_ZEROES, WireError::NoSpace),
            (cmd::TRIM, WireError::Invalid),
            (cmd::CACHE, WireError::Invalid),
            (cmd::BLOCK_STATUS, WireError::Invalid),
        ] {
            let end = RULES.limits.size;
            assert_eq!(check(RULES, command, none, (end - 4096, 4096)), None);
            assert_eq!(check(RULES, command, none, (end, 4096)), Some(error));
            assert_eq!(check(RULES, command, none, (end - 4096, 8192)), Some(error));
            assert_eq!(check(RULES, command, none, (u64::MAX, 4096)), Some(error));
            for odd in [(512, 4096), (4096, 512), (0, 0)] {
                assert_eq!(check(RULES, command, none, odd), Some(WireError::Invalid));
            }
        }
    }

    #[test]
    fn only_payload_has_a_longest_length() {
        let none = CommandFlags::empty();
        let long = (0, MAX_PAYLOAD + 4096);
        for (command, error) in [
            (cmd::READ, Some(WireError::Invalid)),
            (cmd::WRITE, Some(WireError::Invalid)),
            (cmd::WRITE_ZEROES, None),
            (cmd::TRIM, None),
            (cmd::BLOCK_STATUS, None),
        ] {
            assert_eq!(check(RULES, command, none, long), error, "{command}");
        }
    }

    #[test]
    fn a_read_only_export_refuses_what_writes() {
        let rules = Rules {
            limits: Limits {
                read_only: true,
                ..RULES.limits
            },
            ..RULES
        };
        let none = CommandFlags::empty();
        for command in [cmd::WRITE, cmd::WRITE_ZEROES, cmd::TRIM] {
            assert_eq!(
                check(rules, command, none, (0, 4096)),
                Some(WireError::Perm)
            );
        }
        assert_eq!(check(rules, cmd::READ, none, (0, 4096)), None);
        assert_eq!(check(rules, cmd::FLUSH, none, (0, 0)), None);
    }

    /// Legend: each flag alone, with the commands it is good for.
    #[test]
    fn flags_are_allowed_where_they_mean_something() {
        let all = [
            cmd::READ,
            cmd::WRITE,
            cmd::FLUSH,
            cmd::TRIM,
            cmd::CACHE,
            cmd::WRITE_ZEROES,
            cmd::BLOCK_STATUS,
        ];
        let table: [(CommandFlags, &[u16]); 6] = [
            (CommandFlags::FUA, &all),
            (CommandFlags::DF, &[cmd::READ]),
            (CommandFlags::NO_HOLE, &[cmd::WRITE_ZEROES]),
            (CommandFlags::FAST_ZERO, &[cmd::WRITE_ZEROES]),
            (CommandFlags::REQ_ONE, &[cmd::BLOCK_STATUS]),
            (CommandFlags::from_bits_retain(1 << 9), &[]),
        ];
        for (flag, good) in table {
            for command in all {
                let at = if command == cmd::FLUSH {
                    (0, 0)
                } else {
                    (0, 4096)
                };
                assert_eq!(
                    check(RULES, command, flag, at).is_none(),
                    good.contains(&command),
                    "{flag:?} {command}"
                );
            }
        }
    }

    #[test]
    fn what_was_not_announced_is_invalid() {
        let rules = Rules {
            flags: TransmissionFlags::HAS_FLAGS,
            block_status: false,
            ..RULES
        };
        let invalid = Some(WireError::Invalid);
        let none = CommandFlags::empty();
        assert_eq!(check(rules, cmd::TRIM, none, (0, 4096)), invalid);
        assert_eq!(check(rules, cmd::BLOCK_STATUS, none, (0, 4096)), invalid);
        assert_eq!(
            check(rules, cmd::READ, CommandFlags::DF, (0, 4096)),
            invalid
        );
        let fast = CommandFlags::FAST_ZERO;
        assert_eq!(check(rules, cmd::WRITE_ZEROES, fast, (0, 4096)), invalid);
        assert_eq!(check(rules, 99, none, (0, 4096)), invalid);
    }

    #[test]
    fn an_undivided_read_is_bounded() {
        let read = |len| check(RULES, cmd::READ, CommandFlags::DF, (0, len));
        assert_eq!(read(256 << 10), None);
        assert_eq!(read((256 << 10) + 4096), Some(WireError::Overflow));
    }
}
