//! The untyped first packets: SSLRequest, GSSENCRequest, CancelRequest and StartupMessage.
//!
//! Source: "Start-up" in PostgreSQL's protocol documentation, and `ProcessStartupPacket` in
//! `src/backend/tcop/backend_startup.c`. A packet is a 32-bit length that counts itself, a 32-bit
//! code, and a body.

use crate::frame::{self, Reader, write_cstr};

/// A packet is at most this long, its length field included (PostgreSQL:
/// MAX_STARTUP_PACKET_LENGTH).
pub const PACKET_BYTES_MAX: usize = 10_000;
/// The length and the code.
pub const PACKET_BYTES_MIN: usize = 8;
/// The newest minor version of protocol 3 that we speak.
pub const MINOR_MAX: u16 = 2;
/// Bytes of a cancel key's secret: exactly 4 in protocol 3.0, up to 256 since 3.2.
pub const SECRET_BYTES_MIN: usize = 4;
pub const SECRET_BYTES_MAX: usize = 256;

const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSSENC_CODE: u32 = 80_877_104;

/// One untyped packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    SslRequest,
    GssEncRequest,
    Cancel(CancelRequest),
    Startup(Startup),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// Any 32 bits: it may be negative.
    pub pid: i32,
    /// Any bytes, zeros included.
    pub secret: Vec<u8>,
}

/// A StartupMessage as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    pub major: u16,
    pub minor: u16,
    /// Names and values in the client's order, without protocol options. When a name comes twice,
    /// the last one counts.
    pub parameters: Vec<(String, String)>,
    /// Names of the `_pq_.` protocol options asked for. We know none of them.
    pub unknown_options: Vec<String>,
}

impl Startup {
    /// The value of the last parameter called `name`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The minor version both sides speak: the client's, or the newest of ours. Minor 1 was never
    /// released.
    pub fn minor_agreed(&self) -> u16 {
        match self.minor {
            0 | 1 => 0,
            minor => minor.min(MINOR_MAX),
        }
    }

    /// Whether the client must be told what it does not get (NegotiateProtocolVersion).
    pub fn wants_more_than_we_speak(&self) -> bool {
        self.minor != self.minor_agreed() || !self.unknown_options.is_empty()
    }
}

/// What is wrong with a first packet; all are the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// Below [`PACKET_BYTES_MIN`] or above [`PACKET_BYTES_MAX`].
    Length(u32),
    /// A string lacks its zero, or the list of parameters its last one.
    Terminator,
    /// Bytes after the end of the list of parameters, or after a request that has no body.
    TrailingBytes,
    /// A cancel key outside 4 to 256 bytes.
    CancelKeyLength(usize),
    /// A parameter is not UTF-8.
    Encoding,
}

/// Reads the packet at the start of `input`: the packet and its length in bytes, or `None` when it
/// is not all there.
///
/// The length is judged as soon as its four bytes are there, so that a reader never waits or
/// allocates for a false one.
pub fn read(input: &[u8]) -> Result<Option<(Packet, usize)>, StartupError> {
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head);
    let bytes = length as usize;
    if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&bytes) {
        return Err(StartupError::Length(length));
    }
    match input.get(4..bytes) {
        None => Ok(None),
        Some(body) => Ok(Some((read_body(body)?, bytes))),
    }
}

fn read_body(body: &[u8]) -> Result<Packet, StartupError> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or(StartupError::Length(4))?;
    match u32::from_be_bytes(*code) {
        SSL_CODE if rest.is_empty() => Ok(Packet::SslRequest),
        GSSENC_CODE if rest.is_empty() => Ok(Packet::GssEncRequest),
        SSL_CODE | GSSENC_CODE => Err(StartupError::TrailingBytes),
        CANCEL_CODE => read_cancel(rest),
        version => read_startup((version >> 16) as u16, version as u16, rest),
    }
}

fn read_cancel(rest: &[u8]) -> Result<Packet, StartupError> {
    let (pid, secret) =
        rest.split_first_chunk::<4>().ok_or(StartupError::CancelKeyLength(rest.len()))?;
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(StartupError::CancelKeyLength(secret.len()));
    }
    Ok(Packet::Cancel(CancelRequest { pid: i32::from_be_bytes(*pid), secret: secret.to_vec() }))
}

fn read_startup(major: u16, minor: u16, rest: &[u8]) -> Result<Packet, StartupError> {
    let mut startup = Startup { major, minor, parameters: Vec::new(), unknown_options: Vec::new() };
    if major != 3 {
        // Another protocol has another layout: its version is all that can be understood.
        return Ok(Packet::Startup(startup));
    }
    let mut reader = Reader::new(rest);
    loop {
        let name = reader.cstr().map_err(|_| StartupError::Terminator)?;
        if name.is_empty() {
            break;
        }
        let value = reader.cstr().map_err(|_| StartupError::Terminator)?;
        if name.starts_with(b"_pq_.") {
            startup.unknown_options.push(text(name)?);
        } else if name == b"application_name" {
            // PostgreSQL makes it printable ASCII whatever it is, so that it is never a reason to
            // refuse.
            startup.parameters.push((text(name)?, String::from_utf8_lossy(value).into_owned()));
        } else {
            startup.parameters.push((text(name)?, text(value)?));
        }
    }
    if reader.is_empty() { Ok(Packet::Startup(startup)) } else { Err(StartupError::TrailingBytes) }
}

fn text(bytes: &[u8]) -> Result<String, StartupError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| StartupError::Encoding)
}

/// What is wrong with the `options` parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// `-c name` or `--name` without a value. Carries what was written.
    ValueMissing(String),
    /// A switch that a client may not give, or that does not exist. Carries what was written.
    UnknownSwitch(String),
}

/// Reads the `options` parameter: the server's command-line switches that are settings, in their
/// order (the last one with a name counts).
///
/// Source: `pg_split_opts`, `ParseLongOption` and `process_postgres_switches`. White space
/// separates words, a backslash takes the next character as it is, and dashes in a setting's name
/// stand for underscores.
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if let Some(long) = word.strip_prefix("--") {
            long.to_owned()
        } else if word == "-c" {
            words.next().ok_or_else(|| OptionsError::ValueMissing(word.clone()))?
        } else if let Some(attached) = word.strip_prefix("-c") {
            attached.to_owned()
        } else if word == "-e" {
            "datestyle=euro".to_owned()
        } else {
            return Err(OptionsError::UnknownSwitch(word));
        };
        match assignment.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            _ => return Err(OptionsError::ValueMissing(word)),
        }
    }
    Ok(settings)
}

fn split_words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let word = word.get_or_insert_default();
                word.extend(characters.next());
            }
            // C's isspace, which is what PostgreSQL asks.
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Appends an SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    packet(out, SSL_CODE, |_| {});
}

/// Appends a GSSENCRequest.
pub fn gssenc_request(out: &mut Vec<u8>) {
    packet(out, GSSENC_CODE, |_| {});
}

/// Appends a CancelRequest.
pub fn cancel_request(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    packet(out, CANCEL_CODE, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Appends a StartupMessage of protocol 3 with `user` and `database` among its parameters.
pub fn startup_message<'a>(
    out: &mut Vec<u8>,
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    packet(out, 3 << 16 | u32::from(minor), |out| {
        for (name, value) in parameters {
            write_cstr(out, name.as_bytes());
            write_cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// Appends a NegotiateProtocolVersion: the version we agree to, and every protocol option we do not
/// know.
///
/// PostgreSQL writes the whole version (major and minor) where its documentation says "minor";
/// libpq expects that.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u16, unknown_options: &[String]) {
    frame::write(out, crate::backend::tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.extend_from_slice(&(3 << 16 | u32::from(minor)).to_be_bytes());
        out.extend_from_slice(&(unknown_options.len() as u32).to_be_bytes());
        for name in unknown_options {
            write_cstr(out, name.as_bytes());
        }
    });
}

fn packet(out: &mut Vec<u8>, code: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&code.to_be_bytes());
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
