//! One session alone: refusals, the clock, falling behind, and a peer that says anything at all.

use super::*;
use crate::generation::{Intent, Role};
use crate::wire::control::*;
use crate::wire::preamble::Token;
use proptest::prelude::*;
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn config() -> SessionConfig {
    SessionConfig {
        node: id(1),
        name: "here".into(),
        fingerprint: String::new(),
        run: id(11),
        fresh: FreshIds {
            epoch: id(50),
            session: id(51),
            token: Token([1; 32]),
            generations: [id(52), id(53)],
        },
        streams: 2,
        wall_time: 9,
    }
}

/// The facts of a feed that was live in session epoch 40.
fn facts(role: Role) -> Handshake {
    Handshake {
        feed: id(2),
        target: "vg/lv".into(),
        create: false,
        volume: id(3),
        name: "vg/lv".into(),
        size: 1 << 20,
        region_size: 65536,
        role,
        role_epoch: 0,
        swap: false,
        online: false,
        sync_mode: false,
        block: false,
        intent: Intent::Attached,
        known: true,
        fresh: false,
        seeded: true,
        consistent: true,
        dirty: role == Role::Source,
        discard_peer: false,
        discard_local: false,
        epochs: vec![id(40)],
        stamp: 0,
        seen: 0,
        generation: id(4),
        history: Vec::new(),
    }
}

fn local(role: Role) -> LocalFeed {
    LocalFeed {
        facts: facts(role),
        rights: Rights {
            feed: true,
            read: false,
        },
        dirty_bytes: 4096,
        restoring: false,
    }
}

fn hello() -> Message {
    Message::Hello(Hello {
        version_min: 1,
        version_max: 7,
        features: 0,
        node: id(9),
        name: "there".into(),
        fingerprint: String::new(),
        run: id(10),
    })
}

fn sent(actions: &[Action]) -> Vec<&Message> {
    let mut messages = Vec::new();
    for action in actions {
        if let Action::Send(message) = action {
            messages.push(message);
        }
    }
    messages
}

/// An initiating source that has sent its verdict.
fn source() -> Session {
    let (mut session, _) = Session::initiator(config(), local(Role::Source), 0);
    session.handle(Event::Message(hello()), 0);
    let theirs = Message::Handshake(facts(Role::Sink));
    let actions = session.handle(Event::Message(theirs), 0);
    assert!(matches!(
        sent(&actions)[..],
        [Message::Verdict(Verdict {
            flow: FlowKind::Incremental,
            ..
        })]
    ));
    session
}

/// An accepting sink that waits for the verdict.
fn sink() -> Session {
    let mut session = Session::acceptor(config(), 0);
    session.handle(Event::Message(hello()), 0);
    let theirs = Message::Handshake(facts(Role::Source));
    let actions = session.handle(Event::Message(theirs), 0);
    assert!(matches!(actions[..], [Action::Open(_)]));
    session.handle(Event::Opened(Box::new(local(Role::Sink))), 0);
    assert_eq!(session.role(), Some(Role::Sink));
    session
}

/// Answers every commit at once and returns what else there was.
fn drive(session: &mut Session, event: Event, now_ms: u64) -> Vec<Action> {
    let mut all = Vec::new();
    let mut actions = session.handle(event, now_ms);
    loop {
        let commit = actions.iter().find_map(|action| match action {
            Action::Commit { id, .. } => Some(*id),
            _ => None,
        });
        all.append(&mut actions);
        match commit {
            Some(id) => actions = session.handle(Event::Committed(id), now_ms),
            None => return all,
        }
    }
}

fn live_source() -> Session {
    let mut session = source();
    let message = |session: &mut Session, m| drive(session, Event::Message(m), 0);
    message(&mut session, Message::Accepted(Empty {}));
    message(&mut session, Message::Ready(Empty {}));
    drive(&mut session, Event::StreamsUp, 0);
    assert_eq!(session.state(), FeedState::Resync);
    let actions = message(&mut session, Message::SyncReady(Round { round: 1 }));
    assert_eq!(actions, [Action::FeedOnline]);
    drive(&mut session, Event::CaughtUp { live_sequence: 1 }, 0);
    message(&mut session, Message::ConsistentDone(Round { round: 1 }));
    assert_eq!(session.state(), FeedState::Live);
    session
}

#[test]
fn no_common_version_is_refused() {
    let mut session = Session::acceptor(config(), 0);
    let Message::Hello(mut theirs) = hello() else {
        unreachable!("hello is a hello")
    };
    theirs.version_min = 2;
    let actions = session.handle(Event::Message(Message::Hello(theirs)), 0);
    assert!(actions.contains(&Action::Close(CloseReason::Refused(RefusalCode::Version))));
    assert_eq!(session.state(), FeedState::Refused);
}

#[test]
fn a_peer_without_the_right_is_refused() {
    let mut session = Session::acceptor(config(), 0);
    session.handle(Event::Message(hello()), 0);
    session.handle(Event::Message(Message::Handshake(facts(Role::Source))), 0);
    let mut local = local(Role::Sink);
    local.rights.feed = false;
    let actions = session.handle(Event::Opened(Box::new(local)), 0);
    assert!(actions.contains(&Action::Close(CloseReason::Refused(RefusalCode::Access))));
}

#[test]
fn a_peer_may_not_take_back_what_it_may_not_read() {
    let mut session = Session::acceptor(config(), 0);
    session.handle(Event::Message(hello()), 0);
    let mut theirs = facts(Role::Source);
    (theirs.swap, theirs.dirty) = (true, false);
    session.handle(Event::Message(Message::Handshake(theirs)), 0);
    let actions = session.handle(Event::Opened(Box::new(local(Role::Sink))), 0);
    assert!(actions.contains(&Action::Close(CloseReason::Refused(RefusalCode::Access))));
}

#[test]
fn a_sink_does_not_take_another_verdict_than_its_own() {
    let mut session = sink();
    let verdict = Message::Verdict(Verdict {
        flow: FlowKind::Nothing,
        epoch: id(50),
    });
    let actions = session.handle(Event::Message(verdict), 0);
    assert!(actions.contains(&Action::Close(CloseReason::Refused(RefusalCode::Disagree))));
    assert!(!actions.iter().any(|a| matches!(a, Action::Commit { .. })));
}

#[test]
fn silence_is_noticed_and_prevented() {
    let mut session = live_source();
    assert!(session.handle(Event::Tick, 4_999).is_empty());
    let actions = session.handle(Event::Tick, 5_000);
    assert!(matches!(sent(&actions)[..], [Message::Keepalive(_)]));
    let reply = Message::KeepaliveReply(Nonce { nonce: 1 });
    session.handle(Event::Message(reply), 6_000);
    session.handle(Event::Tick, 20_999);
    assert!(!session.is_closed());
    let actions = session.handle(Event::Tick, 21_000);
    assert_eq!(actions[0], Action::FeedOffline);
    assert_eq!(actions.last(), Some(&Action::Close(CloseReason::Lost)));
    assert_eq!(session.state(), FeedState::Disconnected);
    assert!(session.handle(Event::Tick, 22_000).is_empty());
}

#[test]
fn behind_is_tried_again_in_a_new_round() {
    let mut session = live_source();
    session.handle(Event::Behind, 1_000);
    assert_eq!(session.state(), FeedState::Behind);
    assert!(
        session
            .handle(Event::Tick, 999 + RESUME_AFTER_MS)
            .is_empty()
    );
    let actions = session.handle(Event::Tick, 1_000 + RESUME_AFTER_MS);
    assert!(matches!(
        sent(&actions)[..],
        [Message::SyncStarted(SyncStarted { round: 2, .. })]
    ));
    // The confirmation of the round before says nothing about this one.
    let late = Message::ConsistentDone(Round { round: 1 });
    session.handle(Event::Message(late), 2_000);
    assert_eq!(session.state(), FeedState::Resync);
    let ready = Message::SyncReady(Round { round: 2 });
    let actions = session.handle(Event::Message(ready), 2_000);
    assert_eq!(actions, [Action::FeedResume]);
}

#[test]
fn a_mark_that_did_not_get_in_is_made_again_after_the_next_round() {
    let mut session = live_source();
    let detach = Event::Detach {
        point: id(70),
        name: "p".into(),
        time: 1,
    };
    let mark = Action::RequestMark { point: id(70) };
    assert!(drive(&mut session, detach, 0).contains(&mark));
    session.handle(Event::MarkFailed { point: id(70) }, 0);
    session.handle(Event::Tick, 1_000);
    let ready = Message::SyncReady(Round { round: 2 });
    session.handle(Event::Message(ready), 1_000);
    session.handle(Event::CaughtUp { live_sequence: 5 }, 1_000);
    let done = Message::ConsistentDone(Round { round: 2 });
    let actions = session.handle(Event::Message(done), 1_000);
    assert!(actions.contains(&mark));
}

#[test]
fn a_mark_of_the_session_before_is_not_this_ones() {
    let mut facts = local(Role::Source);
    facts.facts.intent = Intent::Detaching {
        point: id(70),
        name: "p".into(),
    };
    let (mut session, _) = Session::initiator(config(), facts, 0);
    session.handle(Event::Message(hello()), 0);
    let theirs = Message::Handshake(self::facts(Role::Sink));
    session.handle(Event::Message(theirs), 0);
    let late = session.handle(Event::MarkFailed { point: id(70) }, 0);
    assert_eq!(late, []);
    assert_eq!(session.state(), FeedState::Connecting);
}

#[test]
fn a_sink_that_is_not_believed_says_so_in_its_record() {
    // Killed while it was fed: the record has it consistent, but unsettled.
    let mut session = Session::acceptor(config(), 0);
    session.handle(Event::Message(hello()), 0);
    let theirs = Message::Handshake(facts(Role::Source));
    session.handle(Event::Message(theirs), 0);
    let mut ours = local(Role::Sink);
    ours.facts.consistent = false;
    session.handle(Event::Opened(Box::new(ours)), 0);
    let verdict = Message::Verdict(Verdict {
        flow: FlowKind::Incremental,
        epoch: id(41),
    });
    let actions = session.handle(Event::Message(verdict), 0);
    let Action::Commit { change, .. } = &actions[0] else {
        panic!("{actions:?}");
    };
    let RecordChange::Session { content, .. } = change else {
        panic!("{change:?}");
    };
    assert_eq!(*content, SinkContent::Inconsistent);
}

#[test]
fn repair_goes_through_a_round_of_its_own() {
    let mut session = live_source();
    let ranges = vec![WireRange {
        offset: 0,
        length: 65536,
    }];
    let actions = session.handle(Event::Repair(ranges.clone()), 0);
    assert!(!actions.contains(&Action::SetDirty(ranges.clone())));
    let ready = Message::SyncReady(Round { round: 2 });
    let actions = session.handle(Event::Message(ready), 0);
    assert_eq!(actions[0], Action::SetDirty(ranges));
}

#[test]
fn pause_is_committed_and_told() {
    let mut session = live_source();
    let actions = drive(&mut session, Event::Pause, 0);
    assert!(actions.contains(&Action::FeedOffline));
    assert_eq!(actions.last(), Some(&Action::Close(CloseReason::Paused)));
    assert_eq!(session.state(), FeedState::Paused);
}

#[test]
fn acknowledgements_that_go_back_end_the_session() {
    for (applied, durable) in [(9, 10), (4, 4), (6, 3)] {
        let mut session = live_source();
        let ack = |applied, durable| {
            Event::Message(Message::Ack(Ack {
                stream: 0,
                applied,
                durable,
            }))
        };
        let actions = session.handle(ack(5, 5), 0);
        assert!(matches!(actions[..], [Action::Acked(_)]));
        session.handle(ack(applied, durable), 0);
        assert!(session.is_closed(), "{applied} {durable}");
    }
}

#[test]
fn a_failed_commit_ends_the_session() {
    let mut session = source();
    let accepted = Event::Message(Message::Accepted(Empty {}));
    let actions = session.handle(accepted, 0);
    let [Action::Commit { id, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    let actions = session.handle(Event::CommitFailed(id, "no space".into()), 0);
    assert_eq!(actions.last(), Some(&Action::Close(CloseReason::Failed)));
}

fn any_event() -> impl Strategy<Value = Event> {
    let round = || 0u64..3;
    let point = || (70u128..72).prop_map(id);
    let flow = prop::sample::select(FlowKind::ALL);
    let messages = prop_oneof![
        Just(hello()),
        Just(Message::Handshake(facts(Role::Source))),
        flow.clone().prop_map(|flow| Message::Verdict(Verdict {
            flow,
            epoch: id(50)
        })),
        Just(Message::Accepted(Empty {})),
        (0u16..3).prop_map(|count| Message::StreamsOffer(StreamsOffer {
            session: id(51),
            token: Token([0; 32]),
            count,
        })),
        Just(Message::Ready(Empty {})),
        (round(), flow).prop_map(|(round, flow)| Message::SyncStarted(SyncStarted {
            round,
            flow,
            bytes: 0,
        })),
        round().prop_map(|round| Message::SyncReady(Round { round })),
        round().prop_map(|round| Message::CaughtUp(CaughtUp {
            round,
            live_sequence: 0,
            generation: id(4),
            history: Vec::new(),
        })),
        round().prop_map(|round| Message::ConsistentDone(Round { round })),
        point().prop_map(|point| Message::PointPrepare(PointPrepare {
            point,
            name: "p".into(),
            time: 0,
        })),
        point().prop_map(|point| Message::MarkDone(PointRef { point })),
        point().prop_map(|point| Message::PointCommit(PointRef { point })),
        round().prop_map(|role_epoch| Message::SwapRequest(SwapRequest { role_epoch })),
        Just(Message::SwapReply(SwapReply { refusal: None })),
        Just(Message::State(State { state: 1, dirty: 0 })),
    ];
    prop_oneof![
        8 => messages.prop_map(Event::Message),
        4 => (1u64..8).prop_map(|id| Event::Committed(CommitId(id))),
        1 => Just(Event::StreamsUp),
        1 => Just(Event::MapEnd),
        1 => Just(Event::CaughtUp { live_sequence: 1 }),
        1 => Just(Event::Behind),
        1 => point().prop_map(|point| Event::MarkFailed { point }),
        2 => (1u64..4).prop_map(|flush| Event::Flushed { flush, ok: true }),
        1 => point().prop_map(|point| Event::MarkReached { point }),
        1 => point().prop_map(|point| Event::Detach { point, name: "p".into(), time: 0 }),
        1 => point().prop_map(|point| Event::Swap { point, name: "p".into(), time: 0 }),
        1 => Just(Event::AskSwap),
        1 => Just(Event::Repair(Vec::new())),
        2 => Just(Event::Tick),
    ]
}

/// Feeds events until the session ends and checks what every driver relies on.
fn run(mut session: Session, mut online: bool, events: Vec<Event>) {
    let mut now_ms = 0;
    let mut closed = false;
    for event in events {
        now_ms += 400;
        for action in session.handle(event, now_ms) {
            assert!(!closed, "{action:?} after the end");
            match action {
                Action::FeedOnline => {
                    assert!(!online);
                    online = true;
                }
                Action::FeedOffline => {
                    assert!(online);
                    online = false;
                }
                Action::RequestMark { .. } | Action::FeedResume => assert!(online),
                Action::Close(_) => {
                    closed = true;
                    assert!(!online, "closed with the feed online");
                }
                _ => {}
            }
        }
        if closed {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn nothing_makes_a_source_panic(events in proptest::collection::vec(any_event(), 0..40)) {
        run(source(), false, events.clone());
        run(live_source(), true, events);
    }

    #[test]
    fn nothing_makes_a_sink_panic(events in proptest::collection::vec(any_event(), 0..40)) {
        run(sink(), false, events.clone());
        let mut running = sink();
        for message in [
            Message::Verdict(Verdict { flow: FlowKind::Incremental, epoch: id(50) }),
            Message::StreamsOffer(StreamsOffer { session: id(51), token: Token([0; 32]), count: 2 }),
            Message::SyncStarted(SyncStarted { round: 1, flow: FlowKind::Incremental, bytes: 0 }),
        ] {
            drive(&mut running, Event::Message(message), 0);
        }
        prop_assert_eq!(running.state(), FeedState::Resync);
        run(running, false, events);
    }
}

#[test]
fn a_peer_with_this_nodes_own_identity_is_refused_in_words() {
    let mut session = Session::acceptor(config(), 0);
    let Message::Hello(mut theirs) = hello() else {
        unreachable!("hello is a hello")
    };
    theirs.node = config().node;
    let actions = session.handle(Event::Message(Message::Hello(theirs)), 0);
    assert!(actions.contains(&Action::Close(CloseReason::Refused(RefusalCode::Twin))));
    let told = sent(&actions);
    assert!(
        matches!(told[..], [Message::Refused(refused)] if refused.text.contains("state directory"))
    );
}
