//! `tidegate plugin sign`: an Ed25519 signature of a file, beside it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::config::{PublicKey, Signature};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
const KEY_BYTES_MAX: usize = 10_000;
/// PKCS#8 of version 1 up to the 32 bytes of the key itself, as RFC 8410 (7) has it. Version 2, with the public key in it,
/// is what OpenSSL 3.0 does not read.
const PKCS8_V1: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const SEED_BYTES: usize = 32;

/// What to do without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Fail,
    Make,
}

/// Where the signature of a file is.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// Signs, and says which key checks it.
///
/// # Errors
/// A sentence.
pub(super) fn run(file: &Path, key: &Path, missing: Missing) -> Result<String, String> {
    let bytes = super::read_plugin(file)?;
    if missing == Missing::Make && !key.exists() {
        make(key)?;
    }
    let pair = read_key(key)?;
    let public = PublicKey::from_bytes(pair.public_key().as_ref());
    let signature = Signature::from_bytes(pair.sign(&bytes).as_ref());
    let (Some(public), Some(signature)) = (public, signature) else {
        return Err("the key made no Ed25519 signature".to_owned());
    };
    let beside = beside(file);
    std::fs::write(&beside, format!("{signature}\n"))
        .map_err(|error| format!("{}: {error}", beside.display()))?;
    Ok(format!("{}\nplugins.keys = [\"{public}\"]\n", beside.display()))
}

fn read_key(path: &Path) -> Result<Ed25519KeyPair, String> {
    let fail = |words: &str| format!("{}: {words}", path.display());
    let bytes = Zeroizing::new(super::read(path, KEY_BYTES_MAX)?);
    let der = match std::str::from_utf8(&bytes).ok().and_then(|text| text.split_once(BEGIN)) {
        None => bytes,
        Some((_, rest)) => {
            let body = rest.split_once(END).map_or(rest, |(body, _)| body);
            let body: Zeroizing<String> =
                Zeroizing::new(body.chars().filter(|c| !c.is_whitespace()).collect());
            let der = BASE64.decode(body.as_bytes());
            Zeroizing::new(der.map_err(|_| fail("the PEM holds no base64"))?)
        }
    };
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
        .map_err(|error| fail(&format!("no Ed25519 key in PKCS#8: {error}")))
}

/// For its owner alone.
fn make(path: &Path) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut key = Zeroizing::new([0; PKCS8_V1.len() + SEED_BYTES]);
    let (head, seed) = key.split_at_mut(PKCS8_V1.len());
    head.copy_from_slice(&PKCS8_V1);
    SystemRandom::new().fill(seed).map_err(|_| "the system gave no random bytes")?;
    let body = Zeroizing::new(BASE64.encode(key.as_slice()));
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut opened = opened.map_err(|error| fail(&error))?;
    writeln!(opened, "{BEGIN}\n{}\n{END}", *body).map_err(|error| fail(&error))
}
