//! Data streams that sessions expect.

use feedplex::identity::Fingerprint;
use feedplex::transport::ktls::KernelTls;
use feedplex::transport::{Connection, DataStream};
use feedplex::wire::preamble::Token;
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;
use uuid::Uuid;

/// What a session expects.
struct Expected {
    token: Token,
    peer: Option<Fingerprint>,
    count: u16,
    streams: mpsc::Sender<(u16, DataStream)>,
}

/// The sessions that expect data streams, by name.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<Uuid, Expected>>,
}

/// Why a data stream is refused.
#[derive(Debug, thiserror::Error)]
pub enum StreamRefused {
    /// No such session, or a wrong secret, key or number: the peer is not told which.
    #[error("no session expects this data stream")]
    Unexpected,
    /// The session has it already.
    #[error("a data stream came twice")]
    Twice,
    /// The socket.
    #[error("cannot use the connection: {0}")]
    Io(#[from] io::Error),
}

impl Registry {
    /// Expects `count` streams from a peer with this key (`None` in plaintext).
    pub fn expect(
        &self,
        session: Uuid,
        token: Token,
        peer: Option<Fingerprint>,
        count: u16,
    ) -> mpsc::Receiver<(u16, DataStream)> {
        let (streams, receiver) = mpsc::channel(usize::from(count).max(1));
        let expected = Expected {
            token,
            peer,
            count,
            streams,
        };
        self.lock().insert(session, expected);
        receiver
    }

    /// Nothing is expected any more.
    pub fn forget(&self, session: Uuid) {
        self.lock().remove(&session);
    }

    /// A data stream has come.
    pub fn arrived(
        &self,
        session: Uuid,
        stream: u16,
        token: &Token,
        connection: Connection,
        kernel_tls: &KernelTls,
    ) -> Result<(), StreamRefused> {
        let streams = {
            let sessions = self.lock();
            let expected = sessions.get(&session).filter(|expected| {
                // The token is compared first and in constant time; the rest is no secret.
                expected.token.matches(token)
                    && expected.peer == connection.peer()
                    && stream < expected.count
            });
            expected.ok_or(StreamRefused::Unexpected)?.streams.clone()
        };
        let data = connection.into_data(kernel_tls)?;
        streams
            .try_send((stream, data))
            .map_err(|_| StreamRefused::Twice)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Expected>> {
        // The map is whole whatever a thread that panicked did.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
