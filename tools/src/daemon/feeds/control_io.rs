//! Control messages on a connection.

use feedplex::transport::Connection;
use feedplex::wire::control::{CONTROL_HEADER_LEN, ControlError, ControlHeader, Message};
use std::io;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// Messages of the peer that may wait for the session; then the peer waits.
const INBOX_MAX: usize = 64;

/// A peer that does not take a message for so long is dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no message.
#[derive(Debug, Error)]
pub enum ControlIoError {
    /// The connection.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes.
    #[error("the peer sent nonsense: {0}")]
    Control(#[from] ControlError),
    /// The peer takes nothing.
    #[error("the peer does not take messages")]
    Stuck,
}

/// Reads one message.
pub async fn read(connection: &mut (impl AsyncReadExt + Unpin)) -> Result<Message, ControlIoError> {
    let mut bytes = [0u8; CONTROL_HEADER_LEN];
    connection.read_exact(&mut bytes).await?;
    let header = ControlHeader::decode(&bytes)?;
    // The length is bounded by the decoder.
    let mut body = vec![0u8; header.body_len()];
    connection.read_exact(&mut body).await?;
    Ok(Message::decode(&header, &body)?)
}

/// The sending half.
pub struct ControlWriter {
    half: WriteHalf<Connection>,
}

impl ControlWriter {
    /// Sends a message, whole.
    pub async fn send(&mut self, message: &Message) -> Result<(), ControlIoError> {
        let bytes = message.encode()?;
        let send = async {
            self.half.write_all(&bytes).await?;
            self.half.flush().await
        };
        match tokio::time::timeout(SEND_TIMEOUT, send).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ControlIoError::Stuck),
        }
    }

    /// Says that nothing more will come.
    pub async fn close(&mut self) {
        let shutdown = tokio::time::timeout(Duration::from_secs(1), self.half.shutdown());
        if let Ok(Err(error)) = shutdown.await {
            tracing::debug!(%error, "closing a control connection");
        }
    }
}

/// Splits a connection: a writer, and the messages as they come. The task that reads ends with the
/// connection or when the receiver is dropped.
pub fn split(
    connection: Connection,
) -> (
    ControlWriter,
    mpsc::Receiver<Result<Message, ControlIoError>>,
) {
    let (reader, half) = tokio::io::split(connection);
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    tokio::spawn(read_all(reader, sender));
    (ControlWriter { half }, inbox)
}

async fn read_all(
    mut reader: ReadHalf<Connection>,
    sender: mpsc::Sender<Result<Message, ControlIoError>>,
) {
    loop {
        let result = tokio::select! {
            result = read(&mut reader) => result,
            () = sender.closed() => return,
        };
        let ended = result.is_err();
        if sender.send(result).await.is_err() || ended {
            return;
        }
    }
}
