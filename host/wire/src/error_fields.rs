//! The bodies of ErrorResponse and NoticeResponse: a list of fields, each a letter and a string.
//!
//! Source: "Error and Notice Message Fields" in PostgreSQL's protocol documentation.

use crate::backend;
use crate::frame::{self, Reader, write_cstr};

/// Field letters.
pub mod field {
    pub const SEVERITY: u8 = b'S';
    /// The severity in English whatever `lc_messages` says (since PostgreSQL 9.6).
    pub const SEVERITY_PLAIN: u8 = b'V';
    pub const SQLSTATE: u8 = b'C';
    pub const MESSAGE: u8 = b'M';
    pub const DETAIL: u8 = b'D';
    pub const HINT: u8 = b'H';
    /// The function of PostgreSQL's source that reports it.
    pub const ROUTINE: u8 = b'R';
}

/// The value of one field, if the body has it. A malformed body simply has no more fields.
pub fn find(body: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(body);
    loop {
        match reader.u8() {
            Ok(0) | Err(_) => return None,
            Ok(letter) => {
                let value = reader.cstr().ok()?;
                if letter == wanted {
                    return Some(value);
                }
            }
        }
    }
}

/// What an ErrorResponse of ours says. Empty strings are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    pub severity: &'a str,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: &'a str,
    pub hint: &'a str,
}

pub fn error_response(out: &mut Vec<u8>, fields: Fields<'_>) {
    write_as(out, backend::tag::ERROR_RESPONSE, fields);
}

pub fn notice_response(out: &mut Vec<u8>, fields: Fields<'_>) {
    write_as(out, backend::tag::NOTICE_RESPONSE, fields);
}

fn write_as(out: &mut Vec<u8>, tag: u8, fields: Fields<'_>) {
    frame::write(out, tag, |out| {
        let list = [
            (field::SEVERITY, fields.severity),
            (field::SEVERITY_PLAIN, fields.severity),
            (field::SQLSTATE, fields.sqlstate),
            (field::MESSAGE, fields.message),
            (field::DETAIL, fields.detail),
            (field::HINT, fields.hint),
        ];
        for (letter, value) in list {
            if !value.is_empty() {
                out.push(letter);
                write_cstr(out, value.as_bytes());
            }
        }
        out.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_missing_ones_are_not() {
        let mut out = Vec::new();
        error_response(
            &mut out,
            Fields {
                severity: "ERROR",
                sqlstate: "42P05",
                message: "already there",
                ..Fields::default()
            },
        );
        let body = &out[5..];
        assert_eq!(find(body, field::SQLSTATE), Some(&b"42P05"[..]));
        assert_eq!(find(body, field::SEVERITY_PLAIN), Some(&b"ERROR"[..]));
        assert_eq!(find(body, field::HINT), None);
        assert_eq!(find(b"", field::SQLSTATE), None);
        assert_eq!(find(b"Cno zero", field::SQLSTATE), None);
    }
}
