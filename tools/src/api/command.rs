//! Commands, one variant a verb, as parsed and validated by the command line.

use serde::{Deserialize, Serialize};

/// One request of the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub test: bool,
    /// Answer yes to questions.
    #[serde(default)]
    pub yes: bool,
    /// The verb.
    pub command: Command,
}

/// A size as the admin gave it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SizeSpec {
    /// Bytes.
    Bytes(u64),
    /// That many more bytes.
    Plus(u64),
    /// That many fewer bytes.
    Minus(u64),
    /// Percent of the group's free space.
    PercentFree(u32),
    /// Percent of the group's space.
    PercentVg(u32),
    /// More by this percent of the free space.
    PlusPercentFree(u32),
    /// Extents of the group.
    Extents(u64),
    /// That many more extents.
    PlusExtents(u64),
    /// That many fewer extents.
    MinusExtents(u64),
}

/// `VG/LV`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LvName {
    /// Group.
    pub vg: String,
    /// Volume.
    pub lv: String,
}

impl std::fmt::Display for LvName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.vg, self.lv)
    }
}

/// What listings list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportKind {
    /// Physical volumes.
    Pv,
    /// Volume groups.
    Vg,
    /// Volumes.
    Lv,
    /// Plexes.
    Plex,
    /// Feeds.
    Feed,
    /// Peers.
    Peer,
    /// This node.
    Node,
    /// Points in time.
    Point,
    /// Events.
    Event,
    /// Where the copies of a volume differ.
    Difference,
}

/// A verb with its arguments. Paths are absolute: the client resolves them.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb")]
pub enum Command {
    Pvcreate {
        paths: Vec<String>,
        force: bool,
    },
    Pvremove {
        paths: Vec<String>,
        force: bool,
    },
    Pvresize {
        paths: Vec<String>,
        size: Option<u64>,
    },
    /// `pvchange --spare`.
    Pvspare {
        paths: Vec<String>,
        spare: bool,
    },
    Vgcreate {
        vg: String,
        pvs: Vec<String>,
        extent_size: Option<u64>,
        force: bool,
        #[serde(default)]
        tags: Vec<String>,
    },
    /// Disks of `from`, with the volumes on them, become those of `to`: `pvs`, or those of a volume.
    Vgsplit {
        from: String,
        to: String,
        pvs: Vec<String>,
        /// A volume of `from`.
        lv: Option<String>,
    },
    /// All that is in `from` becomes part of `into`.
    Vgmerge {
        into: String,
        from: String,
    },
    /// `pvchange --addtag`, `--deltag`.
    Pvtags {
        paths: Vec<String>,
        add: Vec<String>,
        del: Vec<String>,
    },
    Vgextend {
        vg: String,
        pvs: Vec<String>,
        force: bool,
    },
    Vgreduce {
        vg: String,
        pvs: Vec<String>,
        missing: bool,
    },
    Vgremove {
        vg: String,
        force: bool,
    },
    Vgrename {
        vg: String,
        new: String,
    },
    VgacceptOlder {
        vg: String,
    },
    Vgchange {
        vg: Option<String>,
        active: bool,
    },
    /// `vgchange --addtag`, `--deltag`.
    Vgtags {
        vg: String,
        add: Vec<String>,
        del: Vec<String>,
    },
    Vgexport {
        vg: String,
    },
    Vgimport {
        vg: String,
    },
    Vgcfgbackup {
        vg: String,
        file: Option<String>,
    },
    Vgcfgrestore {
        vg: String,
        file: Option<String>,
        force: bool,
    },
    /// `vgcfgrestore --list`: the versions that can be restored.
    Vgcfglist {
        vg: String,
    },
    /// Look for disks again, in these places too.
    Vgscan {
        paths: Vec<String>,
    },
    Lvcreate {
        lv: LvName,
        size: SizeSpec,
        mirrors: u32,
        stripes: u32,
        stripe_size: Option<u64>,
        pvs: Vec<String>,
        /// Leave the volume inactive.
        inactive: bool,
        frontend: Option<String>,
        #[serde(default)]
        tags: Vec<String>,
    },
    Lvextend {
        lv: LvName,
        size: SizeSpec,
        pvs: Vec<String>,
    },
    Lvreduce {
        lv: LvName,
        size: SizeSpec,
        force: bool,
    },
    Lvremove {
        lv: LvName,
        force: bool,
    },
    Lvrename {
        lv: LvName,
        new: String,
    },
    Lvchange {
        lv: LvName,
        change: LvChange,
    },
    Lvdisplay {
        lv: LvName,
    },
    Plexattach {
        lv: LvName,
        pvs: Vec<String>,
    },
    Plexdetach {
        lv: LvName,
        plex: String,
        force: bool,
    },
    Plexsync {
        lv: LvName,
        /// Compare the plexes, this way.
        verify: Option<PlexVerify>,
    },
    /// `lvconvert -m`: as many data plexes as this says.
    Lvconvert {
        lv: LvName,
        mirrors: MirrorSpec,
        pvs: Vec<String>,
    },
    /// `pvmove`: data off this disk. Without one: waits for all moves that are under way.
    Pvmove {
        from: Option<String>,
        to: Vec<String>,
        /// Only this volume, `LV` or `VG/LV`.
        lv: Option<String>,
        abort: bool,
        background: bool,
    },
    Feedattach {
        lv: LvName,
        peer: String,
        target: Option<LvName>,
        mode: Option<String>,
        /// `block` or `degrade`; only with the mode `sync`.
        #[serde(default)]
        on_disconnect: Option<String>,
        create: bool,
        rate: Option<u64>,
        discard_peer: bool,
    },
    Feedwait {
        lv: LvName,
        peer: String,
        state: String,
        timeout_secs: Option<u64>,
    },
    Feedpause {
        lv: LvName,
        peer: String,
    },
    Feedresume {
        lv: LvName,
        peer: String,
    },
    Feeddetach {
        lv: LvName,
        peer: String,
        point: Option<String>,
        force: bool,
    },
    Feedswap {
        lv: LvName,
        peer: String,
        point: Option<String>,
        online: bool,
        discard_local: bool,
        while_open: bool,
    },
    Feedset {
        lv: LvName,
        peer: String,
        /// Bytes per second, 0 for no limit.
        rate: Option<u64>,
        /// Yield to applications.
        adaptive: Option<bool>,
        /// Seconds, 0 for never.
        verify_every: Option<u64>,
        /// Bytes per second, 0 for no limit.
        verify_rate: Option<u64>,
    },
    Feedverify {
        lv: LvName,
        peer: String,
        repair: bool,
        /// Bytes per second.
        rate: Option<u64>,
    },
    Peeradd {
        name: String,
        addr: String,
        fingerprint: String,
        data: Vec<String>,
        allow: Vec<String>,
        plaintext: bool,
    },
    Peerremove {
        name: String,
    },
    /// A listing; `lv`, `peer` narrow it.
    Report {
        kind: ReportKind,
        vg: Option<String>,
        lv: Option<LvName>,
        peer: Option<String>,
    },
    /// As [`Command::Report`], but only these fields, as [`super::Reply::Table`]s.
    List {
        kind: ReportKind,
        vg: Option<String>,
        lv: Option<LvName>,
        peer: Option<String>,
        columns: Vec<String>,
    },
    Events {
        follow: bool,
    },
    Status,
    /// Changes the log filter, or asks for it.
    Logfilter {
        filter: Option<String>,
        /// Back to what the configuration says.
        reset: bool,
    },
    /// Numbers of all volumes, or of these (`VG` or `VG/LV`).
    Sample {
        names: Vec<String>,
    },
}

/// Copies besides the first, as `lvconvert -m` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorSpec {
    /// This many.
    Exactly(u32),
    /// This many more.
    Plus(u32),
    /// This many fewer.
    Minus(u32),
}

/// What `lvchange` changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum LvChange {
    /// `-ay`, with a front end: `ublk`, `nbd` or `both`.
    Activate {
        /// Chosen front end; the daemon chooses where there is none.
        frontend: Option<String>,
    },
    /// `-an`.
    Deactivate {
        /// Even while it is open.
        force: bool,
    },
    /// `--offline PLEX`.
    Offline {
        /// The plex.
        plex: String,
    },
    /// `--addtag`, `--deltag`.
    Tags {
        /// Tags that it gets.
        add: Vec<String>,
        /// Tags that it loses.
        del: Vec<String>,
    },
    /// `--online PLEX`: back again, resyncs.
    Online {
        /// The plex.
        plex: String,
    },
    /// `--stable-copy y|n`.
    StableCopy {
        /// Copy each write once before it goes to plexes and feeds.
        on: bool,
    },
}

/// How `plexsync --verify` compares plexes, and what it does about what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlexVerify {
    /// Plexes are made equal where this one's word says how; without it they are only compared.
    pub repair: Option<Believe>,
    /// Bytes of the volume compared per second, 0 for no limit.
    pub rate: u64,
}

/// Who is believed where plexes differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Believe {
    /// More than half of the plexes.
    Majority,
    /// The plex of this name.
    Plex(String),
    /// The copy at this peer, where a plex here has the same.
    Peer(String),
}
