//! Frames: a type byte and a length, the only part of most messages that the data path reads.
//!
//! Source: "Message Formats" in PostgreSQL's protocol documentation. The length counts itself but not the type byte.

/// Bytes of a frame header: the type byte and the 32-bit length.
pub const HEADER_BYTES: usize = 5;

/// A frame's header as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Bytes after the header; at most [`Limit::body_bytes_max`] of the reader.
    pub body_bytes: u32,
}

/// The length field cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength {
    pub tag: u8,
    pub length: i32,
}

impl Header {
    /// Reads the header at the start of `input`; `None` when fewer than five bytes are there.
    #[inline]
    pub fn peek(input: &[u8], body_bytes_max: usize) -> Result<Option<Header>, BadLength> {
        let Some(head) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        match usize::try_from(length) {
            Ok(length_bytes) if length_bytes >= 4 && length_bytes - 4 <= body_bytes_max => {
                Ok(Some(Header { tag: head[0], body_bytes: length as u32 - 4 }))
            }
            _ => Err(BadLength { tag: head[0], length }),
        }
    }

    /// Bytes of the whole frame, header included.
    #[inline]
    pub fn frame_bytes(self) -> usize {
        self.body_bytes as usize + HEADER_BYTES
    }
}

/// Appends a frame: the type byte, the length, and what `body` writes.
#[inline]
pub fn write(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    body(out);
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Appends a string and its terminating zero. A zero inside would end it early, so it ends there.
pub fn write_cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = find_zero(text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// A cursor over one message body. Every read is checked; nothing is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// A message body ended before its fields did, or a string lacked its zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.bytes(1)?[0])
    }

    pub fn i16(&mut self) -> Result<i16, Truncated> {
        let bytes = self.bytes(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// How many parameters there are: up to 65535.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn i32(&mut self) -> Result<i32, Truncated> {
        let bytes = self.bytes(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A zero-terminated string, without its zero.
    pub fn cstr(&mut self) -> Result<&'a [u8], Truncated> {
        let end = find_zero(self.rest).ok_or(Truncated)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }
}

fn find_zero(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_needs_five_bytes_and_a_length_of_at_least_four() {
        assert_eq!(Header::peek(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(
            Header::peek(b"S\0\0\0\x04", 100),
            Ok(Some(Header { tag: b'S', body_bytes: 0 }))
        );
        assert_eq!(Header::peek(b"S\0\0\0\x03", 100), Err(BadLength { tag: b'S', length: 3 }));
        assert_eq!(
            Header::peek(b"S\xff\xff\xff\xff", 100),
            Err(BadLength { tag: b'S', length: -1 })
        );
        assert!(Header::peek(b"Q\0\0\0\x69", 100).is_err());
        assert!(Header::peek(b"Q\0\0\0\x68", 100).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn what_is_written_is_read_back(tag in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = vec![1, 2, 3];
            write(&mut out, tag, |out| out.extend_from_slice(&body));
            let header = Header::peek(&out[3..], 1000).unwrap().unwrap();
            prop_assert_eq!(header.tag, tag);
            prop_assert_eq!(header.frame_bytes(), out.len() - 3);
        }

        #[test]
        fn a_reader_never_reads_past_its_end(body in proptest::collection::vec(any::<u8>(), 0..40), steps in proptest::collection::vec(0_u8..5, 0..20)) {
            let mut reader = Reader::new(&body);
            for step in steps {
                let before = reader.rest().len();
                let failed = match step {
                    0 => reader.u8().is_err(),
                    1 => reader.i16().is_err(),
                    2 => reader.i32().is_err(),
                    3 => reader.cstr().is_err(),
                    _ => reader.bytes(before + 1).is_err(),
                };
                prop_assert!(reader.rest().len() <= before);
                if failed { prop_assert_eq!(reader.rest().len(), before); }
            }
        }
    }
}
