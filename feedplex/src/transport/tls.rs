//! Mutual TLS 1.3 between peers that pinned each other's keys.
//!
//! The certificates are self-signed containers for keys. What a verifier here checks is that the
//! key is a pinned one and that the peer has the private half of it (the handshake signature);
//! names, dates and issuers mean nothing. There is no session resumption: every connection proves
//! both keys again.

use super::TransportError;
use crate::identity::{Fingerprint, Identity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    ServerConfig, SignatureScheme,
};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, RwLock};
use thiserror::Error;

/// The peers that may connect; asked in every handshake, so a peer that was removed is out at its
/// next attempt.
pub trait KnownPeers: Send + Sync {
    /// Is a peer with this key allowed to connect?
    fn knows(&self, fingerprint: &Fingerprint) -> bool;
}

impl KnownPeers for RwLock<HashSet<Fingerprint>> {
    fn knows(&self, fingerprint: &Fingerprint) -> bool {
        // A set is whole whatever the thread that panicked did before.
        let set = self.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        set.contains(fingerprint)
    }
}

/// The configuration for connecting to the peer with this key, and to no other.
pub fn client_config(
    identity: &Identity,
    peer: Fingerprint,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(PinnedServer {
        peer,
        provider: provider.clone(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate().clone()], identity.key())?;
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    // Data streams give their keys to the kernel, see `ktls`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The configuration for accepting connections from known peers.
pub fn server_config(
    identity: &Identity,
    peers: Arc<dyn KnownPeers>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(PinnedClients {
        peers,
        provider: provider.clone(),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate().clone()], identity.key())?;
    // Tickets would lie unread in the socket of a peer that only sends, and make the kernel answer
    // its close with a reset.
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The name in the client's hello, which nobody looks at.
pub(super) fn nameless() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
}

/// The key of the peer at the other end, after the handshake.
pub(super) fn peer_fingerprint(
    certificates: Option<&[CertificateDer<'_>]>,
) -> Result<Fingerprint, TransportError> {
    let certificate = certificates
        .and_then(|chain| chain.first())
        .ok_or(TransportError::Tls(rustls::Error::NoCertificatesPresented))?;
    Fingerprint::of_certificate(certificate).map_err(TransportError::Tls)
}

/// What a TLS error means to the admin.
pub(super) fn explain(error: &rustls::Error) -> TransportError {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            match inner.downcast_ref::<NotPinned>() {
                Some(NotPinned::Unknown(found)) => TransportError::UnknownPeer(*found),
                Some(NotPinned::Wrong { expected, found }) => TransportError::WrongPeer {
                    expected: *expected,
                    found: *found,
                },
                None => TransportError::Tls(error.clone()),
            }
        }
        rustls::Error::AlertReceived(
            Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::UnknownCA,
        ) => TransportError::RefusedByPeer,
        other => TransportError::Tls(other.clone()),
    }
}

/// Carried through rustls in [`CertificateError::Other`] and taken out again by [`explain`].
#[derive(Clone, Copy, Debug, Error)]
enum NotPinned {
    #[error("key {0} is not known")]
    Unknown(Fingerprint),
    #[error("key {found} is not the pinned {expected}")]
    Wrong {
        expected: Fingerprint,
        found: Fingerprint,
    },
}

impl From<NotPinned> for rustls::Error {
    fn from(error: NotPinned) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// The protocol versions are limited to 1.3; this is for the trait's other method.
fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13)
}

struct PinnedServer {
    peer: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedServer({})", self.peer)
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of_certificate(end_entity)?;
        if found == self.peer {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(NotPinned::Wrong {
                expected: self.peer,
                found,
            }
            .into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

struct PinnedClients {
    peers: Arc<dyn KnownPeers>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedClients")
    }
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let found = Fingerprint::of_certificate(end_entity)?;
        if self.peers.knows(&found) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(NotPinned::Unknown(found).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
