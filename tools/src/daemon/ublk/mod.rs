//! Volumes as block devices: from a running lane to `/dev/volmgr/VG/LV` and back.
//!
//! Starting, stopping and deleting a device wait for its lane to serve requests, so they run on
//! threads that may block, never on a lane's. A device is recorded before it is started; what a dead
//! daemon left is taken over by the next activation of its volume, with all who use it.

mod modes;
mod names;
mod owner;
mod records;
pub mod users;

pub use owner::print_ublk_owner;
pub use records::{Record, Records};

use super::Node;
use super::config::QUEUES_MAX;
use super::verbs::chain;
use crate::api::LvName;
use crate::lane::{LaneError, LaneHandle, UBLK_MAX_IO, UBLK_SLOTS, UblkQueues};
use blockio::Limits;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use ublk_driver::{
    CharDevice, Control, Device, DeviceConfig, Mode, Owner, QueueMap, Stopped, UblkError,
};
use uuid::Uuid;

/// Where the stable names are.
const LINKS: &str = "/dev/volmgr";
/// Requests at a time, of each queue.
const DEPTH: u16 = 128;
/// Time a lane gets to let go of a device that has been stopped.
const LET_GO: Duration = Duration::from_secs(20);
/// Time the kernel gets to notice that a device's server has died.
const QUIESCE: Duration = Duration::from_secs(5);
/// Time that those who only look at new devices (udev) get to close them again.
const LOOKERS: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(50);

const _: () = assert!(QUEUES_MAX * DEPTH <= UBLK_SLOTS, "a slot for each tag");

/// A volume cannot be made a block device, or not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The driver or the kernel says no.
    #[error(transparent)]
    Ublk(#[from] UblkError),
    /// The lane does not serve it.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// No way of moving payload works here.
    #[error("{0}")]
    Mode(String),
    /// Someone uses it.
    #[error("/dev/ublkb{id} is in use")]
    InUse {
        /// N of `/dev/ublkbN`.
        id: u32,
    },
    /// The lane does not let go of it.
    #[error("/dev/ublkb{id} is not let go of")]
    Held {
        /// N of `/dev/ublkbN`.
        id: u32,
    },
    /// Its name cannot be made.
    #[error("cannot make {path}")]
    Link {
        /// The name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] super::state::StateError),
}

/// A volume's block device, served by its lane.
pub struct BlockDevice {
    device: Device,
    volume: Uuid,
    /// Why payload does not move in the best way.
    reason: Option<String>,
    /// The stable name. `/dev` is not an ordinary user's to make names in.
    link: Option<PathBuf>,
    /// Size as announced, in bytes.
    size: AtomicU64,
    /// Ends when the lane has let go.
    held: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A device with its character device and the requests of its queues.
type Opened = (Device, CharDevice, Vec<QueueMap>);

/// Makes a running volume a block device.
pub async fn create(
    node: &Arc<Node>,
    name: &LvName,
    volume: Uuid,
    lane: &LaneHandle,
) -> Result<Arc<BlockDevice>, BlockError> {
    let limits = lane.limits();
    let its = Arc::clone(node);
    if let Some(opened) = blocking(move || take_over(&its, volume)).await {
        let features = opened.0.features();
        let reason = modes::kept(opened.0.mode(), features);
        let block = serve(node, name, volume, lane, opened, reason, true).await?;
        let id = block.id();
        let text = format!("/dev/ublkb{id} is served again, with all who use it");
        node.event("ublk-recovered", &name.to_string(), &text);
        return Ok(block);
    }
    let features = blocking(|| Control::open()?.features()).await?;
    let wanted = node.config.ublk.mode;
    let choices = modes::choices(wanted, features).map_err(BlockError::Mode)?;
    let mut choices = VecDeque::from(choices);
    let mut failed: Option<BlockError> = None;
    while let Some(modes::Choice {
        mode,
        owner,
        reason,
    }) = choices.pop_front()
    {
        let reason = failed
            .take()
            .map(|error| chain(&error).to_string())
            .or(reason);
        let queues = node.config.ublk.queues;
        let made = match blocking(move || add(limits, mode, owner, queues)).await {
            Ok(opened) => serve(node, name, volume, lane, opened, reason.clone(), false).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(block) => {
                if let Some(reason) = reason {
                    let text = format!("data moves by {}: {reason}", mode.name());
                    node.event("ublk-fallback", &name.to_string(), &text);
                }
                return Ok(block);
            }
            Err(BlockError::Ublk(error)) if error.is_not_permitted() && owner == Owner::Machine => {
                // The kernel is asked, not the user's name: in a container root is an ordinary user, too.
                choices.clear();
                choices.push_back(modes::of_user(wanted, features).map_err(BlockError::Mode)?);
            }
            Err(error) => {
                tracing::info!(%name, mode = mode.name(), error = chain(&error), "a block device cannot be had this way");
                failed = Some(error);
            }
        }
    }
    Err(failed.unwrap_or_else(|| BlockError::Mode("no mode was tried".to_owned())))
}

/// Lets the lane serve an opened device and starts it; takes it away where that fails.
async fn serve(
    node: &Arc<Node>,
    name: &LvName,
    volume: Uuid,
    lane: &LaneHandle,
    (device, char, maps): Opened,
    reason: Option<String>,
    recovered: bool,
) -> Result<Arc<BlockDevice>, BlockError> {
    let (hold, held) = oneshot::channel();
    let mode = device.mode();
    let link = match device.owner() {
        Owner::Machine => Some(Path::new(LINKS).join(&name.vg).join(&name.lv)),
        Owner::User => None,
    };
    let size = match (recovered, mode) {
        // Not known, or none yet.
        (true, _) | (_, Mode::ZeroCopy) => 0,
        (false, Mode::UserCopy | Mode::Mapped) => lane.limits().size,
    };
    let block = Arc::new(BlockDevice {
        device,
        volume,
        reason,
        link,
        size: AtomicU64::new(size),
        held: Mutex::new(Some(held)),
    });
    let queues = UblkQueues {
        device: char,
        maps,
        mode,
        hold,
    };
    let mut started = node
        .ublk
        .set(&node.state, volume, block.id())
        .map_err(BlockError::from);
    if started.is_ok()
        && let Err(error) = names::announce(&node.config.runtime_dir, block.id(), name, volume)
    {
        tracing::warn!(%name, %error, "udev will not know the name of a device");
    }
    if started.is_ok() {
        started = lane.add_ublk(queues).await.map_err(BlockError::from);
    }
    if started.is_ok() {
        let (its, now) = (Arc::clone(&block), lane.limits());
        started = blocking(move || its.begin(recovered, now)).await;
    }
    if let Err(error) = started {
        let its = Arc::clone(node);
        if let Err(also) = blocking(move || block.end(&its, true)).await {
            tracing::warn!(%name, error = chain(&also), "cannot take a block device away");
        }
        return Err(error);
    }
    let id = block.id();
    lane.set_users(Some(Arc::new(move || users::count(id))));
    Ok(block)
}

fn open(device: Device) -> Result<Opened, UblkError> {
    let char = device.open_char()?;
    let maps = (0..device.queues())
        .map(|queue| QueueMap::new(&char, queue, device.depth()))
        .collect::<Result<_, _>>()?;
    Ok((device, char, maps))
}

fn add(limits: Limits, mode: Mode, owner: Owner, queues: u16) -> Result<Opened, BlockError> {
    // A control ring for each device: a command that waits holds up no other device's.
    let limits = match owner {
        // The flag is set afterwards: a feed may come and go while the device stays.
        Owner::Machine => Limits {
            read_only: false,
            ..limits
        },
        Owner::User => limits,
    };
    let limits = match mode {
        // It gets its size when its pages are stable: before, nobody can use it.
        Mode::ZeroCopy => Limits { size: 0, ..limits },
        Mode::UserCopy | Mode::Mapped => limits,
    };
    let device = Control::open()?.add(&DeviceConfig {
        queues,
        depth: DEPTH,
        max_io: UBLK_MAX_IO,
        mode,
        owner,
        limits,
        id: None,
    })?;
    let id = device.id();
    match open(device) {
        Ok(opened) => Ok(opened),
        Err(error) => {
            if let Err(also) = Control::open()
                .and_then(|control| control.device(id))
                .and_then(|device| device.delete())
            {
                tracing::warn!(id, error = chain(&also), "cannot delete a ublk device");
            }
            Err(error.into())
        }
    }
}

/// The recorded device of a volume, if it exists and is the one that was recorded.
fn recorded(node: &Node, volume: Uuid) -> Option<Device> {
    let record = node.ublk.get(volume)?;
    let device = Control::open()
        .and_then(|control| control.device(record.id))
        .ok()?;
    // A device that was never started has no server.
    (device.server_pid() == record.pid || device.server_pid() <= 0).then_some(device)
}

/// Takes over what a dead daemon left, or clears it away. Blocks.
fn take_over(node: &Node, volume: Uuid) -> Option<Opened> {
    let device = recorded(node, volume)?;
    let id = device.id();
    if !device.is_recoverable() {
        clear(node, volume);
        return None;
    }
    let tags = u32::from(device.queues()) * u32::from(device.depth());
    let fits = tags <= u32::from(UBLK_SLOTS)
        && device.max_io() <= UBLK_MAX_IO
        && wait_for(QUIESCE, || device.is_quiesced().unwrap_or(false));
    let taken = if fits {
        let opened = wait_for(QUIESCE, || device.start_recovery().is_ok()).then(|| open(device));
        match opened {
            Some(Ok(opened)) => return Some(opened),
            Some(Err(error)) => chain(&error),
            None => "the kernel does not hand it over".to_owned(),
        }
    } else {
        "it is not waiting for a server, or was made differently".to_owned()
    };
    tracing::warn!(id, why = taken, "a ublk device cannot be taken over");
    clear(node, volume);
    None
}

fn wait_for(most: Duration, mut done: impl FnMut() -> bool) -> bool {
    let since = Instant::now();
    loop {
        if done() {
            return true;
        }
        if since.elapsed() > most {
            return false;
        }
        std::thread::sleep(RETRY);
    }
}

/// Deletes a device that has been stopped. Where the kernel would have us wait for those who still have it
/// open, a thread waits. Blocks.
fn delete(device: &Device) -> Result<(), UblkError> {
    if device.owner() == Owner::Machine || users::count(device.id()) == 0 {
        return device.delete();
    }
    let id = device.id();
    let device = device.clone();
    let wait = move || {
        if let Err(error) = device.delete() {
            tracing::warn!(id, error = chain(&error), "cannot delete a ublk device");
        }
    };
    std::thread::Builder::new()
        .name(format!("ublk {id} ends"))
        .spawn(wait)
        .map(drop)
        .map_err(|source| UblkError::Io {
            what: format!("cannot wait for the users of /dev/ublkb{id}"),
            source,
        })
}

/// Deletes a recorded device that no one serves. Blocks.
fn clear(node: &Node, volume: Uuid) {
    if let Some(device) = recorded(node, volume)
        && let Err(error) = device.stop().and_then(|()| delete(&device))
    {
        tracing::warn!(
            id = device.id(),
            error = chain(&error),
            "cannot delete a ublk device"
        );
        return;
    }
    if let Err(error) = node.ublk.remove(&node.state, volume) {
        tracing::warn!(%error, "cannot forget a ublk device");
    }
}

/// Deletes the devices that a dead daemon left of volumes that are served no more. Blocks.
pub fn clear_leftovers(node: &Node) {
    for volume in node.ublk.volumes() {
        if !node.is_active(volume) {
            clear(node, volume);
        }
    }
}

impl BlockDevice {
    /// N of `/dev/ublkbN`.
    pub fn id(&self) -> u32 {
        self.device.id()
    }

    /// Where it is: its stable name, if it has one.
    pub fn path(&self) -> String {
        let link = self.link.clone();
        let path = link.unwrap_or_else(|| self.device.block_path());
        path.display().to_string()
    }

    /// Does it wait for the next daemon, with all who use it, when this one ends?
    pub fn outlives_daemon(&self) -> bool {
        self.device.is_recoverable()
    }

    /// How payload moves, as listings say it.
    pub fn io_mode(&self) -> &'static str {
        self.device.mode().name()
    }

    /// Plexes and feeds read the pages of the device's users.
    pub fn is_zero_copy(&self) -> bool {
        self.device.mode() == Mode::ZeroCopy
    }

    /// Why it does not move in a better way.
    pub fn io_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The queues are being fetched from: makes the device appear, complete with its name. Blocks.
    fn begin(&self, recovered: bool, limits: Limits) -> Result<(), BlockError> {
        if recovered {
            self.device.end_recovery()?;
        } else {
            self.device.start()?;
        }
        if self.is_zero_copy() {
            self.stable_pages(recovered)?;
        }
        self.refresh(limits)?;
        if self.is_zero_copy() && !recovered {
            self.device.announce()?;
        }
        match &self.link {
            None => Ok(()),
            Some(link) => self.make_link(link).map_err(|source| BlockError::Link {
                path: link.clone(),
                source,
            }),
        }
    }

    /// Pages that do not change while they are written: in zero-copy mode plexes and feeds read them,
    /// each at its own time. For volumes with one plex and no feed, too: more may come while a
    /// filesystem is mounted, which does not look at the flag again.
    fn stable_pages(&self, recovered: bool) -> Result<(), UblkError> {
        match self.device.set_stable_pages() {
            // It has users: they keep it, as it has been for them all the time.
            Err(error) if recovered => {
                tracing::warn!(id = self.id(), error = chain(&error), "no stable pages");
                Ok(())
            }
            other => other,
        }
    }

    /// The volume has become larger, or is fed, or not any more. Blocks.
    pub fn refresh(&self, limits: Limits) -> Result<(), BlockError> {
        self.device.set_read_only(limits.read_only)?;
        if self.size.load(Ordering::Relaxed) != limits.size {
            match self.device.resize(limits.size) {
                // A device that was taken over has its size, most probably this one.
                Err(UblkError::Features { .. }) if self.size.load(Ordering::Relaxed) == 0 => {}
                other => other?,
            }
            self.size.store(limits.size, Ordering::Relaxed);
        }
        Ok(())
    }

    fn make_link(&self, link: &Path) -> io::Result<()> {
        let dir = link.parent().unwrap_or(Path::new(LINKS));
        fs::create_dir_all(dir)?;
        match fs::read_link(link) {
            Ok(_) if self.is_named(link) => return Ok(()),
            Ok(_) => fs::remove_file(link)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Something else has this name: it is not ours to remove.
            Err(error) => return Err(error),
        }
        match std::os::unix::fs::symlink(self.device.block_path(), link) {
            // udev was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_named(link) => {
                Ok(())
            }
            made => made,
        }
    }

    /// Does the name lead to this device? udev writes it as a relative path.
    fn is_named(&self, link: &Path) -> bool {
        let device = self.device.block_path();
        fs::read_link(link).is_ok_and(|to| to.file_name() == device.file_name())
    }

    fn remove_link(&self) {
        let Some(link) = &self.link else {
            return;
        };
        if self.is_named(link)
            && let Err(error) = fs::remove_file(link)
            // udev removes it, too.
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, link = %link.display(), "cannot remove the name of a device");
        }
        for dir in link.ancestors().skip(1).take(2) {
            // Other volumes have their names there.
            if dir.starts_with(LINKS) && fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }

    /// Is anyone using it? Those who only look get a moment to go. Blocks.
    pub fn in_use(&self) -> bool {
        let id = self.id();
        !wait_for(LOOKERS, || users::count(id) == 0 && !users::claimed(id))
    }

    /// Stops and deletes the device; the lane goes on meanwhile and lets go by itself. Without
    /// `force` a device in use stays as it is. Blocks.
    pub fn end(&self, node: &Node, force: bool) -> Result<(), BlockError> {
        let id = self.id();
        if !force {
            if self.in_use() {
                return Err(BlockError::InUse { id });
            }
            match self.device.try_stop()? {
                Some(Stopped::InUse) => return Err(BlockError::InUse { id }),
                Some(Stopped::Yes) | None => {}
            }
        }
        self.device.stop()?;
        self.remove_link();
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut held) = held
            // It is never sent to: it ends when the lane drops its end.
            && !wait_for(LET_GO, || {
                !matches!(held.try_recv(), Err(oneshot::error::TryRecvError::Empty))
            })
        {
            return Err(BlockError::Held { id });
        }
        delete(&self.device)?;
        if let Err(error) = names::forget(&node.config.runtime_dir, id) {
            tracing::warn!(id, %error, "cannot forget the name of a device");
        }
        node.ublk.remove(&node.state, self.volume)?;
        Ok(())
    }
}
