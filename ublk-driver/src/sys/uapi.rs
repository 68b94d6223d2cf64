//! Structures and numbers of `linux/ublk_cmd.h` (Linux 6.0 to 7.2), laid out by hand.
//!
//! Fields are written to and read from byte buffers in native order; sizes are asserted below.

use bitflags::bitflags;

bitflags! {
    /// Feature flags of a ublk device (`UBLK_F_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u64 {
        /// Request pages can be registered in the server's io_uring.
        const SUPPORT_ZERO_COPY = 1;
        /// The device survives its server.
        const USER_RECOVERY = 1 << 3;
        /// Requests in flight when the server died are given to the next one.
        const USER_RECOVERY_REISSUE = 1 << 4;
        /// Created and owned by an ordinary user.
        const UNPRIVILEGED_DEV = 1 << 5;
        /// Commands are encoded as ioctls; always set by kernels that matter.
        const CMD_IOCTL_ENCODE = 1 << 6;
        /// Payload is moved by reading and writing the character device.
        const USER_COPY = 1 << 7;
        /// The size can change while the device is in use.
        const UPDATE_SIZE = 1 << 10;
        /// Request pages are registered by the fetch itself.
        const AUTO_BUF_REG = 1 << 11;
        /// The server can be exchanged in good order.
        const QUIESCE = 1 << 12;
        /// One thread may serve requests of any queue.
        const PER_IO_DAEMON = 1 << 13;
        /// `TRY_STOP_DEV` refuses while the device is open.
        const SAFE_STOP_DEV = 1 << 17;
        /// Partitions are not scanned at start.
        const NO_AUTO_PART_SCAN = 1 << 18;
    }
}

const fn ioc(direction: u32, number: u32, size: u32) -> u32 {
    (direction << 30) | (size << 16) | ((b'u' as u32) << 8) | number
}
const READ: u32 = 2;
const READ_WRITE: u32 = 3;
const CONTROL_LEN: u32 = 32;
const IO_LEN: u32 = 16;

pub(crate) const CMD_ADD_DEV: u32 = ioc(READ_WRITE, 0x04, CONTROL_LEN);
pub(crate) const CMD_DEL_DEV: u32 = ioc(READ_WRITE, 0x05, CONTROL_LEN);
pub(crate) const CMD_START_DEV: u32 = ioc(READ_WRITE, 0x06, CONTROL_LEN);
pub(crate) const CMD_STOP_DEV: u32 = ioc(READ_WRITE, 0x07, CONTROL_LEN);
pub(crate) const CMD_SET_PARAMS: u32 = ioc(READ_WRITE, 0x08, CONTROL_LEN);
pub(crate) const CMD_GET_DEV_INFO: u32 = ioc(READ, 0x02, CONTROL_LEN);
pub(crate) const CMD_START_USER_RECOVERY: u32 = ioc(READ_WRITE, 0x10, CONTROL_LEN);
pub(crate) const CMD_END_USER_RECOVERY: u32 = ioc(READ_WRITE, 0x11, CONTROL_LEN);
pub(crate) const CMD_GET_DEV_INFO2: u32 = ioc(READ, 0x12, CONTROL_LEN);
pub(crate) const CMD_GET_FEATURES: u32 = ioc(READ, 0x13, CONTROL_LEN);
pub(crate) const CMD_DEL_DEV_ASYNC: u32 = ioc(READ, 0x14, CONTROL_LEN);
pub(crate) const CMD_UPDATE_SIZE: u32 = ioc(READ_WRITE, 0x15, CONTROL_LEN);
pub(crate) const CMD_TRY_STOP_DEV: u32 = ioc(READ_WRITE, 0x17, CONTROL_LEN);

pub(crate) const IO_FETCH_REQ: u32 = ioc(READ_WRITE, 0x20, IO_LEN);
pub(crate) const IO_COMMIT_AND_FETCH_REQ: u32 = ioc(READ_WRITE, 0x21, IO_LEN);

/// `UBLK_IO_RES_ABORT`: no request will come for this tag any more.
pub(crate) const IO_RES_ABORT: i32 = -libc::ENODEV;
/// `UBLKSRV_IO_BUF_OFFSET`: where payload starts on the character device.
pub(crate) const IO_BUF_OFFSET: u64 = 0x8000_0000;
pub(crate) const IO_BUF_BITS: u32 = 25;
pub(crate) const TAG_BITS: u32 = 16;
/// `UBLK_MAX_QUEUE_DEPTH`, which the offsets of descriptor areas are counted in.
pub(crate) const MAX_QUEUE_DEPTH: usize = 4096;

pub(crate) const IO_OP_READ: u8 = 0;
pub(crate) const IO_OP_WRITE: u8 = 1;
pub(crate) const IO_OP_FLUSH: u8 = 2;
pub(crate) const IO_OP_DISCARD: u8 = 3;
pub(crate) const IO_OP_WRITE_ZEROES: u8 = 5;
pub(crate) const IO_F_FUA: u32 = 1 << 13;
pub(crate) const IO_F_NOUNMAP: u32 = 1 << 15;
/// The request's pages could not be registered.
pub(crate) const IO_F_NEED_REG_BUF: u32 = 1 << 17;
/// `UBLK_AUTO_BUF_REG_FALLBACK`.
pub(crate) const AUTO_BUF_REG_FALLBACK: u8 = 1;

pub(crate) const ATTR_READ_ONLY: u32 = 1;
pub(crate) const ATTR_ROTATIONAL: u32 = 1 << 1;
pub(crate) const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
pub(crate) const ATTR_FUA: u32 = 1 << 3;
pub(crate) const PARAM_TYPE_BASIC: u32 = 1;
pub(crate) const PARAM_TYPE_DISCARD: u32 = 1 << 1;

/// State of a device: `UBLK_S_DEV_*`.
pub(crate) const STATE_LIVE: u16 = 1;
pub(crate) const STATE_QUIESCED: u16 = 2;

/// `struct ublksrv_ctrl_cmd`.
#[derive(Clone, Copy, Default)]
pub(crate) struct ControlCommand {
    pub dev_id: u32,
    pub addr: u64,
    pub len: u16,
    pub data: u64,
    /// Bytes of the character device's path that stand before everything else at `addr`: whoever
    /// commands a device of an ordinary user shows with it that he may.
    pub path_len: u16,
}

impl ControlCommand {
    /// The command area of a 128-byte submission entry.
    pub(crate) fn bytes(self) -> [u8; 80] {
        let mut b = [0u8; 80];
        b[0..4].copy_from_slice(&self.dev_id.to_ne_bytes());
        b[4..6].copy_from_slice(&u16::MAX.to_ne_bytes()); // not for one queue
        b[6..8].copy_from_slice(&self.len.to_ne_bytes());
        b[8..16].copy_from_slice(&self.addr.to_ne_bytes());
        b[16..24].copy_from_slice(&self.data.to_ne_bytes());
        b[24..26].copy_from_slice(&self.path_len.to_ne_bytes());
        b
    }
}

/// `struct ublksrv_ctrl_dev_info`, the fields that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceInfo {
    pub queues: u16,
    pub depth: u16,
    pub state: u16,
    pub max_io_bytes: u32,
    pub dev_id: u32,
    pub server_pid: i32,
    pub flags: u64,
    /// Who made it.
    pub owner_uid: u32,
    pub owner_gid: u32,
}

impl DeviceInfo {
    pub(crate) const LEN: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0u8; Self::LEN];
        b[0..2].copy_from_slice(&self.queues.to_ne_bytes());
        b[2..4].copy_from_slice(&self.depth.to_ne_bytes());
        b[4..6].copy_from_slice(&self.state.to_ne_bytes());
        b[8..12].copy_from_slice(&self.max_io_bytes.to_ne_bytes());
        b[12..16].copy_from_slice(&self.dev_id.to_ne_bytes());
        b[16..20].copy_from_slice(&self.server_pid.to_ne_bytes());
        b[24..32].copy_from_slice(&self.flags.to_ne_bytes());
        b[40..44].copy_from_slice(&self.owner_uid.to_ne_bytes());
        b[44..48].copy_from_slice(&self.owner_gid.to_ne_bytes());
        b
    }

    pub(crate) fn decode(b: &[u8; Self::LEN]) -> Self {
        Self {
            queues: u16::from_ne_bytes([b[0], b[1]]),
            depth: u16::from_ne_bytes([b[2], b[3]]),
            state: u16::from_ne_bytes([b[4], b[5]]),
            max_io_bytes: u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            dev_id: u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
            server_pid: i32::from_ne_bytes([b[16], b[17], b[18], b[19]]),
            flags: u64::from_ne_bytes([b[24], b[25], b[26], b[27], b[28], b[29], b[30], b[31]]),
            owner_uid: u32::from_ne_bytes([b[40], b[41], b[42], b[43]]),
            owner_gid: u32::from_ne_bytes([b[44], b[45], b[46], b[47]]),
        }
    }
}

/// Length of `struct ublksrv_io_desc`.
pub(crate) const IO_DESC_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_headers() {
        // Computed by a C program from linux/ublk_cmd.h.
        assert_eq!(CMD_ADD_DEV, 0xc020_7504);
        assert_eq!(CMD_GET_DEV_INFO2, 0x8020_7512);
        assert_eq!(CMD_GET_FEATURES, 0x8020_7513);
        assert_eq!(CMD_TRY_STOP_DEV, 0xc020_7517);
        assert_eq!(IO_FETCH_REQ, 0xc010_7520);
        assert_eq!(IO_COMMIT_AND_FETCH_REQ, 0xc010_7521);
    }

    #[test]
    fn device_info_survives_a_round_trip() {
        let info = DeviceInfo {
            queues: 2,
            depth: 128,
            state: STATE_LIVE,
            max_io_bytes: 1 << 18,
            dev_id: 7,
            server_pid: 1234,
            flags: Features::USER_COPY.bits(),
            owner_uid: 1000,
            owner_gid: 100,
        };
        assert_eq!(DeviceInfo::decode(&info.encode()), info);
    }
}
