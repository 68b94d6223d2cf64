//! TLS records made and opened by the kernel, so that bulk payload can go between disk and socket by `splice` under TLS, too.
//!
//! The handshake is rustls's, in user space, with everything it checks. When a data stream has been admitted, the keys and
//! record numbers go to the kernel ([`KernelTls::take_over`]). What the kernel cannot do is known before the first connection
//! ([`KernelTls::probe`]): then the session stays in user space, and the feed says why.
//!
//! A key is used for [`DEFAULT_KEY_BYTES`] at most; then the connection is made anew, which costs a handshake and an
//! incremental resync of what was in flight. A peer that changes its key in the middle of a connection (its TLS is in user
//! space) ends it, to the same effect. See `docs/decisions`.

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, TlsGetRecordType, recvmsg, setsockopt, sockopt,
};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use std::io::{self, IoSliceMut};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::Duration;
use thiserror::Error;

/// Bytes that are sent with one key unless told otherwise. AES-GCM is good for 2^24.5 records; a record has at least
/// [`RECORD_MIN`] bytes in this reckoning, which makes 2^24 of them.
pub const DEFAULT_KEY_BYTES: u64 = 64 << 30;

/// The least that a record is counted as, in bytes.
const RECORD_MIN: u64 = 4096;

/// Why TLS stays in user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[non_exhaustive]
pub enum UserTls {
    /// Told so.
    #[error("as configured")]
    Configured,
    /// There is no `tls` module, or it may not be loaded.
    #[error("the kernel has no tls module")]
    NoModule,
    /// It is there and refuses.
    #[error("the kernel refuses {call}: {}", Errno::from_raw(*errno))]
    Refused {
        /// What was tried.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
    /// The session had read or kept more than what it was asked for.
    #[error("bytes were under way at the takeover")]
    UnderWay,
}

/// Whether the kernel makes TLS records here.
#[derive(Debug)]
pub struct KernelTls {
    state: Mutex<Result<(), UserTls>>,
    key_bytes: u64,
}

impl KernelTls {
    /// Finds out, on a connection of its own over the loopback interface.
    pub fn probe(key_bytes: u64) -> Self {
        Self {
            state: Mutex::new(try_out()),
            key_bytes,
        }
    }

    /// Off.
    pub fn off() -> Self {
        Self {
            state: Mutex::new(Err(UserTls::Configured)),
            key_bytes: DEFAULT_KEY_BYTES,
        }
    }

    /// `Ok` if the kernel takes connections over, else why not.
    pub fn state(&self) -> Result<(), UserTls> {
        *crate::streams::lock(&self.state)
    }

    /// Prepares a connection; nothing has changed for it yet, whatever this returns.
    pub(super) fn prepare(&self, tcp: &TcpStream) -> Result<(), UserTls> {
        self.state()?;
        attach(tcp)
    }

    /// Gives a prepared connection's keys to the kernel. The session in user space is over; an error is the end of
    /// the connection, and the last time that this is tried.
    pub(super) fn take_over(
        &self,
        tcp: TcpStream,
        secrets: ExtractedSecrets,
    ) -> io::Result<KernelStream> {
        if let Err(why) = give_keys(&tcp, secrets) {
            tracing::warn!("TLS goes back to user space: {why}");
            *crate::streams::lock(&self.state) = Err(why);
            return Err(io::Error::other(why));
        }
        Ok(KernelStream {
            tcp,
            budget: KeyBudget {
                left: self.key_bytes,
            },
        })
    }
}

fn attach(tcp: &TcpStream) -> Result<(), UserTls> {
    match setsockopt(tcp, sockopt::TcpUlp::default(), b"tls") {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT | Errno::ENOPROTOOPT | Errno::EPERM) => Err(UserTls::NoModule),
        Err(errno) => Err(refused("TCP_ULP", errno)),
    }
}

fn refused(call: &'static str, errno: Errno) -> UserTls {
    UserTls::Refused {
        call,
        errno: errno as i32,
    }
}

fn give_keys(tcp: &TcpStream, secrets: ExtractedSecrets) -> Result<(), UserTls> {
    let tx = crypto_info(secrets.tx)?;
    let rx = crypto_info(secrets.rx)?;
    setsockopt(tcp, sockopt::TcpTlsTx, &tx).map_err(|errno| refused("TLS_TX", errno))?;
    setsockopt(tcp, sockopt::TcpTlsRx, &rx).map_err(|errno| refused("TLS_RX", errno))
}

/// What the kernel wants to know: the fixed part of a nonce is its salt, the rest its "IV".
fn crypto_info(
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
) -> Result<sockopt::TlsCryptoInfo, UserTls> {
    let info = |cipher| libc::tls_crypto_info {
        version: libc::TLS_1_3_VERSION,
        cipher_type: cipher,
    };
    let rec_seq = sequence.to_be_bytes();
    match secrets {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            let (salt, iv) = nonce(iv.as_ref())?;
            let mut crypto = libc::tls12_crypto_info_aes_gcm_256 {
                info: info(libc::TLS_CIPHER_AES_GCM_256),
                iv,
                key: [0; 32],
                salt,
                rec_seq,
            };
            copy_key(&mut crypto.key, key.as_ref())?;
            Ok(sockopt::TlsCryptoInfo::Aes256Gcm(crypto))
        }
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
            let (salt, iv) = nonce(iv.as_ref())?;
            let mut crypto = libc::tls12_crypto_info_aes_gcm_128 {
                info: info(libc::TLS_CIPHER_AES_GCM_128),
                iv,
                key: [0; 16],
                salt,
                rec_seq,
            };
            copy_key(&mut crypto.key, key.as_ref())?;
            Ok(sockopt::TlsCryptoInfo::Aes128Gcm(crypto))
        }
        // The daemons prefer AES-GCM; a peer that insists on something else is served in user space from then on.
        _ => Err(refused("the cipher suite", Errno::EOPNOTSUPP)),
    }
}

fn nonce(iv: &[u8]) -> Result<([u8; 4], [u8; 8]), UserTls> {
    match (iv.first_chunk::<4>(), iv.last_chunk::<8>()) {
        (Some(salt), Some(rest)) if iv.len() == 12 => Ok((*salt, *rest)),
        _ => Err(refused("the nonce", Errno::EINVAL)),
    }
}

fn copy_key(to: &mut [u8], from: &[u8]) -> Result<(), UserTls> {
    if to.len() != from.len() {
        return Err(refused("the key", Errno::EINVAL));
    }
    to.copy_from_slice(from);
    Ok(())
}

/// Attaches and gives keys to a connection of this process with itself, and sends a byte through.
fn try_out() -> Result<(), UserTls> {
    let failed = |call| move |error: io::Error| refused(call, errno_of(&error));
    let listener = TcpListener::bind("127.0.0.1:0")
        .or_else(|_| TcpListener::bind("[::1]:0"))
        .map_err(failed("a connection to try it on"))?;
    let address = listener
        .local_addr()
        .map_err(failed("a connection to try it on"))?;
    let near = TcpStream::connect(address).map_err(failed("a connection to try it on"))?;
    let (far, _) = listener
        .accept()
        .map_err(failed("a connection to try it on"))?;
    for tcp in [&near, &far] {
        attach(tcp)?;
        let crypto = |sequence| {
            let secrets = ConnectionTrafficSecrets::Aes256Gcm {
                key: [7; 32].into(),
                iv: rustls::crypto::cipher::Iv::new([9; 12]),
            };
            (sequence, secrets)
        };
        give_keys(
            tcp,
            ExtractedSecrets {
                tx: crypto(0),
                rx: crypto(0),
            },
        )?;
    }
    far.set_read_timeout(Some(Duration::from_secs(2)))
        .map_err(failed("a connection to try it on"))?;
    let budget = KeyBudget { left: 0 };
    let (mut near, mut far) = (
        KernelStream { tcp: near, budget },
        KernelStream { tcp: far, budget },
    );
    io::Write::write_all(&mut near, b"x").map_err(failed("sending a record"))?;
    let mut byte = [0];
    io::Read::read_exact(&mut far, &mut byte).map_err(failed("receiving a record"))?;
    match byte {
        [b'x'] => Ok(()),
        _ => Err(refused("its own record", Errno::EBADMSG)),
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Bytes that a key is still good for.
#[derive(Clone, Copy, Debug)]
struct KeyBudget {
    left: u64,
}

impl KeyBudget {
    /// Takes a frame's worth out; `false` if the key is used up.
    fn spend(&mut self, bytes: u64) -> bool {
        // Header and payload may be records of their own.
        let cost = bytes.max(RECORD_MIN).saturating_add(RECORD_MIN);
        self.left = self.left.saturating_sub(cost);
        self.left > 0
    }
}

/// A connection whose records the kernel makes.
#[derive(Debug)]
pub(super) struct KernelStream {
    tcp: TcpStream,
    budget: KeyBudget,
}

impl KernelStream {
    pub(super) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// For the other direction, whose key has been used by nobody yet.
    pub(super) fn other_way(&self) -> io::Result<Self> {
        Ok(Self {
            tcp: self.tcp.try_clone()?,
            budget: self.budget,
        })
    }

    /// To be called before a frame with this many bytes of payload is sent; `false` if the key is used up.
    pub(super) fn spend(&mut self, bytes: u64) -> bool {
        self.budget.spend(bytes)
    }

    fn receive(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut space = nix::cmsg_space!(u8);
        let received = recvmsg::<()>(
            self.tcp.as_raw_fd(),
            slices,
            Some(&mut space),
            MsgFlags::empty(),
        )?;
        for message in received.cmsgs()? {
            let ControlMessageOwned::TlsGetRecordType(record) = message else {
                continue;
            };
            match record {
                TlsGetRecordType::ApplicationData => {}
                // The peer's goodbye, or its complaint: either way nothing more comes.
                TlsGetRecordType::Alert => return Ok(0),
                TlsGetRecordType::Handshake => {
                    return Err(io::Error::other(
                        "the peer changes its key; the connection is made anew",
                    ));
                }
                other => {
                    let text = format!("a TLS record that does not belong here: {other:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
        Ok(received.bytes)
    }
}

impl io::Read for KernelStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.receive(slices)
    }
}

impl io::Write for KernelStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.tcp.write(buf)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_up_by_bytes_and_by_records() {
        let mut budget = KeyBudget { left: 1 << 20 };
        assert!(budget.spend(512 << 10));
        assert!(!budget.spend(512 << 10), "header and payload are counted");
        let mut budget = KeyBudget { left: 1 << 20 };
        let frames = (0..1000).take_while(|_| budget.spend(1)).count();
        assert_eq!(frames, 127, "two records of 4 KiB for each of the smallest");
    }

    #[test]
    fn the_default_is_within_what_the_cipher_allows() {
        const { assert!(DEFAULT_KEY_BYTES / RECORD_MIN <= 1 << 24) };
    }

    #[test]
    fn the_kernel_gets_salt_iv_key_and_number() {
        let secrets = ConnectionTrafficSecrets::Aes256Gcm {
            key: [3; 32].into(),
            iv: rustls::crypto::cipher::Iv::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        };
        let Ok(sockopt::TlsCryptoInfo::Aes256Gcm(info)) = crypto_info((0x0102, secrets)) else {
            panic!("AES-256-GCM");
        };
        assert_eq!(info.salt, [0, 1, 2, 3]);
        assert_eq!(info.iv, [4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(info.key, [3; 32]);
        assert_eq!(info.rec_seq, [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(info.info.version, libc::TLS_1_3_VERSION);
        assert_eq!(info.info.cipher_type, libc::TLS_CIPHER_AES_GCM_256);
    }

    #[test]
    fn what_is_off_or_missing_says_why() {
        assert_eq!(KernelTls::off().state(), Err(UserTls::Configured));
        // Here or in the kernel of the reader: never a third thing, and never a panic.
        match KernelTls::probe(DEFAULT_KEY_BYTES).state() {
            Ok(()) | Err(UserTls::NoModule | UserTls::Refused { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
