//! Plugins in the configuration: where they are kept, who may sign them, what they may use, which are pinned.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tidegate_core::limits;
use tidegate_core::policy::Slot;

use super::check::{Checker, or};
use super::error::Problem;
use super::raw::{At, RawPin, RawPlugins};
use super::value::{Context, FromText};

/// `[plugins]` and `[[pins]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginsConfig {
    /// None: nothing outlives the process.
    pub state_dir: Option<PathBuf>,
    /// With `Required` there is a key.
    pub signatures: Signatures,
    pub keys: Vec<PublicKey>,
    /// Of one instance.
    pub memory_bytes_max: usize,
    pub plan_time_max: Duration,
    pub decide_time_max: Duration,
    /// At most one a slot.
    pub pins: Vec<Pin>,
}

/// A slot's policy that only the configuration changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub slot: Slot,
    pub file: PathBuf,
    pub sha256: FileHash,
    /// JSON, or empty.
    pub settings: String,
}

/// What is asked of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signatures {
    Off,
    Optional,
    Required,
}

impl Signatures {
    pub const ALL: [Self; 3] = [Self::Off, Self::Optional, Self::Required];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// The SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHash([u8; 32]);

impl FileHash {
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(hash)
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromText for FileHash {
    const EXPECTED: &'static str = "64 hexadecimal digits";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        Self::from_hex(hex).ok_or_else(|| "is not a SHA-256: 64 hexadecimal digits".to_owned())
    }
}

/// An Ed25519 key that signatures are checked with (RFC 8032).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// What precedes the 32 bytes in DER (RFC 8410).
const DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

impl PublicKey {
    /// The key of 32 bytes, or of the DER around them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&DER_PREFIX).unwrap_or(bytes);
        <[u8; 32]>::try_from(key).ok().map(Self)
    }

    /// Whether the signature of these bytes is by this key.
    pub fn has_signed(&self, bytes: &[u8], signature: &Signature) -> bool {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, self.0);
        key.verify(bytes, &signature.0).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl FromText for PublicKey {
    const EXPECTED: &'static str = "a public key in base64";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let key = BASE64.decode(text.trim()).ok().and_then(|bytes| Self::from_bytes(&bytes));
        key.ok_or_else(|| "is not an Ed25519 public key in base64".to_owned())
    }
}

/// An Ed25519 signature of a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 64]>::try_from(bytes).ok().map(Self)
    }

    pub fn from_base64(text: &str) -> Option<Self> {
        BASE64.decode(text.trim()).ok().and_then(|bytes| Self::from_bytes(&bytes))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl Checker {
    pub(super) fn plugins(&mut self, written: RawPlugins, pins: Vec<RawPin>) -> PluginsConfig {
        let signatures = or(&written.signatures, Signatures::Off);
        if let Some(At { origin, .. }) = &written.signatures
            && signatures != Signatures::Off
            && written.keys.is_empty()
        {
            let message = format!("{} needs plugins.keys", signatures.as_str());
            self.contradiction(origin, "plugins.signatures", message);
        }
        if let Some(At { origin, .. }) = written.keys.get(limits::PLUGIN_KEYS_MAX) {
            let message = format!("more than {} keys", limits::PLUGIN_KEYS_MAX);
            self.bad_value(origin, "plugins.keys", message);
        }
        let memory_mib_max = self.bounded(
            "plugins.memory_mib_max",
            written.memory_mib_max,
            1..=limits::POLICY_MEMORY_CONFIG_MAX >> 20,
            limits::POLICY_MEMORY_BYTES_MAX >> 20,
        );
        let plan = ("plugins.plan_time_max", written.plan_time_max, limits::POLICY_PLAN_TIME_MAX);
        let decide =
            ("plugins.decide_time_max", written.decide_time_max, limits::POLICY_DECIDE_TIME_MAX);
        let [plan_time_max, decide_time_max] =
            [plan, decide].map(|(key, written, default)| self.plugin_time(key, written, default));
        PluginsConfig {
            state_dir: written.state_dir.map(|at| at.value),
            signatures,
            keys: written.keys.into_iter().map(|at| at.value).collect(),
            memory_bytes_max: memory_mib_max << 20,
            plan_time_max,
            decide_time_max,
            pins: self.pins(pins),
        }
    }

    fn plugin_time(
        &mut self,
        key: &str,
        written: Option<At<Duration>>,
        default: Duration,
    ) -> Duration {
        let Some(At { value, origin }) = written else { return default };
        if value > limits::PLUGIN_TIME_CONFIG_MAX {
            let message = format!("{value:?} is longer than {:?}", limits::PLUGIN_TIME_CONFIG_MAX);
            self.bad_value(&origin, key, message);
        }
        value
    }

    fn pins(&mut self, written: Vec<RawPin>) -> Vec<Pin> {
        let mut pins: Vec<Pin> = Vec::new();
        for RawPin { origin, slot, file, sha256, settings } in written {
            let (Some(slot), Some(file), Some(sha256)) = (slot, file, sha256) else {
                let message = "a pin has slot, file and sha256".to_owned();
                self.fail(Some(&origin), "pins", Problem::Missing(message));
                continue;
            };
            if pins.iter().any(|other| other.slot == slot.value) {
                let message = format!("{} is pinned twice", slot.value.name());
                self.contradiction(&slot.origin, "pins.slot", message);
            }
            let settings = settings.map_or_else(String::new, |at| {
                if let Err(error) = serde_json::from_str::<serde_json::Value>(&at.value) {
                    self.bad_value(&at.origin, "pins.settings", format!("is not JSON: {error}"));
                }
                at.value
            });
            let (slot, file, sha256) = (slot.value, file.value, sha256.value);
            pins.push(Pin { slot, file, sha256, settings });
        }
        pins
    }
}
