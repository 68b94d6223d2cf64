//! The listings. The daemon sends all fields of all rows; the client chooses, sorts and draws.

use super::list::{LV_FIELDS, LvFacts};
use super::{Ctx, fail};
use crate::api::{Branch, Failure, LvName, Reply, ReportKind, Row, Sample, Value};
use crate::daemon::Node;
use crate::daemon::groups::GroupView;
use crate::daemon::rows::{row, text};
use crate::daemon::sample;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use volmgr::engine::Media;
use volmgr::model::{Group, Layout, Plex, PlexState, Volume};

/// One listing.
pub async fn report(
    ctx: &Ctx,
    kind: ReportKind,
    vg: Option<&str>,
    lv: Option<&LvName>,
    peer: Option<&str>,
) -> Result<(), Failure> {
    let rows = rows(&ctx.node, kind, vg, lv, peer).await?;
    ctx.out.report(key(kind), rows);
    Ok(())
}

/// The groups that a listing is about.
pub(super) fn views(
    node: &Node,
    vg: Option<&str>,
    lv: Option<&LvName>,
) -> Result<Vec<Arc<GroupView>>, Failure> {
    if let Some(lv) = lv {
        super::find_volume(node, lv, "cannot list")?;
    }
    match vg.or(lv.map(|lv| lv.vg.as_str())) {
        Some(vg) => Ok(vec![super::find_group(node, vg, "cannot list")?]),
        None => Ok(node.groups.views()),
    }
}

/// The rows of a listing, with all their fields.
pub(super) async fn rows(
    node: &Node,
    kind: ReportKind,
    vg: Option<&str>,
    lv: Option<&LvName>,
    peer: Option<&str>,
) -> Result<Vec<Row>, Failure> {
    let views = views(node, vg, lv)?;
    let mut rows = Vec::new();
    match kind {
        ReportKind::Pv => {
            views.iter().for_each(|view| pv_rows(view, &mut rows));
            if vg.is_none() && lv.is_none() {
                rows.extend(orphan_rows(node));
            }
        }
        ReportKind::Vg => rows.extend(views.iter().map(|view| vg_row(view))),
        ReportKind::Lv => {
            for (view, volume) in volumes(&views, lv) {
                let facts = LvFacts::new(node, view, volume);
                let fields = LV_FIELDS.map(|field| (field, facts.value(field)));
                rows.push(row(fields));
            }
        }
        ReportKind::Plex => {
            for (view, volume) in volumes(&views, lv) {
                let dirty = node.active.plex_dirty(volume).await;
                let media = node.active.plex_media(volume).await;
                for plex in &volume.plexes {
                    let media = media.get(&plex.number);
                    rows.push(plex_row(view, volume, plex, &dirty, media));
                }
            }
        }
        ReportKind::Feed | ReportKind::Point => {
            if let Some(feeds) = node.feeds() {
                rows = feeds.rows(kind, lv, peer).await;
            }
        }
        ReportKind::Peer => rows = peer_rows(node, peer),
        ReportKind::Node => rows.push(node_row(node)),
        ReportKind::Event => rows.extend(node.events.recent().iter().map(|event| event.row())),
        // Known to those who have just compared only.
        ReportKind::Difference => {}
    }
    Ok(rows)
}

/// The rows' key in JSON.
pub fn key(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Pv => "pv",
        ReportKind::Vg => "vg",
        ReportKind::Lv => "lv",
        ReportKind::Plex => "plex",
        ReportKind::Feed => "feed",
        ReportKind::Peer => "peer",
        ReportKind::Node => "node",
        ReportKind::Point => "point",
        ReportKind::Event => "event",
        ReportKind::Difference => "difference",
    }
}

pub(super) fn volumes<'a>(
    views: &'a [Arc<GroupView>],
    lv: Option<&'a LvName>,
) -> impl Iterator<Item = (&'a GroupView, &'a Volume)> {
    views.iter().flat_map(move |view| {
        view.group
            .volumes
            .iter()
            .filter(move |volume| lv.is_none_or(|lv| volume.name == lv.lv))
            .map(move |volume| (&**view, volume))
    })
}

fn pv_rows(view: &GroupView, rows: &mut Vec<Row>) {
    let group = &view.group;
    let free = view.free_extents();
    for pv in &group.pvs {
        let path = view.disks.get(&pv.uuid).map(|place| &place.path);
        let missing = path.is_none();
        let attr = format!(
            "{}{}{}",
            match (missing, pv.spare) {
                (true, _) => '-',
                (false, true) => 's',
                (false, false) => 'a',
            },
            if group.exported { 'x' } else { '-' },
            if missing { 'm' } else { '-' },
        );
        rows.push(row([
            (
                "pv_name",
                match path {
                    Some(path) => text(path.display().to_string()),
                    None => text(format!("[missing {}]", pv.path_hint)),
                },
            ),
            ("vg_name", text(&group.name)),
            ("pv_attr", text(attr)),
            ("pv_size", Value::Size(pv.extent_count * group.extent_size)),
            (
                "pv_free",
                Value::Size(free.get(&pv.uuid).copied().unwrap_or(0) * group.extent_size),
            ),
            ("pv_uuid", text(pv.uuid.to_string())),
            ("dev_size", Value::Size(pv.size)),
            ("pv_spare", text(if pv.spare { "spare" } else { "" })),
            ("pv_tags", tags(&pv.tags)),
        ]));
    }
}

fn orphan_rows(node: &Node) -> Vec<Row> {
    node.groups
        .orphans()
        .into_iter()
        .map(|orphan| {
            row([
                ("pv_name", text(orphan.path.display().to_string())),
                ("vg_name", Value::Empty),
                ("pv_attr", text("---")),
                ("pv_size", Value::Size(orphan.size)),
                ("pv_free", Value::Size(orphan.size)),
                ("pv_uuid", text(orphan.uuid.to_string())),
                ("dev_size", Value::Size(orphan.size)),
                ("pv_spare", text("")),
                ("pv_tags", Value::Empty),
            ])
        })
        .collect()
}

fn vg_row(view: &GroupView) -> Row {
    let group = &view.group;
    let extents: u64 = group.pvs.iter().map(|pv| pv.extent_count).sum();
    let free: u64 = view.free_extents().values().sum();
    let attr = format!(
        "{}z{}{}n-",
        if view.trouble.is_some() { 'r' } else { 'w' },
        if group.exported { 'x' } else { '-' },
        if view.missing().is_empty() { '-' } else { 'p' },
    );
    row([
        ("vg_name", text(&group.name)),
        ("pv_count", Value::Number(group.pvs.len() as u64)),
        ("lv_count", Value::Number(group.volumes.len() as u64)),
        ("vg_attr", text(attr)),
        ("vg_size", Value::Size(extents * group.extent_size)),
        ("vg_free", Value::Size(free * group.extent_size)),
        ("vg_uuid", text(group.uuid.to_string())),
        ("vg_extent_size", Value::Size(group.extent_size)),
        ("vg_seqno", Value::Number(group.seqno)),
        ("vg_tags", tags(&group.tags)),
        (
            "vg_missing_pv_count",
            Value::Number(view.missing().len() as u64),
        ),
        (
            "vg_trouble",
            view.trouble.clone().map_or(Value::Empty, Value::Text),
        ),
    ])
}

/// As LVM lists them: with commas.
pub(super) fn tags(tags: &BTreeSet<String>) -> Value {
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    text(tags.join(","))
}

/// `ok`, or the worst that can be said of the volume's plexes.
pub fn health(view: &GroupView, volume: &Volume) -> &'static str {
    let gone = |plex: &Plex| {
        plex.subdisks
            .iter()
            .any(|subdisk| !view.disks.contains_key(&subdisk.pv))
    };
    let filling = |state| {
        use PlexState::{Active, Empty, Syncing};
        matches!(state, Active | Syncing | Empty)
    };
    let good = volume
        .plexes
        .iter()
        .filter(|plex| plex.state == PlexState::Active && !gone(plex))
        .count();
    if good == volume.plexes.len() {
        "ok"
    } else if good == 0 {
        "failed"
    } else if volume
        .plexes
        .iter()
        .all(|plex| filling(plex.state) && !gone(plex))
    {
        "resync"
    } else {
        "degraded"
    }
}

fn plex_row(
    view: &GroupView,
    volume: &Volume,
    plex: &Plex,
    dirty: &BTreeMap<u32, u64>,
    media: Option<&Media>,
) -> Row {
    let group = &view.group;
    let count = |of: fn(&Media) -> u64| media.map_or(Value::Empty, |m| Value::Number(of(m)));
    row([
        ("plex_name", text(format!("plex{}", plex.number))),
        ("lv_name", text(&volume.name)),
        ("vg_name", text(&group.name)),
        ("plex_type", text("data")),
        ("plex_state", text(state_name(plex.state))),
        ("plex_layout", text(layout_name(&plex.layout))),
        (
            "plex_sync_percent",
            sync_percent(group, volume, plex, dirty),
        ),
        ("devices", text(devices(view, plex).join(","))),
        ("plex_uuid", text(plex.uuid.to_string())),
        ("plex_read_errors", count(|m| m.read_errors.into())),
        ("plex_read_repairs", count(|m| m.repairs)),
        ("plex_segments", text(segments(view, plex).join(","))),
        ("lv_size", Value::Size(group.bytes_of(volume))),
        (
            "plex_replaces",
            match volume
                .plexes
                .iter()
                .find(|old| Some(old.uuid) == plex.replaces)
            {
                Some(old) => text(old.name()),
                None => Value::Empty,
            },
        ),
    ])
}

/// How much of the plex is in step; unknown while nobody serves the volume.
fn sync_percent(group: &Group, volume: &Volume, plex: &Plex, dirty: &BTreeMap<u32, u64>) -> Value {
    if plex.state == PlexState::Active {
        return Value::Percent(100.0);
    }
    let size = volume.extents.saturating_mul(group.extent_size).max(1);
    match dirty.get(&plex.number) {
        Some(&dirty) => Value::Percent(100.0 - 100.0 * (dirty.min(size) as f64) / size as f64),
        None => Value::Empty,
    }
}

/// As the admin reads it, and writes it in scripts.
pub fn state_name(state: PlexState) -> &'static str {
    match state {
        PlexState::Empty => "empty",
        PlexState::Syncing => "syncing",
        PlexState::Active => "active",
        PlexState::Stale => "stale",
        PlexState::Failed => "failed",
        PlexState::Offline => "offline",
    }
}

fn layout_name(layout: &Layout) -> String {
    match layout {
        Layout::Concat => "concat".into(),
        Layout::Striped { columns, .. } => format!("striped:{columns}"),
    }
}

/// `PATH(FIRST EXTENT)`, as LVM writes it.
fn devices(view: &GroupView, plex: &Plex) -> Vec<String> {
    plex.subdisks
        .iter()
        .map(|subdisk| format!("{}({})", view.disk_name(subdisk.pv), subdisk.pv_extent))
        .collect()
}

/// `PATH:OFFSET+LENGTH` of each subdisk in bytes, in plex order: where the plex's content lies.
fn segments(view: &GroupView, plex: &Plex) -> Vec<String> {
    let extent = view.group.extent_size;
    plex.subdisks
        .iter()
        .map(|subdisk| {
            let start = view.group.pv(subdisk.pv).map_or(0, |pv| pv.data_start);
            format!(
                "{}:{}+{}",
                view.disk_name(subdisk.pv),
                start + subdisk.pv_extent * extent,
                subdisk.extents * extent
            )
        })
        .collect()
}

fn peer_rows(node: &Node, name: Option<&str>) -> Vec<Row> {
    node.peers
        .all()
        .into_iter()
        .filter(|peer| name.is_none_or(|name| peer.name == name))
        .map(|peer| {
            let state = node
                .feeds()
                .map_or(Value::Empty, |feeds| text(feeds.peer_state(&peer.name)));
            row([
                ("peer_name", text(&peer.name)),
                ("peer_addr", text(&peer.addr)),
                ("peer_data_addrs", text(peer.data.join(","))),
                ("peer_fingerprint", text(&peer.fingerprint)),
                ("peer_state", state),
                ("peer_allow", text(peer.allow.join(" "))),
                (
                    "peer_transport",
                    text(if peer.plaintext { "plaintext" } else { "tls" }),
                ),
            ])
        })
        .collect()
}

fn node_row(node: &Node) -> Row {
    row([
        ("node_name", text(&node.identity.name)),
        ("node_uuid", text(node.identity.uuid.to_string())),
        ("node_location", text(&node.identity.location)),
        ("node_fingerprint", text(node.fingerprint())),
        (
            "node_listen",
            node.config
                .listen
                .map_or(Value::Empty, |addr| text(addr.to_string())),
        ),
        ("node_version", text(env!("CARGO_PKG_VERSION"))),
    ])
}

/// `lvdisplay`: the tree volume → plexes → subdisks → disks, with feeds.
pub async fn lvdisplay(ctx: &Ctx, name: &LvName) -> Result<(), Failure> {
    let Some((view, volume)) = ctx.node.volume(name) else {
        return Err(fail(
            name,
            "cannot show",
            "no such volume",
            "see `volmgr lvs`",
        ));
    };
    let sample = sample::gather(&ctx.node, &[name.to_string()]).await;
    let root = volume_tree(ctx, &view, &volume, &sample);
    ctx.out.send(Reply::Tree { roots: vec![root] });
    Ok(())
}

/// The tree of one volume, with the numbers of a sample.
pub fn volume_tree(ctx: &Ctx, view: &GroupView, volume: &Volume, sample: &Sample) -> Branch {
    let status = ctx.node.active.status(volume.uuid);
    let place = status.map_or("inactive".to_owned(), |status| status.path);
    let known = sample
        .volumes
        .iter()
        .find(|known| known.vg == view.group.name && known.lv == volume.name);
    match known {
        Some(known) => super::tree::volume(view, volume, &place, known),
        // Made since the sample was taken.
        None => Branch::new(format!("{}/{}", view.group.name, volume.name)).plain(place),
    }
}
