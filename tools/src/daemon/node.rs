//! The node: everything the daemon knows, and the few things everyone needs of it.

use super::active::{ActiveVolumes, VolumeLane};
use super::disks::ScanRoots;
use super::events::EventLog;
use super::groups::{CommitError, GroupView, Groups, MEMORY_FILE, Memory, ScanOutcome};
use super::peers::Peers;
use super::settings::{Current, Settings};
use super::state::{NodeFile, StateDir};
use super::{Config, FeedService, StartError};
use crate::api::{Failure, LvName};
use feedplex::identity::Identity;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, watch};
use uuid::Uuid;
use volmgr::model::{Group, Volume};

const DEVICES_FILE: &str = "devices.json";
/// How often the start looks for disks that it waits for.
const LATE_DISKS: Duration = Duration::from_millis(200);
/// How long a command waits for a daemon that has just started to serve its volumes.
const SERVED_WAIT: Duration = Duration::from_secs(30);
/// How often the daemon looks whether disks have gone or are back.
const WATCH: Duration = Duration::from_secs(2);

/// The node. See the module's documentation for who calls what.
pub struct Node {
    /// Configuration of the daemon.
    pub config: Config,
    /// The state directory.
    pub state: StateDir,
    /// Who this node is.
    pub identity: NodeFile,
    /// This node's key and certificate.
    pub key: Identity,
    /// The peers.
    pub peers: Peers,
    /// The groups.
    pub groups: Groups,
    /// The volumes that are served.
    pub active: ActiveVolumes,
    /// The block devices of this node.
    pub ublk: super::ublk::Records,
    /// What happened.
    pub events: EventLog,
    /// What may change while the daemon runs.
    pub settings: Current,
    devices: Mutex<BTreeSet<PathBuf>>,
    verbs: AsyncMutex<()>,
    stop: watch::Sender<bool>,
    /// The start has looked for disks and groups.
    looked: watch::Sender<bool>,
    /// The start has brought up what was active before.
    served: watch::Sender<bool>,
    feeds: OnceLock<Arc<dyn FeedService>>,
}

/// Tells that the daemon is stopping.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Returns when the daemon begins to stop.
    pub async fn wait(&mut self) {
        // An error means that the node is gone altogether.
        let _gone = self.0.wait_for(|stop| *stop).await;
    }
}

impl Node {
    /// Opens the state directory; looks at no disk yet.
    pub fn open(config: Config) -> Result<Arc<Self>, StartError> {
        let state = StateDir::open(&config.state_dir)?;
        let key = Identity::load_or_create(state.path()).map_err(StartError::Identity)?;
        let identity = state.node(
            key.node(),
            config.node.as_deref(),
            config.location.as_deref(),
        )?;
        let peers = Peers::load(&state)?;
        let devices = state.read(DEVICES_FILE)?.unwrap_or_default();
        let ublk = super::ublk::Records::load(&state)?;
        let events = EventLog::open(state.path());
        let remembered = state.read(MEMORY_FILE)?.unwrap_or_default();
        let memory = Memory::new(state.path().join(MEMORY_FILE), remembered);
        let groups = Groups::new(state.path().join("archive"), memory);
        let settings = Current::new(&config);
        Ok(Arc::new(Self {
            config,
            settings,
            state,
            identity,
            key,
            peers,
            groups,
            active: ActiveVolumes::default(),
            ublk,
            events,
            devices: Mutex::new(devices),
            verbs: AsyncMutex::new(()),
            stop: watch::channel(false).0,
            looked: watch::channel(false).0,
            served: watch::channel(false).0,
            feeds: OnceLock::new(),
        }))
    }

    /// Finds disks and groups, opens the NBD listeners, activates what was active.
    pub async fn start(self: Arc<Self>) -> Result<(), StartError> {
        self.wait_for_disks().await;
        self.rescan(&[]).await;
        self.looked.send_replace(true);
        super::nbd::listen(&self).await?;
        let node = self.clone();
        // In the background: a volume that takes long to come up keeps no one from asking why. Not
        // by `spawn`: an activation must not be cut in half when the daemon stops.
        tokio::spawn(async move {
            let _lock = node.verb_lock().await;
            node.activate_wanted().await;
            node.served.send_replace(true);
            tokio::task::block_in_place(|| super::ublk::clear_leftovers(&node));
        });
        self.spawn(self.clone().watch_disks());
        self.spawn(super::spares::watch(self.clone()));
        Ok(())
    }

    /// Returns when the start has looked for disks and groups: before, nobody can be told what is not here.
    pub async fn wait_looked(&self) {
        let mut looked = self.looked.subscribe();
        // An error means that the node is gone altogether.
        let _gone = looked.wait_for(|looked| *looked).await;
    }

    /// Returns when the start has brought up what was active before, or after half a minute: then whoever needs a volume
    /// finds out by itself that it is not there.
    pub async fn wait_served(&self) {
        let mut served = self.served.subscribe();
        let waited = tokio::time::timeout(SERVED_WAIT, served.wait_for(|served| *served)).await;
        if waited.is_err() {
            tracing::warn!("a command goes on although not all volumes are served yet");
        }
    }

    /// At boot disks appear one after the other. A volume that is activated without one of them would have
    /// to be resynced when it comes, so those that were there the last time get a moment.
    async fn wait_for_disks(&self) {
        let wait = Duration::from_secs(self.settings().scan.wait);
        let began = std::time::Instant::now();
        let late = || -> Vec<PathBuf> {
            let known = self.known_devices();
            known.into_iter().filter(|path| !path.exists()).collect()
        };
        while began.elapsed() < wait && !late().is_empty() {
            tokio::time::sleep(LATE_DISKS).await;
        }
        if !wait.is_zero() {
            for path in late() {
                tracing::warn!(path = %path.display(), "a disk has not come in time");
            }
        }
    }

    /// Looks for disks in all known places and in `more`, lets the groups have them, and tells the
    /// volumes that are served. Returns what the admin should know. The caller holds the verb lock,
    /// or is the start.
    pub async fn rescan(self: &Arc<Self>, more: &[PathBuf]) -> Vec<String> {
        let gone = tokio::task::block_in_place(|| self.groups.drop_gone());
        // Before another disk takes the place of one that went.
        let mut warnings = self.scanned(gone).await;
        let known = self.known_devices();
        let settings = self.settings();
        let roots = ScanRoots {
            paths: known.iter().chain(more).cloned().collect(),
            globs: settings.scan.paths.clone(),
            devices: settings
                .scan
                .devices
                .unwrap_or_else(|| nix::unistd::geteuid().is_root()),
        };
        let (outcome, bad_places) = tokio::task::block_in_place(|| {
            let (paths, bad_places) = super::disks::candidates(&roots);
            (self.groups.scan(&paths, &known), bad_places)
        });
        warnings.extend(bad_places);
        warnings.extend(self.scanned(outcome).await);
        self.remember_devices();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        warnings
    }

    async fn scanned(self: &Arc<Self>, outcome: ScanOutcome) -> Vec<String> {
        for (kind, object, text) in &outcome.events {
            self.event(kind, object, text);
        }
        for vg in &outcome.changed {
            super::active::disks_changed(self, vg).await;
        }
        outcome.warnings
    }

    /// Notices disks that go, and those that a group waits for when they are back.
    async fn watch_disks(self: Arc<Self>) {
        let mut tried = Vec::new();
        loop {
            tokio::time::sleep(WATCH).await;
            let (gone, waited) = tokio::task::block_in_place(|| {
                let waited = self.groups.waited_for(&self.known_devices());
                (self.groups.any_gone(), waited)
            });
            // A disk that was not taken is not tried again until something about it changes, or an
            // admin asks for it.
            if gone || !waited.is_empty() && waited != tried {
                let _lock = self.verb_lock().await;
                self.rescan(&[]).await;
                // Those that had to wait for their disks.
                self.activate_wanted().await;
            }
            tried = waited;
        }
    }

    fn known_devices(&self) -> BTreeSet<PathBuf> {
        self.lock_devices().clone()
    }

    /// Remembers where the disks in use are, so that they are found after a restart. Places of
    /// disks that are gone are kept: they may come back.
    pub fn remember_devices(&self) {
        let mut devices = self.lock_devices();
        let mut next = devices.clone();
        next.extend(self.groups.paths());
        if next != *devices {
            match self.state.write(DEVICES_FILE, &next) {
                Ok(()) => *devices = next,
                Err(error) => tracing::warn!(%error, "cannot remember where the disks are"),
            }
        }
    }

    /// Forgets a place: what was there is no PV any more.
    pub fn forget_device(&self, path: &Path) {
        let mut devices = self.lock_devices();
        if devices.remove(path)
            && let Err(error) = self.state.write(DEVICES_FILE, &*devices)
        {
            tracing::warn!(%error, "cannot forget a disk");
        }
    }

    fn lock_devices(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.devices.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Changes a group: `change` makes the next version from the current one; this returns when
    /// it is durable on the group's disks. Blocks the thread for the disks' sake, so it must be
    /// called on the daemon's multi-threaded runtime.
    pub fn commit<E>(
        &self,
        vg: &str,
        change: impl FnOnce(&Group) -> Result<Group, E>,
    ) -> Result<Arc<GroupView>, CommitError<E>> {
        let (view, news) = tokio::task::block_in_place(|| self.groups.commit(vg, change))?;
        for (kind, object, text) in &news {
            self.event(kind, object, text);
        }
        Ok(view)
    }

    /// A volume and its group as of the last commit.
    pub fn volume(&self, name: &LvName) -> Option<(Arc<GroupView>, Volume)> {
        let view = self.groups.view(&name.vg)?;
        let volume = view.group.volume(&name.lv)?.clone();
        Some((view, volume))
    }

    /// The data path of an active volume.
    pub fn lane(&self, name: &LvName) -> Option<VolumeLane> {
        let (_, volume) = self.volume(name)?;
        self.active.lane(volume.uuid)
    }

    /// Is the volume served?
    pub fn is_active(&self, volume: Uuid) -> bool {
        self.active.contains(volume)
    }

    /// Tells an active volume's lane about its new layout after a commit; does nothing for an
    /// inactive one. The maps of the feeds in `fresh` (by map slot), if they are new to the lane,
    /// start all dirty instead of with what the log's slot holds.
    pub async fn reconfigure(&self, name: &LvName, fresh: &[u32]) -> Result<(), Failure> {
        super::active::reconfigure(self, name, fresh).await
    }

    /// Activates what was active when the daemon ended and is not served yet. The caller holds the verb
    /// lock.
    pub async fn activate_wanted(self: &Arc<Self>) {
        for view in self.groups.views() {
            if view.trouble.is_some() || view.group.exported {
                continue;
            }
            let wanted = |volume: &&Volume| volume.active && !self.is_active(volume.uuid);
            if !self.groups.may_start(&view) {
                if view.group.volumes.iter().any(|volume| wanted(&volume)) {
                    let away: Vec<_> = view.missing().iter().map(|pv| &*pv.path_hint).collect();
                    let text = format!(
                        "not activated by itself: this node has not used it before, and what the disk(s) last seen at {} have is not known; `volmgr vgchange -ay {}` does",
                        away.join(", "),
                        view.group.name
                    );
                    self.event("activation-held", &view.group.name, &text);
                }
                continue;
            }
            for volume in view.group.volumes.iter().filter(wanted) {
                if self.stopping() {
                    return;
                }
                let name = LvName {
                    vg: view.group.name.clone(),
                    lv: volume.name.clone(),
                };
                if let Err(failure) = super::active::activate(self, &name, None).await {
                    self.event("activation-failed", &name.to_string(), &failure.to_string());
                }
            }
        }
    }

    /// Stops serving all volumes; they stay wanted, so the next start serves them again.
    pub async fn deactivate_all(self: &Arc<Self>) {
        super::active::deactivate_all(self).await;
    }

    /// Fingerprint of this node's key, as peers pin it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint().to_string()
    }

    /// For what may be done only while somebody holds the verb lock: says so in builds with checks.
    pub fn expect_verb_lock(&self) {
        debug_assert!(self.verbs.try_lock().is_err(), "nobody holds the verb lock");
    }

    /// Held by a verb while it changes things.
    pub async fn verb_lock(&self) -> MutexGuard<'_, ()> {
        self.verbs.lock().await
    }

    /// Records an event.
    pub fn event(&self, kind: &str, object: &str, text: &str) {
        self.events.record(kind, object, text);
    }

    /// What may change while the daemon runs, as it is now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.get()
    }

    /// Runs a task until it ends or the daemon stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop_signal();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.wait() => {}
            }
        });
    }

    /// To wait for the end.
    pub fn stop_signal(&self) -> StopSignal {
        StopSignal(self.stop.subscribe())
    }

    /// Is the daemon stopping?
    pub fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Registers the feeds; once, before [`Node::start`].
    pub fn set_feeds(&self, feeds: Arc<dyn FeedService>) {
        if self.feeds.set(feeds).is_err() {
            tracing::error!("feeds registered twice; the first ones stay");
        }
    }

    /// The feeds, where they are part of this daemon.
    pub fn feeds(&self) -> Option<&Arc<dyn FeedService>> {
        self.feeds.get()
    }

    /// The peer list has changed: the feeds want to know.
    pub(super) fn peers_changed(&self) {
        if let Some(feeds) = self.feeds() {
            feeds.peers_changed();
        }
    }

    pub(super) async fn stop_feeds(&self) {
        if let Some(feeds) = self.feeds() {
            feeds.stop().await;
        }
    }
}
