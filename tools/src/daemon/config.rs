//! Options of `volmgrd` and its configuration file; flags beat the file, the file beats defaults.

mod feeds;
mod ublk;

pub use feeds::FeedsConfig;
pub use ublk::{QUEUES_MAX, UblkConfig, UblkMode};

use super::StartError;
use super::hooks::{Hook, HookConfig};
use crate::cli::failure::one_line;
use crate::paths::Paths;
use clap::Parser;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What the options do not say.
const AFTER_HELP: &str = "\
Runs as root, or as an ordinary user with files as disks and NBD as front end. Every option but --config and --foreground \
can be in the configuration file; options beat it. SIGTERM and SIGINT stop in good order: clients are cut off, everything is \
flushed. A second daemon with the same state directory refuses to start. A control socket that the service manager passes \
(LISTEN_FDS; volmgrd.socket) takes the place of --socket and outlives the daemon.

Configuration file (TOML; /etc/volmgr/volmgrd.toml, for an ordinary user ~/.config/volmgr/volmgrd.toml):

  state_dir = \"/var/lib/volmgr\"
  socket = \"/run/volmgr/volmgrd.sock\"
  node = \"a\"
  location = \"cellar\"
  listen = \"0.0.0.0:7750\"
  nbd = [\"unix:/run/volmgr/volmgrd-nbd.sock\", \"tcp:127.0.0.1:10809\"]
  metrics = \"127.0.0.1:9750\"

  [feeds]
  bulk_streams = 1                  # connections of a feed for full sync and resync, 1 to 16
  from = \"192.0.2.1\"              # connect to peers from this address, or network interface
  data_from = \"eth1\"              # the same for payload
  data_listen = [\"10.0.0.1:7750\"] # listen there, too (peeradd --data over there)
  kernel_tls = true                 # TLS records by the kernel where it can

  [scan]
  paths = [\"/srv/disks/*.img\"]    # files to look at for disks
  devices = true                    # look at all block devices, too
  wait = 0                          # seconds that the start waits for disks that were there the last time

  [spares]
  after = 60                        # seconds without its disk after which a plex goes to a spare one

  [plexes]
  max_read_errors = 64              # failed reads within an hour that retire a plex where another one has none; 0: never

  [ublk]
  mode = \"auto\"                    # zero-copy, user-copy or mapped; auto: the best that works
  queues = 1                        # hardware queues of a device, 1 to 4

  [log]
  format = \"text\"                  # or json
  filter = \"info\"                  # RUST_LOG beats it; volmgr::request=trace shows each request

  [[hook]]                          # runs a program on events; as many as you like
  events = [\"plex-*\", \"lv-failed\", \"feed-*\"]
  objects = [\"vg0/*\"]               # default: all
  program = \"/etc/volmgr/hooks/mail-admin\"
  args = [\"root\"]
  timeout = 30                      # seconds; then it is killed

SIGHUP reads the file again: [scan], [spares], [[hook]] and the log filter change at once, the rest by a restart.

Example, two nodes of an ordinary user on one machine:

  volmgrd --state-dir a/state --socket a/sock --node a --listen 127.0.0.1:7750 &
  volmgrd --state-dir b/state --socket b/sock --node b --listen 127.0.0.1:7751 &
  volmgr --socket a/sock status";

/// Serves volumes and their feeds.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "volmgrd",
    version,
    about = "Volume manager daemon: serves volumes and their feeds",
    after_long_help = AFTER_HELP
)]
pub struct Options {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the node's key, peers, known disks and events
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Control socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Name of this node (default: the host name)
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where this node stands, for the reader
    #[arg(long, value_name = "TAG")]
    pub location: Option<String>,
    /// Where peers connect to
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where NBD clients connect to; may be given several times
    #[arg(long, value_name = "unix:PATH|tcp:ADDR:PORT")]
    pub nbd: Vec<NbdAddress>,
    /// Where to answer HTTP requests for metrics
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Stay in the foreground (volmgrd always does; accepted for scripts)
    #[arg(long)]
    pub foreground: bool,
    /// Only print user and group of the process that made this ublk device: for udev's rules
    #[arg(long, value_name = "NAME", hide = true)]
    pub ublk_owner: Option<String>,
}

/// A place where NBD clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl FromStr for NbdAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("the socket's path must be absolute".into());
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(addr) = text.strip_prefix("tcp:") {
            return addr
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("`{addr}` is not ADDR:PORT"));
        }
        Err("must be unix:PATH or tcp:ADDR:PORT".into())
    }
}

impl std::fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => write!(f, "tcp:{addr}"),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileConfig {
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    node: Option<String>,
    location: Option<String>,
    listen: Option<SocketAddr>,
    nbd: Vec<String>,
    metrics: Option<SocketAddr>,
    feeds: FeedsConfig,
    scan: ScanConfig,
    spares: SparesConfig,
    plexes: PlexesConfig,
    ublk: UblkConfig,
    log: LogConfig,
    hook: Vec<HookConfig>,
}

/// `[scan]`: where to look for disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScanConfig {
    /// Shell globs of paths.
    pub paths: Vec<String>,
    /// Look at all block devices; by default root does.
    pub devices: Option<bool>,
    /// Seconds that the start waits for disks that were there the last time.
    pub wait: u64,
}

/// `[spares]`: disks that take over for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SparesConfig {
    /// Seconds for which a plex must have been without its disk before a spare one is used.
    pub after: u64,
}

impl Default for SparesConfig {
    fn default() -> Self {
        Self { after: 60 }
    }
}

/// `[plexes]`: when a plex is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlexesConfig {
    /// Failed reads within about an hour that take a plex out of service, where another one has none; 0: never.
    pub max_read_errors: u32,
}

impl Default for PlexesConfig {
    fn default() -> Self {
        Self {
            max_read_errors: 64,
        }
    }
}

/// `[log]`: how to log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// As in `RUST_LOG`, which beats it.
    pub filter: Option<String>,
}

/// Everything the daemon needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the state that is not on the disks.
    pub state_dir: PathBuf,
    /// Folder of sockets, made at start with mode 0700.
    pub runtime_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// Name of this node, where the admin gave one.
    pub node: Option<String>,
    /// Location tag, where the admin gave one.
    pub location: Option<String>,
    /// Where peers connect to.
    pub listen: Option<SocketAddr>,
    /// Where NBD clients connect to.
    pub nbd: Vec<NbdAddress>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How feeds use the network.
    pub feeds: FeedsConfig,
    /// Where to look for disks.
    pub scan: ScanConfig,
    /// Spare disks.
    pub spares: SparesConfig,
    /// When a plex is given up.
    pub plexes: PlexesConfig,
    /// Block devices.
    pub ublk: UblkConfig,
    /// How to log.
    pub log: LogConfig,
    /// Programs to be run on events.
    pub hooks: Vec<Hook>,
}

impl Config {
    /// Merges options, file and defaults. A file that was named must exist.
    pub fn load(options: &Options, defaults: &Paths) -> Result<Self, StartError> {
        let (path, named) = match &options.config {
            Some(path) => (path.as_path(), true),
            None => (defaults.config_file.as_path(), false),
        };
        let bad = |why: String| StartError::Config {
            path: path.to_owned(),
            why: one_line(&why),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => String::new(),
            Err(error) => return Err(bad(error.to_string())),
        };
        Self::parse(&text, options, defaults).map_err(bad)
    }

    /// Merges options, the text of a configuration file and defaults. The error is what is wrong with the text.
    pub fn parse(text: &str, options: &Options, defaults: &Paths) -> Result<Self, String> {
        let file = read_file(text)?;
        let hooks = Hook::all(&file.hook)?;
        file.feeds.check()?;
        file.ublk.check()?;
        file.check_paths()?;
        let mut nbd = options.nbd.clone();
        if nbd.is_empty() {
            for text in &file.nbd {
                nbd.push(text.parse().map_err(|why| format!("nbd: {why}"))?);
            }
        }
        let socket = absolute(options.socket.clone().or(file.socket));
        // The NBD socket lies beside the control socket, so that two daemons of one user that
        // have different control sockets do not meet.
        let runtime_dir = match &socket {
            Some(socket) => socket
                .parent()
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or(Path::new("."))
                .to_owned(),
            None => defaults.runtime_dir.clone(),
        };
        let socket = socket.unwrap_or_else(|| defaults.socket.clone());
        if nbd.is_empty() {
            // Named after the control socket for the same reason.
            let mut name = socket
                .file_stem()
                .map_or_else(|| "volmgrd".into(), |stem| stem.to_owned());
            name.push("-nbd.sock");
            nbd.push(NbdAddress::Unix(runtime_dir.join(name)));
        }
        Ok(Self {
            state_dir: absolute(options.state_dir.clone().or(file.state_dir))
                .unwrap_or_else(|| defaults.state_dir.clone()),
            runtime_dir,
            socket,
            node: options.node.clone().or(file.node),
            location: options.location.clone().or(file.location),
            listen: options.listen.or(file.listen),
            nbd,
            metrics: options.metrics.or(file.metrics),
            feeds: file.feeds,
            scan: file.scan,
            spares: file.spares,
            plexes: file.plexes,
            ublk: file.ublk,
            log: file.log,
            hooks,
        })
    }
}

/// Paths that outlive the daemon's idea of its working folder.
fn absolute(path: Option<PathBuf>) -> Option<PathBuf> {
    path.map(|path| std::path::absolute(&path).unwrap_or(path))
}

fn read_file(text: &str) -> Result<FileConfig, String> {
    toml::from_str(text).map_err(|error| match error.span() {
        // Its Display draws the line over several lines; the message alone fits one.
        Some(span) => {
            let before = &text.as_bytes()[..span.start.min(text.len())];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_string(),
    })
}

impl FileConfig {
    /// Do the paths name anything? A socket without a name would be one of the kernel's choice, that nobody finds.
    fn check_paths(&self) -> Result<(), String> {
        let nameless = |path: &PathBuf| path.file_name().is_none();
        match (&self.state_dir, &self.socket) {
            (Some(path), _) if path.as_os_str().is_empty() => Err("state_dir is empty".into()),
            (_, Some(path)) if nameless(path) => Err(format!(
                "socket: \"{}\" does not name a file",
                path.display()
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(dir: &Path) -> Paths {
        Paths {
            runtime_dir: dir.join("run"),
            socket: dir.join("run/volmgrd.sock"),
            state_dir: dir.join("state"),
            config_file: dir.join("volmgrd.toml"),
        }
    }

    #[test]
    fn flags_beat_the_file_beats_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let paths = defaults(dir.path());
        std::fs::write(
            &paths.config_file,
            "node = \"from-file\"\nlocation = \"cellar\"\nnbd = [\"tcp:127.0.0.1:10809\"]\n[scan]\npaths = [\"/disks/*\"]\n[log]\nformat = \"json\"\n",
        )
        .unwrap();
        let options = Options {
            node: Some("from-flag".into()),
            ..Options::default()
        };
        let config = Config::load(&options, &paths).unwrap();
        assert_eq!(config.node.as_deref(), Some("from-flag"));
        assert_eq!(config.location.as_deref(), Some("cellar"));
        assert_eq!(config.state_dir, dir.path().join("state"));
        assert_eq!(config.nbd, ["tcp:127.0.0.1:10809".parse().unwrap()]);
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.scan.paths, ["/disks/*"]);
    }

    #[test]
    fn the_example_in_the_help_is_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let paths = defaults(dir.path());
        let example: Vec<&str> = AFTER_HELP
            .lines()
            .skip_while(|line| !line.starts_with("  state_dir"))
            .take_while(|line| line.is_empty() || line.starts_with("  "))
            .collect();
        std::fs::write(&paths.config_file, example.join("\n")).unwrap();
        let config = Config::load(&Options::default(), &paths).unwrap();
        assert_eq!(config.listen, "0.0.0.0:7750".parse().ok());
        assert_eq!(config.nbd.len(), 2);
        assert_eq!(config.feeds.data_listen.len(), 1);
        assert_eq!(config.scan.devices, Some(true));
        assert_eq!(config.log.filter.as_deref(), Some("info"));
        assert_eq!(config.hooks.len(), 1);
    }

    #[test]
    fn the_packaged_file_has_every_key_and_all_are_taken() {
        let packaged = include_str!("../../../dist/volmgrd.toml");
        // What is commented out there is an example, or the default.
        let key = |line: &&str| {
            let first = line.split(['=', ']']).next().unwrap_or_default().trim();
            let name = first.trim_start_matches('[');
            !name.is_empty()
                && line.contains(['=', ']'])
                && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        };
        let whole: Vec<&str> = packaged
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .filter(key)
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let paths = defaults(dir.path());
        for text in [packaged, &whole.join("\n")] {
            std::fs::write(&paths.config_file, text).unwrap();
            Config::load(&Options::default(), &paths).unwrap();
        }
        let names = |lines: Vec<&str>| -> std::collections::BTreeSet<String> {
            let name = |line: &str| {
                line.split(['=', ']'])
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            };
            lines.into_iter().map(name).collect()
        };
        let help: Vec<&str> = AFTER_HELP
            .lines()
            .skip_while(|line| !line.starts_with("  state_dir"))
            .take_while(|line| line.is_empty() || line.starts_with("  "))
            .map(str::trim)
            .filter(key)
            .collect();
        assert_eq!(names(whole), names(help));
    }

    #[test]
    fn the_nbd_socket_lies_beside_the_control_socket() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            socket: Some("/tmp/x/a.sock".into()),
            ..Options::default()
        };
        let config = Config::load(&options, &defaults(dir.path())).unwrap();
        assert_eq!(config.nbd, [NbdAddress::Unix("/tmp/x/a-nbd.sock".into())]);
        assert_eq!(config.runtime_dir, Path::new("/tmp/x"));
    }

    #[test]
    fn a_named_file_must_exist_and_unknown_keys_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let paths = defaults(dir.path());
        let mut options = Options {
            config: Some(dir.path().join("absent.toml")),
            ..Options::default()
        };
        assert!(Config::load(&options, &paths).is_err());
        std::fs::write(&paths.config_file, "node = \"a\"\nnoed = \"b\"\n").unwrap();
        options.config = None;
        let error = Config::load(&options, &paths).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("noed"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }

    #[test]
    fn paths_name_something_and_errors_are_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let paths = defaults(dir.path());
        for (text, error) in [
            ("state_dir = \"\"", "state_dir is empty"),
            ("socket = \"\"", "\"\" does not name a file"),
            ("socket = \"/\"", "\"/\" does not name a file"),
            ("socket = \"/run/..\"", "\"/run/..\" does not name a file"),
            (
                "[[hook]]\nevents = [\"*\"]\nprogram = \"a\\nb\"",
                "hook a b: the path must be absolute",
            ),
        ] {
            std::fs::write(&paths.config_file, text).unwrap();
            let said = Config::load(&Options::default(), &paths).unwrap_err();
            assert!(said.to_string().ends_with(error), "{said}");
        }
    }

    #[test]
    fn nbd_addresses() {
        assert!("unix:rel".parse::<NbdAddress>().is_err());
        assert!("tcp:nowhere".parse::<NbdAddress>().is_err());
        assert!("http://x".parse::<NbdAddress>().is_err());
        let tcp: NbdAddress = "tcp:[::1]:10809".parse().unwrap();
        assert_eq!(tcp.to_string(), "tcp:[::1]:10809");
    }
}
