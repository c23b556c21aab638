//! Is an idle connection alive? Reads what came while nobody used it, without waiting.

use super::Server;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tidegate_core::limits::POOL_IDLE_BYTES_MAX;
use tidegate_wire::backend::{self, tag};
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tokio::io::{AsyncRead, ReadBuf};

/// What reading an idle connection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    Alive,
    /// End of stream, an error, a farewell, or something an idle server does not send.
    Dead,
}

/// Parameter changes are taken over; notices and notifications are dropped, since nobody is there
/// to hear them.
///
/// tokio knows from its last poll of the reactor whether something may be there: usually this is no
/// system call.
pub(super) fn check(server: &mut Server) -> Liveness {
    let mut cx = Context::from_waker(Waker::noop());
    let mut chunk = [0u8; 512];
    let mut unread = Vec::new();
    loop {
        let mut buf = ReadBuf::new(&mut chunk);
        match Pin::new(&mut server.stream).poll_read(&mut cx, &mut buf) {
            Poll::Pending => break,
            Poll::Ready(Err(_)) => return Liveness::Dead,
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return Liveness::Dead,
            Poll::Ready(Ok(())) => unread.extend_from_slice(buf.filled()),
        }
        if unread.len() > POOL_IDLE_BYTES_MAX {
            return Liveness::Dead;
        }
    }
    read_frames(&unread, &mut server.parameters)
}

/// Half a message is no state to lend a connection in, so it counts as dead too.
fn read_frames(mut unread: &[u8], parameters: &mut Vec<(String, String)>) -> Liveness {
    while !unread.is_empty() {
        let Ok(Some(header)) = Header::peek(unread, POOL_IDLE_BYTES_MAX) else {
            return Liveness::Dead;
        };
        let Some((frame, rest)) = unread.split_at_checked(header.frame_bytes()) else {
            return Liveness::Dead;
        };
        match header.tag {
            tag::PARAMETER_STATUS => {
                let Ok((name, value)) = backend::read_parameter_status(&frame[HEADER_BYTES..])
                else {
                    return Liveness::Dead;
                };
                update(parameters, &String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
            }
            tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => {}
            _ => return Liveness::Dead,
        }
        unread = rest;
    }
    Liveness::Alive
}

fn update(parameters: &mut Vec<(String, String)>, name: &str, value: &str) {
    match parameters.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => parameters.push((name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn parameter_changes_are_taken_over_and_notices_dropped() {
        let mut parameters = vec![("TimeZone".to_owned(), "UTC".to_owned())];
        let unread = frames(|out| {
            backend::parameter_status(out, b"TimeZone", b"Asia/Tokyo");
            tidegate_wire::frame::write(out, tag::NOTICE_RESPONSE, |body| body.push(0));
            backend::parameter_status(out, b"in_hot_standby", b"off");
        });
        assert_eq!(read_frames(&unread, &mut parameters), Liveness::Alive);
        let expected = [("TimeZone", "Asia/Tokyo"), ("in_hot_standby", "off")];
        assert_eq!(parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn farewells_surprises_and_halves_are_dead() {
        let error = frames(|out| tidegate_wire::frame::write(out, b'E', |body| body.push(0)));
        let ready = frames(|out| {
            backend::ready_for_query(out, tidegate_wire::backend::TransactionStatus::Idle);
        });
        let half = &frames(|out| backend::parameter_status(out, b"a", b"b"))[..7];
        for unread in [&error[..], &ready, half, b"S\0\0", b"S\0\0\0\x03", b"S\xff\xff\xff\xff"] {
            assert_eq!(read_frames(unread, &mut Vec::new()), Liveness::Dead, "{unread:?}");
        }
    }
}
