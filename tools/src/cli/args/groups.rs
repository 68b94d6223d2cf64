//! Verbs for volume groups.

use super::parse::{absolute, absolute_all, name, tag};
use super::{Ask, Work};
use crate::api::{Command, Failure, ReportKind};
use crate::cli::report::ReportArgs;
use crate::cli::size::parse_mib;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `-a y`, `-a n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// Yes.
    Y,
    /// No.
    N,
}

pub const VGCREATE: &str = "EXAMPLES:
  volmgr vgcreate vg0 /dev/sdb /dev/sdc
  volmgr vgcreate -s 16m vg0 disk1.img disk2.img
  volmgr vgcreate --addtag rack4 vg0 /dev/sdb";

/// `vgcreate`
#[derive(Debug, Args)]
pub struct VgcreateArgs {
    /// Size of an extent: a power of two, 64k to 1g; plain number: MiB [default: 4m]
    #[arg(short = 's', long, value_name = "EXTENT", value_parser = parse_mib)]
    physicalextentsize: Option<u64>,
    /// Also use disks on which something else is found: it is lost
    #[arg(short = 'f', long)]
    force: bool,
    /// A tag for it; `@TAG` then stands for all groups that have it
    #[arg(long, value_parser = tag, value_name = "TAG")]
    addtag: Vec<String>,
    /// Name of the new group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
    /// Disks; those without a label get one
    #[arg(required = true, value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl VgcreateArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgcreate {
            vg: self.vg,
            pvs: absolute_all(&self.pvs)?,
            extent_size: self.physicalextentsize,
            force: self.force,
            tags: self.addtag,
        })))
    }
}

pub const VGS: &str = "EXAMPLES:
  volmgr vgs
  volmgr vgs vg0 --reportformat json --units b --nosuffix";

/// `vgs`
#[derive(Debug, Args)]
pub struct VgsArgs {
    /// Only these
    #[arg(value_parser = name, value_name = "VG")]
    vgs: Vec<String>,
    #[command(flatten)]
    report: ReportArgs,
}

impl VgsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let kind = ReportKind::Vg;
        let command = |vg| Command::Report {
            kind,
            vg,
            lv: None,
            peer: None,
        };
        let commands = if self.vgs.is_empty() {
            vec![command(None)]
        } else {
            self.vgs.into_iter().map(|vg| command(Some(vg))).collect()
        };
        Ok(Work::Ask(Ask::list(commands, kind, self.report)))
    }
}

pub const VGEXTEND: &str = "EXAMPLES:
  volmgr vgextend vg0 /dev/sdd";

/// `vgextend`
#[derive(Debug, Args)]
pub struct VgextendArgs {
    /// Also use disks on which something else is found: it is lost
    #[arg(short = 'f', long)]
    force: bool,
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
    /// Disks; those without a label get one
    #[arg(required = true, value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl VgextendArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgextend {
            vg: self.vg,
            pvs: absolute_all(&self.pvs)?,
            force: self.force,
        })))
    }
}

pub const VGREDUCE: &str = "EXAMPLES:
  volmgr vgreduce vg0 /dev/sdd
  volmgr vgreduce --removemissing vg0      forget disks that will not come back";

/// `vgreduce`
#[derive(Debug, Args)]
pub struct VgreduceArgs {
    /// Take out the disks that are missing
    #[arg(long)]
    removemissing: bool,
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
    /// Disks without a volume on them
    #[arg(required_unless_present = "removemissing", value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl VgreduceArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgreduce {
            vg: self.vg,
            pvs: absolute_all(&self.pvs)?,
            missing: self.removemissing,
        })))
    }
}

pub const VGREMOVE: &str = "EXAMPLES:
  volmgr vgremove vg0
  volmgr vgremove -y --force vg0      with its volumes";

/// `vgremove`
#[derive(Debug, Args)]
pub struct VgremoveArgs {
    /// Remove its volumes, too
    #[arg(short = 'f', long)]
    force: bool,
    /// The groups
    #[arg(required = true, value_parser = name, value_name = "VG")]
    vgs: Vec<String>,
}

impl VgremoveArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let question = match self.force {
            true => format!(
                "Remove {} with all volumes and their data?",
                self.vgs.join(", ")
            ),
            false => format!("Remove {}?", self.vgs.join(", ")),
        };
        let force = self.force;
        let commands = self
            .vgs
            .into_iter()
            .map(|vg| Command::Vgremove { vg, force });
        Ok(Work::Ask(Ask::all(commands.collect()).confirmed(question)))
    }
}

pub const VGRENAME: &str = "EXAMPLES:
  volmgr vgrename vg0 archive";

/// `vgrename`
#[derive(Debug, Args)]
pub struct VgrenameArgs {
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
    /// Its new name
    #[arg(value_parser = name, value_name = "NEW")]
    new: String,
}

impl VgrenameArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgrename {
            vg: self.vg,
            new: self.new,
        })))
    }
}

pub const VGSPLIT: &str = "EXAMPLES:
  volmgr vgsplit vg0 vg1 /dev/sdc /dev/sdd
  volmgr vgsplit -n web vg0 vg1      the disks that vg0/web is on, and what else is on them";

/// `vgsplit`
#[derive(Debug, Args)]
pub struct VgsplitArgs {
    /// A volume of the group instead of disks: those that it is on
    #[arg(short = 'n', long, value_parser = name, value_name = "LV", conflicts_with = "pvs")]
    name: Option<String>,
    /// The group whose disks they are; volumes on them must be on no others, inactive, and without a feed
    #[arg(value_parser = name, value_name = "VG")]
    from: String,
    /// The group that gets them; it is made if it does not exist
    #[arg(value_parser = name, value_name = "TO_VG")]
    to: String,
    /// The disks
    #[arg(required_unless_present = "name", value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl VgsplitArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgsplit {
            from: self.from,
            to: self.to,
            pvs: absolute_all(&self.pvs)?,
            lv: self.name,
        })))
    }
}

pub const VGMERGE: &str = "EXAMPLES:
  volmgr vgchange -an vg1 && volmgr vgmerge vg0 vg1      all of vg1 is in vg0 then";

/// `vgmerge`
#[derive(Debug, Args)]
pub struct VgmergeArgs {
    /// The group that stays
    #[arg(value_parser = name, value_name = "VG")]
    into: String,
    /// The group that becomes part of it; its volumes must be inactive and without feeds
    #[arg(value_parser = name, value_name = "FROM_VG")]
    from: String,
}

impl VgmergeArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgmerge {
            into: self.into,
            from: self.from,
        })))
    }
}

pub const VGCHANGE: &str = "EXAMPLES:
  volmgr vgchange -ay vg0
  volmgr vgchange -an      all groups
  volmgr vgchange --addtag rack4 vg0 && volmgr vgchange -an @rack4";

/// `vgchange`
#[derive(Debug, Args)]
pub struct VgchangeArgs {
    /// Activate (y) or deactivate (n)
    #[arg(short = 'a', long, value_enum, value_name = "y|n",
          required_unless_present_any = ["addtag", "deltag", "accept_older"])]
    activate: Option<YesNo>,
    /// Add a tag; `@TAG` then stands for all groups that have it
    #[arg(long, value_parser = tag, value_name = "TAG", conflicts_with = "activate", requires = "vgs")]
    addtag: Vec<String>,
    /// Take a tag off
    #[arg(long, value_parser = tag, value_name = "TAG", conflicts_with = "activate", requires = "vgs")]
    deltag: Vec<String>,
    /// Go on with the disks that are here, although this node has newer data on disks that are away: that is given up
    #[arg(long, conflicts_with_all = ["activate", "addtag", "deltag"], requires = "vgs")]
    accept_older: bool,
    /// The groups; all without
    #[arg(value_parser = name, value_name = "VG")]
    vgs: Vec<String>,
}

impl VgchangeArgs {
    pub fn work(self) -> Result<Work, Failure> {
        if self.accept_older {
            let commands = self.vgs.into_iter().map(|vg| Command::VgacceptOlder { vg });
            return Ok(Work::Ask(Ask::all(commands.collect())));
        }
        let Some(activate) = self.activate else {
            let command = |vg| Command::Vgtags {
                vg,
                add: self.addtag.clone(),
                del: self.deltag.clone(),
            };
            let commands = self.vgs.into_iter().map(command);
            return Ok(Work::Ask(Ask::all(commands.collect())));
        };
        let active = activate == YesNo::Y;
        let command = |vg| Command::Vgchange { vg, active };
        let commands = if self.vgs.is_empty() {
            vec![command(None)]
        } else {
            self.vgs.into_iter().map(|vg| command(Some(vg))).collect()
        };
        Ok(Work::Ask(Ask::all(commands)))
    }
}

pub const VGEXPORT: &str = "EXAMPLES:
  volmgr vgchange -an vg0 && volmgr vgexport vg0";

/// `vgexport`
#[derive(Debug, Args)]
pub struct VgexportArgs {
    /// The group; its volumes must be inactive
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
}

impl VgexportArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgexport { vg: self.vg })))
    }
}

pub const VGIMPORT: &str = "EXAMPLES:
  volmgr vgscan && volmgr vgimport vg0";

/// `vgimport`
#[derive(Debug, Args)]
pub struct VgimportArgs {
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
}

impl VgimportArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgimport { vg: self.vg })))
    }
}

pub const VGCFGBACKUP: &str = "EXAMPLES:
  volmgr vgcfgbackup vg0
  volmgr vgcfgbackup -f vg0.txt vg0";

/// `vgcfgbackup`
#[derive(Debug, Args)]
pub struct VgcfgbackupArgs {
    /// The file; without, one in the daemon's archive
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
}

impl VgcfgbackupArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgcfgbackup {
            vg: self.vg,
            file: self.file.as_deref().map(absolute).transpose()?,
        })))
    }
}

pub const VGCFGRESTORE: &str = "EXAMPLES:
  volmgr vgcfgrestore --list vg0                 what there is to restore from
  volmgr vgcfgrestore -f vg0.txt vg0
  volmgr vgcfgrestore -f vg0.txt --force vg0     also where volumes were made or removed since";

/// `vgcfgrestore`
#[derive(Debug, Args)]
pub struct VgcfgrestoreArgs {
    /// The file; without, the one that vgcfgbackup wrote
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also when volumes are lost by it
    #[arg(long)]
    force: bool,
    /// Only list the backup and the old versions
    #[arg(short = 'l', long, conflicts_with_all = ["file", "force"])]
    list: bool,
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
}

impl VgcfgrestoreArgs {
    pub fn work(self) -> Result<Work, Failure> {
        if self.list {
            return Ok(Work::Ask(Ask {
                text_wanted: true,
                ..Ask::one(Command::Vgcfglist { vg: self.vg })
            }));
        }
        let question = format!("Replace the metadata of {}?", self.vg);
        Ok(Work::Ask(
            Ask::one(Command::Vgcfgrestore {
                vg: self.vg,
                file: self.file.as_deref().map(absolute).transpose()?,
                force: self.force,
            })
            .confirmed(question),
        ))
    }
}

pub const VGSCAN: &str = "EXAMPLES:
  volmgr vgscan
  volmgr vgscan /srv/disks/disk1.img      look here, too";

/// `vgscan`
#[derive(Debug, Args)]
pub struct VgscanArgs {
    /// Disks to look at besides those known
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl VgscanArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Vgscan {
            paths: absolute_all(&self.paths)?,
        })))
    }
}
