//! Why the daemon cannot start. Each is one line.

use super::state::StateError;
use std::io;
use std::path::PathBuf;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file.
    #[error("{path}: {why}", path = .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The log filter.
    #[error("log filter `{filter}`: {why}")]
    LogFilter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Whose a ublk device is cannot be said.
    #[error("{name}: {why}")]
    UblkOwner {
        /// The device, as given.
        name: String,
        /// Why.
        why: String,
    },
    /// The state directory cannot be made or locked.
    #[error("state directory {path}: {source}", path = .path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "state directory {path}: another volmgrd uses it (stop it, or choose another --state-dir)",
        path = .path.display()
    )]
    StateDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file in the state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node's key.
    #[error("the node's key: {0}")]
    Identity(feedplex::identity::IdentityError),
    /// The control socket.
    #[error("socket {path}: {source}", path = .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon listens there.
    #[error(
        "socket {path}: another volmgrd listens there (choose another --socket)",
        path = .path.display()
    )]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// What the service manager passes is no control socket.
    #[error("a socket passed by the service manager: {0} (see volmgrd.socket)")]
    Passed(String),
    /// A listener of another kind.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The asynchronous runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl StartError {
    /// As LVM's tools: 4, the daemon cannot start; 3, what the admin wrote is wrong.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } | Self::LogFilter { .. } => 3,
            _ => 4,
        }
    }
}
