//! Verbs for feeds and points in time.

use super::parse::{PeerTarget, VgOrLv, lv_name, name, peer_target, period, vg_or_lv};
use super::volumes::narrowed;
use super::{Ask, Work};
use crate::api::{Command, Failure, LvName, ReportKind};
use crate::cli::report::ReportArgs;
use crate::cli::size::parse_rate;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// The states of a feed, as `feedwait --state` takes them.
const STATES: [&str; 9] = [
    "connecting",
    "full-sync",
    "resync",
    "live",
    "behind",
    "disconnected",
    "paused",
    "split",
    "refused",
];

/// How much longer than `--timeout` the daemon is given to say itself that it was too long.
const GRACE: Duration = Duration::from_secs(10);

/// A volume and a peer: names one feed.
#[derive(Debug, Args)]
pub struct FeedName {
    /// The volume here
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
    /// The peer
    #[arg(value_parser = name, value_name = "PEER")]
    peer: String,
}

/// When writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// When the local plexes have them.
    Async,
    /// When the sink has them durable, too.
    Sync,
}

/// What becomes of writes in `sync` mode while the peer is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDisconnect {
    /// They wait for it.
    Block,
    /// They go on, and are sent later.
    Degrade,
}

pub const FEEDATTACH: &str = "EXAMPLES:
  volmgr feedattach vg0/web backup --create          a new volume vg0/web over there
  volmgr feedattach vg0/web backup:vgb/web --rate 200m
  volmgr feedattach vg0/web backup --mode sync --on-disconnect block
  volmgr feedattach vg0/web backup                   again: only what changed is sent";

/// `feedattach`
#[derive(Debug, Args)]
pub struct FeedattachArgs {
    /// The volume here
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: LvName,
    /// The peer, and the volume over there where it is not VG/LV
    #[arg(value_parser = peer_target, value_name = "PEER[:VG/LV]")]
    peer: PeerTarget,
    /// When a write is acknowledged
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// In sync mode, once the peer has had everything: whether writes wait while it is away (default:
    /// degrade). feedpause lets those that wait go on
    #[arg(long, value_enum, value_name = "WHAT")]
    on_disconnect: Option<OnDisconnect>,
    /// Make the volume over there
    #[arg(long)]
    create: bool,
    /// Limit of sync traffic per second; plain number: MiB
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Throw away what the volume over there holds
    #[arg(long)]
    discard_peer: bool,
}

impl FeedattachArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let PeerTarget { peer, target } = self.peer;
        let question = format!(
            "Throw away what {} on {peer} holds?",
            target.as_ref().unwrap_or(&self.lv)
        );
        let mode = self.mode.map(|mode| match mode {
            Mode::Async => "async".to_owned(),
            Mode::Sync => "sync".to_owned(),
        });
        let ask = Ask::one(Command::Feedattach {
            lv: self.lv,
            peer,
            target,
            mode,
            on_disconnect: self.on_disconnect.map(|what| match what {
                OnDisconnect::Block => "block".to_owned(),
                OnDisconnect::Degrade => "degrade".to_owned(),
            }),
            create: self.create,
            rate: self.rate,
            discard_peer: self.discard_peer,
        });
        Ok(Work::Ask(match self.discard_peer {
            true => ask.confirmed(question),
            false => ask,
        }))
    }
}

pub const FEEDS: &str = "EXAMPLES:
  volmgr feeds
  volmgr feeds vg0/web -o +feed_dirty,payload_kernel_bytes,payload_copied_bytes";

/// `feeds`
#[derive(Debug, Args)]
pub struct FeedsArgs {
    /// Only those of these
    #[arg(value_parser = vg_or_lv, value_name = "VG/LV")]
    of: Vec<VgOrLv>,
    #[command(flatten)]
    report: ReportArgs,
}

impl FeedsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let kind = ReportKind::Feed;
        Ok(Work::Ask(Ask::list(
            narrowed(kind, self.of),
            kind,
            self.report,
        )))
    }
}

pub const FEEDWAIT: &str = "EXAMPLES:
  volmgr feedwait vg0/web backup
  volmgr feedwait vg0/web backup --state split --timeout 600";

/// `feedwait`
#[derive(Debug, Args)]
pub struct FeedwaitArgs {
    #[command(flatten)]
    feed: FeedName,
    /// The state to wait for
    #[arg(long, default_value = "live", value_parser = STATES)]
    state: String,
    /// Give up (exit code 5) after this many seconds
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
}

impl FeedwaitArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let limit = self
            .timeout
            .and_then(|seconds| Duration::from_secs(seconds).checked_add(GRACE));
        Ok(Work::Ask(Ask {
            limit,
            ..Ask::one(Command::Feedwait {
                lv: self.feed.lv,
                peer: self.feed.peer,
                state: self.state,
                timeout_secs: self.timeout,
            })
        }))
    }
}

pub const FEEDPAUSE: &str = "EXAMPLES:
  volmgr feedpause vg0/web backup";

/// `feedpause`
#[derive(Debug, Args)]
pub struct FeedpauseArgs {
    #[command(flatten)]
    feed: FeedName,
}

impl FeedpauseArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let FeedName { lv, peer } = self.feed;
        Ok(Work::Ask(Ask::one(Command::Feedpause { lv, peer })))
    }
}

pub const FEEDRESUME: &str = "EXAMPLES:
  volmgr feedresume vg0/web backup";

/// `feedresume`
#[derive(Debug, Args)]
pub struct FeedresumeArgs {
    #[command(flatten)]
    feed: FeedName,
}

impl FeedresumeArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let FeedName { lv, peer } = self.feed;
        Ok(Work::Ask(Ask::one(Command::Feedresume { lv, peer })))
    }
}

pub const FEEDDETACH: &str = "EXAMPLES:
  volmgr feeddetach vg0/web backup --point monday
  volmgr feeddetach --force vg0/web gone      forget a peer that will not come back";

/// `feeddetach`
#[derive(Debug, Args)]
pub struct FeeddetachArgs {
    #[command(flatten)]
    feed: FeedName,
    /// Name of the point in time; without, one is made of the date
    #[arg(long, value_parser = name, value_name = "NAME")]
    point: Option<String>,
    /// Forget the feed without the peer: there is no point in time then
    #[arg(short = 'f', long)]
    force: bool,
}

impl FeeddetachArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let FeedName { lv, peer } = self.feed;
        Ok(Work::Ask(Ask::one(Command::Feeddetach {
            lv,
            peer,
            point: self.point,
            force: self.force,
        })))
    }
}

pub const FEEDSWAP: &str = "EXAMPLES:
  volmgr feedswap vg0/web backup                     the attached feed flows back
  volmgr feedswap vg0/web backup --point monday      what was then comes back
  volmgr feedswap vg0/web backup --online            usable at once, filled behind";

/// `feedswap`
#[derive(Debug, Args)]
pub struct FeedswapArgs {
    #[command(flatten)]
    feed: FeedName,
    /// The point to bring back, of a feed that is detached
    #[arg(long, value_parser = name, value_name = "NAME")]
    point: Option<String>,
    /// The volume is usable at once: what is not here yet is read from the peer
    #[arg(long)]
    online: bool,
    /// Throw away what changed here since the point
    #[arg(long)]
    discard_local: bool,
    /// Even while the volume is open: its users see its content change
    #[arg(long)]
    while_open: bool,
}

impl FeedswapArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let FeedName { lv, peer } = self.feed;
        let question = format!(
            "Let {peer} write {lv}?{}",
            match self.discard_local {
                true => " What changed here is lost.",
                false => "",
            }
        );
        Ok(Work::Ask(
            Ask::one(Command::Feedswap {
                lv,
                peer,
                point: self.point,
                online: self.online,
                discard_local: self.discard_local,
                while_open: self.while_open,
            })
            .confirmed(question),
        ))
    }
}

pub const FEEDSET: &str = "EXAMPLES:
  volmgr feedset vg0/web backup --rate 200m
  volmgr feedset vg0/web backup --rate none --adaptive n
  volmgr feedset vg0/web backup --verify-every 7d --verify-rate 50m";

/// Yes or no, as LVM takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// Yes.
    Y,
    /// No.
    N,
}

/// A rate, or `none`, which is 0.
fn rate_or_none(text: &str) -> Result<u64, String> {
    match text {
        "none" => Ok(0),
        text => parse_rate(text).map_err(|error| error.to_string()),
    }
}

/// `feedset`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["rate", "adaptive", "verify_every", "verify_rate"]))]
pub struct FeedsetArgs {
    #[command(flatten)]
    feed: FeedName,
    /// Limit of sync traffic per second; plain number: MiB; none: no limit
    #[arg(long, value_name = "R", value_parser = rate_or_none)]
    rate: Option<u64>,
    /// Whether sync traffic yields to applications, so that their slowest requests take half as long again
    /// at most (default: y)
    #[arg(long, value_enum, value_name = "y|n")]
    adaptive: Option<YesNo>,
    /// Compare the two sides so often: 90s, 30m, 12h, 7d, 2w; never
    #[arg(long, value_name = "T", value_parser = period)]
    verify_every: Option<u64>,
    /// How much of the volume such a comparison reads per second; plain number: MiB; none: no limit
    #[arg(long, value_name = "R", value_parser = rate_or_none)]
    verify_rate: Option<u64>,
}

impl FeedsetArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let FeedName { lv, peer } = self.feed;
        Ok(Work::Ask(Ask::one(Command::Feedset {
            lv,
            peer,
            rate: self.rate,
            adaptive: self.adaptive.map(|answer| answer == YesNo::Y),
            verify_every: self.verify_every,
            verify_rate: self.verify_rate,
        })))
    }
}

pub const FEEDVERIFY: &str = "EXAMPLES:
  volmgr feedverify vg0/web backup
  volmgr feedverify --rate 100m vg0/web backup
  volmgr feedverify --repair vg0/web backup
  volmgr feedverify vg0/web backup --reportformat json
                                        what differs as rows, one for each place on a disk here";

/// `feedverify`
#[derive(Debug, Args)]
pub struct FeedverifyArgs {
    #[command(flatten)]
    feed: FeedName,
    /// Send again what differs
    #[arg(long)]
    repair: bool,
    /// How much of the volume is read per second; plain number: MiB
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    rate: Option<u64>,
}

impl FeedverifyArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let FeedName { lv, peer } = self.feed;
        let ask = Ask::one(Command::Feedverify {
            lv,
            peer,
            repair: self.repair,
            rate: self.rate.filter(|rate| *rate > 0),
        });
        Ok(Work::Ask(ask.rows_in_json(ReportKind::Difference)))
    }
}

pub const POINTS: &str = "EXAMPLES:
  volmgr points vg0/web
  volmgr points vg0/web backup -o +point_changed,point_held

What changed since a point is also told to NBD clients, as the dirty bitmap of that name:
  nbdinfo --map=qemu:dirty-bitmap:monday NBD-URI";

/// `points`
#[derive(Debug, Args)]
pub struct PointsArgs {
    /// The volume
    #[arg(value_parser = lv_name, value_name = "VG/LV")]
    lv: Option<LvName>,
    /// Only those of this peer
    #[arg(value_parser = name, value_name = "PEER")]
    peer: Option<String>,
    #[command(flatten)]
    report: ReportArgs,
}

impl PointsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let kind = ReportKind::Point;
        let command = Command::Report {
            kind,
            vg: None,
            lv: self.lv,
            peer: self.peer,
        };
        Ok(Work::Ask(Ask::list(vec![command], kind, self.report)))
    }
}
