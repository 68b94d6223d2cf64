//! The sink's part of a session, from the verdict on.

use super::FeedState;
use super::api::*;
use super::decide::lineage;
use super::machine::{After, Core};
use crate::generation::{Intent, Lineage, Role};
use crate::wire::control::{
    CaughtUp, Empty, FlowKind, Handshake, Message, PointPrepare, PointRef, RefusalCode, Refused,
    Round, StreamsOffer, SwapReply, SwapRequest, SyncStarted, Verdict,
};
use blockio::mutant;
use uuid::Uuid;

/// Most data streams taken from a source.
pub(super) const STREAMS_MAX: u16 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The source's verdict is awaited.
    Verdict,
    /// The own commit is awaited.
    Accepting,
    /// The driver hands over the own map.
    Exporting,
    /// The source's commit is awaited.
    Offer,
    /// The second commit is awaited.
    Confirming(StreamsOffer),
    /// Rounds.
    Running,
    /// The point is committed here.
    Split,
}

/// What a flush is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Consistent(u64, Lineage),
    Point,
}

#[derive(Clone, Debug)]
pub(super) struct Sink {
    role_epoch: u64,
    flow: FlowKind,
    step: Step,
    ours: Handshake,
    epoch: Option<Uuid>,
    common_epoch: Option<Uuid>,
    seeded: bool,
    /// As committed or about to be.
    consistent: bool,
    round: u64,
    next_flush: u64,
    flush: Option<(u64, Purpose)>,
    /// The source's data as of the last consistent state.
    lineage: Option<Lineage>,
    prepared: Option<PointPrepare>,
    reached: Option<Uuid>,
    asked_swap: bool,
    /// An online restore has begun here.
    restoring: bool,
    source_region_size: u64,
}

/// What becomes of the own map when the source has committed the session.
fn confirmed_map(flow: FlowKind, online: bool, restoring: bool) -> MapChange {
    match (online, flow) {
        (true, _) if restoring => MapChange::Keep,
        (true, FlowKind::Full) => MapChange::AllMissing,
        (true, _) => MapChange::Missing,
        // Also where the verdict found it empty: nothing is tracked here while this is a sink, so a log that was not written before a
        // crash may still hold what has long gone over, and would pass for changes of this side's at the next point.
        (false, _) => MapChange::Clear,
    }
}

impl Sink {
    pub fn new(role_epoch: u64, flow: FlowKind, local: &LocalFeed, theirs: &Handshake) -> Self {
        let (ours, restoring) = (&local.facts, local.restoring);
        let was_source = ours.role == Role::Source;
        Self {
            role_epoch,
            flow,
            step: Step::Verdict,
            epoch: None,
            common_epoch: ours
                .epochs
                .iter()
                .find(|e| theirs.epochs.contains(e))
                .copied(),
            seeded: (ours.seeded || was_source) && flow != FlowKind::Full,
            consistent: (ours.consistent || was_source)
                && !matches!(flow, FlowKind::Full | FlowKind::IncrementalUnion),
            round: 0,
            next_flush: 1,
            flush: None,
            lineage: (flow == FlowKind::FinishSplit).then(|| lineage(ours)),
            ours: ours.clone(),
            prepared: None,
            reached: None,
            asked_swap: false,
            restoring,
            source_region_size: theirs.region_size,
        }
    }

    /// A message of the source; false if it does not belong here.
    pub fn message(&mut self, core: &mut Core, message: Message) -> bool {
        match (&self.step, message) {
            (Step::Verdict, Message::Verdict(verdict)) => self.accept(core, verdict),
            (Step::Offer, Message::Bitmap(bitmap))
                if self.ours.online && bitmap.first_region % 8 == 0 =>
            {
                // Once the restore has begun, what is missing here is known here alone.
                if !self.restoring {
                    let region_size = self.source_region_size;
                    core.out.push(Action::MergeMap {
                        region_size,
                        bitmap,
                    });
                }
            }
            (Step::Offer, Message::StreamsOffer(offer)) => return self.confirm(core, offer),
            (Step::Running, message) => return self.running(core, message),
            // The source knows that the point is here: nothing is left to be said.
            (Step::Split, Message::PointCommit(_)) => core.end(CloseReason::Split),
            _ => return false,
        }
        true
    }

    fn running(&mut self, core: &mut Core, message: Message) -> bool {
        match message {
            Message::SyncStarted(started) => return self.sync_started(core, &started),
            Message::CaughtUp(caught_up) => return self.caught_up(core, caught_up),
            Message::PointPrepare(prepare) => {
                self.prepared = Some(prepare);
                self.point(core);
            }
            Message::SwapRequest(SwapRequest { role_epoch }) => {
                let rights = core.local.as_ref().map(|local| local.rights);
                let allowed = self.asked_swap || rights.is_some_and(|rights| rights.read);
                let refusal = if role_epoch != self.role_epoch.saturating_add(1) {
                    Some((RefusalCode::RoleConflict, "another role epoch"))
                } else if !allowed {
                    Some((RefusalCode::Access, "the peer may not read this volume"))
                } else if !self.consistent {
                    Some((RefusalCode::SourceNotConsistent, "not consistent"))
                } else {
                    None
                };
                core.send(Message::SwapReply(SwapReply {
                    refusal: refusal.map(|(code, text)| Refused {
                        code,
                        text: text.into(),
                    }),
                }));
            }
            Message::SwapReply(_) => core.out.push(Action::Deliver(message)),
            _ => return false,
        }
        true
    }

    /// Something happened here.
    pub fn event(&mut self, core: &mut Core, event: Event) {
        match event {
            Event::MapChunk(bitmap) if self.step == Step::Exporting => {
                core.send(Message::Bitmap(bitmap));
            }
            Event::MapEnd if self.step == Step::Exporting => self.accepted(core),
            Event::Progress(ack) if self.step == Step::Running => core.send(Message::Ack(ack)),
            Event::Flushed { flush, ok } => {
                if let Some((_, purpose)) = self.flush.take_if(|(id, _)| *id == flush) {
                    self.flushed(core, purpose, ok);
                }
            }
            Event::MarkReached { point } if self.step == Step::Running => {
                self.reached = Some(point);
                self.point(core);
            }
            Event::AskSwap if self.step == Step::Running => {
                self.asked_swap = true;
                core.send(Message::SwapRequest(SwapRequest {
                    role_epoch: self.role_epoch.saturating_add(1),
                }));
            }
            // Late news of rounds that are over, and what belongs to a source.
            _ => {}
        }
    }

    /// A commit of this part is durable.
    pub fn committed(&mut self, core: &mut Core, after: After) {
        match after {
            After::Accepted if self.flow == FlowKind::IncrementalUnion => {
                self.step = Step::Exporting;
                core.out.push(Action::ExportMap);
            }
            After::Accepted => self.accepted(core),
            After::Confirmed => {
                let Step::Confirming(offer) = &self.step else {
                    return;
                };
                let connect = core.initiator;
                let offer = offer.clone();
                // Expecting comes before the word that lets the peer connect.
                core.out.push(Action::OpenStreams { offer, connect });
                core.send(Message::Ready(Empty {}));
                self.step = Step::Running;
            }
            After::SyncReady(round) if round == self.round => {
                core.send(Message::SyncReady(Round { round }));
            }
            After::Consistent(round) if round == self.round => {
                core.send(Message::ConsistentDone(Round { round }));
                core.transition(FeedState::Live, "");
                self.point(core);
            }
            After::SinkSplit => {
                if let Some(prepare) = self.prepared.take() {
                    let point = prepare.point;
                    core.send(Message::MarkDone(PointRef { point }));
                }
                self.step = Step::Split;
                core.transition(FeedState::Split, "");
            }
            _ => {}
        }
    }

    fn accept(&mut self, core: &mut Core, verdict: Verdict) {
        if verdict.flow != self.flow {
            core.fail(
                RefusalCode::Disagree,
                "the two sides judged the same facts differently",
            );
            core.transition(FeedState::Refused, "verdicts differ");
            return core.end(CloseReason::Refused(RefusalCode::Disagree));
        }
        if self.flow == FlowKind::FinishSplit {
            self.step = Step::Split;
            return core.transition(FeedState::Split, "");
        }
        self.step = Step::Accepting;
        self.epoch = Some(verdict.epoch);
        let was_source = self.ours.role == Role::Source;
        let change = RecordChange::Session {
            role: Role::Sink,
            role_epoch: self.role_epoch,
            intent: Intent::Attached,
            epochs: [
                Some(verdict.epoch),
                self.common_epoch
                    .filter(|_| !mutant("epoch-forgotten-early")),
            ]
            .into_iter()
            .flatten()
            .collect(),
            content: match self.flow {
                FlowKind::Full => SinkContent::Unseeded,
                FlowKind::IncrementalUnion if self.seeded => SinkContent::Inconsistent,
                _ if was_source => SinkContent::Consistent,
                // The record may still say so though nobody knows how the session before ended, and no
                // round of this one takes back what the session does not believe.
                _ if self.seeded && !self.consistent => SinkContent::Inconsistent,
                _ => SinkContent::Keep,
            },
            online: self.ours.online,
            generation: None,
            map: match self.flow {
                FlowKind::Full | FlowKind::IncrementalUnion if mutant("own-map-cleared-early") => {
                    MapChange::Clear
                }
                _ => MapChange::Keep,
            },
        };
        core.commit(change, After::Accepted);
    }

    fn accepted(&mut self, core: &mut Core) {
        self.step = Step::Offer;
        core.send(Message::Accepted(Empty {}));
    }

    fn confirm(&mut self, core: &mut Core, offer: StreamsOffer) -> bool {
        if offer.count == 0 || offer.count > STREAMS_MAX {
            return false;
        }
        self.step = Step::Confirming(offer);
        let change = RecordChange::Confirmed {
            epochs: self.epoch.into_iter().collect(),
            map: confirmed_map(self.flow, self.ours.online, self.restoring),
        };
        core.commit(change, After::Confirmed);
        true
    }

    fn sync_started(&mut self, core: &mut Core, started: &SyncStarted) -> bool {
        if started.round != self.round + 1 {
            return false;
        }
        self.round = started.round;
        // What was on its way towards an earlier round's end is void.
        self.flush = None;
        self.prepared = None;
        self.reached = None;
        // A commit of consistency may be queued; the one of its loss comes after it.
        let round = self.round;
        let state = if self.seeded {
            FeedState::Resync
        } else {
            FeedState::FullSync
        };
        // The sink has no word for a source that fell behind: it sees the next round.
        if !matches!(core.state, FeedState::FullSync | FeedState::Resync) {
            core.transition(state, "");
        }
        if self.consistent && mutant("resync-stays-consistent") {
            self.consistent = false;
        }
        if self.consistent {
            self.consistent = false;
            core.commit(RecordChange::Inconsistent, After::SyncReady(round));
        } else {
            core.send(Message::SyncReady(Round { round }));
        }
        true
    }

    fn caught_up(&mut self, core: &mut Core, caught_up: CaughtUp) -> bool {
        let due = self.round > 0 && caught_up.round == self.round;
        if !due || self.consistent || self.flush.is_some() {
            return false;
        }
        let lineage = Lineage {
            current: caught_up.generation,
            history: caught_up.history,
        };
        if lineage.history.len() > Lineage::HISTORY_MAX {
            return false;
        }
        let purpose = Purpose::Consistent(caught_up.round, lineage);
        if mutant("consistent-unflushed") {
            self.flushed(core, purpose, true);
            return true;
        }
        self.ask_flush(core, purpose, Some(caught_up.live_sequence));
        true
    }

    fn ask_flush(&mut self, core: &mut Core, purpose: Purpose, live_sequence: Option<u64>) {
        let flush = self.next_flush;
        self.next_flush += 1;
        self.flush = Some((flush, purpose));
        core.out.push(Action::Flush {
            flush,
            live_sequence,
        });
    }

    /// The mark is here and its name is known, in either order: make it durable.
    fn point(&mut self, core: &mut Core) {
        let Some(prepare) = &self.prepared else {
            return;
        };
        let live = core.state == FeedState::Live && self.flush.is_none();
        if live && self.reached == Some(prepare.point) {
            self.ask_flush(core, Purpose::Point, None);
        }
    }

    fn flushed(&mut self, core: &mut Core, purpose: Purpose, ok: bool) {
        if !ok {
            core.fail(RefusalCode::Local, "flush failed");
            core.transition(FeedState::Disconnected, "flush failed");
            return core.end(CloseReason::Failed);
        }
        match purpose {
            Purpose::Consistent(round, lineage) => {
                self.consistent = true;
                self.seeded = true;
                self.lineage = Some(lineage.clone());
                let change = RecordChange::Consistent {
                    generation: lineage,
                };
                core.commit(change, After::Consistent(round));
            }
            Purpose::Point => {
                let (Some(prepare), Some(lineage)) = (&self.prepared, &self.lineage) else {
                    return;
                };
                let mut generation = lineage.clone();
                generation.advance(prepare.point);
                let change = RecordChange::Split {
                    point: prepare.point,
                    name: prepare.name.clone(),
                    time: prepare.time,
                    generation,
                };
                core.commit(change, After::SinkSplit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_nobody_uses_keeps_nothing_that_it_tracked_before() {
        for flow in [
            FlowKind::Full,
            FlowKind::Incremental,
            FlowKind::IncrementalUnion,
            FlowKind::Nothing,
        ] {
            assert_eq!(confirmed_map(flow, false, false), MapChange::Clear);
            assert_eq!(confirmed_map(flow, true, true), MapChange::Keep);
        }
    }
}
