//! A daemon that says what a test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tools::api::{Reply, Request};

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it does on one connection.
pub struct Step {
    answer: Vec<u8>,
    then_close: bool,
}

impl Step {
    /// Answers with these and closes.
    pub fn replies(replies: Vec<Reply>) -> Step {
        let lines = replies
            .iter()
            .map(|reply| serde_json::to_string(reply).unwrap() + "\n");
        Step::raw(lines.collect::<String>().as_bytes())
    }

    /// Answers with these bytes and closes.
    pub fn raw(bytes: &[u8]) -> Step {
        Step {
            answer: bytes.to_vec(),
            then_close: true,
        }
    }

    /// Says nothing until the client goes away.
    pub fn silence() -> Step {
        Step {
            answer: Vec::new(),
            then_close: false,
        }
    }
}

/// A running fake: serves one connection for each step, in order.
pub struct FakeDaemon {
    socket: PathBuf,
    requests: Receiver<Request>,
    _dir: tempfile::TempDir,
}

impl FakeDaemon {
    pub fn start(steps: Vec<Step>) -> FakeDaemon {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("volmgrd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for step in steps {
                let Ok((mut client, _)) = listener.accept() else {
                    return;
                };
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut reader = BufReader::new(client.try_clone().unwrap());
                if sender.send(request(&mut reader)).is_err() {
                    return;
                }
                // The client may have gone already: that is what some tests are about.
                let _ = client.write_all(&step.answer);
                if !step.then_close {
                    let _ = reader.read_line(&mut String::new());
                }
            }
        });
        FakeDaemon {
            socket,
            requests,
            _dir: dir,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The requests so far; call it when the client has ended.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }

    /// Waits until a request has come.
    pub fn wait_for_request(&self) -> Request {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }
}

fn request(reader: &mut BufReader<UnixStream>) -> Request {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}
