//! Whose a ublk device is, for udev: its rules give an ordinary user's devices to him.

use crate::daemon::StartError;
use crate::daemon::verbs::chain;
use std::io::{self, Write};
use ublk_driver::{Control, Owner};

/// Prints `UID GID` of the user who made the device of this name (`ublkb0`, `ublkb0p1`, `ublkc0`); an
/// error for a device that is the machine's.
pub fn print_ublk_owner(name: &str) -> Result<(), StartError> {
    let failed = |why: String| StartError::UblkOwner {
        name: name.to_owned(),
        why,
    };
    let id = id(name).ok_or_else(|| failed("not the name of a ublk device".to_owned()))?;
    let device = Control::open()
        .and_then(|control| control.device(id))
        .map_err(|error| failed(chain(&error)))?;
    match device.owner() {
        Owner::Machine => Err(failed("it is the machine's, not a user's".to_owned())),
        Owner::User => {
            let (uid, gid) = device.maker();
            writeln!(io::stdout(), "{uid} {gid}").map_err(|error| failed(error.to_string()))
        }
    }
}

/// N of `ublkbN`, `ublkbNpM`, `ublkcN`.
fn id(name: &str) -> Option<u32> {
    let number = name
        .strip_prefix("ublkb")
        .map(|rest| rest.split_once('p').map_or(rest, |(disk, _)| disk))
        .or_else(|| name.strip_prefix("ublkc"))?;
    // Not `+1`, which would parse.
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_their_names() {
        assert_eq!(id("ublkb0"), Some(0));
        assert_eq!(id("ublkc17"), Some(17));
        assert_eq!(id("ublkb3p2"), Some(3));
        for other in ["ublkb", "ublk-control", "ublkb+1", "ublkc1p2", "sda1", ""] {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
