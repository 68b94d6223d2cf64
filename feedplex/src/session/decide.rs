//! From two handshakes to roles and a verdict, the same on both sides.

use super::api::Rights;
use crate::generation::{
    Intent, Lineage, Role, RoleClaim, RoleResolution, SinkView, SourcePoint, SourceView, Verdict,
    resolve_roles, verdict,
};
use crate::wire::control::{Handshake, RefusalCode};
use blockio::mutant;

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// This side's role and epoch.
    pub claim: RoleClaim,
    /// What has to flow.
    pub flow: crate::wire::control::FlowKind,
}

fn claim(facts: &Handshake) -> RoleClaim {
    if facts.swap {
        RoleClaim {
            role: facts.role.other(),
            epoch: facts.role_epoch.saturating_add(1),
        }
    } else {
        RoleClaim {
            role: facts.role,
            epoch: facts.role_epoch,
        }
    }
}

pub(super) fn lineage(facts: &Handshake) -> Lineage {
    Lineage {
        current: facts.generation,
        history: facts.history.clone(),
    }
}

fn source_view(facts: &Handshake) -> SourceView {
    let was_source = facts.role == Role::Source;
    SourceView {
        size: facts.size,
        known: facts.known,
        good: was_source || (facts.seeded && facts.consistent),
        dirty: facts.dirty,
        point: match facts.intent {
            Intent::Detaching { point, .. } if was_source => SourcePoint::Detaching(point),
            Intent::Split { point } if was_source => SourcePoint::Split(point),
            _ => SourcePoint::None,
        },
        epochs: facts.epochs.clone(),
        stamp: facts.stamp,
        seen: facts.seen,
        lineage: lineage(facts),
    }
}

fn sink_view(facts: &Handshake) -> SinkView {
    let was_source = facts.role == Role::Source;
    SinkView {
        size: facts.size,
        known: facts.known,
        fresh: facts.fresh,
        seeded: was_source || facts.seeded || facts.online,
        consistent: was_source || facts.consistent,
        own_changes: facts.dirty && !mutant("own-changes-overlooked"),
        split: match facts.intent {
            Intent::Split { point } if !was_source => Some(point),
            _ => None,
        },
        epochs: facts.epochs.clone(),
        stamp: facts.stamp,
        seen: facts.seen,
        lineage: lineage(facts),
    }
}

/// Roles and verdict, or why there is none. `rights`: what the peer may do here, `None` where this node's admin drives
/// (the initiator).
pub fn decide(
    ours: &Handshake,
    theirs: &Handshake,
    rights: Rights,
    initiator: bool,
) -> Result<Decision, RefusalCode> {
    if ours.feed != theirs.feed {
        return Err(RefusalCode::Protocol);
    }
    let (claim, peer_drives) = match resolve_roles(claim(ours), claim(theirs)) {
        RoleResolution::AsClaimed(claim) => (claim, !initiator),
        RoleResolution::PeerAdopts(claim) => (claim, false),
        RoleResolution::Adopt(claim) => (claim, true),
        RoleResolution::Conflict => return Err(RefusalCode::RoleConflict),
    };
    let allowed = match claim.role {
        Role::Source => rights.read,
        Role::Sink => rights.feed,
    };
    if peer_drives && !allowed {
        return Err(RefusalCode::Access);
    }
    let (source, sink) = match claim.role {
        Role::Source => (ours, theirs),
        Role::Sink => (theirs, ours),
    };
    let consent = source.discard_peer || sink.discard_local;
    match verdict(&source_view(source), &sink_view(sink), consent) {
        Verdict::Flow(flow) => Ok(Decision { claim, flow }),
        Verdict::Refused(code) => Err(code),
    }
}
