//! The feed port: peers that call.

use super::Feeds;
use super::control_io::read;
use super::run::{Driver, PeerLink};
use feedplex::identity::Fingerprint;
use feedplex::transport::tls::{KnownPeers, server_config};
use feedplex::transport::{Acceptor, AcceptorLimits, Connection, SocketOptions};
use feedplex::wire::control::{Hello, Message};
use feedplex::wire::preamble::{Kind, MAGIC, PREAMBLE_LEN, Preamble, Security};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long a peer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the peer list at each handshake.
struct PeerList(Weak<Feeds>);

impl KnownPeers for PeerList {
    fn knows(&self, fingerprint: &Fingerprint) -> bool {
        self.0.upgrade().is_some_and(|feeds| {
            let text = fingerprint.to_string();
            feeds.node.peers.by_fingerprint(&text).is_some()
        })
    }
}

/// Accepts peers until the daemon stops.
pub async fn serve(feeds: Arc<Feeds>, listener: TcpListener) {
    // Who calls earlier waits in the listener's queue. An answer now would be that the volume is not here.
    feeds.node.wait_looked().await;
    let tls = match server_config(&feeds.node.key, Arc::new(PeerList(Arc::downgrade(&feeds)))) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(%error, "no TLS, no feeds");
            return;
        }
    };
    let acceptor = Arc::new(Acceptor::new(
        tls,
        MAGIC,
        true,
        SocketOptions::default(),
        AcceptorLimits::default(),
    ));
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                let (feeds, acceptor) = (feeds.clone(), acceptor.clone());
                tokio::spawn(async move { admit(feeds, &acceptor, tcp, address).await });
            }
            Err(error) => {
                // Out of descriptors or memory: it may pass.
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn admit(feeds: Arc<Feeds>, acceptor: &Acceptor, tcp: TcpStream, address: SocketAddr) {
    // The acceptor has logged the refusal.
    let Ok(accepted) = acceptor.accept::<PREAMBLE_LEN>(tcp, address).await else {
        return;
    };
    let preamble = match Preamble::decode(&accepted.preamble) {
        Ok(preamble) => preamble,
        Err(error) => {
            tracing::warn!(%address, "connection refused: {error}");
            return;
        }
    };
    let connection = accepted.connection;
    if (preamble.security == Security::Tls) != connection.is_tls() {
        tracing::warn!(%address, "connection refused: its preamble says another security");
        return;
    }
    match preamble.kind {
        Kind::Control => control(feeds, connection, address).await,
        Kind::Data {
            session,
            stream,
            token,
        } => {
            let tls = &feeds.kernel_tls;
            let arrived = feeds
                .registry
                .arrived(session, stream, &token, connection, tls);
            if let Err(error) = arrived {
                tracing::warn!(%address, "data stream refused: {error}");
            }
        }
    }
}

async fn control(feeds: Arc<Feeds>, mut connection: Connection, address: SocketAddr) {
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, read(&mut connection)).await {
        Ok(Ok(Message::Hello(hello))) => hello,
        Ok(Ok(other)) => {
            tracing::warn!(%address, "connection refused: {} instead of hello", other.name());
            return;
        }
        Ok(Err(error)) => {
            tracing::warn!(%address, "connection refused: {error}");
            return;
        }
        Err(_) => {
            tracing::warn!(%address, "connection refused: no hello");
            return;
        }
    };
    let peer = match identify(&feeds, &connection, &hello) {
        Ok(peer) => peer,
        Err(text) => {
            feeds
                .node
                .event("peer-refused", &address.to_string(), &text);
            super::connect::say_refused(connection, &text).await;
            return;
        }
    };
    let proved = match &peer.proved {
        Some(proved) => proved.to_string(),
        None => hello.fingerprint.clone(),
    };
    if let Err(text) = feeds.meet(&hello, &proved) {
        feeds.node.event("peer-refused", &peer.name, &text);
        super::connect::say_refused(connection, &text).await;
        return;
    }
    let outcome = Driver::acceptor(feeds, connection, hello, peer).await;
    tracing::debug!(reason = ?outcome.reason, text = outcome.text, "a peer's session ended");
}

impl Feeds {
    /// Is this node the only one of its kind?
    pub(super) fn meet(&self, hello: &Hello, fingerprint: &str) -> Result<(), String> {
        let trusted = |key: &str| self.node.peers.by_fingerprint(key).is_some();
        self.twins.meet(hello, fingerprint, trusted)
    }
}

/// Which peer it is: in TLS by the key it has proved; in plaintext by the key it names, and only
/// where the admin said `plaintext`.
fn identify(feeds: &Feeds, connection: &Connection, hello: &Hello) -> Result<PeerLink, String> {
    let fingerprint = match connection.peer() {
        Some(proved) => proved.to_string(),
        None => hello.fingerprint.clone(),
    };
    let peer = feeds
        .node
        .peers
        .by_fingerprint(&fingerprint)
        .ok_or("this node does not know you (peeradd on this side, too)")?;
    if connection.is_tls() == peer.plaintext {
        return Err(if peer.plaintext {
            "this node expects plaintext of you, not TLS".into()
        } else {
            "this node expects TLS of you, not plaintext".into()
        });
    }
    Ok(PeerLink {
        name: peer.name,
        proved: connection.peer(),
    })
}
