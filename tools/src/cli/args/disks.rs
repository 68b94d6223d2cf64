//! Verbs for disks: `pvcreate`, `pvremove`, `pvs`, `pvchange`, `pvresize`.

use super::groups::YesNo;
use super::parse::{absolute_all, tag};
use super::{Ask, Work};
use crate::api::{Command, Failure, ReportKind};
use crate::cli::report::ReportArgs;
use crate::cli::size::parse_mib;
use clap::Args;
use std::path::PathBuf;

pub const PVCREATE: &str = "EXAMPLES:
  volmgr pvcreate /dev/sdb /dev/sdc
  truncate -s 10G disk.img && volmgr pvcreate disk.img
  volmgr pvcreate --force /dev/sdd      although something is on it";

/// `pvcreate`
#[derive(Debug, Args)]
pub struct PvcreateArgs {
    /// Also where something else is found: it is lost
    #[arg(short = 'f', long)]
    force: bool,
    /// Block devices or regular files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl PvcreateArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Pvcreate {
            paths: absolute_all(&self.paths)?,
            force: self.force,
        })))
    }
}

pub const PVREMOVE: &str = "EXAMPLES:
  volmgr pvremove /dev/sdb";

/// `pvremove`
#[derive(Debug, Args)]
pub struct PvremoveArgs {
    /// Also when the disk belongs to a group that is not here
    #[arg(short = 'f', long)]
    force: bool,
    /// Disks of no group
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl PvremoveArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Pvremove {
            paths: absolute_all(&self.paths)?,
            force: self.force,
        })))
    }
}

pub const PVS: &str = "EXAMPLES:
  volmgr pvs
  volmgr pvs -o +pv_uuid --units b
  volmgr pvs -S 'pv_free>0' -O -pv_free";

/// `pvs`
#[derive(Debug, Args)]
pub struct PvsArgs {
    /// Only these
    #[arg(value_name = "PV")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    report: ReportArgs,
}

impl PvsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let mut ask = Ask::list(
            vec![Command::Report {
                kind: ReportKind::Pv,
                vg: None,
                lv: None,
                peer: None,
            }],
            ReportKind::Pv,
            self.report,
        );
        if let Some(listing) = &mut ask.listing {
            listing.names = absolute_all(&self.paths)?;
        }
        Ok(Work::Ask(ask))
    }
}

pub const PVCHANGE: &str = "EXAMPLES:
  volmgr pvchange --addtag fast /dev/sdb /dev/sdc && volmgr lvcreate -n db -L 10g vg0 @fast
  volmgr pvchange --deltag fast /dev/sdc
  volmgr pvchange --spare y /dev/sde && volmgr pvs -o +pv_spare";

/// `pvchange`
#[derive(Debug, Args)]
pub struct PvchangeArgs {
    /// Add a tag; `@TAG` then stands for all disks that have it
    #[arg(long, value_parser = tag, value_name = "TAG", required_unless_present_any = ["deltag", "spare"])]
    addtag: Vec<String>,
    /// Take a tag off
    #[arg(long, value_parser = tag, value_name = "TAG")]
    deltag: Vec<String>,
    /// Keep the disk for plexes that lose theirs: nothing else is put there unless it is named
    #[arg(long, value_enum, value_name = "y|n", conflicts_with_all = ["addtag", "deltag"])]
    spare: Option<YesNo>,
    /// Disks of groups
    #[arg(required = true, value_name = "PV")]
    paths: Vec<PathBuf>,
}

impl PvchangeArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let paths = absolute_all(&self.paths)?;
        Ok(Work::Ask(Ask::one(match self.spare {
            Some(spare) => Command::Pvspare {
                paths,
                spare: spare == YesNo::Y,
            },
            None => Command::Pvtags {
                paths,
                add: self.addtag,
                del: self.deltag,
            },
        })))
    }
}

pub const PVRESIZE: &str = "EXAMPLES:
  truncate -s 20G disk.img && volmgr pvresize disk.img
  volmgr pvresize --setphysicalvolumesize 10g /dev/sdb";

/// `pvresize`
#[derive(Debug, Args)]
pub struct PvresizeArgs {
    /// Use this much of the disk, not all
    #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
    setphysicalvolumesize: Option<u64>,
    /// Disks
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl PvresizeArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Pvresize {
            paths: absolute_all(&self.paths)?,
            size: self.setphysicalvolumesize,
        })))
    }
}
