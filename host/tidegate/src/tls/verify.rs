//! Checks certificates: those of servers as libpq's sslmodes say, and the name in a client's.

use super::{RootCertificates, TlsError, read_certificates, rejected, root_store};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore};
use std::sync::Arc;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// The common name of a certificate that has been verified; `None` when it has none that is plain
/// text.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    // A zero in the middle would let "alice\0.evil.example" pass for alice.
    if name.contains('\0') { None } else { Some(name) }
}

/// Checks a server's certificate as far as its sslmode says.
#[derive(Debug)]
pub(super) struct LibpqVerifier {
    pub(super) checks: Checks,
    pub(super) provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
pub(super) enum Checks {
    Nothing,
    Authority(Authority),
    AuthorityAndName(Authority),
}

#[derive(Debug)]
pub(super) struct Authority {
    webpki: Arc<WebPkiServerVerifier>,
    /// As they stand in the file: a server's own self-signed certificate may be among them.
    certificates: Vec<CertificateDer<'static>>,
}

impl Authority {
    pub(super) fn new(
        roots: &RootCertificates,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
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
            // webpki takes no authority's certificate for a server's, OpenSSL does when it is
            // trusted itself.
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

/// Whether the common name fits, asked only of certificates that carry no alternative names:
/// libpq's rule.
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

impl LibpqVerifier {
    /// An unverified certificate proves nothing, its signature neither; and webpki cannot read the
    /// version 1 certificates that `openssl x509 -req` makes.
    fn check_signature(
        &self,
        check: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.checks {
            Checks::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => check(&self.provider.signature_verification_algorithms),
        }
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
        self.check_signature(|algorithms| {
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(|algorithms| {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
