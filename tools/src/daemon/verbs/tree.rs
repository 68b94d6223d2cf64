//! The tree that `lvdisplay` draws.

use super::report::{health, state_name};
use crate::daemon::groups::GroupView;
use crate::daemon::rows::human;
use std::collections::BTreeMap;
use volmgr::model::{Layout, Plex, Role, Volume};

struct Branch {
    text: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(text: String) -> Self {
        Self {
            text,
            below: Vec::new(),
        }
    }

    fn draw(&self, prefix: &str, lines: &mut Vec<String>) {
        for (index, branch) in self.below.iter().enumerate() {
            let last = index + 1 == self.below.len();
            lines.push(format!(
                "{prefix}{} {}",
                if last { "└─" } else { "├─" },
                branch.text
            ));
            let deeper = format!("{prefix}{}", if last { "   " } else { "│  " });
            branch.draw(&deeper, lines);
        }
    }
}

/// The lines, without a newline at the end.
pub fn draw(
    view: &GroupView,
    volume: &Volume,
    place: &str,
    dirty: &BTreeMap<u32, u64>,
    feeds: &[String],
) -> String {
    let extent = view.group.extent_size;
    let mut root = Branch::leaf(format!(
        "{}/{}  {}  {}{}  {place}",
        view.group.name,
        volume.name,
        human(volume.extents * extent),
        health(view, volume),
        match (volume.role, volume.is_read_only()) {
            (Role::Feed, true) => "  fed (read-only)",
            (Role::Feed, false) => "  fed, in use while it is restored",
            (Role::Normal, true) => "  read-only while a peer restores from it",
            (Role::Normal, false) => "",
        },
    ));
    for plex in &volume.plexes {
        let mut branch = plex_branch(view, plex, dirty);
        if let Some(old) = volume
            .plexes
            .iter()
            .find(|old| Some(old.uuid) == plex.replaces)
        {
            branch.text += &format!("  replaces {}", old.name());
        }
        root.below.push(branch);
    }
    for log in &volume.log {
        root.below.push(Branch::leaf(format!(
            "log  {}  {} extent {}{}",
            human(log.extents * extent),
            view.disk_name(log.pv),
            log.pv_extent,
            if log.valid { "" } else { "  outdated" },
        )));
    }
    root.below.extend(
        feeds
            .iter()
            .map(|feed| Branch::leaf(format!("feed  {feed}"))),
    );
    for point in &volume.points {
        root.below.push(Branch::leaf(format!(
            "point  {}  of peer {}",
            point.name, point.peer
        )));
    }
    let mut lines = vec![root.text.clone()];
    root.draw("", &mut lines);
    lines.join("\n")
}

fn plex_branch(view: &GroupView, plex: &Plex, dirty: &BTreeMap<u32, u64>) -> Branch {
    let extent = view.group.extent_size;
    let mut text = format!(
        "plex{}  {}  {}",
        plex.number,
        match plex.layout {
            Layout::Concat => "concatenated".to_owned(),
            Layout::Striped {
                columns,
                stripe_size,
            } => format!("striped over {columns}, {} each", human(stripe_size)),
        },
        state_name(plex.state),
    );
    if let Some(&bytes) = dirty.get(&plex.number).filter(|bytes| **bytes > 0) {
        text += &format!("  {} to copy", human(bytes));
    }
    let mut branch = Branch::leaf(text);
    for subdisk in &plex.subdisks {
        let column = match plex.layout {
            Layout::Concat => String::new(),
            Layout::Striped { .. } => format!("column {}  ", subdisk.column),
        };
        branch.below.push(Branch::leaf(format!(
            "subdisk  {column}at {}  {}  {} extents {}-{}{}",
            human(subdisk.plex_extent * extent),
            human(subdisk.extents * extent),
            view.disk_name(subdisk.pv),
            subdisk.pv_extent,
            subdisk.pv_extent + subdisk.extents.saturating_sub(1),
            if view.disks.contains_key(&subdisk.pv) {
                ""
            } else {
                "  missing"
            },
        )));
    }
    branch
}
