//! Streaming replication: what a server that streams its log sends, of which only the beginnings are kept, and what it is told.
//!
//! Source: "Streaming Replication Protocol" in PostgreSQL's documentation.

use crate::frame::{self, BadLength, HEADER_BYTES, Header, Reader};

/// CopyData, either way.
const COPY_DATA: u8 = b'd';
/// Microseconds from 1970 to 2000, when PostgreSQL's clocks begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// No message is longer: PostgreSQL makes none.
const BODY_BYTES_MAX: usize = i32::MAX as usize;

/// What CopyData holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streamed<'a> {
    /// Something that was decoded, or the beginning of it.
    Data {
        /// Up to where in the log it is.
        position: u64,
        /// What the output plugin has written.
        text: &'a [u8],
    },
    /// Everything up to there has been sent.
    Keepalive {
        /// Where in the log.
        position: u64,
        /// The server wants to hear of us at once.
        wants_answer: bool,
    },
}

impl<'a> Streamed<'a> {
    /// The body of a CopyData, or its beginning. `None`: it is none of these.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        match reader.u8().ok()? {
            b'w' => {
                let (start, end) = (position(&mut reader)?, position(&mut reader)?);
                position(&mut reader)?;
                Some(Self::Data { position: start.max(end), text: reader.rest() })
            }
            b'k' => {
                let sent = position(&mut reader)?;
                position(&mut reader)?;
                let wants_answer = reader.u8().ok()? != 0;
                Some(Self::Keepalive { position: sent, wants_answer })
            }
            _ => None,
        }
    }
}

fn position(reader: &mut Reader<'_>) -> Option<u64> {
    let bytes = reader.bytes(8).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Whether the server is to answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Wanted,
    Unneeded,
}

/// Tells the server that everything up to there has been heeded. `unix_micros` is the time of day.
pub fn status_update(out: &mut Vec<u8>, position: u64, unix_micros: i64, answer: Answer) {
    frame::write(out, COPY_DATA, |body| {
        body.push(b'r');
        // Written, flushed, applied.
        for _ in 0..3 {
            body.extend_from_slice(&position.to_be_bytes());
        }
        body.extend_from_slice(&unix_micros.saturating_sub(EPOCH_MICROS).to_be_bytes());
        body.push(u8::from(answer == Answer::Wanted));
    });
}

/// A position in the log, as `X/Y`.
pub fn read_position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text: &str| {
        let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    Some(part(high)? << 32 | part(low)?)
}

/// Frames of which no more than the beginning is kept, however long they are and in whatever pieces they come.
///
/// Verbs: `feed`.
#[derive(Clone, Debug)]
pub struct Beginnings {
    body_bytes_max: usize,
    /// A header, and as much of a body as is kept.
    kept: Vec<u8>,
    /// Bytes of the body that are to come and are not kept.
    skipped: usize,
    /// What the header says, once it is there, and how much of the body is still to be kept.
    header: Option<(u8, usize)>,
}

impl Beginnings {
    /// Of each body, so many bytes are kept at most.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { body_bytes_max, kept: Vec::new(), skipped: 0, header: None }
    }

    /// Takes bytes as they come, and tells of each frame as soon as all is there of it that is kept: its type and the beginning
    /// of its body.
    ///
    /// # Errors
    /// The length of a frame cannot be true: nothing that follows can be read.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(u8, &[u8]),
    ) -> Result<(), BadLength> {
        loop {
            if self.header.is_none() {
                // What is not kept of the frame before.
                let skipped = self.skipped.min(bytes.len());
                (self.skipped, bytes) = (self.skipped - skipped, &bytes[skipped..]);
                take(&mut self.kept, &mut bytes, HEADER_BYTES);
                let Some(header) = Header::peek(&self.kept, BODY_BYTES_MAX)? else { return Ok(()) };
                let body_bytes = header.body_bytes as usize;
                self.header = Some((header.tag, body_bytes.min(self.body_bytes_max)));
                self.skipped = body_bytes.saturating_sub(self.body_bytes_max);
            }
            let Some((tag, body_bytes)) = self.header else { return Ok(()) };
            take(&mut self.kept, &mut bytes, HEADER_BYTES + body_bytes);
            if self.kept.len() < HEADER_BYTES + body_bytes {
                return Ok(());
            }
            each(tag, &self.kept[HEADER_BYTES..]);
            self.kept.clear();
            self.header = None;
        }
    }
}

/// Moves bytes until there are so many.
fn take(kept: &mut Vec<u8>, bytes: &mut &[u8], wanted: usize) {
    let (head, rest) = bytes.split_at(wanted.saturating_sub(kept.len()).min(bytes.len()));
    kept.extend_from_slice(head);
    *bytes = rest;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(position: u64, text: &[u8]) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(&position.to_be_bytes());
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(text);
        body
    }

    #[test]
    fn what_a_server_streams_is_read() {
        let body = data(7, b"BEGIN 1");
        let expected = Streamed::Data { position: 7, text: b"BEGIN 1" };
        assert_eq!(Streamed::read(&body), Some(expected));
        let mut keepalive = vec![b'k'];
        keepalive.extend_from_slice(&9_u64.to_be_bytes());
        keepalive.extend_from_slice(&[0; 8]);
        assert_eq!(Streamed::read(&keepalive), None, "it is cut off");
        keepalive.push(1);
        let expected = Streamed::Keepalive { position: 9, wants_answer: true };
        assert_eq!(Streamed::read(&keepalive), Some(expected));
        for other in [&b""[..], b"w", b"x1234567890123456789012345"] {
            assert_eq!(Streamed::read(other), None);
        }
    }

    #[test]
    fn positions_are_read_as_they_are_written_and_nothing_else_is() {
        assert_eq!(read_position("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(read_position("0/0"), Some(0));
        for bad in ["", "/", "1", "1/", "/1", "+1/2", "1/2/3", "123456789/0", "0/g", "-1/0"] {
            assert_eq!(read_position(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_status_has_three_positions_and_a_clock_that_begins_with_2000() {
        let mut out = Vec::new();
        status_update(&mut out, 5, EPOCH_MICROS + 3, Answer::Wanted);
        let mut expected = vec![b'd', 0, 0, 0, 38, b'r'];
        [5_u64, 5, 5, 3].iter().for_each(|n| expected.extend_from_slice(&n.to_be_bytes()));
        expected.push(1);
        assert_eq!(out, expected);
    }

    #[test]
    fn a_length_that_cannot_be_true_is_told() {
        let mut beginnings = Beginnings::new(10);
        assert!(beginnings.feed(&[b'd', 0, 0, 0, 3], |_, _| ()).is_err());
        let mut beginnings = Beginnings::new(10);
        assert!(beginnings.feed(&[b'd', 0x80, 0, 0, 0], |_, _| ()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 20: frames come out in order and once each, cut to what is kept, in whatever pieces their bytes arrive.
        #[test]
        fn frames_are_found_in_any_pieces(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in proptest::collection::vec(1..30_usize, 1..40),
            kept in 0..50_usize,
        ) {
            let mut bytes = Vec::new();
            for (n, body) in bodies.iter().enumerate() {
                frame::write(&mut bytes, n as u8, |out| out.extend_from_slice(body));
            }
            let (mut beginnings, mut found) = (Beginnings::new(kept), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                let each = |tag: u8, body: &[u8]| found.push((tag, body.to_vec()));
                beginnings.feed(piece, each).unwrap();
                rest = behind;
            }
            let cut = |(n, body): (usize, &Vec<u8>)| (n as u8, body[..body.len().min(kept)].to_vec());
            let expected: Vec<_> = bodies.iter().enumerate().map(cut).collect();
            prop_assert_eq!(found, expected);
        }

        // Property 20: no bytes make it panic, nor keep more than it says.
        #[test]
        fn noise_is_borne(bytes in proptest::collection::vec(any::<u8>(), 0..300), kept in 0..50_usize) {
            let mut beginnings = Beginnings::new(kept);
            let mut longest = 0;
            let _ = beginnings.feed(&bytes, |_, body| {
                longest = longest.max(body.len());
                let _ = Streamed::read(body);
            });
            prop_assert!(longest <= kept);
        }
    }
}
