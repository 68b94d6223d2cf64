//! Verbs for nodes and peers, events and status; and those that need no daemon.

use super::parse::{address, fingerprint, name};
use super::{Ask, Top, Work};
use crate::api::{Command, Failure, ReportKind};
use crate::cli::complete::Shell;
use crate::cli::failure::{EXIT_COMMAND_LINE, failure};
use crate::cli::report::ReportArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

pub const PEERADD: &str = "RULES:
  feed, read, create or all; with :PATTERN over VG/LV (shell globs); ! in front excludes.
  Without a rule the peer may do nothing here.

EXAMPLES:
  volmgr peeradd backup 192.0.2.7:7600 --fingerprint sha256:…
  volmgr peeradd web1 192.0.2.8:7600 --fingerprint sha256:… \\
      --allow 'all:vgb/*' --allow '!all:vgb/secret*'";

/// `peeradd`
#[derive(Debug, Args)]
pub struct PeeraddArgs {
    /// Name of the peer, of your choice
    #[arg(value_parser = name, value_name = "NAME")]
    name: String,
    /// Where its daemon listens
    #[arg(value_parser = address, value_name = "ADDR:PORT")]
    addr: String,
    /// Fingerprint of its key: 'volmgr nodeshow' over there prints it
    #[arg(long, value_parser = fingerprint, value_name = "F")]
    fingerprint: String,
    /// Address for the payload, where that goes another way; may be repeated
    #[arg(long, value_parser = address, value_name = "ADDR:PORT", value_delimiter = ',')]
    data: Vec<String>,
    /// What it may do here; may be repeated
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// Without TLS, for a network of its own that is trusted; both sides must say so
    #[arg(long)]
    plaintext: bool,
}

impl PeeraddArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Peeradd {
            name: self.name,
            addr: self.addr,
            fingerprint: self.fingerprint,
            data: self.data,
            allow: self.allow,
            plaintext: self.plaintext,
        })))
    }
}

fn report(kind: ReportKind, report: ReportArgs) -> Ask {
    let command = Command::Report {
        kind,
        vg: None,
        lv: None,
        peer: None,
    };
    Ask::list(vec![command], kind, report)
}

pub const PEERS: &str = "EXAMPLES:
  volmgr peers
  volmgr peers -o +peer_data_addrs";

/// `peers`
#[derive(Debug, Args)]
pub struct PeersArgs {
    /// Only these
    #[arg(value_parser = name, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    report: ReportArgs,
}

impl PeersArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let mut ask = report(ReportKind::Peer, self.report);
        if let Some(listing) = &mut ask.listing {
            listing.names = self.names;
        }
        Ok(Work::Ask(ask))
    }
}

pub const PEERREMOVE: &str = "EXAMPLES:
  volmgr peerremove backup";

/// `peerremove`
#[derive(Debug, Args)]
pub struct PeerremoveArgs {
    /// The peer
    #[arg(value_parser = name, value_name = "NAME")]
    name: String,
}

impl PeerremoveArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask::one(Command::Peerremove { name: self.name })))
    }
}

pub const NODESHOW: &str = "EXAMPLES:
  volmgr nodeshow
  volmgr nodeshow --noheadings -o node_fingerprint";

/// `nodeshow`
#[derive(Debug, Args)]
pub struct NodeshowArgs {
    #[command(flatten)]
    report: ReportArgs,
}

impl NodeshowArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(report(ReportKind::Node, self.report)))
    }
}

pub const EVENTS: &str = "EXAMPLES:
  volmgr events
  volmgr events --follow --reportformat json      one document for each event";

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as things happen, until Ctrl-C
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    report: ReportArgs,
}

impl EventsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        let follow = self.follow;
        let command = Command::Events { follow };
        let mut ask = Ask::list(vec![command], ReportKind::Event, self.report);
        if let Some(listing) = &mut ask.listing {
            listing.follow = follow;
        }
        Ok(Work::Ask(ask))
    }
}

pub const STATUS: &str = "EXAMPLES:
  volmgr status";

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {}

impl StatusArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask {
            text_wanted: true,
            ..Ask::one(Command::Status)
        }))
    }
}

pub const TOP: &str =
    "On a terminal the screen is drawn anew each time, Ctrl-C ends it; elsewhere each look is \
printed below the one before.

EXAMPLES:
  volmgr top
  volmgr top vg0/web -d 5 -n 12                 a minute of one volume, every 5 seconds
  volmgr top --json -n 1                        one look as JSON, for scripts";

/// `top`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Only these groups or volumes
    #[arg(value_name = "VG|VG/LV")]
    names: Vec<String>,
    /// Seconds between two looks
    #[arg(short = 'd', long, value_name = "S", default_value_t = 2.0)]
    interval: f64,
    /// End after this many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The same as --reportformat json
    #[arg(long)]
    json: bool,
}

impl TopArgs {
    pub fn work(self) -> Result<Work, Failure> {
        if !(0.1..=3600.0).contains(&self.interval) {
            return Err(failure(
                EXIT_COMMAND_LINE,
                "--interval",
                "wrong command line",
                format!("{} is not 0.1 to 3600 seconds", self.interval),
                "see 'volmgr help top'",
            ));
        }
        Ok(Work::Top(Top {
            names: self.names,
            interval: Duration::from_secs_f64(self.interval),
            count: self.count,
            json: self.json,
        }))
    }
}

pub const LOGFILTER: &str = "A filter is what RUST_LOG takes. It holds until the daemon ends, or reads its \
configuration again (SIGHUP). volmgr::request=trace logs a line for each request when it ends, with the time it \
took; volmgr::disk=trace the same for each operation of a disk.

EXAMPLES:
  volmgr logfilter
  volmgr logfilter info,volmgr::request=trace
  volmgr logfilter --reset                      back to what the configuration says";

/// `logfilter`
#[derive(Debug, Args)]
pub struct LogfilterArgs {
    /// The new filter
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Back to what the configuration says
    #[arg(long, conflicts_with = "filter")]
    reset: bool,
}

impl LogfilterArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Ask(Ask {
            text_wanted: true,
            ..Ask::one(Command::Logfilter {
                filter: self.filter,
                reset: self.reset,
            })
        }))
    }
}

/// What `pvck --dump` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PvckDump {
    /// The label.
    Label,
    /// The metadata and all records found.
    Metadata,
    /// The dirty-region logs of the volumes.
    Dirty,
}

pub const PVCK: &str = "EXAMPLES:
  volmgr pvck /dev/sdb                      exit code 5 when something is damaged
  volmgr pvck --dump metadata disk.img";

/// `pvck`
#[derive(Debug, Args)]
pub struct PvckArgs {
    /// Print this instead of checking
    #[arg(long, value_enum)]
    dump: Option<PvckDump>,
    /// The disk; it is only read
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

impl PvckArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Pvck {
            path: self.path,
            dump: self.dump,
        })
    }
}

pub const COMPLETIONS: &str = "EXAMPLES:
  volmgr completions bash > /etc/bash_completion.d/volmgr
  source <(volmgr completions bash)                           in this shell only
  volmgr completions zsh > /usr/local/share/zsh/site-functions/_volmgr
  volmgr completions fish > ~/.config/fish/completions/volmgr.fish";

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Completions(self.shell))
    }
}

pub const COMPLETE: &str = "EXAMPLES:
  volmgr complete -- lvremove vg0/                            what could stand behind it, a line each";

/// `complete`: what the shells' scripts ask.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// The words behind the program's name; the last is the one at the cursor
    #[arg(last = true, allow_hyphen_values = true, value_name = "WORD")]
    words: Vec<String>,
}

impl CompleteArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::Complete(self.words))
    }
}

pub const MAN: &str = "EXAMPLES:
  volmgr man --dir /usr/local/share/man/man1";

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl ManArgs {
    pub fn work(self) -> Result<Work, Failure> {
        Ok(Work::ManPages(self.dir))
    }
}
