//! From the text of a value to the value: `${VAR}`, durations, addresses, names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_core::limits::CONFIG_DURATION_MAX;
use tracing_subscriber::filter::EnvFilter;

use super::cache::Admission;
use super::checked::{
    AuthMethod, ClientTlsMode, IoDriver, Listen, PoolMode, Secret, ServerUrl, TrustRemote,
};
use super::error::nearest;
use super::log::LogFormat;
use super::plugins::Signatures;
use super::raw::{LogFilter, Timeout};
use super::routing::{Causality, Reads};
use super::url::parse_server_url;
use tidegate_core::policy::Slot;
use tidegate_limiter::FailMode;

/// What reading a value may need besides its text.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Relative paths start here.
    pub(super) base: &'a Path,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// A type that a value can be written for.
pub(crate) trait FromText: Sized {
    /// What error messages call it, with an article.
    const EXPECTED: &'static str;
    /// Whether an unquoted TOML value of this type makes sense.
    const BARE: Bare = Bare::No;

    /// Reads text in which variables are expanded already.
    ///
    /// # Errors
    /// A sentence that does not repeat secrets.
    fn from_text(text: &str, context: Context<'_>) -> Result<Self, String>;
}

/// The TOML type beside strings that a value may be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    No,
    Integer,
    Boolean,
}

/// Replaces `${VAR}`, `${VAR:-default}` and `$$`. As in a shell, `:-` covers empty variables too.
pub(super) fn expand(text: &str, context: Context<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                return Err("`${` without `}`; write `$$` for a dollar sign".to_owned());
            };
            out.push_str(&variable(&after[..end], context)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, context: Context<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("`${{{name}}}` is not a variable; write `$$` for a dollar sign"));
    }
    let value = (context.environment)(name);
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; `${{{name}:-default}}` gives a default"
        )),
    }
}

impl FromText for String {
    const EXPECTED: &'static str = "a string";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
    }
}

impl FromText for usize {
    const EXPECTED: &'static str = "a whole number";
    const BARE: Bare = Bare::Integer;

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not a whole number from zero up"))
    }
}

impl FromText for bool {
    const EXPECTED: &'static str = "true or false";
    const BARE: Bare = Bare::Boolean;

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

impl FromText for Duration {
    const EXPECTED: &'static str = "a duration such as \"30s\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let duration = duration(text)?;
        if duration.is_zero() { Err("must be longer than zero".to_owned()) } else { Ok(duration) }
    }
}

impl FromText for Timeout {
    const EXPECTED: &'static str = "a duration such as \"30s\", or \"off\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        if matches!(text, "off" | "0" | "0s") {
            return Ok(Self(None));
        }
        duration(text).map(|duration| Self(Some(duration)))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            let message = format!("`{text}` is not a duration: a number and ms, s, min, h or d");
            return Err(message);
        }
    };
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a duration: no number in front"))?;
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    duration.filter(|duration| *duration <= CONFIG_DURATION_MAX).ok_or_else(|| {
        format!("`{text}` is longer than {} days", CONFIG_DURATION_MAX.as_secs() / 86_400)
    })
}

impl FromText for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str, context: Context<'_>) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(context.base.join(text)) }
    }
}

impl FromText for Secret {
    const EXPECTED: &'static str = "a string";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(Self::new(text)) }
    }
}

impl FromText for ServerUrl {
    const EXPECTED: &'static str = "a URL such as \"postgres://user@host:5432/database\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        parse_server_url(text)
    }
}

impl FromText for SocketAddr {
    const EXPECTED: &'static str = "an address such as \"127.0.0.1:6432\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let numeric = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            Some(("*", port)) => format!("0.0.0.0:{port}"),
            _ => text.to_owned(),
        };
        numeric.parse().map_err(|_| {
            format!("`{text}` is not ADDRESS:PORT; the address is numeric, localhost or *")
        })
    }
}

impl FromText for Listen {
    const EXPECTED: &'static str =
        "an address such as \"127.0.0.1:6432\" or \"unix:/run/.s.PGSQL.6432\"";

    fn from_text(text: &str, context: Context<'_>) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
        match path {
            Some("") => Err("`unix:` is followed by the path of a socket".to_owned()),
            Some(path) => Ok(Self::Unix(context.base.join(path))),
            None => SocketAddr::from_text(text, context).map(Self::Tcp),
        }
    }
}

impl FromText for LogFilter {
    const EXPECTED: &'static str = "a filter such as \"info\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("`{text}` is not a log filter: {error}")),
        }
    }
}

/// Reads one of a closed set of names.
pub(super) fn choice<T: Copy>(
    text: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let names = || all.iter().map(|value| name(*value));
    if let Some(found) = all.iter().find(|value| name(**value) == text) {
        return Ok(*found);
    }
    let listed = names().collect::<Vec<_>>().join(", ");
    let meant = nearest(text, names()).map(|name| format!("; did you mean {name}?"));
    Err(format!("`{text}` is none of {listed}{}", meant.unwrap_or_default()))
}

macro_rules! choices {
    ($($type:ty => $expected:literal,)*) => {$(
        impl FromText for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
                choice(text, &Self::ALL, Self::as_str)
            }
        }
    )*};
}

choices! {
    IoDriver => "auto, io_uring or epoll",
    PoolMode => "a pool mode",
    Reads => "split or primary",
    Causality => "session, global or off",
    AuthMethod => "an authentication method",
    TrustRemote => "refuse or allow",
    ClientTlsMode => "a TLS mode",
    LogFormat => "text or json",
    Signatures => "off, optional or required",
    FailMode => "local, open or closed",
    Admission => "always or second",
}

impl FromText for Slot {
    const EXPECTED: &'static str = "routing, caching, limiting or advising";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        choice(text, &Slot::ALL, Slot::name)
    }
}
