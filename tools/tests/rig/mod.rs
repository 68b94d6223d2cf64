//! A lab folder with disks (sparse files) and daemons, driven over their sockets.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tools::api::{Branch, Command, Failure, LvName, Reply, ReportKind, Request, Row};

/// How long a daemon may take to come up, to stop, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn disk(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn daemon(&self, name: &str) -> Daemon {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        // The tests' machine may be run by root: its block devices are none of our business.
        std::fs::write(dir.join("volmgrd.toml"), "[scan]\ndevices = false\n").unwrap();
        let mut daemon = Daemon {
            name: name.to_owned(),
            dir,
            child: None,
        };
        daemon.start();
        daemon
    }
}

pub struct Daemon {
    name: String,
    dir: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    fn program(&self, socket: &str) -> std::process::Command {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_volmgrd"));
        program
            .arg("--config")
            .arg(self.dir.join("volmgrd.toml"))
            .arg("--state-dir")
            .arg(self.dir.join("state"))
            .arg("--socket")
            .arg(self.dir.join(socket))
            .args(["--node", &self.name]);
        program
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        self.child = Some(self.program("sock").stderr(log).spawn().unwrap());
        let begin = Instant::now();
        // The socket is there before the disks are: an answer says that it is ready.
        while UnixStream::connect(self.socket()).is_err() || self.try_rows().is_none() {
            let child = self.child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("volmgrd ended with {status}: {}", self.log());
            }
            assert!(begin.elapsed() < PATIENCE, "no daemon: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn try_rows(&self) -> Option<()> {
        let replies = self.request(ReportKind::Node.into_command(), false);
        matches!(replies.last(), Some(Reply::Done)).then_some(())
    }

    /// In good order.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("is running");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.log());
                break;
            }
            if begin.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("does not stop: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!self.socket().exists());
    }

    /// As the power would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Exit code and standard error of another daemon on the same state.
    pub fn second_of_same_state(&self) -> (i32, String) {
        let output = self.program("sock2").stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), stderr)
    }

    fn request(&self, command: Command, test: bool) -> Vec<Reply> {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = Request {
            test,
            yes: false,
            command,
        };
        let mut line = serde_json::to_vec(&request).unwrap();
        line.push(b'\n');
        (&stream).write_all(&line).unwrap();
        BufReader::new(stream)
            .lines()
            .map(|line| serde_json::from_str(&line.expect("an answer in time")).unwrap())
            .collect()
    }

    /// The command must succeed; its replies.
    pub fn ok(&self, command: Command) -> Vec<Reply> {
        let what = format!("{command:?}");
        let replies = self.request(command, false);
        assert_eq!(
            replies.last(),
            Some(&Reply::Done),
            "{what}: {replies:?}\n{}",
            self.log()
        );
        replies
    }

    /// The command must fail.
    pub fn fails(&self, command: Command) -> Failure {
        let what = format!("{command:?}");
        match self.request(command, false).pop() {
            Some(Reply::Failed(failure)) => failure,
            other => panic!("{what} gave {other:?}"),
        }
    }

    pub fn messages(&self, command: Command) -> Vec<String> {
        messages(self.ok(command))
    }

    pub fn warnings(&self, command: Command) -> Vec<String> {
        self.ok(command)
            .into_iter()
            .filter_map(|reply| match reply {
                Reply::Warning { text } => Some(text),
                _ => None,
            })
            .collect()
    }

    /// The command in test mode must succeed; what it says.
    pub fn test_mode(&self, command: Command) -> Vec<String> {
        let what = format!("{command:?}");
        let replies = self.request(command, true);
        assert_eq!(replies.last(), Some(&Reply::Done), "{what}: {replies:?}");
        messages(replies)
    }

    pub fn rows(&self, kind: ReportKind) -> Vec<Row> {
        self.ok(kind.into_command())
            .into_iter()
            .find_map(|reply| match reply {
                Reply::Report { rows, .. } => Some(rows),
                _ => None,
            })
            .expect("a report")
    }

    /// Waits until the volume is served.
    pub fn wait_active(&self, name: &str) {
        self.wait_for("the volume to be active", || {
            self.rows(ReportKind::Lv)
                .iter()
                .any(|row| text(row, "lv_name") == name && text(row, "lv_active") == "active")
        });
    }

    pub fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(
                begin.elapsed() < PATIENCE,
                "waited for {what}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends bytes, half-closes, reads what comes.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be hung up on before it has sent everything.
        let _hung_up = stream.write_all(bytes);
        let _hung_up = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _hung_up = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The test is over, one way or the other.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

trait IntoCommand {
    fn into_command(self) -> Command;
}

impl IntoCommand for ReportKind {
    fn into_command(self) -> Command {
        Command::Report {
            kind: self,
            vg: None,
            lv: None,
            peer: None,
        }
    }
}

/// The first words of each line of the trees, from the root to the line.
pub fn tree(replies: &[Reply]) -> Vec<Vec<String>> {
    fn walk(branch: &Branch, above: &[String], lines: &mut Vec<Vec<String>>) {
        let mut path = above.to_vec();
        path.push(branch.parts[0].text.clone());
        lines.push(path.clone());
        for below in &branch.below {
            walk(below, &path, lines);
        }
    }
    let mut lines = Vec::new();
    for reply in replies {
        if let Reply::Tree { roots } = reply {
            roots.iter().for_each(|root| walk(root, &[], &mut lines));
        }
    }
    lines
}

fn messages(replies: Vec<Reply>) -> Vec<String> {
    replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Message { text } => Some(text),
            _ => None,
        })
        .collect()
}

pub fn lv(name: &str) -> LvName {
    let (vg, lv) = name.split_once('/').unwrap();
    LvName {
        vg: vg.into(),
        lv: lv.into(),
    }
}

pub fn paths(paths: &[&Path]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}

fn value<'a>(row: &'a Row, field: &str) -> &'a serde_json::Value {
    row.get(field)
        .unwrap_or_else(|| panic!("no field {field} in {row:?}"))
}

pub fn text(row: &Row, field: &str) -> String {
    match value(row, field) {
        serde_json::Value::Object(tagged) => tagged["text"].as_str().unwrap().to_owned(),
        _ => String::new(),
    }
}

pub fn number(row: &Row, field: &str) -> u64 {
    let tagged = value(row, field).as_object().unwrap();
    tagged.values().next().unwrap().as_u64().unwrap()
}
