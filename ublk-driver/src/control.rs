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
use crate::{CharDevice, DeviceConfig, Mode, UblkError};
use std::fs::OpenOptions;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CONTROL_PATH: &str = "/dev/ublk-control";

/// The kernel's ublk driver. Commands are serialised; clones share one ring.
#[derive(Clone)]
pub struct Control {
    ring: Arc<Mutex<ControlRing>>,
}

/// A ublk device. Dropping it does not delete it: it may have to outlive the daemon.
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
        let need = config.mode.needs();
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
            state: 0,
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
            device.set_params(config)
        } else {
            Err(UblkError::Features {
                missing: need - got,
            })
        };
        if let Err(error) = result {
            device.delete()?;
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
        self.run(
            "GET_DEV_INFO",
            uapi::CMD_GET_DEV_INFO,
            ControlCommand {
                dev_id: id,
                ..ControlCommand::default()
            },
            Some(&mut bytes),
        )?;
        Ok(DeviceInfo::decode(&bytes))
    }
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

    /// Is it serving?
    pub fn is_live(&self) -> Result<bool, UblkError> {
        Ok(self.control.info(self.id())?.state == uapi::STATE_LIVE)
    }

    /// Opens the device that queues talk to. It appears a moment after the device was added.
    pub fn open_char(&self) -> Result<CharDevice, UblkError> {
        let path = format!("/dev/ublkc{}", self.id());
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Ok(CharDevice::new(file, self.max_io())),
                Err(source) if Instant::now() >= deadline => {
                    return Err(UblkError::Io {
                        what: format!("cannot open {path}"),
                        source,
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
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
        )
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
    /// (before Linux 7.0): then nothing has happened.
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
            Err(error) => Err(error),
        }
    }

    /// Removes the device; its queues must have let go of it. Whoever still has it open keeps a dead
    /// one, and its number: that is not waited for, where the kernel lets us (Linux 6.9).
    pub fn delete(&self) -> Result<(), UblkError> {
        match self.command("DEL_DEV_ASYNC", uapi::CMD_DEL_DEV_ASYNC, 0, None) {
            Err(UblkError::Command { source, .. })
                if source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                self.command("DEL_DEV", uapi::CMD_DEL_DEV, 0, None)
            }
            other => other,
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
        self.control.run(name, op, command, buffer).map(|_| ())
    }
}
