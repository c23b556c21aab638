//! Messages a client sends: their type bytes, readers for those the session must understand, and writers.

use crate::frame::{self, Reader, Truncated, write_cstr};

/// Type bytes of frontend messages (protocol 3).
pub mod tag {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share it.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// The body of Parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub sql: &'a [u8],
    /// The parameter types as they stand: a 16-bit count, then 32-bit OIDs.
    pub types: &'a [u8],
}

pub fn read_parse(body: &[u8]) -> Result<Parse<'_>, Truncated> {
    let mut reader = Reader::new(body);
    let name = reader.cstr()?;
    let sql = reader.cstr()?;
    let types = reader.rest();
    let count = reader.u16()?;
    let oids = reader.bytes(usize::from(count) * 4)?;
    debug_assert_eq!(oids.len() + 2, types.len() - reader.rest().len());
    if reader.is_empty() { Ok(Parse { name, sql, types }) } else { Err(Truncated) }
}

/// The two names at the head of Bind; the rest (formats, parameters) is forwarded unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindNames<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Bytes of the body that the names take, zeros included.
    pub names_bytes: usize,
}

/// Reads the names from the part of the body that has arrived; `None` when they are not all there yet.
pub fn read_bind_names(body_so_far: &[u8]) -> Option<BindNames<'_>> {
    let mut reader = Reader::new(body_so_far);
    let portal = reader.cstr().ok()?;
    let statement = reader.cstr().ok()?;
    Some(BindNames { portal, statement, names_bytes: body_so_far.len() - reader.rest().len() })
}

/// How a parameter's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// The value of the parameter of a Bind that has just one, which is not null.
pub fn read_only_parameter(body: &[u8]) -> Option<(Format, &[u8])> {
    let mut reader = Reader::new(body);
    reader.cstr().ok()?;
    reader.cstr().ok()?;
    let formats = reader.i16().ok()?;
    let mut format = Format::Text;
    for _ in 0..formats {
        format = if reader.i16().ok()? == 0 { Format::Text } else { Format::Binary };
    }
    if !matches!((formats, reader.i16().ok()?), (0 | 1, 1)) {
        return None;
    }
    let length = usize::try_from(reader.i32().ok()?).ok()?;
    Some((format, reader.bytes(length).ok()?))
}

/// The values of all parameters, if they are written as texts; `bound` is a Bind behind its names.
pub fn read_text_parameters(bound: &[u8]) -> Option<Vec<Option<&str>>> {
    let mut reader = Reader::new(bound);
    for _ in 0..reader.u16().ok()? {
        if reader.i16().ok()? != 0 {
            return None;
        }
    }
    let count = usize::from(reader.u16().ok()?);
    // Each has a length of four bytes.
    let mut values = Vec::with_capacity(count.min(reader.rest().len() / 4));
    for _ in 0..count {
        let value = match reader.i32().ok()? {
            -1 => None,
            length => {
                let bytes = reader.bytes(usize::try_from(length).ok()?).ok()?;
                Some(std::str::from_utf8(bytes).ok()?)
            }
        };
        values.push(value);
    }
    Some(values)
}

/// The body of Describe or Close.
pub fn read_named(body: &[u8]) -> Result<Named<'_>, Truncated> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let name = reader.cstr()?;
    match kind {
        b'S' if reader.is_empty() => Ok(Named::Statement(name)),
        b'P' if reader.is_empty() => Ok(Named::Portal(name)),
        _ => Err(Truncated),
    }
}

/// The text of Query.
pub fn read_query(body: &[u8]) -> Result<&[u8], Truncated> {
    let mut reader = Reader::new(body);
    let sql = reader.cstr()?;
    if reader.is_empty() { Ok(sql) } else { Err(Truncated) }
}

pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    frame::write(out, tag::QUERY, |out| write_cstr(out, sql));
}

/// `types` as in [`Parse::types`].
pub fn parse(out: &mut Vec<u8>, name: &[u8], sql: &[u8], types: &[u8]) {
    frame::write(out, tag::PARSE, |out| {
        write_cstr(out, name);
        write_cstr(out, sql);
        out.extend_from_slice(types);
    });
}

pub fn close(out: &mut Vec<u8>, named: Named<'_>) {
    frame::write(out, tag::CLOSE, |out| write_named(out, named));
}

pub fn describe(out: &mut Vec<u8>, named: Named<'_>) {
    frame::write(out, tag::DESCRIBE, |out| write_named(out, named));
}

fn write_named(out: &mut Vec<u8>, named: Named<'_>) {
    let (kind, name) = match named {
        Named::Statement(name) => (b'S', name),
        Named::Portal(name) => (b'P', name),
    };
    out.push(kind);
    write_cstr(out, name);
}

/// A Bind with text parameters and text results; for our own statements and for tests.
pub fn bind_text(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], parameters: &[Option<&[u8]>]) {
    frame::write(out, tag::BIND, |out| {
        write_cstr(out, portal);
        write_cstr(out, statement);
        out.extend_from_slice(&0_i16.to_be_bytes());
        out.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            match parameter {
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(value);
                }
            }
        }
        out.extend_from_slice(&0_i16.to_be_bytes());
    });
}

/// `rows_max` 0 means all.
pub fn execute(out: &mut Vec<u8>, portal: &[u8], rows_max: i32) {
    frame::write(out, tag::EXECUTE, |out| {
        write_cstr(out, portal);
        out.extend_from_slice(&rows_max.to_be_bytes());
    });
}

pub fn copy_fail(out: &mut Vec<u8>, reason: &[u8]) {
    frame::write(out, tag::COPY_FAIL, |out| write_cstr(out, reason));
}

pub fn sync(out: &mut Vec<u8>) {
    frame::write(out, tag::SYNC, |_| {});
}

pub fn flush(out: &mut Vec<u8>) {
    frame::write(out, tag::FLUSH, |_| {});
}

pub fn terminate(out: &mut Vec<u8>) {
    frame::write(out, tag::TERMINATE, |_| {});
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(frame: &[u8]) -> &[u8] {
        &frame[frame::HEADER_BYTES..]
    }

    #[test]
    fn parse_is_read_as_written_and_trailing_bytes_are_refused() {
        let mut out = Vec::new();
        parse(&mut out, b"s1", b"select $1", &[0, 1, 0, 0, 0, 23]);
        let read = read_parse(body(&out)).unwrap();
        assert_eq!(
            (read.name, read.sql, read.types),
            (&b"s1"[..], &b"select $1"[..], &[0, 1, 0, 0, 0, 23][..])
        );
        out.push(0);
        assert_eq!(read_parse(body(&out)), Err(Truncated));
        assert_eq!(read_parse(b"a\0b\0\xff\xff"), Err(Truncated));
        // As many types as a statement may have parameters.
        for count in [32_767_u16, 32_768, 65_535] {
            let mut message = b"a\0b\0".to_vec();
            message.extend_from_slice(&count.to_be_bytes());
            message.resize(message.len() + usize::from(count) * 4, 7);
            let types = usize::from(count) * 4 + 2;
            assert_eq!(read_parse(&message).map(|parse| parse.types.len()), Ok(types));
            assert_eq!(read_parse(&message[..message.len() - 1]), Err(Truncated));
        }
    }

    #[test]
    fn bind_names_wait_until_both_are_there() {
        let mut out = Vec::new();
        bind_text(&mut out, b"p", b"s", &[Some(b"1"), None]);
        let whole = body(&out);
        assert_eq!(read_bind_names(&whole[..3]), None);
        let names = read_bind_names(whole).unwrap();
        assert_eq!((names.portal, names.statement, names.names_bytes), (&b"p"[..], &b"s"[..], 4));
    }

    #[test]
    fn the_only_parameter_is_read_if_there_is_just_one() {
        let bound = |parameters: &[Option<&[u8]>]| {
            let mut out = Vec::new();
            bind_text(&mut out, b"p", b"s", parameters);
            body(&out).to_vec()
        };
        assert_eq!(read_only_parameter(&bound(&[Some(b"12")])), Some((Format::Text, &b"12"[..])));
        assert_eq!(read_only_parameter(&bound(&[None])), None);
        assert_eq!(read_only_parameter(&bound(&[])), None);
        assert_eq!(read_only_parameter(&bound(&[Some(b"1"), Some(b"2")])), None);
        let binary = b"\0\0\0\x01\0\x01\0\x01\0\0\0\x02\0\x07\0\0";
        assert_eq!(read_only_parameter(binary), Some((Format::Binary, &b"\0\x07"[..])));
        assert_eq!(read_only_parameter(&binary[..13]), None);
        let texts = |parameters: &[Option<&[u8]>]| bound(parameters)[4..].to_vec();
        let both = texts(&[Some(b"1"), None]);
        assert_eq!(read_text_parameters(&both), Some(vec![Some("1"), None]));
        assert_eq!(read_text_parameters(&texts(&[])), Some(vec![]));
        assert_eq!(read_text_parameters(&texts(&[Some(b"\xff")])), None);
        assert_eq!(read_text_parameters(&both[..both.len() - 3]), None);
        assert_eq!(read_text_parameters(&binary[2..]), None);
    }

    #[test]
    fn describe_and_close_name_a_statement_or_a_portal() {
        let mut out = Vec::new();
        describe(&mut out, Named::Portal(b""));
        assert_eq!(read_named(body(&out)), Ok(Named::Portal(b"")));
        assert_eq!(read_named(b"Xname\0"), Err(Truncated));
    }
}
