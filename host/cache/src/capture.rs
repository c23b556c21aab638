//! A server's answer to one statement, as it passes on its way to the client; kept if it is nothing but rows.

use std::ops::Range;
use tidegate_core::limits::FRAME_BYTES_MAX;
use tidegate_wire::backend::tag;
use tidegate_wire::frame::{HEADER_BYTES, Header};

/// What does not count: ParseComplete, BindComplete, CloseComplete, ReadyForQuery.
const OWN_BYTES: usize = 64;

/// The frames that are kept, as the server sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    bytes: Box<[u8]>,
    /// Where the rows begin; before them are ParameterDescription and RowDescription, if there are.
    rows_at: usize,
}

impl Answer {
    /// Of these frames, of which the rows begin there; `None` when they are shorter.
    pub fn new(bytes: &[u8], rows_at: usize) -> Option<Self> {
        Self::owned(bytes.to_vec(), rows_at)
    }

    /// The same of bytes that are nobody else's.
    pub(crate) fn owned(bytes: Vec<u8>, rows_at: usize) -> Option<Self> {
        (rows_at <= bytes.len()).then(|| Self { bytes: bytes.into(), rows_at })
    }

    /// ParameterDescription and RowDescription, as far as they were asked for.
    pub fn description(&self) -> &[u8] {
        &self.bytes[..self.rows_at]
    }

    /// DataRows and CommandComplete.
    pub fn rows(&self) -> &[u8] {
        &self.bytes[self.rows_at..]
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), rows_at: 0 }
    }
}

/// How far a capture has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Captured {
    /// More is to come.
    More,
    /// All of it, and the session is between transactions.
    Whole(Answer),
    /// It is not to be kept: an error, a notice, a changed parameter, too long, …
    Unfit,
}

/// Takes what a server answers to one Query or batch.
///
/// ```text
/// Before ── T ──▶ Rows ── C (SELECT n), or s ──▶ Complete ── Z (idle) ──▶ whole
/// ```
/// 1, 2 and t are passed over before the rows, and 3 behind them; anything else is unfit.
#[derive(Debug)]
pub struct Capture {
    bytes_max: usize,
    raw: Vec<u8>,
    at: usize,
    stage: Stage,
    parameters: Range<usize>,
    row: Range<usize>,
    rows: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Before,
    Rows,
    Complete,
    Over,
}

impl Capture {
    /// Of at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            raw: Vec::new(),
            at: 0,
            stage: Stage::Before,
            parameters: 0..0,
            row: 0..0,
            rows: 0..0,
        }
    }

    /// Takes the next bytes, in any pieces.
    pub fn feed(&mut self, bytes: &[u8]) -> Captured {
        if self.stage == Stage::Over {
            return Captured::Unfit;
        }
        if self.raw.len() + bytes.len() > self.bytes_max + OWN_BYTES {
            return self.unfit();
        }
        self.raw.extend_from_slice(bytes);
        loop {
            let header = match Header::peek(&self.raw[self.at..], FRAME_BYTES_MAX) {
                Ok(Some(header)) => header,
                Ok(None) => return Captured::More,
                Err(_) => return self.unfit(),
            };
            let end = self.at + header.frame_bytes();
            if end > self.raw.len() {
                return Captured::More;
            }
            let frame = self.at..end;
            self.at = end;
            if header.tag == tag::READY_FOR_QUERY && self.stage == Stage::Complete {
                return self.whole(&frame);
            }
            match self.next(header.tag, frame) {
                Some(stage) => self.stage = stage,
                None => return self.unfit(),
            }
        }
    }

    fn next(&mut self, tag: u8, frame: Range<usize>) -> Option<Stage> {
        let stage = match (self.stage, tag) {
            (Stage::Before, tag::PARSE_COMPLETE | tag::BIND_COMPLETE) => Stage::Before,
            (Stage::Before, tag::PARAMETER_DESCRIPTION) if self.parameters.is_empty() => {
                self.parameters = frame;
                Stage::Before
            }
            (Stage::Before, tag::ROW_DESCRIPTION) if self.row.is_empty() => {
                self.row = frame;
                Stage::Before
            }
            (Stage::Before, tag::DATA_ROW) => {
                self.rows = frame;
                Stage::Rows
            }
            (Stage::Rows, tag::DATA_ROW) => {
                self.rows.end = frame.end;
                Stage::Rows
            }
            (Stage::Before | Stage::Rows, tag::COMMAND_COMPLETE) => {
                let body = self.raw.get(frame.start + HEADER_BYTES..frame.end)?;
                body.starts_with(b"SELECT ").then_some(())?;
                if self.stage == Stage::Before {
                    self.rows.start = frame.start;
                }
                self.rows.end = frame.end;
                Stage::Complete
            }
            // As many rows as were wanted; whatever is left is gone when its transaction ends.
            (Stage::Rows, tag::PORTAL_SUSPENDED) => {
                self.rows.end = frame.end;
                Stage::Complete
            }
            // The portal that has run.
            (Stage::Complete, tag::CLOSE_COMPLETE) => Stage::Complete,
            _ => return None,
        };
        Some(stage)
    }

    fn whole(&mut self, ready: &Range<usize>) -> Captured {
        // Whatever follows is the answer to something else.
        let is_idle = self.raw[ready.start + HEADER_BYTES..ready.end] == *b"I";
        let kept = [&self.parameters, &self.row, &self.rows];
        let length = kept.iter().map(|range| range.len()).sum::<usize>();
        if !is_idle || length > self.bytes_max {
            return self.unfit();
        }
        let rows_at = length - self.rows.len();
        let bytes = self.take_kept(length);
        self.stage = Stage::Over;
        Captured::Whole(Answer { bytes: bytes.into(), rows_at })
    }

    /// What is kept. It nearly always stands in one piece, and then is what is left of all.
    fn take_kept(&mut self, length: usize) -> Vec<u8> {
        let kept = [&self.parameters, &self.row, &self.rows];
        let start = kept.iter().find(|range| !range.is_empty()).map_or(0, |range| range.start);
        if self.rows.end == start + length {
            let mut bytes = std::mem::take(&mut self.raw);
            bytes.truncate(start + length);
            bytes.drain(..start);
            return bytes;
        }
        kept.map(|range| &self.raw[range.clone()]).concat()
    }

    fn unfit(&mut self) -> Captured {
        (self.stage, self.raw) = (Stage::Over, Vec::new());
        Captured::Unfit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_wire::backend::{self, TransactionStatus};
    use tidegate_wire::frame;

    fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
        backend::ready_for_query(out, status);
    }

    fn row(out: &mut Vec<u8>, value: &[u8]) {
        backend::data_row(out, &[Some(value)]);
    }

    /// All of a batch's answer with so many rows.
    fn answer(rows: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (mut description, mut body, mut all) = (Vec::new(), Vec::new(), Vec::new());
        backend::row_description_text(&mut description, &["a"]);
        rows.iter().for_each(|value| row(&mut body, value));
        backend::command_complete(&mut body, format!("SELECT {}", rows.len()).as_bytes());
        backend::parse_complete(&mut all);
        frame::write(&mut all, tag::BIND_COMPLETE, |_| {});
        all.extend_from_slice(&description);
        all.extend_from_slice(&body);
        ready(&mut all, TransactionStatus::Idle);
        (all, description, body)
    }

    fn feed_all(bytes: &[u8]) -> Captured {
        Capture::new(1 << 16).feed(bytes)
    }

    #[test]
    fn what_a_batch_says_of_itself_is_not_kept() {
        let (all, description, body) = answer(&[b"x".to_vec()]);
        let (mut described, mut closed) = (Vec::new(), all[..all.len() - 6].to_vec());
        // A statement is described before it is bound.
        backend::parse_complete(&mut described);
        let mut parameters = Vec::new();
        frame::write(&mut parameters, tag::PARAMETER_DESCRIPTION, |out| out.extend([0, 0]));
        described.extend([&parameters[..], &description].concat());
        frame::write(&mut described, tag::BIND_COMPLETE, |_| {});
        described.extend_from_slice(&body);
        ready(&mut described, TransactionStatus::Idle);
        frame::write(&mut closed, tag::CLOSE_COMPLETE, |_| {});
        ready(&mut closed, TransactionStatus::Idle);
        let wanted = [[&parameters[..], &description].concat(), description];
        for (bytes, description) in [described, closed].iter().zip(wanted) {
            let Captured::Whole(answer) = feed_all(bytes) else { panic!("{bytes:?}") };
            assert_eq!((answer.description(), answer.rows()), (&description[..], &body[..]));
        }
        // So many rows at most.
        let mut some = Vec::new();
        row(&mut some, b"x");
        frame::write(&mut some, tag::PORTAL_SUSPENDED, |_| {});
        let kept = some.clone();
        ready(&mut some, TransactionStatus::Idle);
        let Captured::Whole(answer) = feed_all(&some) else { panic!("{some:?}") };
        assert_eq!(answer.rows(), kept);
        // Before the rows there is nothing to close.
        let mut early = Vec::new();
        frame::write(&mut early, tag::CLOSE_COMPLETE, |_| {});
        assert_eq!(feed_all(&[&early, &all[..]].concat()), Captured::Unfit);
    }

    #[test]
    fn what_is_more_than_rows_is_unfit() {
        let (good, ..) = answer(&[b"x".to_vec()]);
        assert!(matches!(feed_all(&good), Captured::Whole(_)));
        let insert = |tag: u8| {
            // Before the ReadyForQuery, and at the very beginning.
            let mut other = Vec::new();
            frame::write(&mut other, tag, |out| out.push(0));
            let end = good.len() - 6;
            [[&other, &good[..]].concat(), [&good[..end], &other, &good[end..]].concat()]
        };
        for tag in [
            tag::ERROR_RESPONSE,
            tag::NOTICE_RESPONSE,
            tag::PARAMETER_STATUS,
            tag::NOTIFICATION_RESPONSE,
            tag::COMMAND_COMPLETE,
            tag::COPY_OUT_RESPONSE,
            tag::EMPTY_QUERY_RESPONSE,
            tag::NO_DATA,
            tag::READY_FOR_QUERY,
        ] {
            // A second end is the answer to something else, and not looked at.
            let places = if tag == tag::READY_FOR_QUERY { 1 } else { 2 };
            for bytes in insert(tag).iter().take(places) {
                assert_eq!(feed_all(bytes), Captured::Unfit, "{}", char::from(tag));
            }
        }
        let mut open = good[..good.len() - 6].to_vec();
        ready(&mut open, TransactionStatus::InTransaction);
        assert_eq!(feed_all(&open), Captured::Unfit);
        let mut insert = Vec::new();
        backend::command_complete(&mut insert, b"INSERT 0 1");
        ready(&mut insert, TransactionStatus::Idle);
        assert_eq!(feed_all(&insert), Captured::Unfit);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 17: what is kept is what the server sent, in whatever pieces it came; or nothing.
        #[test]
        fn an_answer_is_kept_byte_for_byte(
            rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
            cuts in proptest::collection::vec(1..50_usize, 1..80),
            bytes_max in 0..700_usize,
        ) {
            let (all, description, body) = answer(&rows);
            let mut capture = Capture::new(bytes_max);
            let (mut rest, mut last) = (&all[..], Captured::More);
            for cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                last = capture.feed(piece);
                rest = behind;
                if rest.is_empty() || last == Captured::Unfit {
                    break;
                }
                prop_assert_eq!(&last, &Captured::More);
            }
            if description.len() + body.len() <= bytes_max {
                let Captured::Whole(answer) = last else { return Err(TestCaseError::fail("not whole")) };
                prop_assert_eq!(answer.description(), &description[..]);
                prop_assert_eq!(answer.rows(), &body[..]);
            } else {
                prop_assert_eq!(last, Captured::Unfit);
            }
        }
    }
}
