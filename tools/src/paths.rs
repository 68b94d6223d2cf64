//! Where the programs keep things: socket, state and configuration, for root and for an ordinary user.
//!
//! `volmgr` and `volmgrd` must agree without talking to each other, so both ask here. The decision is
//! a pure function of [`Surroundings`]; only [`Surroundings::of_process`] looks at the process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable that names the daemon's socket.
pub const SOCKET_VARIABLE: &str = "VOLMGR_SOCKET";

/// What the default paths depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Effective user id; 0 is root.
    pub uid: u32,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
}

/// The default paths of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Folder of sockets; gone after a reboot. The daemon creates it with mode 0700.
    pub runtime_dir: PathBuf,
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// Folder of the node's key, peers, devices, events and archived metadata.
    pub state_dir: PathBuf,
    /// The daemon's configuration.
    pub config_file: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        Surroundings {
            uid: nix::unistd::geteuid().as_raw(),
            home: absolute(std::env::var_os("HOME")),
            xdg_runtime_dir: absolute(std::env::var_os("XDG_RUNTIME_DIR")),
            xdg_state_home: absolute(std::env::var_os("XDG_STATE_HOME")),
            xdg_config_home: absolute(std::env::var_os("XDG_CONFIG_HOME")),
        }
    }

    /// The paths that follow.
    pub fn paths(&self) -> Paths {
        let (runtime_dir, state_dir, config_dir) = if self.uid == 0 {
            (
                PathBuf::from("/run/volmgr"),
                PathBuf::from("/var/lib/volmgr"),
                PathBuf::from("/etc/volmgr"),
            )
        } else {
            let fallback = PathBuf::from(format!("/tmp/volmgr-{}", self.uid));
            let under_home = |folder: &str| match &self.home {
                Some(home) => home.join(folder).join("volmgr"),
                None => fallback.join(folder.trim_start_matches('.')),
            };
            (
                self.xdg_runtime_dir
                    .as_ref()
                    .map_or_else(|| fallback.clone(), |dir| dir.join("volmgr")),
                self.xdg_state_home
                    .as_ref()
                    .map_or_else(|| under_home(".local/state"), |dir| dir.join("volmgr")),
                self.xdg_config_home
                    .as_ref()
                    .map_or_else(|| under_home(".config"), |dir| dir.join("volmgr")),
            )
        };
        Paths {
            socket: runtime_dir.join("volmgrd.sock"),
            config_file: config_dir.join("volmgrd.toml"),
            runtime_dir,
            state_dir,
        }
    }
}

impl Paths {
    /// The default paths of the user who runs this process.
    pub fn of_process() -> Self {
        Surroundings::of_process().paths()
    }
}

/// The XDG specification: a relative path in one of its variables is to be ignored.
fn absolute(value: Option<OsString>) -> Option<PathBuf> {
    value
        .map(PathBuf::from)
        .filter(|path| Path::is_absolute(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_system_folders() {
        let paths = Surroundings {
            xdg_runtime_dir: Some("/run/user/0".into()),
            ..Surroundings::default()
        }
        .paths();
        assert_eq!(paths.socket, Path::new("/run/volmgr/volmgrd.sock"));
        assert_eq!(paths.state_dir, Path::new("/var/lib/volmgr"));
        assert_eq!(paths.config_file, Path::new("/etc/volmgr/volmgrd.toml"));
    }

    #[test]
    fn a_user_has_the_xdg_folders() {
        let paths = Surroundings {
            uid: 1000,
            home: Some("/home/u".into()),
            xdg_runtime_dir: Some("/run/user/1000".into()),
            xdg_state_home: Some("/s".into()),
            xdg_config_home: Some("/c".into()),
        }
        .paths();
        assert_eq!(
            paths.socket,
            Path::new("/run/user/1000/volmgr/volmgrd.sock")
        );
        assert_eq!(paths.state_dir, Path::new("/s/volmgr"));
        assert_eq!(paths.config_file, Path::new("/c/volmgr/volmgrd.toml"));
    }

    #[test]
    fn without_xdg_the_home_folder_then_tmp() {
        let mut around = Surroundings {
            uid: 1000,
            home: Some("/home/u".into()),
            ..Surroundings::default()
        };
        let paths = around.paths();
        assert_eq!(paths.socket, Path::new("/tmp/volmgr-1000/volmgrd.sock"));
        assert_eq!(paths.state_dir, Path::new("/home/u/.local/state/volmgr"));
        assert_eq!(
            paths.config_file,
            Path::new("/home/u/.config/volmgr/volmgrd.toml")
        );
        around.home = None;
        let paths = around.paths();
        assert_eq!(paths.state_dir, Path::new("/tmp/volmgr-1000/local/state"));
    }

    #[test]
    fn relative_xdg_paths_are_ignored() {
        assert_eq!(absolute(Some("run".into())), None);
        assert_eq!(absolute(Some("/run".into())), Some("/run".into()));
        assert_eq!(absolute(Some("".into())), None);
        assert_eq!(absolute(None), None);
    }
}
