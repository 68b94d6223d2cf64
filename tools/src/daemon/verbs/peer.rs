//! `peeradd`, `peerremove`: who this node trusts, and with what.

use super::{Ctx, fail};
use crate::api::Failure;
use crate::daemon::peers::Peer;

/// `peeradd`. The same name again changes the entry.
pub async fn peeradd(ctx: &Ctx, peer: &Peer) -> Result<(), Failure> {
    let what = "cannot add peer";
    check_name(&peer.name)?;
    for addr in std::iter::once(&peer.addr).chain(&peer.data) {
        check_address(addr).map_err(|why| {
            fail(
                &peer.name,
                what,
                format!("`{addr}`: {why}"),
                "give ADDR:PORT",
            )
        })?;
    }
    let fingerprint = check_fingerprint(&peer.fingerprint).map_err(|why| {
        fail(
            &peer.name,
            what,
            why,
            "`volmgr nodeshow` on the peer prints it",
        )
    })?;
    check_rules(&peer.allow).map_err(|why| {
        fail(
            &peer.name,
            what,
            why,
            "a rule is feed, read, create or all, optionally :PATTERN, with ! in front to exclude",
        )
    })?;
    if let Some(other) = ctx
        .node
        .peers
        .by_fingerprint(&fingerprint)
        .filter(|other| other.name != peer.name)
    {
        return Err(fail(
            &peer.name,
            what,
            format!("peer {} has this fingerprint", other.name),
            "remove that one first",
        ));
    }
    let peer = Peer {
        fingerprint,
        ..peer.clone()
    };
    let known = ctx.node.peers.get(&peer.name).is_some();
    if ctx.would(&format!(
        "{} peer {} at {}",
        if known { "change" } else { "add" },
        peer.name,
        peer.addr
    )) {
        return Ok(());
    }
    let name = peer.name.clone();
    ctx.node
        .peers
        .put(&ctx.node.state, peer)
        .map_err(|error| fail(&name, what, error, ""))?;
    ctx.node.event(
        if known { "peer-changed" } else { "peer-added" },
        &name,
        if known { "peer changed" } else { "peer added" },
    );
    ctx.node.peers_changed();
    Ok(())
}

/// `peerremove`; refused while a feed of ours names it.
pub async fn peerremove(ctx: &Ctx, name: &str) -> Result<(), Failure> {
    let what = "cannot remove peer";
    if ctx.node.peers.get(name).is_none() {
        return Err(fail(name, what, "no such peer", "see `volmgr peers`"));
    }
    if let Some(user) = ctx.node.groups.feed_of_peer(name) {
        return Err(fail(
            name,
            what,
            format!("{user} has a feed with it"),
            "detach it first",
        ));
    }
    if ctx.would(&format!("remove peer {name}")) {
        return Ok(());
    }
    ctx.node
        .peers
        .remove(&ctx.node.state, name)
        .map_err(|error| fail(name, what, error, ""))?;
    ctx.node.event("peer-removed", name, "peer removed");
    ctx.node.peers_changed();
    Ok(())
}

fn check_name(name: &str) -> Result<(), Failure> {
    volmgr::names::check(name)
        .map_err(|error| super::wrong(name, "cannot add peer", error, "choose another name"))
}

/// Form only: names may be resolvable later.
fn check_address(addr: &str) -> Result<(), String> {
    let (host, port) = addr.rsplit_once(':').ok_or("no port")?;
    if host.is_empty() {
        return Err("no host".into());
    }
    if port.parse::<u16>().is_ok_and(|port| port != 0) {
        Ok(())
    } else {
        Err(format!("`{port}` is not a port"))
    }
}

/// Normalises a fingerprint.
fn check_fingerprint(text: &str) -> Result<String, String> {
    text.parse::<feedplex::identity::Fingerprint>()
        .map(|fingerprint| fingerprint.to_string())
        .map_err(|error| error.to_string())
}

/// The rules must be such that the feeds will understand them.
fn check_rules(rules: &[String]) -> Result<(), String> {
    feedplex::access::Rules::parse(rules)
        .map(drop)
        .map_err(|error| error.to_string())
}
