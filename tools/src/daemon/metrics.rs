//! Metrics over HTTP in Prometheus' text format: what an alert needs, no more.

use super::{Node, StartError};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use volmgr::model::PlexState;

/// Time a client gets for its request and for reading the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients at a time.
const CLIENTS_MAX: usize = 8;

/// Opens the listener.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            address: address.to_string(),
            source,
        })
}

/// Answers until the node stops.
pub async fn serve(node: Arc<Node>, listener: TcpListener) {
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(permit) = clients.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    if tokio::time::timeout(CLIENT_TIMEOUT, answer(&node, stream))
                        .await
                        .is_err()
                    {
                        tracing::debug!("a metrics client was too slow");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept metrics clients");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(node: &Node, mut stream: TcpStream) {
    let mut request = [0u8; 2048];
    let mut filled = 0;
    while filled < request.len() && !request[..filled].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut request[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", text(node))
    } else {
        ("404 Not Found", "try /metrics\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that has gone needs no answer.
    let _gone = stream.write_all((head + &body).as_bytes()).await;
}

/// All metrics.
fn text(node: &Node) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, lines: Vec<(String, u64)>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    };
    let views = node.groups.views();
    gauge(
        "volmgr_group_missing_disks",
        "Disks of the group that are not there.",
        views
            .iter()
            .map(|view| {
                (
                    format!("vg=\"{}\"", view.group.name),
                    view.missing().len() as u64,
                )
            })
            .collect(),
    );
    let volumes = || {
        views.iter().flat_map(|view| {
            view.group
                .volumes
                .iter()
                .map(move |volume| (view.group.name.as_str(), volume))
        })
    };
    gauge(
        "volmgr_volume_active",
        "1 where the volume is served.",
        volumes()
            .map(|(vg, volume)| {
                let active = u64::from(node.is_active(volume.uuid));
                (format!("vg=\"{vg}\",lv=\"{}\"", volume.name), active)
            })
            .collect(),
    );
    gauge(
        "volmgr_plex_in_step",
        "1 where the plex has every acknowledged write.",
        volumes()
            .flat_map(|(vg, volume)| {
                volume.plexes.iter().map(move |plex| {
                    (
                        format!(
                            "vg=\"{vg}\",lv=\"{}\",plex=\"plex{}\"",
                            volume.name, plex.number
                        ),
                        u64::from(plex.state == PlexState::Active),
                    )
                })
            })
            .collect(),
    );
    text
}
