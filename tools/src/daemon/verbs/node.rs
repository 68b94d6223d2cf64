//! `events`, `status`: what happened, what is going on.

use super::{Ctx, fail, wrong};
use crate::api::{Branch, Failure, LvName, Reply, Tone};
use crate::daemon::events::Event;
use crate::daemon::groups::GroupView;
use crate::daemon::logging;
use crate::daemon::rows::human;
use tokio::sync::broadcast::error::RecvError;

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

/// `logfilter`: what is logged from now on, until the daemon ends or reads its configuration again.
pub fn logfilter(ctx: &Ctx, filter: Option<&str>, reset: bool) -> Result<(), Failure> {
    let wanted = match (filter, reset) {
        (Some(filter), _) => filter.to_owned(),
        (None, true) => logging::configured(&ctx.node.config.log),
        (None, false) => {
            ctx.out.message(logging::filter());
            return Ok(());
        }
    };
    if ctx.would(&format!("log by the filter {wanted}")) {
        return Ok(());
    }
    let what = "cannot be the log filter";
    logging::set_filter(&wanted).map_err(|why| {
        wrong(
            &wanted,
            what,
            why,
            "for example: info,volmgr::request=trace",
        )
    })?;
    ctx.node
        .event("log-filter", &ctx.node.identity.name, &wanted);
    Ok(())
}

/// Numbers for `top`.
pub async fn sample(ctx: &Ctx, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let known = match name.split_once('/') {
            None => ctx.node.groups.view(name).is_some(),
            Some((vg, lv)) => ctx
                .node
                .volume(&LvName {
                    vg: vg.to_owned(),
                    lv: lv.to_owned(),
                })
                .is_some(),
        };
        if !known {
            return Err(fail(
                name,
                "cannot be watched",
                "no such group or volume",
                "see `volmgr lvs`",
            ));
        }
    }
    let sample = crate::daemon::sample::gather(&ctx.node, names).await;
    ctx.out.send(Reply::Sample(sample));
    Ok(())
}

/// `status`: what an admin looks at first in the morning.
pub async fn status(ctx: &Ctx) -> Result<(), Failure> {
    let node = &*ctx.node;
    let sample = crate::daemon::sample::gather(node, &[]).await;
    let mut root = Branch::new(format!("node {}", node.identity.name))
        .plain(node.identity.uuid.to_string())
        .plain(&node.identity.location)
        .plain(format!("volmgrd {}", env!("CARGO_PKG_VERSION")));
    for view in node.groups.views() {
        let mut group = group_branch(&view);
        for volume in &view.group.volumes {
            let tree = super::report::volume_tree(ctx, &view, volume, &sample);
            group.below.push(tree);
        }
        root.below.push(group);
    }
    for orphan in node.groups.orphans() {
        let branch = Branch::new("disk")
            .plain(orphan.path.display().to_string())
            .plain("without a group");
        root.below.push(branch);
    }
    for peer in node.peers.all() {
        let state = node
            .feeds()
            .map_or_else(String::new, |feeds| feeds.peer_state(&peer.name));
        let tone = if state == "connected" {
            Tone::Good
        } else {
            Tone::Plain
        };
        let branch = Branch::new("peer").plain(&peer.name).plain(&peer.addr);
        root.below.push(branch.with(tone, state));
    }
    ctx.out.send(Reply::Tree { roots: vec![root] });
    Ok(())
}

fn group_branch(view: &GroupView) -> Branch {
    let group = &view.group;
    let (tone, state) = match (&view.trouble, group.exported, view.missing().len()) {
        (Some(why), _, _) => (Tone::Bad, format!("cannot be used: {why}")),
        (None, true, _) => (Tone::Busy, "exported".to_owned()),
        (None, false, 0) => (Tone::Good, "ok".to_owned()),
        (None, false, missing) => (Tone::Bad, format!("{missing} disk(s) missing")),
    };
    Branch::new(format!("group {}", group.name))
        .with(tone, state)
        .plain(format!("{} disk(s)", group.pvs.len()))
        .plain(format!("{} free", human(super::size::free_bytes(group))))
}
