//! Creating, starting, stopping and deleting devices.
//!
//! ```text
//!  Control::add ──> [added] ──(queues fetch)── Device::start ──> [live] ── Device::stop ──> [dead] ── Device::delete
//!                                                                  │ server dies
//!                                                                  v
//!  Control::open ─────────────────────────────────────────── [quiesced] ── start_recovery, queues fetch, end_recovery ──> [live]
//! ```
//!
//! `start` and `end_recovery` return only when the queues' threads have fetched every tag, so they
//! must run on another thread than the queues.

use crate::params;
use crate::sys::ring::ControlRing;
use crate::sys::uapi::{self, ControlCommand, DeviceInfo, Features};
use crate::{CharDevice, DeviceConfig, Mode, Owner, UblkError, probe};
use std::fs::{File, OpenOptions};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CONTROL_PATH: &str = "/dev/ublk-control";
/// Time a new device gets to appear in `/dev`.
const APPEARS: Duration = Duration::from_secs(3);
/// Time udev gets to give a device to the user who made it.
const GIVEN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The kernel's ublk driver. Commands are serialised; clones share one ring.
#[derive(Clone)]
pub struct Control {
    ring: Arc<Mutex<ControlRing>>,
}

/// A ublk device. Clones are the same device. Dropping it does not delete it: it may have to outlive the daemon.
#[derive(Clone)]
pub struct Device {
    control: Control,
    info: DeviceInfo,
}

/// What an attempt to stop a device came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It serves no more.
    Yes,
    /// Someone has it open; it goes on serving.
    InUse,
}

impl Control {
    /// Opens the control device.
    ///
    /// # Errors
    /// [`UblkError::NoDriver`] and [`UblkError::NotPermitted`] are the usual ones.
    pub fn open() -> Result<Self, UblkError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL_PATH)
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => UblkError::NoDriver { path: CONTROL_PATH },
                io::ErrorKind::PermissionDenied => UblkError::NotPermitted { path: CONTROL_PATH },
                _ if e.raw_os_error() == Some(libc::ENXIO) => {
                    UblkError::NoDriver { path: CONTROL_PATH }
                }
                _ => UblkError::Io {
                    what: format!("cannot open {CONTROL_PATH}"),
                    source: e,
                },
            })?;
        let ring = ControlRing::new(file).map_err(|source| UblkError::Io {
            what: "cannot set up the ublk control ring".into(),
            source,
        })?;
        Ok(Self {
            ring: Arc::new(Mutex::new(ring)),
        })
    }

    fn run(
        &self,
        name: &'static str,
        op: u32,
        command: ControlCommand,
        buffer: Option<&mut [u8]>,
    ) -> Result<i32, UblkError> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.run(op, command, buffer)
            .map_err(|source| UblkError::Command {
                command: name,
                source,
            })
    }

    /// The same for a device of an ordinary user: the kernel looks at who may use its character device,
    /// whose path stands before what else is in the buffer.
    fn run_by_path(
        &self,
        name: &'static str,
        op: u32,
        command: ControlCommand,
        buffer: Option<&mut [u8]>,
    ) -> Result<i32, UblkError> {
        let path = char_path(command.dev_id);
        let mut whole = path.clone().into_bytes();
        whole.extend_from_slice(buffer.as_deref().unwrap_or_default());
        let command = ControlCommand {
            // A path of some twenty bytes.
            path_len: path.len() as u16,
            ..command
        };
        let result = self.run(name, op, command, Some(&mut whole))?;
        if let Some(buffer) = buffer {
            buffer.copy_from_slice(&whole[path.len()..]);
        }
        Ok(result)
    }

    /// The features of the running kernel. Kernels before 6.4 cannot say and count as having none.
    pub fn features(&self) -> Result<Features, UblkError> {
        let mut bytes = [0u8; 8];
        self.run(
            "GET_FEATURES",
            uapi::CMD_GET_FEATURES,
            ControlCommand {
                dev_id: u32::MAX,
                ..ControlCommand::default()
            },
            Some(&mut bytes),
        )?;
        Ok(Features::from_bits_truncate(u64::from_ne_bytes(bytes)))
    }

    /// Creates a device; it has no requests until it is started. The kernel silently clears what
    /// it does not know, so the flags are read back.
    pub fn add(&self, config: &DeviceConfig) -> Result<Device, UblkError> {
        let known = self.features()?;
        let need = probe::needs(config.mode, config.owner);
        if !known.contains(need) {
            return Err(UblkError::Features {
                missing: need - known,
            });
        }
        // Partitions appear by themselves, as they do with any disk: `NO_AUTO_PART_SCAN` is not asked for.
        let wish = Features::UPDATE_SIZE | Features::SAFE_STOP_DEV;
        let mut info = DeviceInfo {
            queues: config.queues,
            depth: config.depth,
            max_io_bytes: config.max_io,
            dev_id: config.id.unwrap_or(u32::MAX),
            server_pid: i32::try_from(std::process::id()).unwrap_or(0),
            flags: (need | (wish & known)).bits(),
            ..DeviceInfo::default()
        };
        let mut bytes = info.encode();
        self.run(
            "ADD_DEV",
            uapi::CMD_ADD_DEV,
            ControlCommand {
                dev_id: info.dev_id,
                ..ControlCommand::default()
            },
            Some(&mut bytes),
        )?;
        info = DeviceInfo::decode(&bytes);
        let device = Device {
            control: self.clone(),
            info,
        };
        let got = device.features();
        let result = if got.contains(need) {
            device
                .wait_until_given(&char_path(device.id()))
                .and_then(|()| device.set_params(config))
        } else {
            Err(UblkError::Features {
                missing: need - got,
            })
        };
        if let Err(error) = result {
            if let Err(also) = device.delete() {
                tracing::warn!(id = device.id(), error = %also, "a ublk device stays behind");
            }
            return Err(error);
        }
        Ok(device)
    }

    /// A device that exists already: one that outlived its server.
    pub fn device(&self, id: u32) -> Result<Device, UblkError> {
        Ok(Device {
            control: self.clone(),
            info: self.info(id)?,
        })
    }

    fn info(&self, id: u32) -> Result<DeviceInfo, UblkError> {
        let mut bytes = [0u8; DeviceInfo::LEN];
        let command = ControlCommand {
            dev_id: id,
            ..ControlCommand::default()
        };
        let op = uapi::CMD_GET_DEV_INFO;
        match self.run("GET_DEV_INFO", op, command, Some(&mut bytes)) {
            Ok(_) => {}
            // So it answers for a device of an ordinary user, where it wants the path.
            Err(UblkError::Command { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) =>
            {
                let op = uapi::CMD_GET_DEV_INFO2;
                self.run_by_path("GET_DEV_INFO2", op, command, Some(&mut bytes))?;
            }
            Err(error) => return Err(error),
        }
        Ok(DeviceInfo::decode(&bytes))
    }
}

fn char_path(id: u32) -> String {
    format!("/dev/ublkc{id}")
}

impl Device {
    /// N of `/dev/ublkbN`.
    pub fn id(&self) -> u32 {
        self.info.dev_id
    }

    /// What the kernel granted.
    pub fn features(&self) -> Features {
        Features::from_bits_truncate(self.info.flags)
    }

    /// Number of queues.
    pub fn queues(&self) -> u16 {
        self.info.queues
    }

    /// Requests per queue.
    pub fn depth(&self) -> u16 {
        self.info.depth
    }

    /// Largest request in bytes.
    pub fn max_io(&self) -> u32 {
        self.info.max_io_bytes
    }

    /// Has its server died?
    pub fn is_quiesced(&self) -> Result<bool, UblkError> {
        Ok(self.control.info(self.id())?.state == uapi::STATE_QUIESCED)
    }

    /// The process that served it last, as it said itself when it started the device.
    pub fn server_pid(&self) -> i32 {
        self.info.server_pid
    }

    /// How its payload moves.
    pub fn mode(&self) -> Mode {
        if self.features().contains(Features::AUTO_BUF_REG) {
            Mode::ZeroCopy
        } else if self.features().contains(Features::USER_COPY) {
            Mode::UserCopy
        } else {
            Mode::Mapped
        }
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        match self.features().contains(Features::UNPRIVILEGED_DEV) {
            true => Owner::User,
            false => Owner::Machine,
        }
    }

    /// User and group of the process that made it.
    pub fn maker(&self) -> (u32, u32) {
        (self.info.owner_uid, self.info.owner_gid)
    }

    /// Does it wait for another server when its own ends?
    pub fn is_recoverable(&self) -> bool {
        self.features().contains(Features::USER_RECOVERY)
    }

    /// Is it serving?
    pub fn is_live(&self) -> Result<bool, UblkError> {
        Ok(self.control.info(self.id())?.state == uapi::STATE_LIVE)
    }

    /// Opens the device that queues talk to. It appears a moment after the device was added.
    pub fn open_char(&self) -> Result<CharDevice, UblkError> {
        let path = char_path(self.id());
        let deadline = Instant::now() + APPEARS;
        loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Ok(CharDevice::new(file, self.max_io())),
                Err(source) if Instant::now() >= deadline => {
                    return Err(UblkError::Io {
                        what: format!("cannot open {path}"),
                        source,
                    });
                }
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// The kernel makes a user's device as root's; udev gives it to him a moment later. Until then he can
    /// do nothing with it, not even take it away.
    fn wait_until_given(&self, path: &str) -> Result<(), UblkError> {
        if self.owner() == Owner::Machine {
            return Ok(());
        }
        let deadline = Instant::now() + GIVEN;
        while let Err(source) = File::open(path) {
            if Instant::now() >= deadline {
                return Err(match source.kind() {
                    io::ErrorKind::PermissionDenied => UblkError::NotGiven {
                        path: path.to_owned(),
                    },
                    _ => UblkError::Io {
                        what: format!("cannot open {path}"),
                        source,
                    },
                });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn set_params(&self, config: &DeviceConfig) -> Result<(), UblkError> {
        let mut bytes = params::encode(config);
        self.command("SET_PARAMS", uapi::CMD_SET_PARAMS, 0, Some(&mut bytes))
    }

    /// Makes the block device appear. Waits until every tag of every queue has been fetched.
    pub fn start(&self) -> Result<(), UblkError> {
        self.command(
            "START_DEV",
            uapi::CMD_START_DEV,
            u64::from(std::process::id()),
            None,
        )?;
        self.wait_until_given(&self.block_path().display().to_string())
    }

    /// Takes the device over from a server that died; then the queues fetch, then
    /// [`Device::end_recovery`].
    pub fn start_recovery(&self) -> Result<(), UblkError> {
        self.command(
            "START_USER_RECOVERY",
            uapi::CMD_START_USER_RECOVERY,
            0,
            None,
        )
    }

    /// Resumes service. Waits until every tag of every queue has been fetched.
    pub fn end_recovery(&self) -> Result<(), UblkError> {
        let pid = u64::from(std::process::id());
        self.command("END_USER_RECOVERY", uapi::CMD_END_USER_RECOVERY, pid, None)
    }

    /// A new size in bytes, also while the device is in use.
    pub fn resize(&self, size: u64) -> Result<(), UblkError> {
        if !self.features().contains(Features::UPDATE_SIZE) {
            return Err(UblkError::Features {
                missing: Features::UPDATE_SIZE,
            });
        }
        self.command("UPDATE_SIZE", uapi::CMD_UPDATE_SIZE, size / 512, None)
    }

    /// Ends service: requests in flight are finished by the queues, new ones fail.
    pub fn stop(&self) -> Result<(), UblkError> {
        self.command("STOP_DEV", uapi::CMD_STOP_DEV, 0, None)
    }

    /// Ends service unless someone has the block device open. `None` where the kernel cannot tell
    /// (before Linux 7.0, or not of a user's device): then nothing has happened.
    pub fn try_stop(&self) -> Result<Option<Stopped>, UblkError> {
        if !self.features().contains(Features::SAFE_STOP_DEV) {
            return Ok(None);
        }
        match self.command("TRY_STOP_DEV", uapi::CMD_TRY_STOP_DEV, 0, None) {
            Ok(()) => Ok(Some(Stopped::Yes)),
            Err(UblkError::Command { source, .. })
                if source.kind() == io::ErrorKind::ResourceBusy =>
            {
                Ok(Some(Stopped::InUse))
            }
            Err(error) if self.lacks_command(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the device; its queues must have let go of it. Whoever still has it open keeps a dead
    /// one, and its number: that is not waited for, where the kernel lets us (Linux 6.9, and not a user's
    /// device).
    pub fn delete(&self) -> Result<(), UblkError> {
        match self.command("DEL_DEV_ASYNC", uapi::CMD_DEL_DEV_ASYNC, 0, None) {
            Err(error) if self.lacks_command(&error) => {
                self.command("DEL_DEV", uapi::CMD_DEL_DEV, 0, None)
            }
            other => other,
        }
    }

    /// Does the kernel not know this command? Of a user's device it says so in another way: it has a list of
    /// what he may, and newer commands are not in it.
    fn lacks_command(&self, error: &UblkError) -> bool {
        let code = match error {
            UblkError::Command { source, .. } => source.raw_os_error(),
            _ => None,
        };
        match self.owner() {
            Owner::Machine => code == Some(libc::EOPNOTSUPP),
            Owner::User => matches!(code, Some(libc::EOPNOTSUPP | libc::EINVAL)),
        }
    }

    fn command(
        &self,
        name: &'static str,
        op: u32,
        data: u64,
        buffer: Option<&mut [u8]>,
    ) -> Result<(), UblkError> {
        let command = ControlCommand {
            dev_id: self.id(),
            data,
            ..ControlCommand::default()
        };
        match self.owner() {
            Owner::Machine => self.control.run(name, op, command, buffer),
            Owner::User => self.control.run_by_path(name, op, command, buffer),
        }
        .map(drop)
    }
}
