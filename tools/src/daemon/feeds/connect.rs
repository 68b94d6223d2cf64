//! The side that connects: one task a feed, which tries again until it is told not to.

use super::Feeds;
use super::control_io::split;
use super::entry::FeedEntry;
use super::run::{Driver, Outcome, PeerLink};
use crate::daemon::peers::Peer;
use feedplex::identity::Fingerprint;
use feedplex::session::{CloseReason, FeedState};
use feedplex::transport::tls::client_config;
use feedplex::transport::{
    Connection, DataStream, Security, SocketOptions, TransportError, connect,
};
use feedplex::wire::control::{Message, PROTOCOL_VERSION, RefusalCode, Refused, StreamsOffer};
use feedplex::wire::preamble::{self, Kind, Preamble};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// First pause between attempts; doubles up to [`BACKOFF_MAX`], with up to half as much again at
/// random so that peers of a node that comes back do not all call at once.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Why an attempt did not get to a session.
enum NoSession {
    /// It may work later.
    Later(String),
    /// The admin has to do something.
    Never(String),
}

/// Keeps a feed connected until it is given up.
pub async fn supervise(feeds: Arc<Feeds>, entry: Arc<FeedEntry>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        if entry.is_gone() || feeds.node.stopping() {
            return;
        }
        if !entry.enabled() {
            feeds.look_idle(&entry).await;
            pause(&entry, Duration::from_secs(2)).await;
            continue;
        }
        let began = Instant::now();
        let asked = entry.asked();
        let (reason, state, text) = match attempt(&feeds, &entry).await {
            Ok(Outcome { reason, text }) => match reason {
                CloseReason::Refused(_) => (reason, FeedState::Refused, text),
                CloseReason::Paused => (reason, FeedState::Paused, text),
                CloseReason::Split => (reason, FeedState::Split, String::new()),
                CloseReason::Swapped
                | CloseReason::Lost
                | CloseReason::Failed
                | CloseReason::Stopped => (reason, FeedState::Disconnected, text),
            },
            Err(NoSession::Later(text)) => (CloseReason::Lost, FeedState::Disconnected, text),
            Err(NoSession::Never(text)) => {
                let reason = CloseReason::Refused(RefusalCode::Access);
                (reason, FeedState::Refused, text)
            }
        };
        entry.settle(asked, state != FeedState::Disconnected, |status| {
            status.state = state;
            status.reason = text;
            status.rate = 0;
        });
        if began.elapsed() > BACKOFF_MAX {
            // It was a session, not one more failure.
            backoff = BACKOFF_MIN;
        }
        match reason {
            CloseReason::Swapped => {
                backoff = BACKOFF_MIN;
                // The peer commits its side before it lets go of the connection.
                pause(&entry, Duration::from_millis(50)).await;
            }
            CloseReason::Lost | CloseReason::Failed | CloseReason::Stopped => {
                feeds.look_idle(&entry).await;
                let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
                let extra = backoff.as_millis() as u64 * jitter / 512;
                pause(&entry, backoff + Duration::from_millis(extra)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            _ => {}
        }
    }
}

/// Waits, or less if somebody wakes the feed.
async fn pause(entry: &FeedEntry, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = entry.wake.notified() => {}
    }
}

async fn attempt(feeds: &Arc<Feeds>, entry: &Arc<FeedEntry>) -> Result<Outcome, NoSession> {
    let lv = entry.lv();
    let lane = feeds
        .node
        .lane(&lv)
        .ok_or_else(|| NoSession::Later("the volume is not active".into()))?;
    let peer = feeds
        .node
        .peers
        .get(&entry.peer)
        .ok_or_else(|| NoSession::Never("the peer has been removed (peeradd)".into()))?;
    let Ok(exclusive) = entry.session.clone().try_lock_owned() else {
        return Err(NoSession::Later("an earlier session is ending".into()));
    };
    entry.update(|status| {
        status.state = FeedState::Connecting;
        status.reason.clear();
    });
    let connection = feeds
        .call(&peer, &peer.addr, Kind::Control)
        .await
        .map_err(NoSession::Later)?;
    let link = PeerLink {
        name: peer.name.clone(),
        proved: connection.peer(),
    };
    let ask = entry.take_ask();
    let outcome = Driver::initiator(
        feeds.clone(),
        entry.clone(),
        lane,
        exclusive,
        connection,
        &ask,
        link,
    )
    .await;
    Ok(outcome)
}

impl Feeds {
    /// Connects to an address of a peer and sends the preamble.
    pub(super) async fn call(
        &self,
        peer: &Peer,
        address: &str,
        kind: Kind,
    ) -> Result<Connection, String> {
        let security = if peer.plaintext {
            Security::Plaintext
        } else {
            let fingerprint: Fingerprint = peer
                .fingerprint
                .parse()
                .map_err(|error| format!("the peer's fingerprint: {error}"))?;
            let config = client_config(&self.node.key, fingerprint)
                .map_err(|error| format!("TLS: {error}"))?;
            Security::Tls(config)
        };
        let config = &self.node.config.feeds;
        let from = match kind {
            Kind::Control => config.from.as_ref(),
            Kind::Data { .. } => config.data_from.as_ref().or(config.from.as_ref()),
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address)
            .await
            .map_err(|error| format!("cannot resolve {address}: {error}"))?
            .collect();
        let mut last = format!("{address} has no address");
        for address in addresses {
            let options = SocketOptions::default();
            match connect(address, from, &security, &options, CONNECT_TIMEOUT).await {
                Ok(mut connection) => {
                    let preamble = Preamble {
                        version_min: PROTOCOL_VERSION,
                        version_max: PROTOCOL_VERSION,
                        kind,
                        security: if connection.is_tls() {
                            preamble::Security::Tls
                        } else {
                            preamble::Security::Plaintext
                        },
                    };
                    let send = async {
                        connection.write_all(&preamble.encode()).await?;
                        connection.flush().await
                    };
                    match send.await {
                        Ok(()) => return Ok(connection),
                        Err(error) => last = format!("{address}: {error}"),
                    }
                }
                Err(error) => last = describe(address, &error),
            }
        }
        Err(format!("cannot connect to {last}"))
    }

    /// Connects the data streams of a session, over the peer's data addresses where it has some.
    pub(super) async fn connect_streams(
        &self,
        peer: &str,
        offer: &StreamsOffer,
    ) -> Result<Vec<DataStream>, String> {
        let peer = self
            .node
            .peers
            .get(peer)
            .ok_or("the peer has been removed")?;
        let mut streams = Vec::new();
        for stream in 0..offer.count {
            let address = match peer.data.as_slice() {
                [] => &peer.addr,
                data => &data[usize::from(stream) % data.len()],
            };
            let kind = Kind::Data {
                session: offer.session,
                stream,
                token: offer.token,
            };
            let connection = self.call(&peer, address, kind).await?;
            let data = connection
                .into_data(&self.kernel_tls)
                .map_err(|error| format!("data stream: {error}"))?;
            streams.push(data);
        }
        Ok(streams)
    }
}

fn describe(address: SocketAddr, error: &TransportError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{address}: {error}: {source}"),
        None => format!("{address}: {error}"),
    }
}

/// Tells a caller why it is not let in.
pub async fn say_refused(connection: Connection, text: &str) {
    let (mut writer, _inbox) = split(connection);
    let refused = Message::Refused(Refused {
        code: RefusalCode::Access,
        text: text.to_owned(),
    });
    if let Err(error) = writer.send(&refused).await {
        tracing::debug!(%error, "a refused peer did not wait to hear why");
    }
    writer.close().await;
}
