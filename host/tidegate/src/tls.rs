//! TLS towards clients and towards servers: rustls configurations, reload, and libpq's sslmodes.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// The protocol name that PostgreSQL 17 and later negotiate by ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// What is wrong with certificates or keys.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read, or is not the PEM it should be.
    File { path: PathBuf, reason: String },
    /// The certificate, key and authority do not work together.
    Rejected(String),
    /// `verify-ca` and `verify-full` need an authority to trust.
    RootMissing,
    /// `sslrootcert = "system"` with an sslmode below `verify-full` would trust everybody with any certificate.
    SystemNeedsVerifyFull,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Rejected(reason) => f.write_str(reason),
            Self::RootMissing => f.write_str(
                "sslmode verify-ca and verify-full need sslrootcert: a file of certificates, or \"system\"",
            ),
            Self::SystemNeedsVerifyFull => {
                f.write_str("sslrootcert \"system\" needs sslmode verify-full")
            }
        }
    }
}

impl std::error::Error for TlsError {}

// --- towards clients ---------------------------------------------------------------------------------

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
    current: RwLock<Arc<ServerConfig>>,
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

    /// For one handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.clone())
    }
}

fn accept_config(files: &AcceptFiles) -> Result<Arc<ServerConfig>, TlsError> {
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
    let mut config =
        builder.with_single_cert(chain, read_key(&files.key)?).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Rejected(format!(
                "{} is not the key of the certificate in {}",
                files.key.display(),
                files.certificate.display()
            )),
            error => rejected(error),
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The common name of a certificate that has been verified; `None` when it has none that is plain text.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    // A zero in the middle would let "alice\0.evil.example" pass for alice.
    if name.contains('\0') { None } else { Some(name) }
}

// --- towards servers ---------------------------------------------------------------------------------

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
}

impl ServerTls {
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
        Ok(Self { mode, config: Arc::new(config) })
    }
}

/// The name to check a certificate against, and to send as SNI.
///
/// A host that is no valid name can only be used where names are not checked, and the certificate never fits it.
pub fn server_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned())
        .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// Checks a server's certificate as far as its sslmode says.
#[derive(Debug)]
struct LibpqVerifier {
    checks: Checks,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Checks {
    Nothing,
    Authority(Authority),
    AuthorityAndName(Authority),
}

#[derive(Debug)]
struct Authority {
    webpki: Arc<WebPkiServerVerifier>,
    /// As they stand in the file: a server's own self-signed certificate may be among them.
    certificates: Vec<CertificateDer<'static>>,
}

impl Authority {
    fn new(roots: &RootCertificates, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let certificates = match roots {
            RootCertificates::File(path) => read_certificates(path)?,
            RootCertificates::System => rustls_native_certs::load_native_certs().certs,
        };
        let store = match roots {
            RootCertificates::File(_) => root_store(&certificates)?,
            RootCertificates::System => {
                // A few of a system's certificates may be beyond us; the others still count.
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(certificates.iter().cloned());
                store
            }
        };
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(rejected)?;
        Ok(Self { webpki, certificates })
    }

    /// Checks chain and name; the error tells which of them failed.
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let pinned = self.certificates.iter().any(|known| known == end_entity);
        let outcome = if pinned {
            // webpki takes no authority's certificate for a server's, OpenSSL does when it is trusted itself.
            check_validity(end_entity, now)?;
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, name)
        } else {
            self.webpki
                .verify_server_cert(end_entity, intermediates, name, &[], now)
                .map(|ServerCertVerified { .. }| ())
        };
        match outcome {
            Err(error) if is_wrong_name(&error) && fits_common_name(end_entity, name) => Ok(()),
            outcome => outcome,
        }
    }
}

fn is_wrong_name(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let encoding = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(encoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match ASN1Time::from_timestamp(now) {
        Ok(now) if parsed.validity().is_valid_at(now) => Ok(()),
        _ => Err(rustls::Error::InvalidCertificate(CertificateError::Expired)),
    }
}

/// Whether the common name fits, asked only of certificates that carry no alternative names: libpq's rule.
fn fits_common_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let ServerName::DnsName(host) = name else { return false };
    let host = host.as_ref();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let Some(pattern) = common_name(certificate) else { return false };
    match pattern.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

impl ServerCertVerifier for LibpqVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.checks {
            Checks::Nothing => {}
            Checks::AuthorityAndName(authority) => {
                authority.check(end_entity, intermediates, server_name, now)?;
            }
            // The name is checked last, so that a wrong name means that all else is right.
            Checks::Authority(authority) => {
                match authority.check(end_entity, intermediates, server_name, now) {
                    Err(error) if !is_wrong_name(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.checks {
            // An unverified certificate proves nothing, its signature neither; and webpki cannot read the version 1
            // certificates that `openssl x509 -req` makes.
            Checks::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => {
                let algorithms = &self.provider.signature_verification_algorithms;
                rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.checks {
            Checks::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => {
                let algorithms = &self.provider.signature_verification_algorithms;
                rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

// --- files -------------------------------------------------------------------------------------------

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn rejected(error: impl fmt::Display) -> TlsError {
    TlsError::Rejected(error.to_string())
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
