//! TLS in front of a server that speaks none, with an authority of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// An authority whose certificates are files of a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Whether clients must show a certificate of the same authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Anyone,
    Certified,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("written");
        let this = Self {
            folder: folder.to_owned(),
            issuer,
        };
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["client".into()]).expect("a name");
        let certificate = params.signed_by(&key, &this.issuer).expect("signed");
        std::fs::write(folder.join("client.pem"), certificate.pem()).expect("written");
        std::fs::write(folder.join("client.key"), key.serialize_pem()).expect("written");
        this
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Serves on a port of its own what `host` serves, until the test ends.
    pub(crate) async fn front(&self, host: &str, clients: Clients) -> String {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match clients {
            Clients::Anyone => builder.with_no_client_auth(),
            Clients::Certified => {
                let mut roots = RootCertStore::empty();
                roots.add(self.issuer.der().clone()).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = builder.with_single_cert(vec![certificate.der().clone()], key.into());
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a pair")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").to_string();
        let host = host.to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, host) = (acceptor.clone(), host.clone());
                tokio::spawn(async move {
                    // Who does not trust us goes; the test sees that by its own means.
                    let Ok(mut inner) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut plain = TcpStream::connect(host).await.expect("it listens");
                    let _ = tokio::io::copy_bidirectional(&mut inner, &mut plain).await;
                });
            }
        });
        own
    }
}
