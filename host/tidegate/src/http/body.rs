//! Answers: whole, or in pieces while the statement runs.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

use super::answer::Failure;

/// What runs the statements and writes their rows, up to the last piece.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>>>>;

/// The body of an answer.
pub(super) enum Answer {
    Whole(Full<Bytes>),
    Pieces(Box<Pieces>),
}

/// Pieces as they come. Whoever drops it drops the statement too: a client that goes has it cancelled.
pub(super) struct Pieces {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    state: State,
    /// Told how it ended.
    ended: Option<Box<dyn FnOnce(Ended)>>,
}

enum State {
    Working(Work),
    Last(Bytes),
    Over,
}

/// How an answer in pieces ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Whole,
    /// The statement failed when a part of its rows had gone out.
    Cut,
}

/// The answer ends here though it is not whole: the connection is closed, so that nobody takes it for that.
#[derive(Debug)]
pub(super) struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the statement failed after its first rows")
    }
}

impl std::error::Error for CutOff {}

impl Pieces {
    pub(super) fn new(
        first: Option<Bytes>,
        pieces: mpsc::Receiver<Bytes>,
        work: Work,
        ended: impl FnOnce(Ended) + 'static,
    ) -> Self {
        Self { first, pieces, state: State::Working(work), ended: Some(Box::new(ended)) }
    }

    /// The same when the work is over already.
    pub(super) fn finished(
        pieces: mpsc::Receiver<Bytes>,
        last: Vec<u8>,
        ended: impl FnOnce(Ended) + 'static,
    ) -> Self {
        let state = State::Last(last.into());
        Self { first: None, pieces, state, ended: Some(Box::new(ended)) }
    }

    fn end(&mut self, how: Ended) {
        self.state = State::Over;
        if let Some(told) = self.ended.take() {
            told(how);
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            if let Ok(piece) = self.pieces.try_recv() {
                return Poll::Ready(Some(Ok(piece)));
            }
            match &mut self.state {
                State::Working(work) => match work.as_mut().poll(cx) {
                    Poll::Ready(Ok(last)) => self.state = State::Last(last.into()),
                    Poll::Ready(Err(failure)) => {
                        tracing::debug!(?failure, "an answer was cut off");
                        self.end(Ended::Cut);
                        return Poll::Ready(Some(Err(CutOff)));
                    }
                    // It waits for the server, or for a place for its next piece.
                    Poll::Pending => {
                        return match self.pieces.try_recv() {
                            Ok(piece) => Poll::Ready(Some(Ok(piece))),
                            Err(_) => Poll::Pending,
                        };
                    }
                },
                State::Last(last) => {
                    let last = std::mem::take(last);
                    self.end(Ended::Whole);
                    return Poll::Ready(Some(last).filter(|last| !last.is_empty()).map(Ok));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Whole(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never: Infallible| match never {}))),
            Self::Pieces(pieces) => {
                pieces.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(full) => full.is_end_stream(),
            Self::Pieces(pieces) => matches!(pieces.state, State::Over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
