//! Who a node is: its UUID, its key and its self-signed certificate, in one file.
//!
//! * The file is made at the first start, complete or not at all, readable by its owner only; two
//!   daemons that start at once agree on one of the two.
//! * Peers know a node by the [`Fingerprint`] of its public key. The certificate around the key
//!   carries no trust and no name that anyone believes.
//! * The file is text: a line that says what it is, the node's UUID, then the key and the
//!   certificate as PEM.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;
use uuid::Uuid;

/// Name of the identity's file in the state directory.
pub const FILE_NAME: &str = "node.pem";

/// First line of the file; a later layout gets another number.
const FIRST_LINE: &str = "volmgr node identity 1";

/// No identity file is longer; in bytes.
const FILE_LEN_MAX: u64 = 64 << 10;

/// Before the hexadecimal digits of a written fingerprint.
const FINGERPRINT_PREFIX: &str = "sha256:";

/// SHA-256 of a node's public key (the certificate's SubjectPublicKeyInfo, as DER).
///
/// Written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of the key in this certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self(
            Sha256::digest(parsed.subject_public_key_info().as_ref()).into(),
        ))
    }
}

/// Looks at all the bytes whatever they are, so the time it takes says nothing about where they
/// differ.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |d, (a, b)| d | (a ^ b));
        difference == 0
    }
}

impl Eq for Fingerprint {}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FINGERPRINT_PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FingerprintError {
    /// Another kind of fingerprint, or none.
    #[error("a fingerprint starts with \"sha256:\"")]
    Prefix,
    /// Cut off, or too long.
    #[error("a fingerprint has 64 hexadecimal digits, not {0}")]
    Length(usize),
    /// Not hexadecimal.
    #[error("a fingerprint has hexadecimal digits only")]
    Digit,
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes upper-case digits and surrounding blanks, too: people paste these.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let text = text.trim();
        let prefix_matches = text
            .get(..FINGERPRINT_PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(FINGERPRINT_PREFIX));
        if !prefix_matches {
            return Err(FingerprintError::Prefix);
        }
        let digits = &text[FINGERPRINT_PREFIX.len()..];
        if digits.len() != 64 {
            return Err(FingerprintError::Length(digits.chars().count()));
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| FingerprintError::Digit)?;
        Ok(Self(bytes))
    }
}

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("{operation} {path:?}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On this file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{path:?} has mode {mode:04o}: the node's key must be its owner's alone (0600)")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what this program writes.
    #[error("{path:?} is not a node identity: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The key or certificate could not be made.
    #[error("making the node's key")]
    Generate(#[from] rcgen::Error),
}

/// A node's identity, with its private key.
pub struct Identity {
    node: Uuid,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Identity {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity in this state directory, made now if there is none yet.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE_NAME);
        match Self::load(&path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        create(state_dir, &path)?;
        Self::load(&path)
    }

    /// The identity in this file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let io = |operation| {
            move |source| IdentityError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::open(path).map_err(io("opening"))?;
        let metadata = file.metadata().map_err(io("looking at"))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(FILE_LEN_MAX)
            .read_to_string(&mut text)
            .map_err(io("reading"))?;
        Self::parse(&text).map_err(|what| IdentityError::Malformed {
            path: path.to_owned(),
            what,
        })
    }

    /// The identity in the text of such a file; the error is what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err("the first line is another");
        }
        let node = lines
            .next()
            .and_then(|line| line.strip_prefix("node: "))
            .and_then(|uuid| Uuid::parse_str(uuid).ok())
            .ok_or("the second line does not say the node's UUID")?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "the private key is missing or damaged")?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "the certificate is missing or damaged")?;
        let signing_key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| "the private key is not usable")?;
        let parsed = ParsedCertificate::try_from(&certificate)
            .map_err(|_| "the certificate is not usable")?;
        if signing_key.public_key().as_ref() != Some(&parsed.subject_public_key_info()) {
            return Err("the private key is not the certificate's");
        }
        let fingerprint = Fingerprint::of_certificate(&certificate)
            .map_err(|_| "the certificate is not usable")?;
        Ok(Self {
            node,
            certificate,
            key,
            fingerprint,
        })
    }

    /// The node's UUID.
    pub fn node(&self) -> Uuid {
        self.node
    }

    /// What peers know the node by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The certificate to show to peers.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A copy of the private key, for TLS configurations.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// Makes a new identity and gives it its name only when it is complete and durable. One that is
/// there by then stays.
fn create(state_dir: &Path, path: &Path) -> Result<(), IdentityError> {
    let node = Uuid::new_v4();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new(vec![format!("{node}.node.volmgr.invalid")])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("volmgr node {node}"));
    let certificate = params.self_signed(&key)?;
    let text = format!(
        "{FIRST_LINE}\nnode: {node}\n{}{}",
        key.serialize_pem(),
        certificate.pem()
    );

    let temporary = state_dir.join(format!(".{FILE_NAME}.{node}"));
    let io = |operation: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::Io {
            operation,
            path,
            source,
        }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io("creating", &temporary))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io("writing", &temporary))
        // A link, not a rename: it never takes the place of a file that another process made.
        .and_then(|()| match std::fs::hard_link(&temporary, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(io("naming", path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        });
    let removed = std::fs::remove_file(&temporary).map_err(io("removing", &temporary));
    written?;
    removed?;
    File::open(state_dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io("syncing", state_dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn made_once_and_loaded_after() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.node(), second.node());
        assert_eq!(first.fingerprint(), second.fingerprint());
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [FILE_NAME]);
        let mode = std::fs::metadata(dir.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn two_that_start_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let nodes: Vec<Uuid> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Identity::load_or_create(dir.path()).unwrap().node()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(nodes.iter().all(|node| *node == nodes[0]));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Identity::load_or_create(dir.path()),
            Err(IdentityError::TooOpen { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        Identity::load_or_create(other.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = std::fs::read_to_string(&path).unwrap();
        let foreign = std::fs::read_to_string(other.path().join(FILE_NAME)).unwrap();
        let certificate = |text: &str| text.find("-----BEGIN CERTIFICATE").unwrap();
        let mixed = format!(
            "{}{}",
            &good[..certificate(&good)],
            &foreign[certificate(&foreign)..]
        );
        for bad in [
            String::new(),
            good.replace("identity 1", "identity 2"),
            good.replace("node: ", "nose: "),
            good[..certificate(&good)].to_owned(),
            mixed,
        ] {
            std::fs::write(&path, &bad).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        assert!(!format!("{identity:?}").to_lowercase().contains("key"));
    }

    #[test]
    fn what_is_not_a_fingerprint() {
        let digits = "0".repeat(64);
        let parse = |text: String| text.parse::<Fingerprint>();
        assert_eq!(parse(digits.clone()), Err(FingerprintError::Prefix));
        assert_eq!(
            parse(format!("md5:{digits}")),
            Err(FingerprintError::Prefix)
        );
        assert_eq!(
            parse(format!("sha256:{digits}0")),
            Err(FingerprintError::Length(65))
        );
        assert_eq!(
            parse(format!("sha256:{}g", &digits[1..])),
            Err(FingerprintError::Digit)
        );
        assert!(parse(format!(" SHA256:{digits}\n")).is_ok());
    }

    proptest! {
        #[test]
        fn fingerprints_survive_text(bytes in any::<[u8; 32]>()) {
            let fingerprint = Fingerprint::from_bytes(bytes);
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }

        #[test]
        fn any_text_parses_or_fails(text in "(sha256:)?\\PC{0,70}") {
            if let Ok(fingerprint) = text.parse::<Fingerprint>() {
                prop_assert_eq!(fingerprint.to_string(), text.trim().to_ascii_lowercase());
            }
        }

        #[test]
        fn equality_is_of_the_bytes(a in any::<[u8; 32]>(), bit in 0usize..256) {
            let mut b = a;
            prop_assert!(Fingerprint::from_bytes(a) == Fingerprint::from_bytes(b));
            b[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Fingerprint::from_bytes(a) != Fingerprint::from_bytes(b));
        }
    }
}
