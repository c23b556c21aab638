//! TLS towards clients and towards servers: rustls configurations, reload, and libpq's sslmodes.

mod binding; // what SCRAM is bound to
mod verify; // whose certificates are good

pub use binding::end_point;
pub use verify::common_name;

use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use tidegate_wire::auth::EndPoint;
use tokio_rustls::TlsAcceptor;
use verify::{Authority, Checks, LibpqVerifier};

/// The protocol name that PostgreSQL 17 and later negotiate by ALPN.
pub const ALPN: &[u8] = b"postgresql";
/// And the one of HTTP/1.1.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// What is wrong with certificates or keys.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read, or is not the PEM it should be.
    File { path: PathBuf, reason: String },
    /// The certificate, key and authority do not work together.
    Rejected(String),
    /// `verify-ca` and `verify-full` need an authority to trust.
    RootMissing,
    /// `sslrootcert = "system"` with an sslmode below `verify-full` would trust everybody with any
    /// certificate.
    SystemNeedsVerifyFull,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Rejected(reason) => f.write_str(reason),
            Self::RootMissing => f.write_str(
                "sslmode verify-ca and verify-full need sslrootcert: \
                 a file of certificates, or \"system\"",
            ),
            Self::SystemNeedsVerifyFull => {
                f.write_str("sslrootcert \"system\" needs sslmode verify-full")
            }
        }
    }
}

impl std::error::Error for TlsError {}

// --- towards clients -----------------------------------------------------------------------------

/// The files that let us be a TLS server.
#[derive(Clone, Debug)]
pub struct AcceptFiles {
    /// Our certificate, then the intermediate ones; PEM.
    pub certificate: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
    pub clients: ClientCertificates,
}

/// Whether clients show certificates.
#[derive(Clone, Debug)]
pub enum ClientCertificates {
    NotAsked,
    /// Those who show one must have it signed by an authority in this file.
    Optional(PathBuf),
    Required(PathBuf),
}

/// Accepts TLS from clients, with certificates that can be exchanged while running.
#[derive(Debug)]
pub struct Acceptor {
    files: AcceptFiles,
    current: RwLock<Accepting>,
}

/// For one handshake: the configuration, and what SCRAM over it is bound to.
#[derive(Clone, Debug)]
struct Accepting {
    config: Arc<ServerConfig>,
    /// The same for HTTP.
    http: Arc<ServerConfig>,
    end_point: Option<EndPoint>,
}

impl Acceptor {
    pub fn new(files: AcceptFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(accept_config(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again. New handshakes use them; when they are faulty, nothing changes.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = accept_config(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// For one handshake, and what SCRAM is bound to after it.
    pub fn acceptor(&self) -> (TlsAcceptor, Option<EndPoint>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (TlsAcceptor::from(current.config.clone()), current.end_point.clone())
    }

    /// For one handshake with a client that speaks HTTP.
    pub fn http_acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.http.clone())
    }
}

fn accept_config(files: &AcceptFiles) -> Result<Accepting, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(rejected)?;
    let builder = match &files.clients {
        ClientCertificates::NotAsked => builder.with_no_client_auth(),
        ClientCertificates::Optional(path) | ClientCertificates::Required(path) => {
            let roots = Arc::new(root_store(&read_certificates(path)?)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match &files.clients {
                ClientCertificates::Required(_) => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(rejected)?)
        }
    };
    let chain = read_certificates(&files.certificate)?;
    let end_point = chain.first().and_then(|certificate| end_point(certificate));
    let mut config = builder
        .with_single_cert(chain, read_key(&files.key)?)
        .map_err(|error| not_its_key(error, &files.key, &files.certificate))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No client of PostgreSQL resumes sessions, and PostgreSQL does not offer it: nothing is kept
    // for it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let mut http = config.clone();
    http.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    Ok(Accepting { config: Arc::new(config), http: Arc::new(http), end_point })
}

// --- towards servers -----------------------------------------------------------------------------

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    /// Without TLS unless the server insists.
    Allow,
    /// With TLS unless the server has none.
    #[default]
    Prefer,
    /// With TLS, whoever the server is; like `verify-ca` when an authority is given.
    Require,
    /// The server's certificate must come from the authority.
    VerifyCa,
    /// … and be made out to the host we connect to.
    VerifyFull,
}

impl SslMode {
    pub const NAMES: [&str; 6] =
        ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
}

impl FromStr for SslMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return Err(()),
        })
    }
}

macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal,)* })*) => {$(
        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    )*};
}

/// libpq's `channel_binding`: whether SCRAM is bound to the TLS it runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// The server must prove itself so; every other way to authenticate is refused.
    Require,
}

/// libpq's `sslnegotiation`: how TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslNegotiation {
    /// By an SSLRequest.
    #[default]
    Postgres,
    /// From the first byte, with ALPN: PostgreSQL 17 and later. A round trip less.
    Direct,
}

words! {
    ChannelBinding { Disable = "disable", Prefer = "prefer", Require = "require", }
    SslNegotiation { Postgres = "postgres", Direct = "direct", }
}

/// libpq's `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificates {
    /// A PEM file.
    File(PathBuf),
    /// Those of the operating system.
    System,
}

/// Our certificate towards a server: libpq's `sslcert` and `sslkey`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How to speak TLS with a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub mode: SslMode,
    pub config: Arc<ClientConfig>,
    pub channel_binding: ChannelBinding,
    pub negotiation: SslNegotiation,
}

impl ServerTls {
    /// With the defaults of what is not named here.
    pub fn new(
        mode: SslMode,
        roots: Option<&RootCertificates>,
        own: Option<&OwnCertificate>,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let checks = match (mode, roots) {
            (SslMode::VerifyFull, Some(roots)) => {
                Checks::AuthorityAndName(Authority::new(roots, provider.clone())?)
            }
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => return Err(TlsError::RootMissing),
            (_, Some(RootCertificates::System)) => return Err(TlsError::SystemNeedsVerifyFull),
            (SslMode::VerifyCa | SslMode::Require, Some(roots)) => {
                Checks::Authority(Authority::new(roots, provider.clone())?)
            }
            _ => Checks::Nothing,
        };
        let verifier = Arc::new(LibpqVerifier { checks, provider: provider.clone() });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(rejected)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(read_certificates(&own.certificate)?, read_key(&own.key)?)
                .map_err(rejected)?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            mode,
            config: Arc::new(config),
            channel_binding: ChannelBinding::default(),
            negotiation: SslNegotiation::default(),
        })
    }
}

/// For servers that are none of PostgreSQL: their certificates must be good, and made out to the name they are reached by.
///
/// # Errors
/// The file cannot be read.
pub fn trusting(roots: &RootCertificates) -> Result<ClientConfig, TlsError> {
    Ok(trusting_alone(roots)?.with_no_client_auth())
}

/// The same, and they are shown this certificate if they ask.
///
/// # Errors
/// A file cannot be read, or the key is another certificate's.
pub fn trusting_as(
    roots: &RootCertificates,
    own: &OwnCertificate,
) -> Result<ClientConfig, TlsError> {
    let (chain, key) = (read_certificates(&own.certificate)?, read_key(&own.key)?);
    trusting_alone(roots)?
        .with_client_auth_cert(chain, key)
        .map_err(|error| not_its_key(error, &own.key, &own.certificate))
}

fn trusting_alone(
    roots: &RootCertificates,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let store = match roots {
        RootCertificates::File(path) => root_store(&read_certificates(path)?)?,
        RootCertificates::System => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(rejected)?;
    Ok(builder.with_root_certificates(store))
}

/// The name to check a certificate against, and to send as SNI.
///
/// A host that is no valid name can only be used where names are not checked, and the certificate
/// never fits it.
pub fn server_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned())
        .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

// --- files ---------------------------------------------------------------------------------------

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn rejected(error: impl fmt::Display) -> TlsError {
    TlsError::Rejected(error.to_string())
}

fn not_its_key(error: rustls::Error, key: &Path, certificate: &Path) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Rejected(format!(
            "{} is not the key of the certificate in {}",
            key.display(),
            certificate.display()
        )),
        error => rejected(error),
    }
}

fn bad_file(path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_file(path, error))?;
    if certificates.is_empty() {
        return Err(bad_file(path, "no certificate in PEM form"));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| bad_file(path, error))
}

fn root_store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(rejected)?;
    }
    Ok(store)
}
