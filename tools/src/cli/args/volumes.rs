//! Verbs for volumes and their data plexes.

use super::groups::YesNo;
use super::parse::{VgOrLv, absolute_all, lv_name, name, tag, vg_or_lv};
use super::{Ask, Work};
use crate::api::{Believe, Command, Failure, LvChange, LvName, PlexVerify, ReportKind, SizeSpec};
use crate::cli::failure::usage;
use crate::cli::report::ReportArgs;
use crate::cli::size::{parse_extents, parse_kib, parse_rate, parse_spec};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Front ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Frontend {
    /// A block device.
    Ublk,
    /// An NBD export.
    Nbd,
    /// Both.
    Both,
}

impl Frontend {
    fn word(self) -> String {
        match self {
            Frontend::Ublk => "ublk",
            Frontend::Nbd => "nbd",
            Frontend::Both => "both",
        }
        .to_owned()
    }
}

/// `-L`, `-l`: one of the two is needed.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SizeArgs {
    /// Size: 10g, 512m, 100%FREE, 50%VG; plain number: MiB; + and - are relative
    #[arg(short = 'L', long, value_name = "SIZE", value_parser = parse_spec, allow_hyphen_values = true)]
    size: Option<SizeSpec>,
    /// Size in extents (100, +100) or as a share: 100%FREE, 50%VG, +100%FREE
    #[arg(short = 'l', long, value_name = "EXTENTS|PERCENT", value_parser = parse_extents, allow_hyphen_values = true)]
    extents: Option<SizeSpec>,
}

impl SizeArgs {
    fn spec(&self) -> Result<SizeSpec, Failure> {
        self.size
            .or(self.extents)
            .ok_or_else(|| usage("-L", "no size", "one is needed", "-L SIZE"))
    }
}

pub const LVCREATE: &str = "EXAMPLES:
  volmgr lvcreate -n web -L 10g vg0
  volmgr lvcreate -n web -L 10g -m 1 vg0                  two plexes on different disks
  volmgr lvcreate -n fast -L 1t -i 4 -I 256k vg0          striped over four disks
  volmgr lvcreate -n web -L 10g --addtag prod vg0         `volmgr lvs @prod` finds it
  volmgr lvcreate -n rest -L 100%FREE vg0 /dev/sdb";

/// `lvcreate`
#[derive(Debug, Args)]
pub struct LvcreateArgs {
    /// Name of the new volume
    #[arg(short = 'n', long = "name", value_name = "LV")]
    lv: String,
    #[command(flatten)]
    size: SizeArgs,
    /// Copies besides the first: 1 is two plexes on different disks
    #[arg(short = 'm', long, default_value_t = 0, value_name = "MIRRORS")]
    mirrors: u32,
    /// Number of disks that each plex is striped over
    #[arg(short = 'i', long, default_value_t = 1, value_name = "STRIPES",
          value_parser = clap::value_parser!(u32).range(1..))]
    stripes: u32,
    /// Size of a stripe; plain number: KiB
    #[arg(short = 'I', long, value_name = "SIZE", value_parser = parse_kib)]
    stripesize: Option<u64>,
    /// Activate it (y, the default) or not (n)
    #[arg(short = 'a', long, value_enum, default_value = "y", value_name = "y|n")]
    activate: YesNo,
    /// How it is to be served; by default ublk where possible, else nbd
    #[arg(long, value_enum)]
    frontend: Option<Frontend>,
    /// A tag to find it by; may be given several times
    #[arg(long, value_parser = tag, value_name = "TAG")]
    addtag: Vec<String>,
    /// The group
    #[arg(value_parser = name, value_name = "VG")]
    vg: String,
    /// Only on these disks
    #[arg(value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl LvcreateArgs {
    pub fn work(self) -> Result<Work, Failure> {
        // LVM takes `-n VG/LV` as well.
        let lv = match self.lv.split_once('/') {
            Some((vg, lv)) if vg == self.vg => lv,
            Some(_) => {
                let why = format!("the group is {}", self.vg);
                return Err(usage(self.lv, "wrong name", why, "-n LV is enough"));
            }
            None => &self.lv,
        };
        let lv = name(lv).map_err(|why| usage(&self.lv, "wrong name", why, "choose another"))?;
        if self.stripesize.is_some() && self.stripes < 2 {
            return Err(usage(
                "-I",
                "no stripes",
                "one disk has none",
                "add -i STRIPES",
            ));
        }
        let size = absolute_size(self.size.spec()?)?;
        Ok(Work::Ask(Ask::one(Command::Lvcreate {
            lv: LvName { vg: self.vg, lv },
            size,
            mirrors: self.mirrors,
            stripes: self.stripes,
            stripe_size: self.stripesize,
            pvs: absolute_all(&self.pvs)?,
            inactive: self.activate == YesNo::N,
            frontend: self.frontend.map(Frontend::word),
            tags: self.addtag,
        })))
    }
}

fn absolute_size(size: SizeSpec) -> Result<SizeSpec, Failure> {
    match size {
        SizeSpec::Bytes(_)
        | SizeSpec::Extents(_)
        | SizeSpec::PercentFree(_)
        | SizeSpec::PercentVg(_) => Ok(size),
        SizeSpec::Plus(_)
        | SizeSpec::Minus(_)
        | SizeSpec::PlusPercentFree(_)
        | SizeSpec::PlusExtents(_)
        | SizeSpec::MinusExtents(_) => Err(usage(
            "-L",
            "wrong size",
            "a new volume has no size to add to or take from",
            "leave out the sign",
        )),
    }
}

pub const LVS: &str = "EXAMPLES:
  volmgr lvs
  volmgr lvs -o +lv_path,lv_io_mode vg0
  volmgr lvs --reportformat json --units b --nosuffix
  volmgr lvs -S 'lv_health!=ok'";

/// `lvs`
#[derive(Debug, Args)]
pub struct LvsArgs {
    /// Only these
    #[arg(value_parser = vg_or_lv, value_name = "VG|VG/LV")]
    of: Vec<VgOrLv>,
    #[command(flatten)]
    report: ReportArgs,
}

impl LvsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let commands = narrowed(ReportKind::Lv, self.of);
        Ok(Work::Ask(Ask::list(commands, ReportKind::Lv, self.report)))
    }
}

/// The reports for these groups and volumes; one for all where there are none.
pub fn narrowed(kind: ReportKind, of: Vec<VgOrLv>) -> Vec<Command> {
    let command = |vg, lv| Command::Report {
        kind,
        vg,
        lv,
        peer: None,
    };
    if of.is_empty() {
        return vec![command(None, None)];
    }
    of.into_iter()
        .map(|one| match one {
            VgOrLv::Vg(vg) => command(Some(vg), None),
            VgOrLv::Lv(lv) => command(None, Some(lv)),
        })
        .collect()
}

pub const LVEXTEND: &str = "EXAMPLES:
  volmgr lvextend -L +10g vg0/web
  volmgr lvextend -L 100%FREE vg0/web /dev/sdd";

/// `lvextend`
#[derive(Debug, Args)]
pub struct LvextendArgs {
    #[command(flatten)]
    size: SizeArgs,
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
    /// Only on these disks
    #[arg(value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl LvextendArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let size = self.size.spec()?;
        if matches!(size, SizeSpec::Minus(_) | SizeSpec::MinusExtents(_)) {
            let hint = "volmgr lvreduce makes smaller";
            return Err(usage(
                "-L",
                "wrong size",
                "this would make it smaller",
                hint,
            ));
        }
        Ok(Work::Ask(Ask::one(Command::Lvextend {
            lv: self.lv,
            size,
            pvs: absolute_all(&self.pvs)?,
        })))
    }
}

pub const LVREDUCE: &str = "EXAMPLES:
  volmgr lvreduce -L 5g vg0/web      shrink the filesystem first
  volmgr lvreduce -L -1g vg0/web";

/// `lvreduce`
#[derive(Debug, Args)]
pub struct LvreduceArgs {
    #[command(flatten)]
    size: SizeArgs,
    /// Even while it is open
    #[arg(short = 'f', long)]
    force: bool,
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
}

impl LvreduceArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let size = self.size.spec()?;
        if matches!(
            size,
            SizeSpec::Plus(_) | SizeSpec::PlusPercentFree(_) | SizeSpec::PlusExtents(_)
        ) {
            let hint = "volmgr lvextend makes larger";
            return Err(usage("-L", "wrong size", "this would make it larger", hint));
        }
        let question = format!("Reduce {}? Data behind its new end is lost.", self.lv);
        Ok(Work::Ask(
            Ask::one(Command::Lvreduce {
                lv: self.lv,
                size,
                force: self.force,
            })
            .confirmed(question),
        ))
    }
}

pub const LVREMOVE: &str = "EXAMPLES:
  volmgr lvremove vg0/web
  volmgr lvremove -y vg0/web vg0/db";

/// `lvremove`
#[derive(Debug, Args)]
pub struct LvremoveArgs {
    /// Even while it is open
    #[arg(short = 'f', long)]
    force: bool,
    /// The volumes
    #[arg(required = true, value_parser = lv_name, value_name = "VG/LV")]
    lvs: Vec<LvName>,
}

impl LvremoveArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let names: Vec<String> = self.lvs.iter().map(LvName::to_string).collect();
        let question = format!("Remove {} and the data?", names.join(", "));
        let force = self.force;
        let commands = self
            .lvs
            .into_iter()
            .map(|lv| Command::Lvremove { lv, force });
        Ok(Work::Ask(Ask::all(commands.collect()).confirmed(question)))
    }
}

pub const LVRENAME: &str = "EXAMPLES:
  volmgr lvrename vg0/web www
  volmgr lvrename vg0 web www";

/// `lvrename`
#[derive(Debug, Args)]
#[command(
    override_usage = "volmgr lvrename [OPTIONS] <VG/LV> <NEW>\n       volmgr lvrename [OPTIONS] <VG> <LV> <NEW>"
)]
pub struct LvrenameArgs {
    /// The volume, or its group and its name; then the new name
    #[arg(required = true, num_args = 2..=3, value_name = "NAME")]
    names: Vec<String>,
}

impl LvrenameArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let wrong = |object: &str, why: String| {
            usage(object, "wrong name", why, "volmgr lvrename VG/LV NEW")
        };
        let (old, new) = match self.names.as_slice() {
            [old, new] => (old.clone(), new),
            [vg, old, new] => (format!("{vg}/{old}"), new),
            _ => return Err(wrong("", "two or three are needed".into())),
        };
        let lv = lv_name(&old).map_err(|why| wrong(&old, why))?;
        let in_group = format!("{}/", lv.vg);
        let new = name(new.strip_prefix(&in_group).unwrap_or(new))
            .map_err(|why| wrong(new, why.to_string()))?;
        Ok(Work::Ask(Ask::one(Command::Lvrename { lv, new })))
    }
}

pub const LVCHANGE: &str = "EXAMPLES:
  volmgr lvchange -ay vg0/web
  volmgr lvchange -ay --frontend nbd vg0/web
  volmgr lvchange -an vg0/web
  volmgr lvchange --offline plex1 vg0/web
  volmgr lvchange --online plex1 vg0/web
  volmgr lvchange --stable-copy y vg0/web
  volmgr lvchange --addtag prod vg0/web vg0/db
  volmgr lvchange -ay @prod";

/// `lvchange`
#[derive(Debug, Args)]
pub struct LvchangeArgs {
    /// Activate (y) or deactivate (n)
    #[arg(short = 'a', long, value_enum, value_name = "y|n",
          required_unless_present_any = ["offline", "online", "stable_copy", "addtag", "deltag"])]
    activate: Option<YesNo>,
    /// Take a plex off line: what it misses is tracked
    #[arg(long, value_name = "PLEX", conflicts_with_all = ["activate", "online"])]
    offline: Option<String>,
    /// Bring a plex back: it is resynced
    #[arg(long, value_name = "PLEX", conflicts_with = "activate")]
    online: Option<String>,
    /// Copy each write once before it goes to plexes and feeds (y), for programs that change a
    /// buffer while it is being written; or not where that can be avoided (n, the default)
    #[arg(long, value_enum, value_name = "y|n", conflicts_with_all = ["activate", "offline", "online"])]
    stable_copy: Option<YesNo>,
    /// Add a tag; `@TAG` then stands for all volumes that have it
    #[arg(long, value_parser = tag, value_name = "TAG",
          conflicts_with_all = ["activate", "offline", "online", "stable_copy"])]
    addtag: Vec<String>,
    /// Take a tag off
    #[arg(long, value_parser = tag, value_name = "TAG",
          conflicts_with_all = ["activate", "offline", "online", "stable_copy"])]
    deltag: Vec<String>,
    /// With -ay: how to serve it; by default ublk where possible, else nbd
    #[arg(long, value_enum, requires = "activate")]
    frontend: Option<Frontend>,
    /// With -an: even while it is open
    #[arg(short = 'f', long, requires = "activate")]
    force: bool,
    /// The volumes
    #[arg(required = true, value_parser = lv_name, value_name = "VG/LV")]
    lvs: Vec<LvName>,
}

impl LvchangeArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let change = match (self.activate, self.offline, self.online) {
            (None, None, None) if self.stable_copy.is_some() => LvChange::StableCopy {
                on: self.stable_copy == Some(YesNo::Y),
            },
            (Some(YesNo::Y), None, None) if !self.force => LvChange::Activate {
                frontend: self.frontend.map(Frontend::word),
            },
            (Some(YesNo::N), None, None) if self.frontend.is_none() => {
                LvChange::Deactivate { force: self.force }
            }
            (None, Some(plex), None) => LvChange::Offline { plex },
            (None, None, Some(plex)) => LvChange::Online { plex },
            (None, None, None) => LvChange::Tags {
                add: self.addtag,
                del: self.deltag,
            },
            _ => {
                let why = "--frontend goes with -ay, --force with -an";
                return Err(usage("", "options contradict each other", why, ""));
            }
        };
        let command = |lv| Command::Lvchange {
            lv,
            change: change.clone(),
        };
        Ok(Work::Ask(Ask {
            // Where the volume now is: that is the point of it.
            text_wanted: self.activate == Some(YesNo::Y),
            ..Ask::all(self.lvs.into_iter().map(command).collect())
        }))
    }
}

pub const LVDISPLAY: &str = "EXAMPLES:
  volmgr lvdisplay vg0/web";

/// `lvdisplay`
#[derive(Debug, Args)]
pub struct LvdisplayArgs {
    /// The volumes
    #[arg(required = true, value_parser = lv_name, value_name = "VG/LV")]
    lvs: Vec<LvName>,
}

impl LvdisplayArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let commands = self.lvs.into_iter().map(|lv| Command::Lvdisplay { lv });
        Ok(Work::Ask(Ask {
            text_wanted: true,
            ..Ask::all(commands.collect())
        }))
    }
}

pub const PLEXATTACH: &str = "EXAMPLES:
  volmgr plexattach vg0/web
  volmgr plexattach vg0/web /dev/sdd";

/// `plexattach`
#[derive(Debug, Args)]
pub struct PlexattachArgs {
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
    /// Only on these disks
    #[arg(value_name = "PV")]
    pvs: Vec<PathBuf>,
}

impl PlexattachArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Plexattach {
            lv: self.lv,
            pvs: absolute_all(&self.pvs)?,
        })))
    }
}

pub const PLEXDETACH: &str = "EXAMPLES:
  volmgr plexdetach vg0/web plex1";

/// `plexdetach`
#[derive(Debug, Args)]
pub struct PlexdetachArgs {
    /// Even when what remains is not complete
    #[arg(short = 'f', long)]
    force: bool,
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
    /// The plex, as 'volmgr plexs' names it
    #[arg(value_name = "PLEX")]
    plex: String,
}

impl PlexdetachArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Plexdetach {
            lv: self.lv,
            plex: self.plex,
            force: self.force,
        })))
    }
}

pub const PLEXS: &str = "EXAMPLES:
  volmgr plexs
  volmgr plexs vg0/web -o plex_name,plex_state,plex_sync_percent";

/// `plexs`
#[derive(Debug, Args)]
pub struct PlexsArgs {
    /// Only those of these
    #[arg(value_parser = vg_or_lv, value_name = "VG/LV")]
    of: Vec<VgOrLv>,
    #[command(flatten)]
    report: ReportArgs,
}

impl PlexsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let kind = ReportKind::Plex;
        Ok(Work::Ask(Ask::list(
            narrowed(kind, self.of),
            kind,
            self.report,
        )))
    }
}

pub const PLEXSYNC: &str = "EXAMPLES:
  volmgr plexsync vg0/web
  volmgr plexsync --verify vg0/web      read and compare all plexes
  volmgr plexsync --verify --repair vg0/web
                                        the same, and make them equal where more than half agree
  volmgr plexsync --verify --repair --believe plex1 vg0/web
  volmgr plexsync --verify --repair --peer backup vg0/web
  volmgr plexsync --verify vg0/web --reportformat json
                                        what differs as rows, one for each place on a disk

Where plexes differ, --verify says at which byte of the volume, who agrees with whom, and on which subdisk and disk it
lies. Nothing is changed without --repair, and then only where somebody's word decides: more than half of the active
plexes, or the plex or the peer that is named. From a peer comes the word only: one of the plexes has to have the same.";

/// `plexsync`
#[derive(Debug, Args)]
pub struct PlexsyncArgs {
    /// Read all plexes and compare them
    #[arg(long)]
    verify: bool,
    /// Make plexes equal where they differ and it is known which is right: more than half agree
    #[arg(long, requires = "verify")]
    repair: bool,
    /// What this plex has is right, whatever the others have
    #[arg(
        long,
        requires = "repair",
        value_name = "PLEX",
        conflicts_with = "peer"
    )]
    believe: Option<String>,
    /// What the feed's copy at this peer has is right, where a plex has the same
    #[arg(long, requires = "repair", value_name = "PEER")]
    peer: Option<String>,
    /// How much of the volume is compared per second; plain number: MiB
    #[arg(long, requires = "verify", value_name = "R", value_parser = parse_rate)]
    rate: Option<u64>,
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
}

impl PlexsyncArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let word = match (self.believe, self.peer) {
            (Some(plex), _) => Believe::Plex(plex),
            (None, Some(peer)) => Believe::Peer(peer),
            (None, None) => Believe::Majority,
        };
        let ask = Ask::one(Command::Plexsync {
            lv: self.lv,
            verify: self.verify.then_some(PlexVerify {
                repair: self.repair.then_some(word),
                rate: self.rate.unwrap_or(0),
            }),
        });
        Ok(Work::Ask(match self.verify {
            true => ask.rows_in_json(ReportKind::Difference),
            false => ask,
        }))
    }
}
