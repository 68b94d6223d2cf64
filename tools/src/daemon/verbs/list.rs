//! Listings as tables: only the fields that the client shows, in parts that are sent while the next
//! one is made. Groups have thousands of volumes, and whoever lists them waits.

use super::report::{self, health, key};
use super::{Ctx, Failure};
use crate::api::{LvName, Reply, ReportKind, Row, Value};
use crate::daemon::Node;
use crate::daemon::active::Status;
use crate::daemon::groups::GroupView;
use crate::daemon::rows::text;
use std::cell::OnceCell;
use volmgr::model::{Role, Volume};

/// Rows sent at a time.
const PART: usize = 1000;

/// What is listed.
pub struct Asked<'a> {
    pub kind: ReportKind,
    pub vg: Option<&'a str>,
    pub lv: Option<&'a LvName>,
    pub peer: Option<&'a str>,
    pub columns: &'a [String],
}

/// One listing.
pub async fn list(ctx: &Ctx, asked: Asked<'_>) -> Result<(), Failure> {
    let node = &*ctx.node;
    if asked.kind != ReportKind::Lv {
        let rows = report::rows(node, asked.kind, asked.vg, asked.lv, asked.peer).await?;
        let rows = rows.iter().map(|row| cells(row, asked.columns)).collect();
        send(ctx, &asked, rows);
        return Ok(());
    }
    let mut part = Vec::with_capacity(PART);
    let views = report::views(node, asked.vg, asked.lv)?;
    for (view, volume) in report::volumes(&views, asked.lv) {
        let facts = LvFacts::new(node, view, volume);
        let columns = asked.columns.iter();
        part.push(columns.map(|column| facts.value(column)).collect());
        if part.len() == PART {
            send(
                ctx,
                &asked,
                std::mem::replace(&mut part, Vec::with_capacity(PART)),
            );
        }
    }
    send(ctx, &asked, part);
    Ok(())
}

fn send(ctx: &Ctx, asked: &Asked<'_>, rows: Vec<Vec<Value>>) {
    ctx.out.send(Reply::Table {
        key: key(asked.kind).to_owned(),
        columns: asked.columns.to_vec(),
        rows,
    });
}

fn cells(row: &Row, columns: &[String]) -> Vec<Value> {
    let value = |column: &String| {
        let json = row.get(column)?;
        serde_json::from_value(json.clone()).ok()
    };
    let cells = columns.iter();
    cells
        .map(|column| value(column).unwrap_or(Value::Empty))
        .collect()
}

/// The fields of a volume, in the order of [`report::rows`].
pub(super) const LV_FIELDS: [&str; 19] = [
    "lv_name",
    "vg_name",
    "lv_attr",
    "lv_size",
    "lv_uuid",
    "lv_path",
    "lv_active",
    "lv_open",
    "lv_io_mode",
    "lv_io_reason",
    "lv_copied_bytes",
    "lv_stable_copy",
    "plex_count",
    "lv_health",
    "lv_role",
    "lv_region_size",
    "lv_frontend",
    "lv_moving",
    "lv_tags",
];

/// A volume, and what has to be found out about it at most once.
pub(super) struct LvFacts<'a> {
    node: &'a Node,
    view: &'a GroupView,
    volume: &'a Volume,
    status: OnceCell<Option<Status>>,
    health: OnceCell<&'static str>,
}

impl<'a> LvFacts<'a> {
    pub fn new(node: &'a Node, view: &'a GroupView, volume: &'a Volume) -> Self {
        Self {
            node,
            view,
            volume,
            status: OnceCell::new(),
            health: OnceCell::new(),
        }
    }

    fn status(&self) -> Option<&Status> {
        self.status
            .get_or_init(|| self.node.active.status(self.volume.uuid))
            .as_ref()
    }

    fn health(&self) -> &'static str {
        self.health.get_or_init(|| health(self.view, self.volume))
    }

    fn attr(&self) -> String {
        let volume = self.volume;
        [
            match (volume.role, volume.plexes.len()) {
                (Role::Feed, _) => 'f',
                (_, 0 | 1) => '-',
                _ => 'm',
            },
            if volume.is_read_only() { 'r' } else { 'w' },
            if self.status().is_some() { 'a' } else { '-' },
            match self.status() {
                Some(status) if status.opens > 0 => 'o',
                _ => '-',
            },
            match self.health() {
                "ok" => '-',
                "resync" => 'r',
                "degraded" => 'p',
                _ => 'X',
            },
        ]
        .iter()
        .collect()
    }

    /// The value of a field; nothing where there is no such field.
    pub fn value(&self, field: &str) -> Value {
        let (group, volume) = (&self.view.group, self.volume);
        match field {
            "lv_name" => text(&volume.name),
            "vg_name" => text(&group.name),
            "lv_attr" => text(self.attr()),
            "lv_size" => Value::Size(group.bytes_of(volume)),
            "lv_uuid" => text(volume.uuid.to_string()),
            "lv_path" => match self.status() {
                Some(status) => text(&status.path),
                None => Value::Empty,
            },
            "lv_active" => match self.status() {
                Some(_) => text("active"),
                None => Value::Empty,
            },
            "lv_open" => Value::Number(self.status().map_or(0, |status| status.opens)),
            "lv_io_mode" => match self.status() {
                Some(status) => text(status.io_mode),
                None => Value::Empty,
            },
            "lv_io_reason" => match self.status() {
                Some(status) => text(&status.io_reason),
                None => Value::Empty,
            },
            "lv_copied_bytes" => match self.status() {
                Some(status) => Value::Size(status.copied_bytes),
                None => Value::Empty,
            },
            "lv_stable_copy" => text(if volume.stable_copy { "y" } else { "n" }),
            "plex_count" => Value::Number(volume.plexes.len() as u64),
            "lv_health" => text(self.health()),
            "lv_role" => text(match volume.role {
                Role::Normal => "normal",
                Role::Feed => "feed",
            }),
            "lv_region_size" => Value::Size(volume.region_size),
            "lv_frontend" => text(&volume.frontend),
            "lv_tags" => report::tags(&volume.tags),
            "lv_moving" => {
                let moving = volume.plexes.iter().filter_map(|plex| {
                    let old = volume
                        .plexes
                        .iter()
                        .find(|old| Some(old.uuid) == plex.replaces)?;
                    Some(format!("{}>{}", old.name(), plex.name()))
                });
                let moving: Vec<String> = moving.collect();
                match moving.is_empty() {
                    true => Value::Empty,
                    false => text(moving.join(",")),
                }
            }
            _ => Value::Empty,
        }
    }
}
