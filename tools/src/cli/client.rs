//! Talking to the daemon: one request line, reply lines until the last.
//!
//! Ctrl-C stops the waiting, not the work: SIGINT is blocked while a reply is awaited and read from a
//! signalfd next to the socket, so that the caller can say what goes on before it exits.

use super::failure::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NO_DAEMON, failure};
use crate::api::{Failure, REPLY_LINE_MAX, REQUEST_LINE_MAX, Reply, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the daemon may take to read a request that is there in one piece.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes asked of the socket at a time.
const READ_SIZE: usize = 64 * 1024;

/// A connection with one request on it.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    interrupts: SignalFd,
    path: PathBuf,
    /// Bytes received and not yet returned as a line.
    buffer: Vec<u8>,
    /// How far `buffer` has been searched for the end of a line.
    searched: usize,
    deadline: Option<Instant>,
}

impl Client {
    /// Connects and sends the request. Blocks SIGINT for this thread: see the module.
    pub fn send(path: &Path, request: &Request, limit: Option<Duration>) -> Result<Self, Failure> {
        let mut line = serde_json::to_string(request)
            .map_err(|error| failure(EXIT_FAILED, "", "cannot write the request", error, ""))?;
        line.push('\n');
        if line.len() > REQUEST_LINE_MAX {
            let why = format!("{} bytes are more than {REQUEST_LINE_MAX}", line.len());
            return Err(failure(
                EXIT_FAILED,
                "",
                "the request is too long",
                why,
                "name fewer objects",
            ));
        }
        let no_daemon = |error: &std::io::Error| {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "run volmgr as the user whose daemon this is, or choose another with --socket"
                }
                _ => "start volmgrd, or name its socket with --socket or VOLMGR_SOCKET",
            };
            let object = path.display().to_string();
            failure(EXIT_NO_DAEMON, object, "no daemon", error, hint)
        };
        let mut socket = UnixStream::connect(path).map_err(|error| no_daemon(&error))?;
        let setup = |error: std::io::Error| failure(EXIT_FAILED, "", "cannot wait", error, "");
        socket
            .set_write_timeout(Some(WRITE_TIMEOUT))
            .map_err(setup)?;
        let interrupts = interrupts().map_err(|error| setup(error.into()))?;
        socket
            .write_all(line.as_bytes())
            .map_err(|error| no_daemon(&error))?;
        socket.set_nonblocking(true).map_err(setup)?;
        Ok(Client {
            socket,
            interrupts,
            path: path.to_owned(),
            buffer: Vec::new(),
            searched: 0,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
        })
    }

    /// The next reply.
    pub fn next(&mut self) -> Result<Reply, Failure> {
        loop {
            if let Some(line) = self.line() {
                return serde_json::from_slice(&line).map_err(|error| {
                    let hint = "volmgr and volmgrd of different versions?";
                    self.broken("reply not understood", error, hint)
                });
            }
            if self.buffer.len() > REPLY_LINE_MAX {
                let why = format!("more than {REPLY_LINE_MAX} bytes without an end of line");
                return Err(self.broken("reply not understood", why, ""));
            }
            self.wait()?;
            self.read()?;
        }
    }

    /// A whole line, where there is one.
    fn line(&mut self) -> Option<Vec<u8>> {
        let unsearched = self.buffer.get(self.searched..)?;
        match unsearched.iter().position(|byte| *byte == b'\n') {
            Some(position) => {
                let rest = self.buffer.split_off(self.searched + position + 1);
                self.searched = 0;
                Some(std::mem::replace(&mut self.buffer, rest))
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    fn wait(&self) -> Result<(), Failure> {
        loop {
            let timeout = match self.deadline {
                None => PollTimeout::NONE,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(self.broken(
                            "gave up waiting",
                            "the daemon does not answer",
                            "",
                        ));
                    }
                    // One more, or the last fraction of a millisecond would be spent spinning.
                    let millis = left.as_millis().saturating_add(1);
                    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut ready = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.interrupts.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, timeout) {
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(self.broken("cannot wait", error, "")),
            }
            if ready[1].any() == Some(true) {
                return Err(failure(
                    EXIT_INTERRUPTED,
                    "",
                    "stopped waiting",
                    "interrupted",
                    "the work goes on; see 'volmgr status'",
                ));
            }
            if ready[0].any() == Some(true) {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_SIZE, 0);
        let outcome = self.socket.read(&mut self.buffer[start..]);
        let received = *outcome.as_ref().unwrap_or(&0);
        self.buffer.truncate(start + received);
        match outcome {
            Ok(0) => Err(self.broken(
                "connection lost",
                "the daemon closed it in the middle of the command",
                "whether it was done is not known: look before you repeat it",
            )),
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(self.broken("connection lost", error, "")),
        }
    }

    fn broken(&self, what: &str, why: impl std::fmt::Display, hint: &str) -> Failure {
        failure(
            EXIT_FAILED,
            self.path.display().to_string(),
            what,
            why,
            hint,
        )
    }
}

pub(super) fn interrupts() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
