//! TLS on *ring*, handed over explicitly: a library must not install a provider for the whole process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::hosts::{Host, Verification};
use crate::{Error, Result};

/// What every connection trusts: the system's authorities, and the program's.
pub(super) fn roots(extra: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // A certificate of the system that can't be read is the system's matter; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in extra {
        roots.add(certificate.clone()).map_err(|error| Error::Setup {
            what: "root certificate",
            source: Box::new(error),
        })?;
    }
    Ok(roots)
}

/// Whether a host's client certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Identity,
    Nothing,
}

/// The plain configuration.
pub(super) fn config(roots: RootCertStore) -> Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::Setup {
        what: "TLS",
        source: Box::new(error),
    })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A host's configuration. Reads its files.
pub(super) fn host_config(mut roots: RootCertStore, host: &Host, show: Show) -> Result<ClientConfig> {
    for path in &host.authorities {
        let mut found = 0;
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|error| bad(path, format!("a certificate in it can't be used ({error})")))?;
            found += 1;
        }
        if found == 0 {
            return Err(bad(path, "it holds no certificate in PEM".into()));
        }
    }
    let mut config = config(roots)?;
    if host.verification == Verification::Skipped {
        let anyone = Arc::new(Anyone(provider()));
        config.dangerous().set_certificate_verifier(anyone);
    }
    if show == Show::Identity && !host.identities.is_empty() {
        let keys = host.identities.iter();
        let keys = keys.map(|identity| certified(&identity.certificate, &identity.key));
        config.client_auth_cert_resolver = Arc::new(Identities(keys.collect::<Result<_>>()?));
    }
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error| bad(path, format!("it can't be read ({error})"));
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    found.collect::<Result<_, _>>().map_err(unreadable)
}

fn certified(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>> {
    let chain = certificates(certificate)?;
    if chain.is_empty() {
        return Err(bad(certificate, "it holds no certificate in PEM".into()));
    }
    // The parser's words about a key are about its form, not of its bytes.
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, format!("it holds no key in PEM ({error})")))?;
    let pair = CertifiedKey::from_der(chain, private, &provider());
    let pair = pair.map_err(|error| bad(key, format!("it is not the key of {} ({error})", certificate.display())))?;
    Ok(Arc::new(pair))
}

fn bad(path: &Path, reason: String) -> Error {
    Error::HostsFile {
        place: path.display().to_string(),
        reason,
    }
}

/// The client's certificates of one host: the first that it can use.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = self.0.iter().find(|pair| pair.key.choose_scheme(schemes).is_some());
        usable.cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Takes any certificate, as `skip_verify` wants it. That the other side has its key is still proved.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
