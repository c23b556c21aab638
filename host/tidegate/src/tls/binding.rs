//! What SCRAM is bound to: the hash of a server's certificate, ours or PostgreSQL's.

use tidegate_wire::auth::{EndPoint, EndPointHash};
use x509_parser::prelude::{AlgorithmIdentifier, FromDer as _, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// The `tls-server-end-point` of a certificate in DER; `None` where its signature has no hash of its own
/// (Ed25519), for which RFC 5929 defines nothing.
pub fn end_point(certificate: &[u8]) -> Option<EndPoint> {
    let (behind, parsed) = X509Certificate::from_der(certificate).ok()?;
    // PostgreSQL hashes the certificate alone.
    if !behind.is_empty() {
        return None;
    }
    let hash = hash_of(&parsed.signature_algorithm)?;
    Some(EndPoint::new(certificate, hash))
}

fn hash_of(algorithm: &AlgorithmIdentifier<'_>) -> Option<EndPointHash> {
    if let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm)
    {
        return match parameters.hash_algorithm_oid().to_id_string().as_str() {
            "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(EndPointHash::Sha256),
            "2.16.840.1.101.3.4.2.2" => Some(EndPointHash::Sha384),
            "2.16.840.1.101.3.4.2.3" => Some(EndPointHash::Sha512),
            "2.16.840.1.101.3.4.2.4" => Some(EndPointHash::Sha224),
            _ => None,
        };
    }
    match algorithm.algorithm.to_id_string().as_str() {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1: SHA-256 takes their place.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => {
            Some(EndPointHash::Sha256)
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(EndPointHash::Sha224),
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => Some(EndPointHash::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(EndPointHash::Sha384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(EndPointHash::Sha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm as Algorithm};

    fn certificate(algorithm: &'static Algorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(EndPointHash::Sha256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(EndPointHash::Sha384)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let certificate = certificate(algorithm);
            let expected = hash.map(|hash| EndPoint::new(&certificate, hash));
            assert_eq!(end_point(&certificate), expected);
        }
        assert_eq!(end_point(&[1, 2, 3]), None);
    }
}
