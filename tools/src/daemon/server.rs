//! The control socket: one task per client, one request a connection, JSON lines both ways.
//!
//! A command runs in a task of its own, so that a client that goes away stops the waiting and not
//! the work. Input lines and the number of clients are bounded; what a command has to say is
//! bounded by the command.

use super::Node;
use super::verbs::{self, Ctx, Out};
use crate::api::{Failure, Reply, Request};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// Longest request line in bytes.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// Clients served at a time; more wait in the socket's backlog.
const CLIENTS_MAX: usize = 128;
/// A client that connected must have sent its request within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to look whether a client that sends nothing more is still there.
const HANGUP_CHECK: Duration = Duration::from_millis(500);

/// Serves clients until the node stops.
pub async fn serve(node: Arc<Node>, listener: UnixListener) {
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut stop = node.stop_signal();
    loop {
        let permit = tokio::select! {
            permit = clients.clone().acquire_owned() => permit,
            () = stop.wait() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    if let Err(error) = client(node, stream).await {
                        tracing::debug!(%error, "client went away");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others must end before it gets better.
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn client(node: Arc<Node>, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(REQUEST_BYTES_MAX));
    let mut line = Vec::new();
    match tokio::time::timeout(REQUEST_TIMEOUT, read.read_until(b'\n', &mut line)).await {
        Ok(got) => got?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    if line.is_empty() {
        return Ok(());
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    match parse(&line) {
        Ok(request) => {
            let out = Out::new(sender);
            tokio::spawn(run(node, request, out));
        }
        Err(failure) => {
            let _receiver_is_here = sender.send(Reply::Failed(failure));
        }
    }
    answer(read.into_inner().into_inner(), &mut write, receiver).await
}

/// The request in a line of a client, or what to answer it.
pub fn parse(line: &[u8]) -> Result<Request, Failure> {
    let wrong = |why: String| Failure {
        code: 3,
        object: "request".into(),
        what: "cannot be understood".into(),
        why,
        hint: "volmgr and volmgrd must be of the same version".into(),
    };
    if line.last() != Some(&b'\n') {
        return Err(wrong("the line is too long or not ended".into()));
    }
    serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))
}

async fn run(node: Arc<Node>, request: Request, out: Out) {
    let ctx = Ctx {
        node,
        test: request.test,
        yes: request.yes,
        out,
    };
    match verbs::dispatch(&ctx, &request.command).await {
        Ok(()) => ctx.out.send(Reply::Done),
        Err(failure) => {
            tracing::debug!(%failure, "command failed");
            ctx.out.send(Reply::Failed(failure));
        }
    }
}

/// Passes replies on until the last of them, or until the client has gone.
async fn answer(
    mut read: tokio::net::unix::OwnedReadHalf,
    write: &mut tokio::net::unix::OwnedWriteHalf,
    mut replies: UnboundedReceiver<Reply>,
) -> io::Result<()> {
    let mut byte = [0u8; 1];
    let mut half_closed = false;
    loop {
        let reply = tokio::select! {
            reply = replies.recv() => reply,
            // Nothing more is expected from the client; bytes are ignored, its end is noticed.
            got = read.read(&mut byte), if !half_closed => match got {
                Ok(0) => {
                    // It may only have shut down its sending side: go on while writing works.
                    half_closed = true;
                    continue;
                }
                Ok(_) => continue,
                Err(error) => return Err(error),
            },
            // A client that has fully closed is noticed here, also without a reply to send.
            () = tokio::time::sleep(HANGUP_CHECK), if half_closed => {
                if hung_up(&read) {
                    return Ok(());
                }
                continue;
            }
        };
        let Some(reply) = reply else { return Ok(()) };
        let last = matches!(reply, Reply::Done | Reply::Failed(_));
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        write.write_all(&line).await?;
        if last {
            return write.shutdown().await;
        }
    }
}

/// Has the other side closed both directions?
fn hung_up(socket: &tokio::net::unix::OwnedReadHalf) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let socket: &UnixStream = socket.as_ref();
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    let events = fds[0].revents().unwrap_or(PollFlags::POLLHUP);
    polled.is_err() || events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
}
