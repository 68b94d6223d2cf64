//! A peer that is known and means harm, for `tests/e2e/hostile-peers.sh`: it speaks the protocol as far as it takes to get in, then lies.
//!
//! ```text
//! hostile-peer control ADDR STATE_DIR FINGERPRINT            nonsense on the control stream
//! hostile-peer data    ADDR STATE_DIR FINGERPRINT VG         a source that sends what it must not; feeds VG/evil…
//! hostile-peer sink    ADDR STATE_DIR FINGERPRINT            listens there; a sink that acknowledges what it has not got
//! hostile-peer crowd   ADDR NUMBER SECONDS                   connections that say nothing
//! hostile-peer slow    ADDR NUMBER SECONDS                   connections that say a byte now and then
//! ```
//!
//! A line for each attack: what it was, and when the victim hung up. One that the victim puts up with for 30 seconds ends it with 1.

use feedplex::generation::{Intent, Role};
use feedplex::identity::{Fingerprint, Identity};
use feedplex::session::{Action, Event, FreshIds, LocalFeed, Rights, Session, SessionConfig};
use feedplex::transport::tls::{client_config, server_config};
use feedplex::transport::{
    Acceptor, AcceptorLimits, Connection, Security as Protection, SocketOptions, connect,
};
use feedplex::wire::control::{
    Ack, Bitmap, CONTROL_HEADER_LEN, ControlHeader, Handshake, Hello, Message, PROTOCOL_VERSION,
    StreamsOffer,
};
use feedplex::wire::frame::{Command, FrameFlags, FrameHeader};
use feedplex::wire::preamble::{Kind, MAGIC, PREAMBLE_LEN, Preamble, Security};
use std::collections::HashSet;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A victim that has not hung up by then never will.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the volumes that are fed.
const SIZE: u64 = 8 << 20;

/// Who attacks whom.
struct Enemy {
    identity: Identity,
    victim: Fingerprint,
    address: SocketAddr,
    run: Uuid,
}

impl Enemy {
    fn new(address: &str, state: &str, victim: &str) -> Result<Self> {
        Ok(Self {
            identity: Identity::load_or_create(Path::new(state))?,
            victim: victim.parse()?,
            address: address.parse()?,
            run: Uuid::new_v4(),
        })
    }

    async fn connect(&self, kind: Kind) -> Result<Connection> {
        let protection = Protection::Tls(client_config(&self.identity, self.victim)?);
        let options = SocketOptions::default();
        let limit = Duration::from_secs(10);
        let mut connection = connect(self.address, None, &protection, &options, limit).await?;
        let preamble = Preamble {
            version_min: 1,
            version_max: 1,
            kind,
            security: Security::Tls,
        };
        connection.write_all(&preamble.encode()).await?;
        connection.flush().await?;
        Ok(connection)
    }

    fn config(&self) -> SessionConfig {
        SessionConfig {
            node: self.identity.node(),
            name: "enemy".into(),
            fingerprint: self.identity.fingerprint().to_string(),
            run: self.run,
            fresh: FreshIds {
                epoch: Uuid::new_v4(),
                session: Uuid::new_v4(),
                token: feedplex::wire::preamble::Token([7; 32]),
                generations: [Uuid::new_v4(), Uuid::new_v4()],
            },
            streams: 2,
            wall_time: 0,
        }
    }

    fn hello(&self) -> Message {
        Message::Hello(Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: u64::MAX,
            node: self.identity.node(),
            name: "enemy".into(),
            fingerprint: self.identity.fingerprint().to_string(),
            run: self.run,
        })
    }
}

fn handshake(role: Role, target: &str) -> Handshake {
    Handshake {
        feed: Uuid::new_v4(),
        target: target.into(),
        create: true,
        volume: Uuid::new_v4(),
        name: "evil/evil".into(),
        size: SIZE,
        region_size: 65536,
        role,
        role_epoch: 1,
        swap: false,
        online: false,
        sync_mode: false,
        block: false,
        intent: Intent::Attached,
        known: false,
        fresh: false,
        seeded: false,
        consistent: false,
        dirty: true,
        stamp: 0,
        seen: 0,
        discard_peer: false,
        discard_local: false,
        epochs: Vec::new(),
        generation: Uuid::new_v4(),
        history: Vec::new(),
    }
}

async fn read(connection: &mut Connection) -> Result<Message> {
    let mut bytes = [0; CONTROL_HEADER_LEN];
    connection.read_exact(&mut bytes).await?;
    let header = ControlHeader::decode(&bytes)?;
    let mut body = vec![0; header.body_len()];
    connection.read_exact(&mut body).await?;
    Ok(Message::decode(&header, &body)?)
}

async fn send(connection: &mut Connection, message: &Message) -> Result<()> {
    connection.write_all(&message.encode()?).await?;
    Ok(connection.flush().await?)
}

/// Waits until the victim hangs up.
async fn hung_up(what: &str, mut connection: Connection) -> bool {
    let began = Instant::now();
    let mut rest = vec![0; 65536];
    let end = async { while connection.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let gone = tokio::time::timeout(PATIENCE, end).await.is_ok();
    let verdict = if gone { "hung up on" } else { "PUT UP WITH" };
    println!("{what}: {verdict} after {} ms", began.elapsed().as_millis());
    gone
}

/// Bytes on a control stream that is otherwise well.
async fn control_attack(
    enemy: &Enemy,
    what: &str,
    bytes: &[u8],
    after_hello: bool,
) -> Result<bool> {
    let mut connection = enemy.connect(Kind::Control).await?;
    if after_hello {
        send(&mut connection, &enemy.hello()).await?;
    }
    // It may hang up in the middle.
    let _sent = connection.write_all(bytes).await;
    let _flushed = connection.flush().await;
    Ok(hung_up(what, connection).await)
}

async fn control(enemy: &Enemy) -> Result<bool> {
    let mut well = true;
    let header = |length: u32, kind: u16| {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 1, 2, 3, 4]);
        bytes
    };
    let facts = |change: &dyn Fn(&mut Handshake)| {
        let mut facts = handshake(Role::Source, "vgb/evil-control");
        change(&mut facts);
        Message::Handshake(facts).encode()
    };
    let mut half = header(1 << 20, 18);
    half.resize(1 << 19, 0);
    let bitmap = Message::Bitmap(Bitmap {
        first_region: u64::MAX - 7,
        bits: vec![255; 256 << 10],
    });
    let attacks = [
        ("a message of 4 GiB", header(u32::MAX, 1), false),
        ("a message of 4 GiB after hello", header(u32::MAX, 2), true),
        ("half a message", half, true),
        ("a wrong checksum", header(0, 21), true),
        ("a bitmap before any handshake", bitmap.encode()?, true),
        ("a volume of 16 EiB", facts(&|f| f.size = u64::MAX)?, true),
        ("a volume of no bytes", facts(&|f| f.size = 0)?, true),
        ("regions of no bytes", facts(&|f| f.region_size = 0)?, true),
        (
            "a volume that may not be named",
            facts(&|f| f.target = "../../etc/x".into())?,
            true,
        ),
        (
            "a history of 60,000 states",
            facts(&|f| f.history = vec![Uuid::nil(); 60_000])?,
            true,
        ),
        ("no hello", Vec::new(), false),
    ];
    for (what, bytes, after_hello) in attacks {
        well &= control_attack(enemy, what, &bytes, after_hello).await?;
    }
    Ok(well)
}

/// A session, as it should be, up to the moment when data may flow.
async fn source(
    enemy: &Enemy,
    target: &str,
) -> Result<(Connection, Vec<Connection>, StreamsOffer)> {
    let mut control = enemy.connect(Kind::Control).await?;
    let local = LocalFeed {
        facts: handshake(Role::Source, target),
        rights: Rights {
            feed: true,
            read: true,
        },
        dirty_bytes: SIZE,
        restoring: false,
    };
    let (mut session, mut actions) = Session::initiator(enemy.config(), local, 0);
    let mut streams = Vec::new();
    let mut offered = None;
    loop {
        let mut next = Vec::new();
        for action in actions {
            match action {
                Action::Send(message) => send(&mut control, &message).await?,
                Action::Commit { id, .. } => next.extend(session.handle(Event::Committed(id), 0)),
                Action::OpenStreams { offer, .. } => {
                    for stream in 0..offer.count {
                        let kind = Kind::Data {
                            session: offer.session,
                            stream,
                            token: offer.token,
                        };
                        streams.push(enemy.connect(kind).await?);
                    }
                    offered = Some(offer);
                    next.extend(session.handle(Event::StreamsUp, 0));
                }
                Action::FeedOnline => {
                    let offer = offered.ok_or("online without streams")?;
                    return Ok((control, streams, offer));
                }
                Action::Close(reason) => return Err(format!("{reason:?}").into()),
                _ => {}
            }
        }
        actions = next;
        if actions.is_empty() {
            let message = tokio::time::timeout(PATIENCE, read(&mut control)).await??;
            actions = session.handle(Event::Message(message), 0);
        }
    }
}

async fn data(enemy: &Enemy, group: &str) -> Result<bool> {
    let frame = |command, sequence, offset, length| {
        FrameHeader {
            command,
            flags: FrameFlags::empty(),
            sequence,
            offset,
            length,
            aux: 0,
        }
        .encode()
        .to_vec()
    };
    let sealed = |mut bytes: Vec<u8>, at: usize, part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let good = frame(Command::Write, 1, 0, 4096);
    let mut past = frame(Command::Write, 1, SIZE, 4096);
    past.resize(40 + 4096, 7);
    let attacks = [
        ("a write behind the end", past),
        (
            "zeroes over the end",
            frame(Command::WriteZeroes, 1, SIZE - 4096, 1 << 40),
        ),
        (
            "a trim of everything",
            frame(Command::Trim, 1, 4096, u64::MAX - 8192),
        ),
        ("a write of 16 EiB", sealed(good.clone(), 24, &[255; 8])),
        (
            "an offset that overflows",
            sealed(good.clone(), 16, &[255; 8]),
        ),
        ("a gap in the numbers", frame(Command::Flush, 77, 0, 0)),
        (
            "a number twice",
            [
                frame(Command::Flush, 1, 0, 0),
                frame(Command::Flush, 1, 0, 0),
            ]
            .concat(),
        ),
        ("no frame at all", vec![b'x'; 4096]),
        ("half a frame, then nothing", good[..20].to_vec()),
        ("a write without its bytes", good),
    ];
    let mut well = true;
    let mut offered = None;
    for (number, (what, bytes)) in attacks.into_iter().enumerate() {
        let target = format!("{group}/evil{number}");
        let (control, mut streams, offer) = source(enemy, &target).await?;
        // It may hang up in the middle.
        let _sent = streams[0].write_all(&bytes).await;
        let _flushed = streams[0].flush().await;
        well &= hung_up(what, control).await;
        offered = Some(offer);
    }
    // What was good for a session that is over.
    let offer = offered.ok_or("no session")?;
    let kind = Kind::Data {
        session: offer.session,
        stream: 0,
        token: offer.token,
    };
    let connection = enemy.connect(kind).await?;
    Ok(well & hung_up("a stream of an old session", connection).await)
}

/// A sink that says it has everything as soon as there is anything.
async fn sink(enemy: &Enemy) -> Result<bool> {
    let known = Arc::new(RwLock::new(HashSet::from([enemy.victim])));
    let acceptor = Acceptor::new(
        server_config(&enemy.identity, known)?,
        MAGIC,
        false,
        SocketOptions::default(),
        AcceptorLimits::default(),
    );
    let listener = TcpListener::bind(enemy.address).await?;
    println!("listening");
    let mut streams = Vec::new();
    let (tcp, from) = listener.accept().await?;
    let mut control = acceptor.accept::<PREAMBLE_LEN>(tcp, from).await?.connection;
    let mut session = Session::acceptor(enemy.config(), 0);
    loop {
        let message = tokio::time::timeout(PATIENCE, read(&mut control)).await??;
        let copying = matches!(message, Message::SyncStarted(_));
        let mut actions = session.handle(Event::Message(message), 0);
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                match action {
                    Action::Send(message) => send(&mut control, &message).await?,
                    Action::Open(theirs) => {
                        let mut facts = handshake(Role::Sink, &theirs.target);
                        (facts.feed, facts.fresh, facts.dirty) = (theirs.feed, true, false);
                        (facts.size, facts.region_size) = (theirs.size, theirs.region_size);
                        let local = LocalFeed {
                            facts,
                            rights: Rights {
                                feed: true,
                                read: true,
                            },
                            dirty_bytes: 0,
                            restoring: false,
                        };
                        next.extend(session.handle(Event::Opened(Box::new(local)), 0));
                    }
                    Action::Commit { id, .. } => {
                        next.extend(session.handle(Event::Committed(id), 0));
                    }
                    Action::Close(reason) => return Err(format!("{reason:?}").into()),
                    _ => {}
                }
            }
            actions = next;
        }
        if copying {
            break;
        }
        // Data streams come beside; they are taken in and never read.
        while let Ok(Ok((tcp, from))) =
            tokio::time::timeout(Duration::from_millis(200), listener.accept()).await
        {
            streams.push(acceptor.accept::<PREAMBLE_LEN>(tcp, from).await?.connection);
        }
    }
    for stream in [0, 1] {
        let (applied, durable) = (1 << 40, 1 << 40);
        let ack = Message::Ack(Ack {
            stream,
            applied,
            durable,
        });
        // The first may already have been enough.
        let _sent = send(&mut control, &ack).await;
    }
    Ok(hung_up("an acknowledgement of what was never sent", control).await)
}

/// Connections that never come to the point.
async fn crowd(address: &str, number: usize, seconds: u64, slowly: bool) -> Result<bool> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..number {
        match TcpStream::connect(address).await {
            Ok(stream) => open.push(stream),
            Err(_) => refused += 1,
        }
    }
    println!("{} connections, {refused} refused", open.len());
    let mut at = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if slowly {
            for stream in &open {
                // Whom it has hung up on, it has hung up on.
                let _sent = stream.try_write(&MAGIC[at..=at]);
            }
            at = (at + 1) % MAGIC.len();
        }
    }
    Ok(true)
}

async fn run(args: &[&str]) -> Result<bool> {
    match args {
        ["control", address, state, victim] => control(&Enemy::new(address, state, victim)?).await,
        ["data", address, state, victim, group] => {
            data(&Enemy::new(address, state, victim)?, group).await
        }
        ["sink", address, state, victim] => sink(&Enemy::new(address, state, victim)?).await,
        ["crowd", address, number, seconds] => {
            crowd(address, number.parse()?, seconds.parse()?, false).await
        }
        ["slow", address, number, seconds] => {
            crowd(address, number.parse()?, seconds.parse()?, true).await
        }
        _ => Err("which attack? see the head of hostile-peer.rs".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args).await {
        Ok(well) => ExitCode::from(u8::from(!well)),
        Err(error) => {
            eprintln!("hostile-peer: {error}");
            ExitCode::from(2)
        }
    }
}
