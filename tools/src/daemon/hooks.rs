//! Hooks: programs that are run on chosen events. A hook never holds the daemon up: at most
//! [`RUNNING_MAX`] run at a time, each for a bounded time, and events that come too fast for them are
//! missed, which is an event of its own.
//!
//! A program gets the event as one JSON line on standard input and as `VOLMGR_EVENT_TIME`, `_KIND`,
//! `_OBJECT` and `_TEXT` in its environment, with `VOLMGR_NODE` and `VOLMGR_SOCKET`. What it prints goes
//! where the daemon's log goes. Hooks that run at the same time may overtake each other.

use super::Node;
use super::events::Event;
use globset::{Glob, GlobMatcher};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

/// Hooks that run at a time.
pub const RUNNING_MAX: usize = 4;
/// Hooks that may be configured.
pub const HOOKS_MAX: usize = 64;
/// Seconds that a hook may run where the configuration does not say.
const TIMEOUT_SECS: u64 = 30;
/// Longest time in seconds that it may say.
const TIMEOUT_SECS_MAX: u64 = 3600;
/// Events about hooks start so. They run no hooks, or one that fails would run for ever.
const OWN: &str = "hook-";

/// `[[hook]]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// Shell globs over kinds of events.
    pub events: Vec<String>,
    /// Shell globs over objects; none is all.
    #[serde(default)]
    pub objects: Vec<String>,
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Seconds after which it is killed with all that it has started.
    pub timeout: Option<u64>,
}

/// A hook, ready to be used.
#[derive(Clone, Debug)]
pub struct Hook {
    config: HookConfig,
    events: Vec<GlobMatcher>,
    objects: Vec<GlobMatcher>,
    timeout: Duration,
}

impl Hook {
    /// Checks the configuration; says what is wrong with it.
    pub fn all(configs: &[HookConfig]) -> Result<Vec<Self>, String> {
        if configs.len() > HOOKS_MAX {
            return Err(format!("more than {HOOKS_MAX} hooks"));
        }
        configs.iter().map(Self::new).collect()
    }

    fn new(config: &HookConfig) -> Result<Self, String> {
        let name = config.program.display();
        let globs = |list: &[String]| {
            let glob = |text: &String| {
                Glob::new(text)
                    .map(|glob| glob.compile_matcher())
                    .map_err(|error| format!("hook {name}: {error}"))
            };
            list.iter().map(glob).collect::<Result<Vec<_>, _>>()
        };
        if !config.program.is_absolute() {
            return Err(format!("hook {name}: the path must be absolute"));
        }
        if config.events.is_empty() {
            return Err(format!("hook {name}: no events (\"*\" is all)"));
        }
        let timeout = config.timeout.unwrap_or(TIMEOUT_SECS);
        if !(1..=TIMEOUT_SECS_MAX).contains(&timeout) {
            return Err(format!(
                "hook {name}: the timeout must be 1 to {TIMEOUT_SECS_MAX} seconds"
            ));
        }
        Ok(Self {
            events: globs(&config.events)?,
            objects: globs(&config.objects)?,
            timeout: Duration::from_secs(timeout),
            config: config.clone(),
        })
    }

    fn wants(&self, event: &Event) -> bool {
        let any = |globs: &[GlobMatcher], text: &str| globs.iter().any(|glob| glob.is_match(text));
        !event.kind.starts_with(OWN)
            && any(&self.events, &event.kind)
            && (self.objects.is_empty() || any(&self.objects, &event.object))
    }
}

/// Runs hooks until the daemon stops.
pub async fn run(node: Arc<Node>) {
    let (_, mut events) = node.events.follow();
    let slots = Arc::new(Semaphore::new(RUNNING_MAX));
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                let text = format!("{missed} event(s) came faster than hooks could run");
                node.event("hook-missed", "hooks", &text);
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let settings = node.settings();
        for hook in settings.hooks.iter().filter(|hook| hook.wants(&event)) {
            // Waiting here is no harm: the events that come meanwhile are kept, up to a bound.
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let (its, hook, event) = (node.clone(), hook.clone(), event.clone());
            node.spawn(async move {
                if let Err(why) = run_one(&its, &hook, &event).await {
                    let program = hook.config.program.display().to_string();
                    let text = format!("on {} of {}: {why}", event.kind, event.object);
                    its.event("hook-failed", &program, &text);
                }
                drop(slot);
            });
        }
    }
}

async fn run_one(node: &Node, hook: &Hook, event: &Event) -> Result<(), String> {
    let mut child = Command::new(&hook.config.program)
        .args(&hook.config.args)
        .env("VOLMGR_NODE", &node.identity.name)
        .env("VOLMGR_SOCKET", &node.config.socket)
        .env("VOLMGR_EVENT_TIME", event.time.to_string())
        .env("VOLMGR_EVENT_KIND", &event.kind)
        .env("VOLMGR_EVENT_OBJECT", &event.object)
        .env("VOLMGR_EVENT_TEXT", &event.text)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .current_dir("/")
        .stdin(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let stdin = child.stdin.take();
    let line = serde_json::to_string(event).unwrap_or_default() + "\n";
    let work = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is fine.
            let _unread = stdin.write_all(line.as_bytes()).await;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(hook.timeout, work).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(how(status)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            if let Some(group) = group
                && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL)
            {
                tracing::warn!(%error, "a hook cannot be killed");
            }
            Err(format!("killed after {} s", hook.timeout.as_secs()))
        }
    }
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(events: &[&str], objects: &[&str]) -> HookConfig {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        HookConfig {
            events: list(events),
            objects: list(objects),
            program: "/bin/true".into(),
            args: Vec::new(),
            timeout: None,
        }
    }

    fn event(kind: &str, object: &str) -> Event {
        Event {
            time: 0,
            kind: kind.into(),
            object: object.into(),
            text: String::new(),
        }
    }

    #[test]
    fn events_are_chosen_by_kind_and_object() {
        let hook = Hook::new(&config(&["plex-*", "lv-failed"], &["vg0/*"])).unwrap();
        assert!(hook.wants(&event("plex-state", "vg0/web")));
        assert!(hook.wants(&event("lv-failed", "vg0/web")));
        assert!(!hook.wants(&event("plex-state", "vg1/web")));
        assert!(!hook.wants(&event("lv-activated", "vg0/web")));
        let all = Hook::new(&config(&["*"], &[])).unwrap();
        assert!(all.wants(&event("pv-missing", "/dev/sdb")));
        assert!(!all.wants(&event("hook-failed", "/bin/true")), "no loops");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Hook::new(&config(&[], &[])).is_err());
        assert!(Hook::new(&config(&["[x"], &[])).is_err());
        let relative = HookConfig {
            program: "true".into(),
            ..config(&["*"], &[])
        };
        assert!(Hook::new(&relative).unwrap_err().contains("absolute"));
        let endless = HookConfig {
            timeout: Some(0),
            ..config(&["*"], &[])
        };
        assert!(Hook::new(&endless).is_err());
        assert!(Hook::all(&vec![config(&["*"], &[]); HOOKS_MAX + 1]).is_err());
    }
}
