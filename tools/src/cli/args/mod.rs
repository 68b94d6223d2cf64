//! The command line: verbs, options, examples, and what each asks of the daemon.
//!
//! Parser, `--help`, man pages and completions all come from these definitions. Each verb's
//! arguments turn into [`Work`]; nothing here talks to anybody.

mod disks;
mod feeds;
mod groups;
mod moves;
mod nodes;
pub mod parse;
mod volumes;

use super::report::ReportArgs;
use crate::api::{Command, Failure, ReportKind};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

pub use nodes::PvckDump;

/// `volmgr`.
#[derive(Debug, Parser)]
#[command(
    name = "volmgr",
    version,
    about = "Volumes with mirrors on local disks and on peers",
    long_about = "Volumes with mirrors on local disks and on peers.\n\n\
        volmgr asks the daemon volmgrd to do the work. Invoked through a symbolic link that is \
        named after a verb, it is that verb.",
    after_help = "EXIT CODES:\n  0 done; 2 no such verb; 3 the command line is wrong; 4 no daemon; \
        5 failed; 130 Ctrl-C (the work goes on)\n\n\
        EXAMPLES:\n  volmgr vgcreate vg0 /dev/sdb /dev/sdc\n  volmgr lvcreate -n web -L 10g -m 1 vg0\n  \
        volmgr feedattach vg0/web backup --create\n  volmgr help lvcreate",
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Say what would happen, change nothing
    #[arg(short = 't', long, global = true)]
    pub test: bool,
    /// Answer yes to questions (they are asked on a terminal only)
    #[arg(short = 'y', long, global = true)]
    pub yes: bool,
    /// Say more on standard error
    #[arg(short = 'v', long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Only errors, warnings and listings
    #[arg(short = 'q', long, global = true, action = ArgAction::Count)]
    pub quiet: u8,
    /// The daemon's socket
    #[arg(long, global = true, env = crate::paths::SOCKET_VARIABLE, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How listings are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "basic",
        value_name = "FORMAT"
    )]
    pub reportformat: ReportFormat,
}

/// How listings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Columns.
    Basic,
    /// JSON as LVM's.
    Json,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Work {
    /// Commands for the daemon.
    Ask(Ask),
    /// `pvck`: a look at a disk, without a daemon.
    Pvck {
        /// The disk.
        path: PathBuf,
        /// What to print; nothing checks.
        dump: Option<PvckDump>,
    },
    /// `top`.
    Top(Top),
    /// `completions`.
    Completions(crate::cli::complete::Shell),
    /// `complete`.
    Complete(Vec<String>),
    /// `man`.
    ManPages(PathBuf),
    /// `man --reference`.
    Reference(PathBuf),
}

/// What `top` shows, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// `VG` or `VG/LV`; none is all.
    pub names: Vec<String>,
    /// Between two looks.
    pub interval: Duration,
    /// How many looks; none is for ever.
    pub count: Option<u64>,
    /// As JSON, one document for each look.
    pub json: bool,
}

/// Commands for the daemon, one after the other.
#[derive(Debug)]
pub struct Ask {
    /// The commands.
    pub commands: Vec<Command>,
    /// To be confirmed on a terminal, before anything is asked of the daemon.
    pub question: Option<String>,
    /// How rows that come back are shown.
    pub listing: Option<ListingArgs>,
    /// Longest time to wait for the daemon.
    pub limit: Option<Duration>,
    /// The messages are what was asked for: `--quiet` does not swallow them.
    pub text_wanted: bool,
}

/// How rows are shown.
#[derive(Debug)]
pub struct ListingArgs {
    /// The kind of rows.
    pub kind: ReportKind,
    /// As typed.
    pub report: ReportArgs,
    /// Only the rows whose first field is one of these; none shows all.
    pub names: Vec<String>,
    /// Rows keep coming: show them as they come.
    pub follow: bool,
    /// The messages say the same to people: rows are for JSON, and then there are no messages.
    pub only_json: bool,
}

impl Ask {
    fn one(command: Command) -> Self {
        Ask::all(vec![command])
    }

    fn all(commands: Vec<Command>) -> Self {
        Ask {
            commands,
            question: None,
            listing: None,
            limit: None,
            text_wanted: false,
        }
    }

    fn list(commands: Vec<Command>, kind: ReportKind, report: ReportArgs) -> Self {
        let listing = ListingArgs {
            kind,
            report,
            names: Vec::new(),
            follow: false,
            only_json: false,
        };
        Ask {
            listing: Some(listing),
            ..Ask::all(commands)
        }
    }

    /// Says the same as rows where JSON is asked for.
    fn rows_in_json(self, kind: ReportKind) -> Self {
        let listing = ListingArgs {
            kind,
            report: ReportArgs::default(),
            names: Vec::new(),
            follow: false,
            only_json: true,
        };
        Ask {
            listing: Some(listing),
            ..self
        }
    }

    fn confirmed(self, question: String) -> Self {
        Ask {
            question: Some(question),
            ..self
        }
    }
}

macro_rules! verbs {
    ($($(#[$attribute:meta])* $verb:ident($args:ty),)*) => {
        /// The verbs.
        #[derive(Debug, Subcommand)]
        #[command(rename_all = "lower", subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
        #[allow(missing_docs)]
        pub enum Verb {
            $($(#[$attribute])* $verb($args),)*
        }

        impl Verb {
            /// What is to be done for it.
            pub fn work(self) -> Result<Work, Failure> {
                match self {
                    $(Verb::$verb(args) => args.work(),)*
                }
            }
        }
    };
}

verbs! {
    /// Label disks as physical volumes
    #[command(after_help = disks::PVCREATE)]
    Pvcreate(disks::PvcreateArgs),
    /// Remove the label from disks
    #[command(after_help = disks::PVREMOVE)]
    Pvremove(disks::PvremoveArgs),
    /// List physical volumes
    #[command(after_help = disks::PVS)]
    Pvs(disks::PvsArgs),
    /// Change the tags of disks, keep disks to spare
    #[command(after_help = disks::PVCHANGE)]
    Pvchange(disks::PvchangeArgs),
    /// Use the new size of disks that have grown
    #[command(after_help = disks::PVRESIZE)]
    Pvresize(disks::PvresizeArgs),
    /// Move data off a disk while it is in use
    #[command(after_help = moves::PVMOVE)]
    Pvmove(moves::PvmoveArgs),
    /// Check a disk's label and metadata, or dump them; needs no daemon
    #[command(after_help = nodes::PVCK)]
    Pvck(nodes::PvckArgs),
    /// Make a volume group of disks
    #[command(after_help = groups::VGCREATE)]
    Vgcreate(groups::VgcreateArgs),
    /// List volume groups
    #[command(after_help = groups::VGS)]
    Vgs(groups::VgsArgs),
    /// Add disks to a volume group
    #[command(after_help = groups::VGEXTEND)]
    Vgextend(groups::VgextendArgs),
    /// Take disks out of a volume group
    #[command(after_help = groups::VGREDUCE)]
    Vgreduce(groups::VgreduceArgs),
    /// Remove volume groups
    #[command(after_help = groups::VGREMOVE)]
    Vgremove(groups::VgremoveArgs),
    /// Rename a volume group
    #[command(after_help = groups::VGRENAME)]
    Vgrename(groups::VgrenameArgs),
    /// Move disks, with the volumes on them, to another or a new group
    #[command(after_help = groups::VGSPLIT)]
    Vgsplit(groups::VgsplitArgs),
    /// Make one group of two
    #[command(after_help = groups::VGMERGE)]
    Vgmerge(groups::VgmergeArgs),
    /// Activate or deactivate all volumes of a group, or change its tags
    #[command(after_help = groups::VGCHANGE)]
    Vgchange(groups::VgchangeArgs),
    /// Give a volume group away: its disks can move to another machine
    #[command(after_help = groups::VGEXPORT)]
    Vgexport(groups::VgexportArgs),
    /// Take over a volume group that was exported
    #[command(after_help = groups::VGIMPORT)]
    Vgimport(groups::VgimportArgs),
    /// Write a group's metadata to a text file
    #[command(after_help = groups::VGCFGBACKUP)]
    Vgcfgbackup(groups::VgcfgbackupArgs),
    /// Bring back a group's metadata from a text file
    #[command(after_help = groups::VGCFGRESTORE)]
    Vgcfgrestore(groups::VgcfgrestoreArgs),
    /// Look for disks and groups again
    #[command(after_help = groups::VGSCAN)]
    Vgscan(groups::VgscanArgs),
    /// Make a volume
    #[command(after_help = volumes::LVCREATE)]
    Lvcreate(volumes::LvcreateArgs),
    /// List volumes
    #[command(after_help = volumes::LVS)]
    Lvs(volumes::LvsArgs),
    /// Make a volume larger
    #[command(after_help = volumes::LVEXTEND)]
    Lvextend(volumes::LvextendArgs),
    /// Make a volume smaller
    #[command(after_help = volumes::LVREDUCE)]
    Lvreduce(volumes::LvreduceArgs),
    /// Remove volumes with their data
    #[command(after_help = volumes::LVREMOVE)]
    Lvremove(volumes::LvremoveArgs),
    /// Rename a volume
    #[command(after_help = volumes::LVRENAME)]
    Lvrename(volumes::LvrenameArgs),
    /// Activate or deactivate a volume, take a plex off line and back
    #[command(after_help = volumes::LVCHANGE)]
    Lvchange(volumes::LvchangeArgs),
    /// Change the number of a volume's mirrors
    #[command(after_help = moves::LVCONVERT)]
    Lvconvert(moves::LvconvertArgs),
    /// Draw a volume: plexes, subdisks, disks, feeds
    #[command(after_help = volumes::LVDISPLAY)]
    Lvdisplay(volumes::LvdisplayArgs),
    /// Add a data plex to a volume, which is then filled online
    #[command(after_help = volumes::PLEXATTACH)]
    Plexattach(volumes::PlexattachArgs),
    /// Take a data plex off a volume
    #[command(after_help = volumes::PLEXDETACH)]
    Plexdetach(volumes::PlexdetachArgs),
    /// List plexes
    #[command(after_help = volumes::PLEXS)]
    Plexs(volumes::PlexsArgs),
    /// Resync data plexes now, or compare them
    #[command(after_help = volumes::PLEXSYNC)]
    Plexsync(volumes::PlexsyncArgs),
    /// Start a backup: feed a volume to a peer
    #[command(after_help = feeds::FEEDATTACH)]
    Feedattach(feeds::FeedattachArgs),
    /// List feeds with progress, rate and time left
    #[command(after_help = feeds::FEEDS)]
    Feeds(feeds::FeedsArgs),
    /// Wait until a feed is in a state
    #[command(after_help = feeds::FEEDWAIT)]
    Feedwait(feeds::FeedwaitArgs),
    /// Pause a feed: changes are only tracked
    #[command(after_help = feeds::FEEDPAUSE)]
    Feedpause(feeds::FeedpauseArgs),
    /// Resume a paused feed
    #[command(after_help = feeds::FEEDRESUME)]
    Feedresume(feeds::FeedresumeArgs),
    /// End a feed in good order at a named point in time
    #[command(after_help = feeds::FEEDDETACH)]
    Feeddetach(feeds::FeeddetachArgs),
    /// Reverse a feed: restore
    #[command(after_help = feeds::FEEDSWAP)]
    Feedswap(feeds::FeedswapArgs),
    /// Change how a feed goes on: rates, comparisons on a schedule
    #[command(after_help = feeds::FEEDSET)]
    Feedset(feeds::FeedsetArgs),
    /// Compare the two sides of a feed
    #[command(after_help = feeds::FEEDVERIFY)]
    Feedverify(feeds::FeedverifyArgs),
    /// List named points in time
    #[command(after_help = feeds::POINTS)]
    Points(feeds::PointsArgs),
    /// Make a peer known and trusted
    #[command(after_help = nodes::PEERADD)]
    Peeradd(nodes::PeeraddArgs),
    /// List peers
    #[command(after_help = nodes::PEERS)]
    Peers(nodes::PeersArgs),
    /// Forget a peer
    #[command(after_help = nodes::PEERREMOVE)]
    Peerremove(nodes::PeerremoveArgs),
    /// Show this node's name, UUID, location and fingerprint
    #[command(after_help = nodes::NODESHOW)]
    Nodeshow(nodes::NodeshowArgs),
    /// Show what happened
    #[command(after_help = nodes::EVENTS)]
    Events(nodes::EventsArgs),
    /// Show what is going on
    #[command(after_help = nodes::STATUS)]
    Status(nodes::StatusArgs),
    /// Show throughput, latency, queues and feeds as they are now, again and again
    #[command(after_help = nodes::TOP)]
    Top(nodes::TopArgs),
    /// Show the daemon's log filter, or change it while it runs
    #[command(after_help = nodes::LOGFILTER)]
    Logfilter(nodes::LogfilterArgs),
    /// Print completions for a shell
    #[command(after_help = nodes::COMPLETIONS)]
    Completions(nodes::CompletionsArgs),
    /// Say what could stand at the cursor
    #[command(hide = true, after_help = nodes::COMPLETE)]
    Complete(nodes::CompleteArgs),
    /// Write the man pages, or the reference
    #[command(hide = true, after_help = nodes::MAN)]
    Man(nodes::ManArgs),
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
