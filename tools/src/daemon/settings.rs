//! The part of the configuration that may change while the daemon runs, and its reload on SIGHUP.

use super::config::{ScanConfig, SparesConfig};
use super::hooks::Hook;
use super::{Config, Node, Options, logging};
use crate::paths::Paths;
use std::sync::{Arc, PoisonError, RwLock};

/// What may change under way.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where to look for disks.
    pub scan: ScanConfig,
    /// Spare disks.
    pub spares: SparesConfig,
    /// Programs to be run on events.
    pub hooks: Vec<Hook>,
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self {
            scan: config.scan.clone(),
            spares: config.spares,
            hooks: config.hooks.clone(),
        }
    }
}

/// The settings in force.
#[derive(Debug)]
pub struct Current(RwLock<Arc<Settings>>);

impl Current {
    /// As the daemon starts.
    pub fn new(config: &Config) -> Self {
        Self(RwLock::new(Arc::new(Settings::of(config))))
    }

    /// Now.
    pub fn get(&self) -> Arc<Settings> {
        // Each change is one assignment.
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// Reads the configuration again: takes over what can change, says what cannot. A file that cannot be
/// used changes nothing.
pub fn reload(node: &Node, options: &Options) {
    let object = &node.identity.name;
    let config = match Config::load(options, &Paths::of_process()) {
        Ok(config) => config,
        Err(error) => {
            node.event(
                "reload-failed",
                object,
                &format!("{error}: nothing changed"),
            );
            return;
        }
    };
    if let Err(why) = logging::set_filter(&logging::configured(&config.log)) {
        node.event("reload-failed", object, &format!("log filter: {why}"));
        return;
    }
    node.settings.set(Settings::of(&config));
    let fixed = fixed(&node.config, &config);
    let text = if fixed.is_empty() {
        "the configuration has been read again".to_owned()
    } else {
        format!(
            "the configuration has been read again; only a restart changes: {}",
            fixed.join(", ")
        )
    };
    node.event("reloaded", object, &text);
}

/// What is different and cannot be changed under way.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        ("state_dir", old.state_dir != new.state_dir),
        ("socket", old.socket != new.socket),
        ("node", old.node != new.node),
        ("location", old.location != new.location),
        ("listen", old.listen != new.listen),
        ("nbd", old.nbd != new.nbd),
        ("metrics", old.metrics != new.metrics),
        ("log.format", old.log.format != new.log.format),
    ];
    let names = differs.iter().filter(|(_, differs)| *differs);
    names.map(|(name, _)| *name).collect()
}
