//! The daemon's configuration file.

use std::sync::LazyLock;
use tools::daemon::config::{Config, NbdAddress, Options};
use tools::daemon::hooks::HOOKS_MAX;
use tools::paths::Paths;

static DEFAULTS: LazyLock<Paths> = LazyLock::new(|| Paths {
    runtime_dir: "/run/volmgr".into(),
    socket: "/run/volmgr/volmgrd.sock".into(),
    state_dir: "/var/lib/volmgr".into(),
    config_file: "/etc/volmgr/volmgrd.toml".into(),
});

/// Longest message beside what it quotes, in bytes: some list the names that would be right.
const MESSAGE_MAX: usize = 512;

/// One execution.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let config = match Config::parse(text, &Options::default(), &DEFAULTS) {
        Ok(config) => config,
        Err(why) => {
            assert!(!why.is_empty() && why.len() <= MESSAGE_MAX + 6 * text.len());
            return;
        }
    };
    // A daemon that changes its folder finds all of them again.
    for path in [&config.state_dir, &config.socket, &config.runtime_dir] {
        assert!(path.is_absolute(), "{path:?}");
    }
    assert!(config.socket.file_name().is_some());
    assert!(!config.nbd.is_empty());
    for address in &config.nbd {
        assert_eq!(
            address.to_string().parse::<NbdAddress>().as_ref(),
            Ok(address)
        );
    }
    assert!(config.hooks.len() <= HOOKS_MAX);
    assert!((2..=17).contains(&config.feeds.streams()));
}
