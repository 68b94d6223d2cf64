//! The source's part of a session, from the verdict on.

use super::FeedState;
use super::api::*;
use super::decide::lineage;
use super::machine::{After, Core, RESUME_AFTER_MS};
use crate::generation::{Intent, Lineage, Role};
use crate::wire::control::{
    Ack, CaughtUp, Empty, FlowKind, Handshake, Message, PointPrepare, PointRef, RefusalCode,
    StreamsOffer, SwapReply, SwapRequest, SyncStarted, Verdict, WireRange,
};
use blockio::mutant;
use uuid::Uuid;

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The sink's commit is awaited, and its map if asked for.
    Accepting,
    /// The own commit is awaited.
    Committing,
    /// Online restore: the driver hands over the own map, for the sink to know what it misses.
    Exporting,
    /// Ready and the streams are awaited, in either order.
    Connecting { ready: bool, streams: bool },
    /// Rounds.
    Running,
    /// The sink has the point; the own commit is awaited.
    Finishing,
}

/// How far the present round is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Copy {
    /// Announced: the sink's commit is awaited; then these are marked dirty.
    Announced { ranges: Vec<WireRange> },
    /// The engine copies.
    Copying,
    /// Nothing is dirty; the sink's commit is awaited.
    Confirming,
    /// Live.
    Done,
    /// Too slow, since then; milliseconds.
    Behind { since_ms: u64 },
}

/// A point at which the feed ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ending {
    point: Uuid,
    name: String,
    time: u64,
    /// The roles are exchanged.
    swap: bool,
    /// A swap waits for the peer's agreement.
    agreed: bool,
    /// The mark is in the stream.
    sent: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Source {
    role_epoch: u64,
    flow: FlowKind,
    step: Step,
    copy: Copy,
    round: u64,
    /// The engine may send.
    online: bool,
    first_copy: bool,
    seeded: bool,
    lineage: Lineage,
    was_source: bool,
    intent: Intent,
    region_size: u64,
    /// The sink's volume is in use while this side restores it.
    online_restore: bool,
    ending: Option<Ending>,
    acks: Vec<Ack>,
}

impl Source {
    pub fn new(role_epoch: u64, flow: FlowKind, ours: &Handshake, theirs: &Handshake) -> Self {
        let was_source = ours.role == Role::Source;
        let sink_seeded = theirs.seeded || theirs.role == Role::Source;
        Self {
            role_epoch,
            flow,
            step: Step::Accepting,
            copy: Copy::Done,
            round: 0,
            online: false,
            first_copy: flow == FlowKind::Full || !sink_seeded,
            seeded: ours.seeded,
            lineage: lineage(ours),
            was_source,
            intent: match &ours.intent {
                // The sink has left the point already: what is missing is the word of this side.
                Intent::Split { .. } if flow != FlowKind::FinishSplit => Intent::Attached,
                intent if was_source => intent.clone(),
                _ => Intent::Attached,
            },
            region_size: theirs.region_size,
            online_restore: theirs.online,
            ending: None,
            acks: Vec::new(),
        }
    }

    /// Tells the sink the verdict.
    pub fn start(&mut self, core: &mut Core) {
        if let Intent::Detaching { point, name } = &self.intent {
            self.ending = Some(Ending {
                point: *point,
                name: name.clone(),
                time: core.config.wall_time,
                swap: false,
                agreed: true,
                sent: false,
            });
        }
        core.send(Message::Verdict(Verdict {
            flow: self.flow,
            epoch: core.config.fresh.epoch,
        }));
        if self.flow == FlowKind::FinishSplit {
            self.step = Step::Finishing;
            match self.ending.take() {
                Some(ending) => self.commit_split(core, ending),
                // The record says so already; only the peer has not heard of it.
                None => self.split_done(core),
            }
        }
    }

    /// A message of the sink; false if it does not belong here.
    pub fn message(&mut self, core: &mut Core, message: Message) -> bool {
        match (self.step, message) {
            (Step::Accepting, Message::Bitmap(bitmap))
                if self.flow == FlowKind::IncrementalUnion && bitmap.first_region % 8 == 0 =>
            {
                let region_size = self.region_size;
                core.out.push(Action::MergeMap {
                    region_size,
                    bitmap,
                });
            }
            (Step::Accepting, Message::Accepted(_)) => self.commit_session(core),
            (
                Step::Connecting {
                    ready: false,
                    streams,
                },
                Message::Ready(_),
            ) => {
                if core.initiator {
                    let offer = offer(core);
                    core.out.push(Action::OpenStreams {
                        offer,
                        connect: true,
                    });
                }
                self.connecting(core, true, streams);
            }
            (Step::Running, message) => return self.running(core, message),
            // Progress of streams that are already gone.
            (Step::Finishing, Message::Ack(_)) => {}
            _ => return false,
        }
        true
    }

    fn running(&mut self, core: &mut Core, message: Message) -> bool {
        match message {
            Message::SyncReady(round) if round.round == self.round => self.copy_starts(core),
            Message::ConsistentDone(round) if round.round <= self.round => {
                if round.round == self.round && self.copy == Copy::Confirming {
                    self.live(core);
                }
            }
            Message::Ack(ack) => return self.acked(core, ack),
            Message::MarkDone(PointRef { point }) => {
                let ending = self.ending.take_if(|e| e.sent && e.point == point);
                return ending.map(|ending| self.mark_done(core, ending)).is_some();
            }
            Message::SwapRequest(SwapRequest { role_epoch }) => {
                if role_epoch != self.role_epoch.saturating_add(1) {
                    return false;
                }
                core.out.push(Action::PeerWantsSwap);
            }
            Message::SwapReply(SwapReply { refusal }) => match (&mut self.ending, &refusal) {
                (Some(ending), None) if ending.swap && !ending.agreed => {
                    ending.agreed = true;
                    self.mark(core);
                }
                (Some(ending), Some(_)) if ending.swap && !ending.agreed => {
                    self.ending = None;
                    core.out
                        .push(Action::Deliver(Message::SwapReply(SwapReply { refusal })));
                }
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    /// Something happened here.
    pub fn event(&mut self, core: &mut Core, event: Event) {
        match event {
            Event::StreamsUp => {
                if let Step::Connecting { ready, .. } = self.step {
                    self.connecting(core, ready, true);
                }
            }
            Event::MapChunk(bitmap) if self.step == Step::Exporting => {
                core.send(Message::Bitmap(bitmap));
            }
            Event::MapEnd if self.step == Step::Exporting => self.offer_streams(core),
            Event::CaughtUp { live_sequence } if self.copy == Copy::Copying => {
                self.copy = Copy::Confirming;
                core.send(Message::CaughtUp(CaughtUp {
                    round: self.round,
                    live_sequence,
                    generation: match mutant("generation-told-early") {
                        true => core.config.fresh.generations[1],
                        false => self.lineage.current,
                    },
                    history: self.lineage.history.clone(),
                }));
            }
            Event::Behind if self.step == Step::Running => self.behind(core),
            Event::MarkFailed { point } => {
                // Only a mark of this session's own: a feed that goes on detaching has the point of the
                // session before.
                if let Some(ending) = &mut self.ending
                    && ending.point == point
                    && ending.sent
                {
                    ending.sent = false;
                    // The engine is cut off or only tracks since; a new round makes the feed whole from
                    // the start, then marks again.
                    self.leave(core);
                    self.behind(core);
                }
            }
            Event::Detach { point, name, time } if self.may_end() && !self.online_restore => {
                let change = RecordChange::Detaching {
                    point,
                    name: name.clone(),
                };
                self.ending = Some(Ending {
                    point,
                    name,
                    time,
                    swap: false,
                    agreed: false,
                    sent: false,
                });
                core.commit(change, After::Detaching);
            }
            Event::Swap { point, name, time } if self.may_end() && self.copy == Copy::Done => {
                self.ending = Some(Ending {
                    point,
                    name,
                    time,
                    swap: true,
                    agreed: false,
                    sent: false,
                });
                core.send(Message::SwapRequest(SwapRequest {
                    role_epoch: self.role_epoch.saturating_add(1),
                }));
            }
            Event::Swap { .. } | Event::Detach { .. } => {
                core.out.push(Action::Deliver(Message::SwapReply(SwapReply {
                    refusal: Some(crate::wire::control::Refused {
                        code: RefusalCode::WrongState,
                        text: format!("the feed is {:?} or already ending", core.state),
                    }),
                })));
            }
            Event::SwapRefused(refused) => core.send(Message::SwapReply(SwapReply {
                refusal: Some(refused),
            })),
            Event::Repair(ranges) if self.step == Step::Running => self.repair(core, ranges),
            // Late news of streams and rounds that are over, and what belongs to a sink.
            _ => {}
        }
    }

    /// A commit of this part is durable.
    pub fn committed(&mut self, core: &mut Core, after: After) {
        match after {
            After::SourceSession if self.online_restore => {
                // From this commit on nothing changes here, so the map is what the sink misses.
                self.step = Step::Exporting;
                core.out.push(Action::ExportMap);
            }
            After::SourceSession => self.offer_streams(core),
            After::Detaching => {
                if mutant("point-committed-early")
                    && let Some(ending) = self.ending.take()
                {
                    return self.commit_split(core, ending);
                }
                if let Some(ending) = &mut self.ending {
                    ending.agreed = true;
                }
                self.mark(core);
            }
            After::SourceSplit => self.split_done(core),
            After::Swapped => {
                core.send(Message::Bye(Empty {}));
                core.transition(FeedState::Disconnected, "roles exchanged");
                core.end(CloseReason::Swapped);
            }
            _ => {}
        }
    }

    pub fn tick(&mut self, core: &mut Core) {
        if let Copy::Behind { since_ms } = self.copy
            && core.now_ms - since_ms >= RESUME_AFTER_MS
        {
            self.announce(core, Vec::new());
        }
    }

    /// The session ends: the engine must not count on the streams.
    pub fn leave(&mut self, core: &mut Core) {
        if self.online {
            self.online = false;
            core.out.push(Action::FeedOffline);
        }
    }

    fn commit_session(&mut self, core: &mut Core) {
        self.step = Step::Committing;
        let mut generation = None;
        if !self.was_source {
            // What is written from now on is no longer the state that others have a copy of.
            self.lineage.advance(core.config.fresh.generations[0]);
            generation = Some(self.lineage.clone());
        }
        let change = RecordChange::Session {
            role: Role::Source,
            role_epoch: self.role_epoch,
            intent: self.intent.clone(),
            epochs: vec![core.config.fresh.epoch],
            content: SinkContent::Keep,
            online: self.online_restore,
            generation,
            map: match self.flow {
                FlowKind::Full => MapChange::AllDirty,
                _ => MapChange::Keep,
            },
        };
        core.commit(change, After::SourceSession);
    }

    fn offer_streams(&mut self, core: &mut Core) {
        let offer = offer(core);
        if !core.initiator {
            core.out.push(Action::OpenStreams {
                offer: offer.clone(),
                connect: false,
            });
        }
        core.send(Message::StreamsOffer(offer));
        self.step = Step::Connecting {
            ready: false,
            streams: false,
        };
    }

    fn connecting(&mut self, core: &mut Core, ready: bool, streams: bool) {
        self.step = Step::Connecting { ready, streams };
        if ready && streams {
            self.step = Step::Running;
            self.announce(core, Vec::new());
        }
    }

    /// Announces a round.
    fn announce(&mut self, core: &mut Core, ranges: Vec<WireRange>) {
        self.round += 1;
        self.copy = Copy::Announced { ranges };
        core.send(Message::SyncStarted(SyncStarted {
            round: self.round,
            flow: self.flow,
            bytes: match (&core.local, self.flow) {
                (Some(local), FlowKind::Full) => local.facts.size,
                (Some(local), _) => local.dirty_bytes,
                (None, _) => 0,
            },
        }));
        let state = if self.first_copy {
            FeedState::FullSync
        } else {
            FeedState::Resync
        };
        core.transition(state, "");
    }

    fn copy_starts(&mut self, core: &mut Core) {
        let Copy::Announced { ranges } = &mut self.copy else {
            return;
        };
        let ranges = std::mem::take(ranges);
        self.copy = Copy::Copying;
        if !ranges.is_empty() {
            core.out.push(Action::SetDirty(ranges));
        }
        if self.online {
            core.out.push(Action::FeedResume);
        } else {
            self.online = true;
            core.out.push(Action::FeedOnline);
        }
    }

    fn live(&mut self, core: &mut Core) {
        self.copy = Copy::Done;
        self.first_copy = false;
        if !self.seeded {
            self.seeded = true;
            core.commit(RecordChange::Seeded, After::Nothing);
        }
        core.transition(FeedState::Live, "");
        self.mark(core);
    }

    fn behind(&mut self, core: &mut Core) {
        if self.ending.as_ref().is_some_and(|ending| ending.sent) {
            // With the mark in the stream nothing follows; without it, MarkFailed comes.
            return;
        }
        match self.copy {
            Copy::Copying | Copy::Confirming | Copy::Done => {
                self.copy = Copy::Behind {
                    since_ms: core.now_ms,
                };
                core.transition(FeedState::Behind, "the sink is too slow");
            }
            // The announced round resumes it.
            Copy::Announced { .. } | Copy::Behind { .. } => {}
        }
    }

    fn repair(&mut self, core: &mut Core, mut more: Vec<WireRange>) {
        if mutant("feed-repair-copies-nothing") {
            more.clear();
        }
        match &mut self.copy {
            Copy::Announced { ranges } => ranges.append(&mut more),
            Copy::Copying | Copy::Behind { .. } => core.out.push(Action::SetDirty(more)),
            // From the mark on nothing is sent; the map keeps it for the next session.
            Copy::Confirming | Copy::Done if self.ending.as_ref().is_some_and(|e| e.sent) => {
                core.out.push(Action::SetDirty(more));
            }
            Copy::Confirming | Copy::Done if mutant("feed-repair-unannounced") => {
                core.out.push(Action::SetDirty(more));
            }
            Copy::Confirming | Copy::Done => self.announce(core, more),
        }
    }

    fn may_end(&self) -> bool {
        self.step == Step::Running && self.ending.is_none()
    }

    /// Puts the mark into the stream, if everything is there that it takes.
    fn mark(&mut self, core: &mut Core) {
        if self.copy != Copy::Done {
            return;
        }
        if let Some(ending) = &mut self.ending
            && ending.agreed
            && !ending.sent
        {
            ending.sent = true;
            core.send(Message::PointPrepare(PointPrepare {
                point: ending.point,
                name: ending.name.clone(),
                time: ending.time,
            }));
            let point = ending.point;
            core.out.push(Action::RequestMark { point });
        }
    }

    fn mark_done(&mut self, core: &mut Core, ending: Ending) {
        self.step = Step::Finishing;
        if ending.swap {
            let change = RecordChange::Swapped {
                role_epoch: self.role_epoch.saturating_add(1),
                point: ending.point,
                name: ending.name,
                time: ending.time,
            };
            self.leave(core);
            core.commit(change, After::Swapped);
        } else {
            self.commit_split(core, ending);
        }
    }

    fn commit_split(&mut self, core: &mut Core, ending: Ending) {
        // Only now: the sink has the point durably. What is written here since has another name.
        self.lineage.advance(ending.point);
        self.lineage.advance(core.config.fresh.generations[1]);
        let change = RecordChange::Split {
            point: ending.point,
            name: ending.name,
            time: ending.time,
            generation: self.lineage.clone(),
        };
        self.leave(core);
        core.commit(change, After::SourceSplit);
        self.intent = Intent::Split {
            point: ending.point,
        };
    }

    fn split_done(&mut self, core: &mut Core) {
        if let Intent::Split { point } = self.intent {
            core.send(Message::PointCommit(PointRef { point }));
        }
        core.transition(FeedState::Split, "");
        core.end(CloseReason::Split);
    }

    /// Checks and passes on an acknowledgement.
    fn acked(&mut self, core: &mut Core, ack: Ack) -> bool {
        if ack.stream >= core.config.streams || ack.durable > ack.applied {
            return false;
        }
        match self.acks.iter_mut().find(|last| last.stream == ack.stream) {
            Some(last) if ack.applied < last.applied || ack.durable < last.durable => return false,
            Some(last) => *last = ack.clone(),
            None => self.acks.push(ack.clone()),
        }
        core.out.push(Action::Acked(ack));
        true
    }
}

fn offer(core: &Core) -> StreamsOffer {
    StreamsOffer {
        session: core.config.fresh.session,
        token: core.config.fresh.token,
        count: core.config.streams,
    }
}
