//! [`Identity`]: how this agent proves who it is, and whom it believes, as TLS wants it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::warn;

use super::secret::{self, SecretError};
use super::trust::{Authority, SharedKey};
use crate::config::Stream;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Neither a secret nor certificates are set.
    #[error(
        "the stream between agents is off: set stream.secret_file to a file with the same secret on every node \
         (`openssl rand -hex 32` makes one), or stream.certificate, stream.key and stream.ca"
    )]
    Off,
    /// The secret cannot be used.
    #[error("stream.secret_file: {0}")]
    Secret(#[from] SecretError),
    /// One of the PEM files cannot be used.
    #[error("{setting}: {}: {problem}", .path.display())]
    Pem {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The parts do not make a whole.
    #[error("the stream's keys cannot be used: {0}")]
    Tls(String),
}

/// Both sides of TLS with one set of keys.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Secret(PathBuf),
    Certificates {
        certificate: PathBuf,
        key: PathBuf,
        ca: PathBuf,
    },
}

/// What tells that a file is another than before: time of change, length, inode. `None`: it cannot be asked.
type Mark = Option<(SystemTime, u64, u64)>;

/// How this agent proves who it is. Its files are read again when they have changed, so that keys can be renewed
/// under a running agent; connections keep the keys with which they began.
#[derive(Debug)]
pub struct Identity {
    source: Source,
    current: Mutex<(Vec<Mark>, Sides)>,
}

impl Identity {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// Nothing is named, or what is named cannot be used.
    pub fn load(config: &Stream) -> Result<Arc<Self>, IdentityError> {
        let source = if !config.secret_file.as_os_str().is_empty() {
            Source::Secret(config.secret_file.clone())
        } else if config.enabled() {
            Source::Certificates {
                certificate: config.certificate.clone(),
                key: config.key.clone(),
                ca: config.ca.clone(),
            }
        } else {
            return Err(IdentityError::Off);
        };
        let marks = source.marks();
        let sides = source.read()?;
        Ok(Arc::new(Self {
            source,
            current: Mutex::new((marks, sides)),
        }))
    }

    /// What to use for a new connection. Files that have become unusable change nothing.
    pub(super) fn sides(&self) -> Sides {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.source.marks();
        if marks != current.0 {
            current.0 = marks;
            match self.source.read() {
                Ok(sides) => current.1 = sides,
                Err(error) => {
                    warn!(target: "lb::stream", %error, "new keys cannot be used; the ones in force stay");
                }
            }
        }
        current.1.clone()
    }
}

impl Source {
    fn marks(&self) -> Vec<Mark> {
        use std::os::unix::fs::MetadataExt;
        let mark = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        };
        match self {
            Self::Secret(path) => vec![mark(path)],
            Self::Certificates { certificate, key, ca } => vec![mark(certificate), mark(key), mark(ca)],
        }
    }

    fn read(&self) -> Result<Sides, IdentityError> {
        let provider = Arc::new(ring::default_provider());
        match self {
            Self::Secret(path) => of_secret(secret::read(path)?, provider),
            Self::Certificates { certificate, key, ca } => of_certificates(certificate, key, ca, provider),
        }
    }
}

pub(super) fn of_secret(keys: secret::Keys, provider: Arc<CryptoProvider>) -> Result<Sides, IdentityError> {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(keys.own));
    let key = provider.key_provider.load_private_key(private).map_err(tls)?;
    let public = CertificateDer::from(keys.accepted[0].clone());
    let own = Arc::new(CertifiedKey::new(vec![public], key));
    let peers = Arc::new(SharedKey {
        accepted: keys.accepted,
        provider: provider.clone(),
    });
    let client = client_side(&provider)?
        .dangerous()
        .with_custom_certificate_verifier(peers.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own.clone())));
    let server = server_side(&provider)?
        .with_client_cert_verifier(peers)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    Ok(finish(client, server))
}

fn of_certificates(
    certificate: &Path,
    key: &Path,
    ca: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Sides, IdentityError> {
    let chain = certificates("stream.certificate", certificate)?;
    let mut roots = RootCertStore::empty();
    for root in certificates("stream.ca", ca)? {
        roots
            .add(root)
            .map_err(|error| pem("stream.ca", ca, error.to_string()))?;
    }
    let private = || {
        let text = fs::read(key).map_err(|error| pem("stream.key", key, error.to_string()))?;
        PrivateKeyDer::from_pem_slice(&text)
            .map_err(|error| pem("stream.key", key, format!("no private key in PEM: {error}")))
    };
    let roots = Arc::new(roots);
    let peers = Arc::new(Authority {
        roots: roots.clone(),
        provider: provider.clone(),
    });
    let nodes = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(tls)?;
    let fits = |error: rustls::Error| pem("stream.key", key, format!("does not fit stream.certificate: {error}"));
    let client = client_side(&provider)?
        .dangerous()
        .with_custom_certificate_verifier(peers)
        .with_client_auth_cert(chain.clone(), private()?)
        .map_err(fits)?;
    let server = server_side(&provider)?
        .with_client_cert_verifier(nodes)
        .with_single_cert(chain, private()?)
        .map_err(fits)?;
    Ok(finish(client, server))
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text = fs::read(path).map_err(|error| pem(setting, path, error.to_string()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| pem(setting, path, format!("not PEM: {error}")))?;
    match found.is_empty() {
        true => Err(pem(setting, path, "no certificate in PEM".into())),
        false => Ok(found),
    }
}

fn client_side(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, IdentityError> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)
}

fn server_side(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, IdentityError> {
    ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)
}

/// No session is resumed: each connection proves anew who is there.
fn finish(mut client: ClientConfig, mut server: ServerConfig) -> Sides {
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Sides {
        client: Arc::new(client),
        server: Arc::new(server),
    }
}

fn tls(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}

fn pem(setting: &'static str, path: &Path, problem: String) -> IdentityError {
    IdentityError::Pem {
        setting,
        path: path.into(),
        problem,
    }
}
