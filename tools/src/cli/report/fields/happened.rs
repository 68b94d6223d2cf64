//! Fields of what has happened to volumes: points in time, events, differences that were found.

use super::Shape::{Number, Size, Text, Time};
use super::{Table, extra, shown};

pub(super) static POINT: Table = Table {
    key: "point",
    prefix: "point_",
    noun: "point in time",
    sort: &["vg_name", "lv_name", "point_time", "point_name"],
    fields: &[
        shown("point_name", "Point", Text, "Name."),
        shown("lv_name", "LV", Text, "Volume."),
        shown("vg_name", "VG", Text, "Group."),
        shown("point_time", "Time", Time, "When."),
        shown(
            "peer_name",
            "Peer",
            Text,
            "The peer that holds it, or that it came from.",
        ),
        extra(
            "point_changed",
            "Changed",
            Size,
            "Bytes in regions that changed here since; empty where nobody has kept track.",
        ),
        extra(
            "point_held",
            "Held",
            Text,
            "The copy is at this point still: feedswap can bring it back.",
        ),
        extra("point_uuid", "Point UUID", Text, "Identity."),
    ],
};

pub(super) static EVENT: Table = Table {
    key: "event",
    prefix: "event_",
    noun: "event",
    sort: &[],
    fields: &[
        shown("event_time", "Time", Time, "When."),
        shown("event_kind", "Kind", Text, "What sort of thing happened."),
        shown("event_object", "Object", Text, "To what."),
        shown("event_text", "Text", Text, "In words."),
    ],
};

pub(super) static DIFFERENCE: Table = Table {
    key: "difference",
    prefix: "difference_",
    noun: "place that differs",
    sort: &[],
    fields: &[
        shown("lv_name", "LV", Text, "Volume."),
        shown("vg_name", "VG", Text, "Group."),
        shown(
            "difference_start",
            "Start",
            Number,
            "First byte of the volume that differs; the same for all places of a range.",
        ),
        shown("difference_bytes", "Bytes", Number, "How many bytes."),
        shown(
            "difference_sides",
            "Sides",
            Text,
            "Who agrees with whom: plexes, or this node and a peer.",
        ),
        shown(
            "difference_state",
            "State",
            Text,
            "`differs`, or `repaired`.",
        ),
        shown("plex_name", "Plex", Text, "Plex here."),
        shown(
            "subdisk_number",
            "Subdisk",
            Number,
            "Subdisk of the plex that has a part of it.",
        ),
        shown("pv_name", "PV", Text, "Disk of that subdisk."),
        shown(
            "difference_pv_start",
            "PV Start",
            Number,
            "First byte of the disk that has a part of it.",
        ),
        shown(
            "difference_pv_bytes",
            "PV Bytes",
            Number,
            "How many bytes from there.",
        ),
    ],
};
