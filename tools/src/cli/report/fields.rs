//! The fields of listings: what there is to show, how it is headed, sorted and explained.
//!
//! The daemon sends rows with field names of this table; the names are the contract between the two.

mod happened;

use crate::api::ReportKind;
use happened::{DIFFERENCE, EVENT, POINT};

/// What kind of value a field holds; decides alignment, and how `--select` reads what it compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text, on the left.
    Text,
    /// Bytes or bytes per second, on the right, in `--units`.
    Size,
    /// A number, a percentage or a duration, on the right.
    Number,
    /// A time of day, on the left.
    Time,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in `-o`, in `--select` and in JSON.
    pub name: &'static str,
    /// Heading of its column.
    pub heading: &'static str,
    /// Kind of value.
    pub shape: Shape,
    /// Shown without `-o`.
    pub shown: bool,
    /// For `-o help`.
    pub help: &'static str,
}

/// All about one kind of listing.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The rows' key in JSON.
    pub key: &'static str,
    /// Prefix that may be left out in `-o`, with the underscore.
    pub prefix: &'static str,
    /// What the listing lists, for people.
    pub noun: &'static str,
    /// Fields to sort by without `-O`; none keeps the daemon's order.
    pub sort: &'static [&'static str],
    /// The fields, those shown without `-o` in their order.
    pub fields: &'static [Field],
}

impl Table {
    /// The field of this name; the prefix may be left out, as with LVM: `-o name,size`.
    pub fn find(&self, name: &str) -> Option<&'static Field> {
        let is = |wanted: &str| self.fields.iter().find(|field| field.name == wanted);
        is(name).or_else(|| is(&format!("{}{name}", self.prefix)))
    }

    /// Where the field of exactly this name stands in [`Table::fields`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// The table of this kind.
pub fn table(kind: ReportKind) -> &'static Table {
    match kind {
        ReportKind::Pv => &PV,
        ReportKind::Vg => &VG,
        ReportKind::Lv => &LV,
        ReportKind::Plex => &PLEX,
        ReportKind::Feed => &FEED,
        ReportKind::Peer => &PEER,
        ReportKind::Node => &NODE,
        ReportKind::Point => &POINT,
        ReportKind::Event => &EVENT,
        ReportKind::Difference => &DIFFERENCE,
    }
}

const fn shown(
    name: &'static str,
    heading: &'static str,
    shape: Shape,
    help: &'static str,
) -> Field {
    Field {
        name,
        heading,
        shape,
        shown: true,
        help,
    }
}

const fn extra(
    name: &'static str,
    heading: &'static str,
    shape: Shape,
    help: &'static str,
) -> Field {
    Field {
        name,
        heading,
        shape,
        shown: false,
        help,
    }
}

use Shape::{Number, Size, Text, Time};

static PV: Table = Table {
    key: "pv",
    prefix: "pv_",
    noun: "physical volume",
    sort: &["pv_name"],
    fields: &[
        shown("pv_name", "PV", Text, "Path of the disk."),
        shown("vg_name", "VG", Text, "Group it belongs to."),
        shown(
            "pv_attr",
            "Attr",
            Text,
            "Attributes: (a)llocatable or (s)pare, e(x)ported, (m)issing.",
        ),
        shown("pv_size", "PSize", Size, "Size of the extents."),
        shown("pv_free", "PFree", Size, "Size of the free extents."),
        extra("pv_uuid", "PV UUID", Text, "Identity, also in the label."),
        extra("dev_size", "DevSize", Size, "Size of the whole disk."),
        extra(
            "pv_spare",
            "Spare",
            Text,
            "`spare` where the disk is kept for plexes that lose theirs.",
        ),
        extra("pv_tags", "PV Tags", Text, "Tags, with commas."),
    ],
};

static VG: Table = Table {
    key: "vg",
    prefix: "vg_",
    noun: "volume group",
    sort: &["vg_name"],
    fields: &[
        shown("vg_name", "VG", Text, "Name."),
        shown("pv_count", "#PV", Number, "Number of disks."),
        shown("lv_count", "#LV", Number, "Number of volumes."),
        shown(
            "vg_attr",
            "Attr",
            Text,
            "Attributes: (w)riteable, (z)resizeable, e(x)ported, (p)artial.",
        ),
        shown("vg_size", "VSize", Size, "Size of all extents."),
        shown("vg_free", "VFree", Size, "Size of the free extents."),
        extra("vg_uuid", "VG UUID", Text, "Identity."),
        extra("vg_extent_size", "Ext", Size, "Size of an extent."),
        extra(
            "vg_seqno",
            "Seq",
            Number,
            "Number of the newest metadata commit.",
        ),
        extra(
            "vg_missing_pv_count",
            "#PVMissing",
            Number,
            "Number of disks that are not here.",
        ),
        extra(
            "vg_trouble",
            "Trouble",
            Text,
            "Why it cannot be changed, where that is so.",
        ),
        extra("vg_tags", "VG Tags", Text, "Tags, with commas."),
    ],
};

static LV: Table = Table {
    key: "lv",
    prefix: "lv_",
    noun: "volume",
    sort: &["vg_name", "lv_name"],
    fields: &[
        shown("lv_name", "LV", Text, "Name."),
        shown("vg_name", "VG", Text, "Group."),
        shown("lv_size", "LSize", Size, "Size."),
        shown("lv_active", "Active", Text, "Served by a front end or not."),
        shown("plex_count", "#Plex", Number, "Number of data plexes."),
        shown(
            "lv_health",
            "Health",
            Text,
            "State of the data plexes taken together.",
        ),
        shown(
            "lv_role",
            "Role",
            Text,
            "normal, or feed: written by its feed only.",
        ),
        extra("lv_uuid", "LV UUID", Text, "Identity."),
        extra(
            "lv_path",
            "Path",
            Text,
            "Block device or NBD URI where it is served.",
        ),
        extra("lv_open", "Open", Number, "How many have it open."),
        extra(
            "lv_io_mode",
            "IoMode",
            Text,
            "How its data moves: zero-copy, user-copy, mapped, nbd.",
        ),
        extra(
            "lv_io_reason",
            "IoReason",
            Text,
            "Why its data does not move in a better way.",
        ),
        extra(
            "lv_copied_bytes",
            "Copied",
            Size,
            "Data of its users copied through the daemon's memory since activation.",
        ),
        extra(
            "lv_stable_copy",
            "StableCopy",
            Text,
            "Each write is copied once before it goes to plexes and feeds (y), or not (n).",
        ),
        extra(
            "lv_attr",
            "Attr",
            Text,
            "Attributes: (m)irrored or (f)eed, (w)riteable or (r)ead-only, (a)ctive, (o)pen, health (r)esync (p)artial (X) failed.",
        ),
        extra(
            "lv_frontend",
            "Frontend",
            Text,
            "Front end asked for: ublk, nbd, both, auto.",
        ),
        extra("lv_region_size", "Region", Size, "Unit of dirty tracking."),
        extra(
            "lv_moving",
            "Moving",
            Text,
            "Plexes that are being moved (pvmove), and those that replace them.",
        ),
        extra("lv_tags", "LV Tags", Text, "Tags, with commas."),
    ],
};

static PLEX: Table = Table {
    key: "plex",
    prefix: "plex_",
    noun: "plex",
    sort: &["vg_name", "lv_name", "plex_name"],
    fields: &[
        shown("plex_name", "Plex", Text, "Name."),
        shown("lv_name", "LV", Text, "Volume."),
        shown("vg_name", "VG", Text, "Group."),
        shown("plex_type", "Type", Text, "data or feed."),
        shown(
            "plex_state",
            "State",
            Text,
            "empty, syncing, active, stale, failed, offline.",
        ),
        shown(
            "plex_layout",
            "Layout",
            Text,
            "concat, or striped with its columns.",
        ),
        shown(
            "plex_sync_percent",
            "Sync%",
            Number,
            "Share that is in sync.",
        ),
        shown(
            "devices",
            "Devices",
            Text,
            "Disks and first extents of its subdisks.",
        ),
        extra("lv_size", "LSize", Size, "Size of the volume."),
        extra(
            "plex_segments",
            "Segments",
            Text,
            "PATH:OFFSET+LENGTH of its subdisks in plex order, in bytes.",
        ),
        extra("plex_uuid", "Plex UUID", Text, "Identity."),
        extra(
            "plex_read_errors",
            "ReadErrs",
            Number,
            "Reads of its disks that failed lately (halved every hour); too many retire it.",
        ),
        extra(
            "plex_read_repairs",
            "Repairs",
            Number,
            "Ranges that it could not read and that were rewritten from another plex, since activation.",
        ),
        extra(
            "plex_replaces",
            "Replaces",
            Text,
            "Plex that goes when this one is in step (pvmove).",
        ),
    ],
};

static FEED: Table = Table {
    key: "feed",
    prefix: "feed_",
    noun: "feed",
    sort: &["vg_name", "lv_name", "peer_name"],
    fields: &[
        shown("lv_name", "LV", Text, "Volume here."),
        shown("vg_name", "VG", Text, "Group here."),
        shown("peer_name", "Peer", Text, "The other node."),
        shown("peer_lv", "PeerLV", Text, "Volume over there."),
        shown(
            "feed_direction",
            "Dir",
            Text,
            "out: this node is the source; in: it is the sink.",
        ),
        shown(
            "feed_state",
            "State",
            Text,
            "connecting, full-sync, resync, live, behind, disconnected, paused, split, refused.",
        ),
        shown("feed_mode", "Mode", Text, "async or sync."),
        extra(
            "feed_on_disconnect",
            "OnDisconnect",
            Text,
            "In sync mode: block or degrade, what writes do while the peer is away.",
        ),
        shown(
            "feed_sync_percent",
            "Sync%",
            Number,
            "Share that the sink has.",
        ),
        shown("feed_rate", "Rate", Size, "Bytes per second now."),
        shown("feed_eta", "ETA", Number, "Time left of the running sync."),
        shown(
            "feed_path",
            "Path",
            Text,
            "How payload moved: kernel, copied, mixed.",
        ),
        extra(
            "feed_limit",
            "Limit",
            Size,
            "Bytes per second that sync traffic may take now, where it is limited.",
        ),
        extra(
            "feed_verified",
            "Verified",
            Time,
            "When the two sides were last compared.",
        ),
        extra(
            "feed_verify_every",
            "Verify every",
            Number,
            "Time from one comparison on schedule to the next.",
        ),
        extra("feed_dirty", "Dirty", Size, "What the sink misses."),
        extra(
            "payload_kernel_bytes",
            "Kernel",
            Size,
            "Payload that no application buffer has touched.",
        ),
        extra(
            "payload_copied_bytes",
            "Copied",
            Size,
            "Payload that went through an application buffer.",
        ),
        extra(
            "feed_consistent",
            "Consistent",
            Text,
            "The sink holds a point in the source's write order.",
        ),
        extra(
            "feed_reason",
            "Reason",
            Text,
            "Why it is refused, cut off or copying.",
        ),
    ],
};

static PEER: Table = Table {
    key: "peer",
    prefix: "peer_",
    noun: "peer",
    sort: &["peer_name"],
    fields: &[
        shown("peer_name", "Peer", Text, "Name."),
        shown("peer_addr", "Address", Text, "Where its daemon listens."),
        shown("peer_state", "State", Text, "Connected or not."),
        shown("peer_allow", "Allow", Text, "What it may do here."),
        shown("peer_fingerprint", "Fingerprint", Text, "Its key."),
        extra(
            "peer_data_addrs",
            "DataAddrs",
            Text,
            "Addresses for the payload.",
        ),
        extra("peer_transport", "Transport", Text, "tls or plaintext."),
    ],
};

static NODE: Table = Table {
    key: "node",
    prefix: "node_",
    noun: "node",
    sort: &[],
    fields: &[
        shown("node_name", "Node", Text, "Name."),
        shown("node_uuid", "Node UUID", Text, "Identity."),
        shown(
            "node_location",
            "Location",
            Text,
            "Where it stands, as configured.",
        ),
        shown(
            "node_fingerprint",
            "Fingerprint",
            Text,
            "Its key: give this to the peer's admin.",
        ),
        shown("node_listen", "Listen", Text, "Where it listens for peers."),
        shown("node_version", "Version", Text, "Version of the daemon."),
    ],
};

/// Every kind of listing.
pub const KINDS: [ReportKind; 10] = [
    ReportKind::Pv,
    ReportKind::Vg,
    ReportKind::Lv,
    ReportKind::Plex,
    ReportKind::Feed,
    ReportKind::Peer,
    ReportKind::Node,
    ReportKind::Point,
    ReportKind::Event,
    ReportKind::Difference,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tables_are_sound() {
        for kind in KINDS {
            let table = table(kind);
            let names: HashSet<_> = table.fields.iter().map(|field| field.name).collect();
            assert_eq!(names.len(), table.fields.len(), "{kind:?}: a name twice");
            assert!(table.fields.iter().any(|field| field.shown), "{kind:?}");
            for name in table.sort {
                assert!(names.contains(name), "{kind:?}: no field {name}");
            }
            for field in table.fields {
                assert!(!field.heading.is_empty() && field.help.ends_with('.'));
            }
        }
    }

    /// The fields that the command line's description promises, at least.
    #[test]
    fn promised_fields() {
        for (kind, names) in [
            (
                ReportKind::Pv,
                "pv_name pv_uuid pv_size pv_free vg_name pv_attr",
            ),
            (
                ReportKind::Vg,
                "vg_name vg_uuid vg_size vg_free vg_extent_size pv_count lv_count vg_seqno vg_attr",
            ),
            (
                ReportKind::Lv,
                "lv_name vg_name lv_uuid lv_size lv_path lv_active lv_open plex_count lv_health lv_role lv_io_mode",
            ),
            (
                ReportKind::Plex,
                "plex_name lv_name vg_name plex_type plex_state plex_layout plex_sync_percent devices",
            ),
            (
                ReportKind::Feed,
                "lv_name vg_name peer_name peer_lv feed_direction feed_state feed_mode feed_sync_percent feed_rate feed_eta feed_dirty feed_path payload_kernel_bytes payload_copied_bytes feed_consistent feed_reason",
            ),
            (
                ReportKind::Peer,
                "peer_name peer_addr peer_data_addrs peer_fingerprint peer_state peer_allow",
            ),
            (
                ReportKind::Node,
                "node_name node_uuid node_location node_fingerprint node_listen node_version",
            ),
            (
                ReportKind::Point,
                "point_name lv_name vg_name point_time point_uuid",
            ),
        ] {
            for name in names.split(' ') {
                assert!(
                    table(kind).fields.iter().any(|field| field.name == name),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn the_prefix_may_be_left_out() {
        let lv = table(ReportKind::Lv);
        assert_eq!(lv.find("size").unwrap().name, "lv_size");
        assert_eq!(lv.find("vg_name").unwrap().name, "vg_name");
        assert!(lv.find("nonsense").is_none());
    }
}
