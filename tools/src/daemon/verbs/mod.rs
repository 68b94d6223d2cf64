//! The verbs: one file a family. A verb checks, says what it would do (`-t`), does it, and records
//! an event; every failure names the object, what failed, why, and what to do.
//!
//! Verbs that change things hold the node's verb lock while they change them, so that each sees
//! the effect of the one before. Verbs that wait let go of it.

mod list;
mod lv;
mod lv_change;
mod node;
mod peer;
pub mod places;
mod plex;
mod plex_sync;
mod plex_verify;
mod pv;
pub mod pvmove;
mod report;
mod size;
mod tree;
mod vg;
mod vg_move;
mod vg_split;

pub use lv::grow_with_peer;
pub use report::{health, key, state_name as plex_state_name};

use super::Node;
use super::groups::{CommitError, GroupView};
use super::rows::human;
use crate::api::{Command, Failure, LvName, Progress, Reply, Row};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;
use volmgr::model::{Plex, Volume};
use volmgr::plan::PlanError;

/// Where a command's replies go. The client may have gone; the work goes on.
#[derive(Clone, Debug)]
pub struct Out {
    sender: UnboundedSender<Reply>,
}

impl Out {
    /// Replies go to this channel.
    pub fn new(sender: UnboundedSender<Reply>) -> Self {
        Self { sender }
    }

    /// One reply.
    pub fn send(&self, reply: Reply) {
        // A client that has gone reads nothing: that stops no work.
        let _gone = self.sender.send(reply);
    }

    /// Something for the reader.
    pub fn message(&self, text: impl Into<String>) {
        self.send(Reply::Message { text: text.into() });
    }

    /// Something to worry about.
    pub fn warning(&self, text: impl Into<String>) {
        self.send(Reply::Warning { text: text.into() });
    }

    /// How far long work is.
    pub fn progress(&self, progress: Progress) {
        self.send(Reply::Progress(progress));
    }

    /// A listing.
    pub fn report(&self, key: &str, rows: Vec<Row>) {
        self.send(Reply::Report {
            key: key.to_owned(),
            rows,
        });
    }

    /// Ends when the client has gone: for commands that only wait.
    pub async fn client_gone(&self) {
        self.sender.closed().await;
    }
}

/// What a verb works with.
#[derive(Clone)]
pub struct Ctx {
    /// The node.
    pub node: Arc<Node>,
    /// `-t`: say what would happen, change nothing.
    pub test: bool,
    /// `-y`: answer yes to questions.
    pub yes: bool,
    /// Where replies go.
    pub out: Out,
}

impl Ctx {
    /// In test mode says what would happen and returns true: the verb then changes nothing.
    pub fn would(&self, what: &str) -> bool {
        if self.test {
            self.out.message(format!("Test mode: would {what}."));
        }
        self.test
    }
}

/// A failure of the work itself: exit code 5.
pub fn fail(
    object: impl ToString,
    what: impl Into<String>,
    why: impl ToString,
    hint: impl Into<String>,
) -> Failure {
    Failure {
        code: 5,
        object: object.to_string(),
        what: what.into(),
        why: why.to_string(),
        hint: hint.into(),
    }
}

/// A failure of what the admin wrote: exit code 3.
pub fn wrong(
    object: impl ToString,
    what: impl Into<String>,
    why: impl ToString,
    hint: impl Into<String>,
) -> Failure {
    Failure {
        code: 3,
        ..fail(object, what, why, hint)
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// There is no such group.
pub fn no_group(vg: &str, what: &str) -> Failure {
    fail(
        vg,
        what,
        "no such volume group",
        "see `volmgr vgs`, `volmgr vgscan`",
    )
}

/// The group of that name.
pub fn find_group(node: &Node, vg: &str, what: &str) -> Result<Arc<GroupView>, Failure> {
    node.groups.view(vg).ok_or_else(|| no_group(vg, what))
}

/// The volume of that name.
pub fn find_volume(
    node: &Node,
    lv: &LvName,
    what: &str,
) -> Result<(Arc<GroupView>, Volume), Failure> {
    let view = find_group(node, &lv.vg, what)?;
    match view.volume(&lv.lv).cloned() {
        Some(volume) => Ok((view, volume)),
        None => Err(fail(lv, what, "no such volume", "see `volmgr lvs`")),
    }
}

/// The number of the plex of that name.
fn plex_number(lv: &LvName, volume: &Volume, plex: &str, what: &str) -> Result<u32, Failure> {
    volume
        .plexes
        .iter()
        .find(|known| known.name() == plex)
        .map(|known| known.number)
        .ok_or_else(|| {
            let names: Vec<String> = volume.plexes.iter().map(Plex::name).collect();
            fail(
                lv,
                what,
                format!("it has no {plex}"),
                format!("it has {}", names.join(", ")),
            )
        })
}

/// A plan that cannot be: says what is needed, what is there, and what would help.
pub fn plan_failed(
    object: impl ToString,
    what: &str,
    error: &PlanError,
    view: &GroupView,
) -> Failure {
    let vg = &view.group.name;
    let (why, hint) = match error {
        PlanError::Disks {
            need,
            pvs_need,
            pvs_have,
        } => (
            format!(
                "needs {} in {pvs_need} different disks, {vg} has {pvs_have}",
                human(*need)
            ),
            "add one with vgextend".to_owned(),
        ),
        PlanError::Space { need, have } => (
            format!("needs {}, {vg} has {} free", human(*need), human(*have)),
            "add a disk with vgextend".to_owned(),
        ),
        PlanError::LogSpace { need, have } => (
            format!(
                "its log needs {} in a row, the longest free run has {}",
                human(*need),
                human(*have)
            ),
            "add a disk with vgextend".to_owned(),
        ),
        PlanError::InUse { pv, volume } => (
            format!("{} is in use by {volume}", view.disk_name(*pv)),
            "move or remove the volume first".to_owned(),
        ),
        PlanError::LastPv { pv } => (
            format!("{} is the last disk of {vg}", view.disk_name(*pv)),
            "vgremove removes the group".to_owned(),
        ),
        PlanError::Missing { pv } => (
            format!("{} is missing", view.disk_name(*pv)),
            "bring it back".to_owned(),
        ),
        PlanError::Exists { .. } => (error.to_string(), "choose another name".to_owned()),
        PlanError::Spans { volume, pv } => (
            format!("{volume} also lies on {}", view.disk_name(*pv)),
            format!("name that disk, too, or `volmgr pvmove` what is there of {volume}"),
        ),
        PlanError::HasFeed { volume, peer } => (
            error.to_string(),
            format!(
                "`volmgr feeddetach --force {vg}/{volume} {peer}` first, and attach it anew afterwards"
            ),
        ),
        PlanError::Handover { group, .. } => (
            error.to_string(),
            format!(
                "bring all of them here and `volmgr vgscan`, or give those up that are away: \
                 `volmgr vgreduce --removemissing {group}`"
            ),
        ),
        PlanError::ExtentSizes { .. } => (
            error.to_string(),
            "groups of one extent size exchange disks".to_owned(),
        ),
        PlanError::LastActivePlex { .. } => (
            error.to_string(),
            "attach another plex and let it fill first".to_owned(),
        ),
        other => (other.to_string(), String::new()),
    };
    let code = match error {
        PlanError::Name { .. } | PlanError::Value { .. } => 3,
        _ => 5,
    };
    Failure {
        code,
        ..fail(object, what, why, hint)
    }
}

/// A commit that did not happen.
pub fn commit_failed<E: std::fmt::Display>(
    object: impl ToString,
    what: &str,
    error: CommitError<E>,
) -> Failure {
    let hint = match &error {
        CommitError::Disks(_) => "nothing was changed; see `volmgr events`",
        CommitError::NoGroup | CommitError::Trouble(_) => "see `volmgr vgscan`",
        CommitError::Refused(_) => "",
    };
    fail(object, what, error, hint)
}

/// Runs one command.
pub async fn dispatch(ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    if ctx.node.stopping() {
        return Err(fail(
            "volmgrd",
            "cannot begin",
            "the daemon is stopping",
            "start it again",
        ));
    }
    if !only_looks(command) {
        ctx.node.wait_served().await;
    }
    match command {
        Command::Report { kind, vg, lv, peer } => {
            report::report(ctx, *kind, vg.as_deref(), lv.as_ref(), peer.as_deref()).await
        }
        Command::List {
            kind,
            vg,
            lv,
            peer,
            columns,
        } => {
            let asked = list::Asked {
                kind: *kind,
                vg: vg.as_deref(),
                lv: lv.as_ref(),
                peer: peer.as_deref(),
                columns,
            };
            list::list(ctx, asked).await
        }
        Command::Events { follow } => node::events(ctx, *follow).await,
        Command::Status => node::status(ctx).await,
        Command::Logfilter { filter, reset } => node::logfilter(ctx, filter.as_deref(), *reset),
        Command::Sample { names } => node::sample(ctx, names).await,
        Command::Lvdisplay { lv } => report::lvdisplay(ctx, lv).await,
        Command::Pvmove {
            from,
            to,
            lv,
            abort,
            background,
        } => {
            let asked = pvmove::Asked {
                from: from.as_deref(),
                to,
                lv: lv.as_deref(),
                abort: *abort,
                background: *background,
            };
            pvmove::pvmove(ctx, asked).await
        }
        Command::Vgcfglist { vg } => vg_move::vgcfglist(ctx, vg).await,
        Command::Plexsync { lv, verify } => plex_sync::plexsync(ctx, lv, verify.as_ref()).await,
        Command::Feedattach { .. }
        | Command::Feedwait { .. }
        | Command::Feedpause { .. }
        | Command::Feedresume { .. }
        | Command::Feeddetach { .. }
        | Command::Feedswap { .. }
        | Command::Feedset { .. }
        | Command::Feedverify { .. } => match ctx.node.feeds() {
            Some(feeds) => feeds.command(ctx, command).await,
            None => Err(fail(
                "feeds",
                "cannot begin",
                "this volmgrd serves no feeds",
                "start it with feeds configured",
            )),
        },
        changing => {
            let _one_at_a_time = ctx.node.verb_lock().await;
            change(ctx, changing).await
        }
    }
}

/// Does it show what is, also while volumes are still coming up?
fn only_looks(command: &Command) -> bool {
    matches!(
        command,
        Command::Report { .. }
            | Command::List { .. }
            | Command::Events { .. }
            | Command::Status
            | Command::Logfilter { .. }
            | Command::Sample { .. }
            | Command::Lvdisplay { .. }
            | Command::Vgcfglist { .. }
    )
}

async fn change(ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Pvcreate { paths, force } => pv::pvcreate(ctx, paths, *force).await,
        Command::Pvremove { paths, force } => pv::pvremove(ctx, paths, *force).await,
        Command::Pvresize { paths, size } => pv::pvresize(ctx, paths, *size).await,
        Command::Pvspare { paths, spare } => pv::pvspare(ctx, paths, *spare).await,
        Command::Vgcreate {
            vg,
            pvs,
            extent_size,
            force,
            tags,
        } => vg::vgcreate(ctx, vg, pvs, *extent_size, *force, tags).await,
        Command::Vgextend { vg, pvs, force } => vg::vgextend(ctx, vg, pvs, *force).await,
        Command::Vgreduce { vg, pvs, missing } => vg::vgreduce(ctx, vg, pvs, *missing).await,
        Command::Vgremove { vg, force } => vg::vgremove(ctx, vg, *force).await,
        Command::Vgrename { vg, new } => vg::vgrename(ctx, vg, new).await,
        Command::VgacceptOlder { vg } => vg_move::accept_older(ctx, vg).await,
        Command::Vgchange { vg, active } => vg_move::vgchange(ctx, vg.as_deref(), *active).await,
        Command::Vgsplit { from, to, pvs, lv } => {
            vg_split::vgsplit(ctx, from, to, pvs, lv.as_deref()).await
        }
        Command::Vgmerge { into, from } => vg_split::vgmerge(ctx, into, from).await,
        Command::Pvtags { paths, add, del } => pv::pvtags(ctx, paths, add, del).await,
        Command::Vgtags { vg, add, del } => vg_move::vgtags(ctx, vg, add, del).await,
        Command::Vgexport { vg } => vg_move::vgexport(ctx, vg).await,
        Command::Vgimport { vg } => vg_move::vgimport(ctx, vg).await,
        Command::Vgcfgbackup { vg, file } => vg_move::vgcfgbackup(ctx, vg, file.as_deref()).await,
        Command::Vgcfgrestore { vg, file, force } => {
            vg_move::vgcfgrestore(ctx, vg, file.as_deref(), *force).await
        }
        Command::Vgscan { paths } => vg_move::vgscan(ctx, paths).await,
        Command::Lvcreate { .. } => lv::lvcreate(ctx, command).await,
        Command::Lvextend { lv, size, pvs } => lv::lvextend(ctx, lv, *size, pvs).await,
        Command::Lvreduce { lv, size, force } => lv::lvreduce(ctx, lv, *size, *force).await,
        Command::Lvremove { lv, force } => lv::lvremove(ctx, lv, *force).await,
        Command::Lvrename { lv, new } => lv::lvrename(ctx, lv, new).await,
        Command::Lvchange { lv, change } => lv_change::lvchange(ctx, lv, change).await,
        Command::Plexattach { lv, pvs } => plex::plexattach(ctx, lv, pvs).await,
        Command::Lvconvert { lv, mirrors, pvs } => plex::lvconvert(ctx, lv, *mirrors, pvs).await,
        Command::Plexdetach { lv, plex, force } => plex::plexdetach(ctx, lv, plex, *force).await,
        Command::Peeradd {
            name,
            addr,
            fingerprint,
            data,
            allow,
            plaintext,
        } => {
            let peer = crate::daemon::peers::Peer {
                name: name.clone(),
                addr: addr.clone(),
                data: data.clone(),
                fingerprint: fingerprint.clone(),
                allow: allow.clone(),
                plaintext: *plaintext,
            };
            peer::peeradd(ctx, &peer).await
        }
        Command::Peerremove { name } => peer::peerremove(ctx, name).await,
        other => Err(wrong(
            "request",
            "cannot be done",
            format!("{other:?} is not a changing verb"),
            "",
        )),
    }
}
