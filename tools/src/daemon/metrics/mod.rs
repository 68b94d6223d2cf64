//! Metrics over HTTP in Prometheus' text format. What there is to see is in [`families`]; each answer is
//! made when it is asked for, from counters that the data path keeps anyway.

mod families;
mod text;

use super::{Node, StartError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Time a client gets for its request and for reading the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients at a time.
const CLIENTS_MAX: usize = 8;

/// Opens the listener.
pub fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    crate::daemon::tcp::listen(address).map_err(|source| StartError::Listen {
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
        ("200 OK", families::all(node).await)
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
