//! JSON as it is made: kept while it is short, in pieces once it is long.

use hyper::StatusCode;
use hyper::body::Bytes;
use tidegate_core::limits::HTTP_PIECE_BYTES;
use tokio::sync::mpsc;

use super::answer::Failure;

/// Where an answer's text goes.
pub(super) struct Output {
    buffer: Vec<u8>,
    pieces: mpsc::Sender<Bytes>,
    /// Bytes of the pieces that have gone.
    gone: u64,
    bytes_max: u64,
}

impl Output {
    /// With the other end of its pieces, of which one may wait.
    pub(super) fn new(bytes_max: u64) -> (Self, mpsc::Receiver<Bytes>) {
        let (pieces, received) = mpsc::channel(1);
        (Self { buffer: Vec::new(), pieces, gone: 0, bytes_max }, received)
    }

    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Lets go of a piece if there is one.
    ///
    /// # Errors
    /// The answer is too large.
    pub(super) async fn advance(&mut self) -> Result<(), Failure> {
        if self.buffer.len() < HTTP_PIECE_BYTES {
            return Ok(());
        }
        self.gone += self.buffer.len() as u64;
        if self.gone > self.bytes_max {
            let message = format!("the answer is larger than {} bytes", self.bytes_max);
            return Err(Failure::new(StatusCode::INSUFFICIENT_STORAGE, "54000", message)
                .hint("Read it in parts, or raise http.result_mib_max."));
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(HTTP_PIECE_BYTES));
        // Nobody takes it any more: then this is dropped at its next wait.
        let _ = self.pieces.send(piece.into()).await;
        Ok(())
    }

    /// What has not gone.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.buffer
    }
}

/// Appends a string of JSON. What is no UTF-8 is replaced.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    // Nothing but a buffer that refuses fails, and this one takes all.
    let _ = serde_json::to_writer(out, &*text);
}
