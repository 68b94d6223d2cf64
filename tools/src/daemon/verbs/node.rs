//! `events`, `status`: what happened, what is going on.

use super::Ctx;
use super::report::health;
use crate::api::Failure;
use crate::daemon::events::Event;
use crate::daemon::rows::human;
use std::fmt::Write;
use tokio::sync::broadcast::error::RecvError;
use volmgr::model::Role;

/// `events [--follow]`.
pub async fn events(ctx: &Ctx, follow: bool) -> Result<(), Failure> {
    if !follow {
        let rows = ctx.node.events.recent().iter().map(Event::row).collect();
        ctx.out.report("event", rows);
        return Ok(());
    }
    let (old, mut new) = ctx.node.events.follow();
    let mut stop = ctx.node.stop_signal();
    ctx.out
        .report("event", old.iter().map(Event::row).collect());
    loop {
        let event = tokio::select! {
            event = new.recv() => event,
            () = ctx.out.client_gone() => return Ok(()),
            () = stop.wait() => return Ok(()),
        };
        match event {
            Ok(event) => ctx.out.report("event", vec![event.row()]),
            Err(RecvError::Lagged(missed)) => {
                ctx.out
                    .warning(format!("{missed} event(s) missed: see `volmgr events`"));
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// `status`: what an admin looks at first in the morning.
pub async fn status(ctx: &Ctx) -> Result<(), Failure> {
    let node = &*ctx.node;
    let mut text = format!(
        "node {} ({}), volmgrd {}",
        node.identity.name,
        node.identity.uuid,
        env!("CARGO_PKG_VERSION")
    );
    for view in node.groups.views() {
        let group = &view.group;
        let state = match (&view.trouble, group.exported, view.missing().len()) {
            (Some(why), _, _) => format!("cannot be used: {why}"),
            (None, true, _) => "exported".to_owned(),
            (None, false, 0) => "ok".to_owned(),
            (None, false, missing) => format!("{missing} disk(s) missing"),
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\ngroup {}: {state}, {} disk(s), {} free",
            group.name,
            group.pvs.len(),
            human(super::size::free_bytes(group)),
        );
        for volume in &group.volumes {
            let status = node.active.status(volume.uuid);
            let _ = write!(
                text,
                "\n  volume {}/{}: {}, {}{}, {}",
                group.name,
                volume.name,
                human(group.bytes_of(volume)),
                health(&view, volume),
                if volume.role == Role::Feed && volume.is_read_only() {
                    ", fed"
                } else {
                    ""
                },
                match &status {
                    Some(status) => format!("{} open, {}", status.opens, status.path),
                    None => "inactive".to_owned(),
                },
            );
            if let Some(feeds) = node.feeds() {
                let name = crate::api::LvName {
                    vg: group.name.clone(),
                    lv: volume.name.clone(),
                };
                for feed in feeds.describe(&name) {
                    let _ = write!(text, "\n    feed {feed}");
                }
            }
        }
    }
    for orphan in node.groups.orphans() {
        let _ = write!(text, "\ndisk {} without a group", orphan.path.display());
    }
    ctx.out.message(text);
    Ok(())
}
