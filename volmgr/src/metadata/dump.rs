//! Metadata as text, for people: `pvck --dump`, and the archive of old versions.

use super::{Chain, PvScan, RecordKind};
use crate::label::{Label, LabelError};
use crate::model::Group;
use std::fmt::Write;

/// First line of a group's text form.
const HEADLINE: &str = "# volmgr volume group, format 1";

/// Everything that [`dump_label`] and [`dump_metadata`] say.
pub fn dump_text(scan: &PvScan) -> String {
    dump_label(scan) + &dump_metadata(scan)
}

/// Both copies of the label.
pub fn dump_label(scan: &PvScan) -> String {
    let mut out = format!("disk\n  size         {}\n", scan.size);
    label_copy(&mut out, "front", &scan.label.front);
    label_copy(&mut out, "back", &scan.label.back);
    out
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text)
        .expect("writing to a String cannot fail");
    out.push('\n');
}

fn label_copy(out: &mut String, name: &str, label: &Result<Label, LabelError>) {
    line(out, format_args!("{name} label"));
    let label = match label {
        Ok(label) => label,
        Err(error) => return line(out, format_args!("  damaged      {error}")),
    };
    line(out, format_args!("  pv_uuid      {}", label.pv));
    match label.group {
        Some(group) => line(out, format_args!("  vg_uuid      {group}")),
        None => line(out, format_args!("  vg_uuid      none")),
    }
    line(out, format_args!("  pv_size      {}", label.pv_size));
    line(out, format_args!("  extent_size  {}", label.extent_size));
    line(out, format_args!("  data_start   {}", label.data_start));
    for (name, area) in ["front_area", "back_area "].into_iter().zip(label.areas) {
        line(out, format_args!("  {name}   {}+{}", area.start, area.len));
    }
}

/// The records in both areas, then the newest version.
pub fn dump_metadata(scan: &PvScan) -> String {
    let mut out = String::new();
    for (name, area) in ["front", "back"].into_iter().zip(&scan.areas) {
        for (index, chain) in area.chains.iter().enumerate() {
            line(
                &mut out,
                format_args!(
                    "{name} area, segment {index} at {}+{}",
                    chain.segment.start, chain.segment.len
                ),
            );
            records(&mut out, chain);
        }
    }
    for (start, why) in &scan.bad_content {
        line(
            &mut out,
            format_args!("bad content in the segment at {start}: {why}"),
        );
    }
    match &scan.version {
        Some(version) => out += &group_to_text(&version.group),
        None => line(&mut out, format_args!("no good version of a group")),
    }
    out
}

fn records(out: &mut String, chain: &Chain) {
    for record in &chain.records {
        let header = &record.header;
        let kind = match header.kind {
            RecordKind::Snapshot => "snapshot",
            RecordKind::Delta => "delta   ",
        };
        line(
            out,
            format_args!(
                "  {:>12} {kind} seqno {} commit {} previous {} group {} payload {}",
                record.offset,
                header.seqno,
                header.commit,
                header.previous,
                header.group,
                header.payload_len
            ),
        );
    }
    line(out, format_args!("  {:>12} {}", chain.end, chain.stop));
    if let Some(lost) = chain.lost_up_to {
        line(
            out,
            format_args!("               lost: commits up to {lost}"),
        );
    }
}

/// A group as text that [`group_from_text`] reads back: a headline, then JSON, indented.
pub fn group_to_text(group: &Group) -> String {
    let json = serde_json::to_string_pretty(group).expect("a group has no maps and no floats");
    format!(
        "{HEADLINE}\n# {} seqno {} commit {}\n{json}\n",
        group.name, group.seqno, group.commit
    )
}

/// Reads what [`group_to_text`] wrote; lines that start with `#` are ignored.
///
/// # Errors
/// The text is no group.
pub fn group_from_text(text: &str) -> Result<Group, serde_json::Error> {
    let json: String = text
        .lines()
        .map(|line| if line.starts_with('#') { "" } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    serde_json::from_str(&json)
}
