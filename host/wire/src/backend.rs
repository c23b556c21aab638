//! Messages a server sends: their type bytes, readers for those the session must understand, and writers.

use crate::frame::{self, Reader, Truncated, write_cstr};

/// Type bytes of backend messages (protocol 3).
pub mod tag {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// The transaction status that ReadyForQuery carries: the only truth about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

impl TransactionStatus {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// ParameterStatus: name and value.
pub fn read_parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Truncated> {
    let mut reader = Reader::new(body);
    Ok((reader.cstr()?, reader.cstr()?))
}

/// BackendKeyData: the process id and the secret (4 bytes, up to 256 since protocol 3.2).
pub fn read_backend_key_data(body: &[u8]) -> Result<(i32, &[u8]), Truncated> {
    let mut reader = Reader::new(body);
    Ok((reader.i32()?, reader.rest()))
}

pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame::write(out, tag::PARAMETER_STATUS, |out| {
        write_cstr(out, name);
        write_cstr(out, value);
    });
}

pub fn backend_key_data(out: &mut Vec<u8>, process_id: i32, secret: &[u8]) {
    frame::write(out, tag::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

pub fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    frame::write(out, tag::READY_FOR_QUERY, |out| out.push(status.as_byte()));
}

pub fn command_complete(out: &mut Vec<u8>, command_tag: &[u8]) {
    frame::write(out, tag::COMMAND_COMPLETE, |out| write_cstr(out, command_tag));
}

/// NotificationResponse: process id, channel, payload.
pub fn read_notification_response(body: &[u8]) -> Result<(i32, &[u8], &[u8]), Truncated> {
    let mut reader = Reader::new(body);
    Ok((reader.i32()?, reader.cstr()?, reader.cstr()?))
}

pub fn notification_response(out: &mut Vec<u8>, process_id: i32, channel: &[u8], payload: &[u8]) {
    frame::write(out, tag::NOTIFICATION_RESPONSE, |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        write_cstr(out, channel);
        write_cstr(out, payload);
    });
}

pub fn parse_complete(out: &mut Vec<u8>) {
    frame::write(out, tag::PARSE_COMPLETE, |_| {});
}

pub fn close_complete(out: &mut Vec<u8>) {
    frame::write(out, tag::CLOSE_COMPLETE, |_| {});
}

/// A RowDescription of text columns that belong to no table.
pub fn row_description_text(out: &mut Vec<u8>, columns: &[&str]) {
    const TEXT_OID: i32 = 25;
    frame::write(out, tag::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for column in columns {
            write_cstr(out, column.as_bytes());
            out.extend_from_slice(&0_i32.to_be_bytes());
            out.extend_from_slice(&0_i16.to_be_bytes());
            out.extend_from_slice(&TEXT_OID.to_be_bytes());
            out.extend_from_slice(&(-1_i16).to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&0_i16.to_be_bytes());
        }
    });
}

pub fn data_row(out: &mut Vec<u8>, values: &[Option<&[u8]>]) {
    frame::write(out, tag::DATA_ROW, |out| {
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(value);
                }
            }
        }
    });
}

/// The columns of one DataRow; `None` is SQL's NULL.
pub fn read_data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Truncated> {
    let mut reader = Reader::new(body);
    let count = reader.i16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let length = reader.i32()?;
        values.push(match usize::try_from(length) {
            Ok(length) => Some(reader.bytes(length)?),
            Err(_) => None,
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_row_is_read_as_written() {
        let mut out = Vec::new();
        data_row(&mut out, &[Some(b"a"), None, Some(b"")]);
        assert_eq!(read_data_row(&out[5..]), Ok(vec![Some(&b"a"[..]), None, Some(&b""[..])]));
        assert_eq!(read_data_row(&out[5..out.len() - 1]), Err(Truncated));
    }

    #[test]
    fn transaction_status_round_trips() {
        for byte in 0..=255_u8 {
            if let Some(status) = TransactionStatus::from_byte(byte) {
                assert_eq!(status.as_byte(), byte);
            } else {
                assert!(!b"ITE".contains(&byte));
            }
        }
    }
}
