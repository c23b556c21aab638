//! `postgres://user:password@host:port/database?sslmode=…`: libpq's connection URIs (PostgreSQL
//! documentation, 34.1.1.2).
//!
//! One host a URL: Tidegate knows its servers one by one. Error messages never repeat the URL,
//! which may hold a password.

use std::fmt;
use std::path::PathBuf;

use super::checked::{
    ChannelBinding, OwnCertificate, RootCertificates, Secret, ServerAddress, ServerUrl, SslMode,
    SslNegotiation,
};
use super::error::nearest;
use super::version::ProtocolVersion;

const PORT_DEFAULT: u16 = 5432;
const PARAMETERS: [&str; 12] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "sslnegotiation",
    "max_protocol_version",
];

/// What was found so far; parameters win over what stands before the `?`, as in libpq.
#[derive(Default)]
struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    sslmode: Option<SslMode>,
    sslrootcert: Option<RootCertificates>,
    sslcert: Option<PathBuf>,
    sslkey: Option<PathBuf>,
    channel_binding: ChannelBinding,
    sslnegotiation: SslNegotiation,
    max_protocol_version: ProtocolVersion,
}

/// Reads a URL. The server's name is empty until the cluster gives it one.
///
/// # Errors
/// A sentence that says which part is wrong, without the URL.
pub fn parse_server_url(url: &str) -> Result<ServerUrl, String> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("does not begin with postgres:// or postgresql://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let mut parts = Parts::default();
    authority_parts(authority, &mut parts)?;
    if !database.is_empty() {
        parts.database = Some(decode(database, "the database")?);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        parameter(pair, &mut parts)?;
    }
    finish(parts)
}

fn authority_parts(authority: &str, parts: &mut Parts) -> Result<(), String> {
    let host_port = match authority.rsplit_once('@') {
        Some((credentials, host_port)) => {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if credentials.contains('@') {
                return Err("`@` in the user or password is written %40".to_owned());
            }
            if !user.is_empty() {
                parts.user = Some(decode(user, "the user")?);
            }
            if let Some(password) = password.filter(|password| !password.is_empty()) {
                parts.password = Some(Secret::new(decode(password, "the password")?));
            }
            host_port
        }
        None => authority,
    };
    let (host, port) = if let Some(bracketed) = host_port.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or("`[` without `]` in the host")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("`[{host}]` is not an IPv6 address"));
        }
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or("`]` is followed by something but a port")?),
        };
        (host.to_owned(), port)
    } else {
        let (host, port) = match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        };
        (decode(host, "the host")?, port)
    };
    if !host.is_empty() {
        parts.host = Some(host);
    }
    if let Some(port) = port.filter(|port| !port.is_empty()) {
        parts.port = Some(parse_port(port)?);
    }
    Ok(())
}

fn parameter(pair: &str, parts: &mut Parts) -> Result<(), String> {
    let (name, value) = pair.split_once('=').ok_or("a parameter without `=` follows the `?`")?;
    let value = decode(value, "a parameter")?;
    match name {
        "host" => parts.host = Some(value),
        "port" => parts.port = Some(parse_port(&value)?),
        "user" => parts.user = Some(value),
        "password" => parts.password = Some(Secret::new(value)),
        "dbname" => parts.database = Some(value),
        "sslmode" => parts.sslmode = Some(parse_sslmode(&value)?),
        "sslrootcert" if value == "system" => parts.sslrootcert = Some(RootCertificates::System),
        "sslrootcert" => parts.sslrootcert = Some(RootCertificates::File(PathBuf::from(value))),
        "sslcert" => parts.sslcert = Some(PathBuf::from(value)),
        "sslkey" => parts.sslkey = Some(PathBuf::from(value)),
        "channel_binding" => {
            parts.channel_binding = word(name, &value, ChannelBinding::ALL, |word| word.as_str())?;
        }
        "sslnegotiation" => {
            parts.sslnegotiation = word(name, &value, SslNegotiation::ALL, |word| word.as_str())?;
        }
        "max_protocol_version" if value == "latest" => {
            parts.max_protocol_version = ProtocolVersion::V3_2;
        }
        "max_protocol_version" => {
            let versions = ProtocolVersion::ALL;
            parts.max_protocol_version = word(name, &value, versions, |word| word.as_str())?;
        }
        // An unknown name may be the rest of a password with an unescaped `?`, so that it is only
        // shown if it looks like a name.
        _ => {
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            return Err(match nearest(name, PARAMETERS) {
                Some(meant) => format!("unknown parameter; did you mean {meant}?"),
                None if plain => format!("unknown parameter {name}"),
                None => "unknown parameter; `?` in a password is written %3F".to_owned(),
            });
        }
    }
    Ok(())
}

fn finish(parts: Parts) -> Result<ServerUrl, String> {
    let user = parts.user.filter(|user| !user.is_empty());
    let user = user.ok_or("names no user: postgres://USER:PASSWORD@HOST:PORT/DATABASE")?;
    let host = parts.host.unwrap_or_default();
    let port = parts.port.unwrap_or(PORT_DEFAULT);
    if host.is_empty() {
        return Err("names no host: postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
    }
    if host.contains(',') {
        return Err("names several hosts; give each server a URL of its own".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("the host contains white space".to_owned());
    }
    let address = match host.starts_with('/') {
        true => ServerAddress::Unix { dir: PathBuf::from(host), port },
        false => ServerAddress::Tcp { host, port },
    };
    let own_certificate = match (parts.sslcert, parts.sslkey) {
        (Some(certificate), Some(key)) => Some(OwnCertificate { certificate, key }),
        (None, None) => None,
        _ => return Err("sslcert and sslkey go together".to_owned()),
    };
    let sslmode = match (parts.sslmode, &parts.sslrootcert) {
        (None, Some(RootCertificates::System)) => SslMode::VerifyFull,
        (Some(mode), Some(RootCertificates::System)) if mode != SslMode::VerifyFull => {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        (Some(mode @ (SslMode::VerifyCa | SslMode::VerifyFull)), None) => {
            let mode = name_of(mode);
            return Err(format!("sslmode={mode} needs sslrootcert=FILE or sslrootcert=system"));
        }
        (mode, _) => mode.unwrap_or_default(),
    };
    if parts.sslnegotiation == SslNegotiation::Direct && sslmode < SslMode::Require {
        return Err("sslnegotiation=direct needs sslmode=require or stronger".to_owned());
    }
    let database = parts.database.filter(|database| !database.is_empty());
    Ok(ServerUrl {
        name: String::new(),
        address,
        database: database.unwrap_or_else(|| user.clone()),
        user,
        password: parts.password,
        sslmode,
        sslrootcert: parts.sslrootcert,
        own_certificate,
        channel_binding: parts.channel_binding,
        sslnegotiation: parts.sslnegotiation,
        max_protocol_version: parts.max_protocol_version,
        node_exporter: None,
    })
}

fn parse_port(port: &str) -> Result<u16, String> {
    let parsed = port.parse().ok().filter(|port| *port != 0);
    // What stands where a port should may be half of a password.
    parsed.ok_or_else(|| {
        let hint = "; `@`, `/` and `:` in a password are written %40, %2F and %3A";
        format!("the port is not a number from 1 to 65535{hint}")
    })
}

fn parse_sslmode(text: &str) -> Result<SslMode, String> {
    text.parse().map_err(|()| {
        let names = SslMode::NAMES;
        let meant = nearest(text, names).map(|name| format!("; did you mean {name}?"));
        format!("sslmode is none of {}{}", names.join(", "), meant.unwrap_or_default())
    })
}

/// One of a closed set of words.
fn word<T: Copy>(
    name: &str,
    text: &str,
    all: &[T],
    as_str: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.iter().copied().find(|value| as_str(*value) == text);
    found.ok_or_else(|| {
        let words: Vec<_> = all.iter().map(|value| as_str(*value)).collect();
        format!("{name} is none of {}", words.join(", "))
    })
}

fn name_of(mode: SslMode) -> &'static str {
    // The names are in the order of the modes.
    SslMode::NAMES.get(mode as usize).copied().unwrap_or_default()
}

/// Percent-decoding; a zero byte can't be sent to PostgreSQL.
pub(crate) fn decode(text: &str, what: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = after.first_chunk::<2>().and_then(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some(digit(pair[0])? * 16 + digit(pair[1])?)
        });
        let decoded = digits.and_then(|value| u8::try_from(value).ok()).filter(|byte| *byte != 0);
        let decoded = decoded.ok_or_else(|| {
            format!("{what} has `%` without two hexadecimal digits; a percent sign is %25")
        })?;
        bytes.push(decoded);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8 after percent-decoding"))
}

impl fmt::Display for ServerUrl {
    /// The URL without its password; parsed again, it gives the same server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", encode(&self.user))?;
        match &self.address {
            ServerAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ServerAddress::Tcp { host, port } => write!(f, "{}:{port}", encode(host)),
            ServerAddress::Unix { dir, port } => {
                write!(f, "{}:{port}", encode(&dir.to_string_lossy()))
            }
        }?;
        write!(f, "/{}?sslmode={}", encode(&self.database), name_of(self.sslmode))?;
        let root = self.sslrootcert.as_ref().map(|root| match root {
            RootCertificates::System => "system".into(),
            RootCertificates::File(path) => path.to_string_lossy(),
        });
        let own = self.own_certificate.as_ref();
        let cert = own.map(|own| own.certificate.display().to_string());
        let key = own.map(|own| own.key.display().to_string());
        let (binding, negotiation) = (self.channel_binding, self.sslnegotiation);
        let binding = (binding != ChannelBinding::default()).then(|| binding.as_str().to_owned());
        let negotiation =
            (negotiation != SslNegotiation::default()).then(|| negotiation.as_str().to_owned());
        let version = self.max_protocol_version;
        let version = (version != ProtocolVersion::default()).then(|| version.as_str().to_owned());
        let parameters = [
            ("sslrootcert", root.map(String::from)),
            ("sslcert", cert),
            ("sslkey", key),
            ("channel_binding", binding),
            ("sslnegotiation", negotiation),
            ("max_protocol_version", version),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                write!(f, "&{name}={}", encode(&value))?;
            }
        }
        Ok(())
    }
}

/// Percent-encoding of all but what RFC 3986 calls unreserved.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
