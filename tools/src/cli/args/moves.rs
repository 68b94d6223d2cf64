//! Verbs that move data and change its redundancy under LVM's names: `pvmove`, `lvconvert`.

use super::parse::{absolute, absolute_all, lv_name};
use super::{Ask, Work};
use crate::api::{Command, Failure, LvName, MirrorSpec};
use crate::cli::failure::usage;
use clap::Args;
use std::path::PathBuf;

pub const PVMOVE: &str = "\
The volumes stay in use. Each plex that has anything on the disk is copied to other disks, whole, and
taken off when the copy is in step; it has a new name then. What was begun goes on when volmgrd is started
again, and when nobody waits for it.

EXAMPLES:
  volmgr pvmove /dev/sdb                       off this disk, to wherever there is room
  volmgr pvmove /dev/sdb /dev/sdd              to this one
  volmgr pvmove -n vg0/web /dev/sdb            only what this volume has there
  volmgr pvmove -b /dev/sdb && volmgr pvmove   begin; later wait for what is under way
  volmgr pvmove --abort /dev/sdb               stay there after all
  volmgr pvmove /dev/sdb && volmgr vgreduce vg0 /dev/sdb";

/// `pvmove`
#[derive(Debug, Args)]
pub struct PvmoveArgs {
    /// Only this volume
    #[arg(short = 'n', long, value_name = "VG/LV")]
    name: Option<String>,
    /// Give up: take the copies off
    #[arg(long, conflicts_with_all = ["background", "to"])]
    abort: bool,
    /// Do not wait
    #[arg(short = 'b', long, requires = "from")]
    background: bool,
    /// The disk that data is to leave; without, waits for all that is under way
    #[arg(value_name = "PV")]
    from: Option<PathBuf>,
    /// Only to these disks
    #[arg(value_name = "TO_PV")]
    to: Vec<PathBuf>,
}

impl PvmoveArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Pvmove {
            from: self.from.as_deref().map(absolute).transpose()?,
            to: absolute_all(&self.to)?,
            lv: self.name,
            abort: self.abort,
            background: self.background,
        })))
    }
}

pub const LVCONVERT: &str = "\
Another name for plexattach and plexdetach.

EXAMPLES:
  volmgr lvconvert -m 1 vg0/web                two plexes
  volmgr lvconvert -m +1 vg0/web /dev/sdd      one more, on this disk
  volmgr lvconvert -m 0 vg0/web /dev/sdb       one plex; the one on this disk goes first";

/// `lvconvert`
#[derive(Debug, Args)]
pub struct LvconvertArgs {
    /// Copies besides the first; with a sign: so many more or fewer
    #[arg(short = 'm', long, value_name = "[+|-]MIRRORS", value_parser = mirrors, allow_hyphen_values = true)]
    mirrors: MirrorSpec,
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
    /// New plexes only on these disks; of old ones, those on these disks go first
    #[arg(value_name = "PV")]
    pvs: Vec<PathBuf>,
}

fn mirrors(text: &str) -> Result<MirrorSpec, String> {
    let (make, digits): (fn(u32) -> MirrorSpec, &str) = match text.as_bytes().first() {
        Some(b'+') => (MirrorSpec::Plus, &text[1..]),
        Some(b'-') => (MirrorSpec::Minus, &text[1..]),
        _ => (MirrorSpec::Exactly, text),
    };
    match digits.parse::<u32>() {
        Ok(number) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(make(number)),
        _ => Err(format!("'{text}' is not a number of mirrors")),
    }
}

impl LvconvertArgs {
    pub fn work(self) -> Result<Work, Failure> {
        if matches!(self.mirrors, MirrorSpec::Plus(0) | MirrorSpec::Minus(0)) {
            return Err(usage("-m", "nothing to do", "0 more is what there is", ""));
        }
        Ok(Work::Ask(Ask::one(Command::Lvconvert {
            lv: self.lv,
            mirrors: self.mirrors,
            pvs: absolute_all(&self.pvs)?,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_mirrors() {
        assert_eq!(mirrors("1"), Ok(MirrorSpec::Exactly(1)));
        assert_eq!(mirrors("+2"), Ok(MirrorSpec::Plus(2)));
        assert_eq!(mirrors("-1"), Ok(MirrorSpec::Minus(1)));
        for bad in ["", "+", "one", "1.5", "--1", "+-1", "99999999999"] {
            assert!(mirrors(bad).is_err(), "{bad}");
        }
    }
}
