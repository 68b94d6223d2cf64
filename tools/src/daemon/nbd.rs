//! Accepts NBD clients, negotiates with them, and hands them to the lane of the volume they chose.
//!
//! What a stranger can cost is bounded: time, number of clients in negotiation, bytes (by the
//! state machine). Whoever speaks something else is hung up on.

use super::config::NbdAddress;
use super::{Node, StartError};
use crate::api::LvName;
use crate::lane::{NbdClient, NbdContext};
use nbd_export::{ExportInfo, Exports, Negotiated, Negotiation, Progress};
use nix::sys::stat::{Mode, umask};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use volmgr::model::Volume;

/// Time a client gets for its negotiation.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients in negotiation at a time, over all listeners.
const NEGOTIATIONS_MAX: usize = 64;

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Opens the listeners and serves them until the node stops.
pub async fn listen(node: &Arc<Node>) -> Result<(), StartError> {
    let negotiations = Arc::new(Semaphore::new(NEGOTIATIONS_MAX));
    for address in &node.config.nbd {
        let failed = |source| StartError::Listen {
            address: address.to_string(),
            source,
        };
        let listener = match address {
            NbdAddress::Unix(path) => {
                super::socket::remove_dead(path)?;
                let before = umask(Mode::from_bits_truncate(0o177));
                let listener = UnixListener::bind(path);
                umask(before);
                Listener::Unix(listener.map_err(failed)?)
            }
            NbdAddress::Tcp(addr) => Listener::Tcp(super::tcp::listen(*addr).map_err(failed)?),
        };
        node.spawn(serve(node.clone(), listener, negotiations.clone()));
    }
    Ok(())
}

async fn serve(node: Arc<Node>, listener: Listener, negotiations: Arc<Semaphore>) {
    loop {
        let Ok(permit) = negotiations.clone().acquire_owned().await else {
            return;
        };
        let node = node.clone();
        let accepted = match &listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    client(&node, stream, "unix client".into(), |stream| {
                        stream.into_std().map(OwnedFd::from)
                    })
                    .await;
                    drop(permit);
                });
            }),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                tokio::spawn(async move {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    client(&node, stream, peer.to_string(), |stream| {
                        stream.into_std().map(OwnedFd::from)
                    })
                    .await;
                    drop(permit);
                });
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "cannot accept NBD clients");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn client<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    mut stream: S,
    peer: String,
    into_fd: impl FnOnce(S) -> io::Result<OwnedFd>,
) {
    let negotiated = tokio::time::timeout(NEGOTIATION_TIMEOUT, negotiate(node, &mut stream)).await;
    let (negotiated, received) = match negotiated {
        Ok(Ok(Some(done))) => done,
        Ok(Ok(None)) => return,
        Ok(Err(why)) => return tracing::debug!(peer, why, "NBD client dropped"),
        Err(_) => return tracing::debug!(peer, "NBD client dropped: too slow"),
    };
    let Some(lane) = node.active.lane_named(&negotiated.export.name) else {
        return tracing::debug!(peer, "NBD export has gone");
    };
    let export = negotiated.export.name.clone();
    let Some(contexts) = contexts_of(node, &negotiated) else {
        return tracing::debug!(peer, "a point in time has gone");
    };
    let socket = match into_fd(stream) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(peer, %error, "cannot hand over an NBD client"),
    };
    let client = NbdClient {
        socket,
        negotiated: *negotiated,
        contexts,
        received,
        peer: peer.clone(),
    };
    match lane.add_nbd(client) {
        Ok(()) => tracing::info!(peer, export, "NBD client connected"),
        Err(error) => tracing::debug!(peer, export, %error, "NBD client came too late"),
    }
}

type Done = (Box<Negotiated>, Vec<u8>);

/// `None` where the client has gone in good order.
async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    stream: &mut S,
) -> Result<Option<Done>, String> {
    let exports = NodeExports { node };
    let (mut negotiation, greeting) = Negotiation::start();
    let text = |error: io::Error| error.to_string();
    stream.write_all(&greeting).await.map_err(text)?;
    let mut buffer = [0u8; 4096];
    let mut out = Vec::new();
    loop {
        let read = stream.read(&mut buffer).await.map_err(text)?;
        if read == 0 {
            return Ok(None);
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let (consumed, progress) = negotiation
                .on_bytes(rest, &exports, &mut out)
                .map_err(|error| super::verbs::chain(&error))?;
            rest = &rest[consumed..];
            stream.write_all(&out).await.map_err(text)?;
            out.clear();
            match progress {
                Progress::Continue => {}
                Progress::Chosen(negotiated) => return Ok(Some((negotiated, rest.to_vec()))),
                Progress::Aborted => return Ok(None),
            }
        }
    }
}

/// The metadata context of a point: what has changed since. The namespace and the meaning are QEMU's,
/// because that is what tools for incremental backups know.
const CHANGED: &str = "qemu:dirty-bitmap:";

/// The volume of an export, with its points.
fn volume_of(node: &Node, export: &str) -> Option<Volume> {
    let (vg, lv) = export.split_once('/')?;
    let (vg, lv) = (vg.to_owned(), lv.to_owned());
    node.volume(&LvName { vg, lv }).map(|(_, volume)| volume)
}

/// What the agreed contexts mean; `None` where one means nothing any more.
fn contexts_of(node: &Node, negotiated: &Negotiated) -> Option<Vec<NbdContext>> {
    let volume = volume_of(node, &negotiated.export.name);
    let points = volume.as_ref().map_or(&[][..], |v| &v.points);
    let contexts = negotiated.contexts.iter();
    contexts
        .map(|context| match context.name.strip_prefix(CHANGED) {
            None => Some(NbdContext::Allocation),
            Some(name) => {
                let point = points.iter().find(|p| p.name == name)?;
                Some(NbdContext::Changed(point.uuid))
            }
        })
        .collect()
}

struct NodeExports<'a> {
    node: &'a Node,
}

impl Exports for NodeExports<'_> {
    fn list(&self) -> Vec<String> {
        self.node.active.names()
    }

    fn describe(&self, name: &str) -> Option<ExportInfo> {
        let lane = self.node.active.lane_named(name)?;
        Some(ExportInfo {
            name: name.to_owned(),
            description: String::new(),
            limits: lane.limits(),
            multi_conn: true,
            contexts: volume_of(self.node, name).map_or_else(Vec::new, |volume| {
                let tracked = volume.points.iter();
                let tracked = tracked.filter(|p| volume.changed_slot(p).is_some());
                tracked.map(|p| format!("{CHANGED}{}", p.name)).collect()
            }),
        })
    }
}
