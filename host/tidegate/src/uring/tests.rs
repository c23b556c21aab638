//! The ring against plain sockets at the other end, under the runtime that a worker has.

use std::future::{Future, poll_fn};
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime::LocalOptions;
use tokio::time::timeout;

use crate::stream::{Settling, Socket, Stream};

use super::{
    Family, Read, UringSocket, Use, after_unpark, before_park, count_read, install, with_ring,
};

/// What a correct run never comes near.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs as a worker runs, with a ring. Where the kernel has none there is nothing to test, which is told.
fn on_ring<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(before_park)
        .on_thread_unpark(after_unpark)
        .build_local(LocalOptions::default())
        .unwrap();
    let ring = {
        let _runtime = runtime.enter();
        install(Use::Always)
    };
    let ring = match ring {
        Ok(ring) => ring,
        Err(error) => {
            eprintln!("this kernel has no io_uring for us: {error}");
            return;
        }
    };
    runtime.block_on(async { timeout(DEADLINE, test()).await.expect("it hangs") });
    drop(ring);
}

/// A socket on the ring, and a blocking one at its other end.
fn pair() -> (UringSocket, StdUnixStream) {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(DEADLINE)).unwrap();
    (UringSocket::adopt(OwnedFd::from(ours), Family::Unix).unwrap(), theirs)
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| ((n * 31 + seed * 7) % 251) as u8).collect()
}

/// At the other end, what comes is sent back, until the end.
fn echo(mut theirs: StdUnixStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut chunk = vec![0; 50_000];
        while let Ok(count @ 1..) = theirs.read(&mut chunk) {
            theirs.write_all(&chunk[..count]).unwrap();
        }
    })
}

/// Without blocking the thread, whose next turn closes what was dropped in this one.
async fn end_of(echo: std::thread::JoinHandle<()>) {
    tokio::task::spawn_blocking(move || echo.join()).await.unwrap().unwrap();
}

#[test]
fn what_is_written_arrives_in_order_and_what_comes_back_is_read() {
    on_ring(|| async {
        let (mut ours, theirs) = pair();
        let echo = echo(theirs);
        for (n, length) in
            [1, 100, 4_095, 4_096, 4_097, 16_383, 16_384, 70_000, 3].into_iter().enumerate()
        {
            let sent = pattern(length, n);
            let mut seen = vec![0; length];
            let (mut reads, mut writes) = tokio::io::split(&mut ours);
            let (written, read) =
                tokio::join!(writes.write_all(&sent), reads.read_exact(&mut seen));
            written.unwrap();
            read.unwrap();
            assert!(seen == sent, "{length} bytes");
        }
        drop(ours);
        end_of(echo).await;
    });
}

#[test]
fn who_always_finds_something_to_read_keeps_nobody_from_the_kernel() {
    on_ring(|| async {
        // Never pending, so the runtime never waits.
        let busy = tokio::task::spawn_local(poll_fn(|cx| {
            count_read(Read::Nothing);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let (mut ours, theirs) = pair();
        let echo = echo(theirs);
        for n in 0..3 {
            let sent = pattern(100, n);
            ours.write_all(&sent).await.unwrap();
            let mut seen = vec![0; 100];
            ours.read_exact(&mut seen).await.unwrap();
            assert_eq!(seen, sent);
        }
        busy.abort();
        drop(ours);
        end_of(echo).await;
    });
}

#[test]
fn a_stream_that_moves_loses_nothing() {
    on_ring(|| async {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_read_timeout(Some(DEADLINE)).unwrap();
        let echo = echo(theirs);
        let mut stream = Stream::Plain(Socket::Unix(UnixStream::from_std(ours).unwrap()));
        let mut moves = 0;
        for (n, length) in (0..60).zip([1, 300, 4_096, 5_000, 60_000].into_iter().cycle()) {
            let wanted = if n % 2 == 0 { Use::Always } else { Use::Crowded };
            with_ring(|ring| ring.set_use(wanted)).unwrap();
            // At rest, with bytes on their way, and with some of them read: what can't move then stays.
            let moments = [n % 3 == 0, n % 4 == 0, n % 5 == 0];
            let mut settle = |stream: &mut Stream, now: bool| {
                moves += usize::from(now && stream.settle() == Settling::Moved);
            };
            settle(&mut stream, moments[0]);
            let sent = pattern(length, n);
            stream.write_all(&sent).await.unwrap();
            settle(&mut stream, moments[1]);
            let mut seen = vec![0; length];
            stream.read_exact(&mut seen[..length / 2]).await.unwrap();
            settle(&mut stream, moments[2]);
            stream.read_exact(&mut seen[length / 2..]).await.unwrap();
            assert!(seen == sent, "{length} bytes");
        }
        assert!(moves >= 10, "it has moved {moves} times");
        drop(stream);
        end_of(echo).await;
    });
}

#[test]
fn more_than_all_buffers_hold_passes_both_ways_at_once() {
    const BYTES: usize = 32 << 20;
    on_ring(|| async {
        let (mut ours, theirs) = pair();
        let echo = echo(theirs);
        let sent = pattern(BYTES, 1);
        let mut seen = vec![0; BYTES];
        let (mut reads, mut writes) = tokio::io::split(&mut ours);
        let (written, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut seen));
        written.unwrap();
        read.unwrap();
        assert!(seen == sent);
        drop(ours);
        end_of(echo).await;
    });
}

/// The buffers are one worker's, not one socket's: who does not read must not keep others from it.
#[test]
fn sockets_that_nobody_reads_take_nothing_from_others() {
    on_ring(|| async {
        let mut silent = Vec::new();
        for _ in 0..64 {
            let (mut ours, mut theirs) = pair();
            // Armed, and never looked at again.
            let mut byte = [0];
            let mut room = ReadBuf::new(&mut byte);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut ours).poll_read(&mut cx, &mut room).is_pending());
            theirs.set_nonblocking(true).unwrap();
            silent.push((ours, theirs.write(&pattern(200_000, 3)).unwrap(), theirs));
        }
        let (mut ours, theirs) = pair();
        let echo = echo(theirs);
        for n in 0..100 {
            let sent = pattern(3_000, n);
            ours.write_all(&sent).await.unwrap();
            let mut seen = vec![0; 3_000];
            ours.read_exact(&mut seen).await.unwrap();
            assert!(seen == sent);
        }
        drop(ours);
        end_of(echo).await;
        for (mut ours, written, _theirs) in silent {
            let mut seen = vec![0; written];
            ours.read_exact(&mut seen).await.unwrap();
            assert!(seen == pattern(written, 3));
        }
    });
}

#[test]
fn the_end_and_a_reset_are_told() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"last words").unwrap();
        drop(theirs);
        let mut seen = Vec::new();
        ours.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"last words");
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0, "the end stays");
        // The first write may still be taken; that nobody is there shows in what follows it.
        let refused = async {
            loop {
                if ours.write_all(b"is anybody there").await.is_err() || ours.flush().await.is_err()
                {
                    break;
                }
            }
        };
        refused.await;
    });
}

#[test]
fn who_writes_to_one_that_does_not_read_waits_and_holds_little() {
    on_ring(|| async {
        let (mut ours, theirs) = pair();
        let piece = pattern(10_000, 5);
        let mut accepted = 0;
        let full = timeout(Duration::from_millis(200), async {
            loop {
                ours.write_all(&piece).await.unwrap();
                accepted += piece.len();
            }
        });
        full.await.unwrap_err();
        assert!(accepted < 4 << 20, "{accepted} bytes were accepted and nobody reads");
        // Dropped with bytes under way, which nobody will ever read: it closes nevertheless.
        drop(ours);
        let left = tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            (&theirs).read_to_end(&mut seen).map(|_| seen.len())
        });
        assert!(left.await.unwrap().unwrap() <= accepted + piece.len());
        assert_eq!(sockets(), 0);
    });
}

#[test]
fn who_is_not_read_cannot_send_for_ever_however_small_the_pieces() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let armed = Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
        assert!(armed.is_pending());
        theirs.set_nonblocking(true).unwrap();
        let (piece, mut sent) = (pattern(100, 2), 0);
        loop {
            // Each piece is received by itself, as long as any is.
            before_park();
            match theirs.write(&piece) {
                Ok(count) => sent += count,
                Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        let held = with_ring(|ring| ring.bytes_held()).unwrap();
        assert!(held < 20 << 10, "{held} bytes are held");
        let mut seen = vec![0; sent];
        ours.read_exact(&mut seen).await.unwrap();
        assert!(seen.chunks(100).all(|chunk| chunk == &piece[..chunk.len()]));
    });
}

#[test]
fn a_reader_that_is_never_done_holds_no_more_than_what_it_has_not_read() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"!").unwrap();
        for n in 0..2_000 {
            theirs.write_all(&pattern(100, n)).unwrap();
            before_park();
            let mut seen = [0; 100];
            ours.read_exact(&mut seen).await.unwrap();
        }
        let held = with_ring(|ring| ring.bytes_held()).unwrap();
        assert!(held < 1_000, "{held} bytes are held");
    });
}

#[test]
fn what_was_written_before_a_drop_is_sent_and_the_socket_closed() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        // As a pool says goodbye: without waiting, and with nobody to wake.
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(&mut ours).poll_write(&mut cx, b"goodbye"), Poll::Ready(Ok(7))));
        assert!(
            Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 8])).is_pending()
        );
        drop(ours);
        let seen = tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).map(|_| seen)
        });
        assert_eq!(seen.await.unwrap().unwrap(), b"goodbye");
        assert_eq!(sockets(), 0);
    });
}

#[test]
fn a_shutdown_waits_for_what_was_written() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        let sent = pattern(15_000, 9);
        let parts = [IoSlice::new(&sent[..9_000]), IoSlice::new(&sent[9_000..])];
        let written = poll_fn(|cx| Pin::new(&mut ours).poll_write_vectored(cx, &parts)).await;
        assert_eq!(written.unwrap(), sent.len());
        ours.shutdown().await.unwrap();
        let mut seen = Vec::new();
        theirs.read_to_end(&mut seen).unwrap();
        assert!(seen == sent);
    });
}

#[test]
fn a_socket_leaves_at_rest_alone_and_takes_nothing_with_it() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        // Armed, as an idle server connection is.
        assert!(
            Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 8])).is_pending()
        );
        before_park();
        let fd = ours.leave().expect("nothing is on its way");
        assert!(ours.read(&mut [0; 8]).await.is_err(), "it is no longer here");
        // Another takes its place: the one that left must not close it.
        let (mut other, mut other_theirs) = pair();
        drop(ours);
        theirs.write_all(b"to the next").unwrap();
        let mut moved = StdUnixStream::from(fd);
        moved.set_nonblocking(false).unwrap();
        let mut seen = [0; 11];
        moved.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"to the next");
        other_theirs.write_all(b"here").unwrap();
        let mut seen = [0; 4];
        other.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"here");
        // Bytes that have been received keep it here, and are read here.
        other_theirs.write_all(b"more").unwrap();
        let mut first = [0];
        other.read_exact(&mut first).await.unwrap();
        assert!(other.leave().is_none());
        let mut rest = [0; 3];
        other.read_exact(&mut rest).await.unwrap();
        assert_eq!((&first, &rest), (b"m", b"ore"));
    });
}

/// What a drain does: more is sent in one turn than the kernel's queues hold, and each gets what is its own, in order.
#[test]
fn more_sends_than_the_queues_hold_go_out_in_one_turn() {
    const SOCKETS: usize = 400;
    const ROUNDS: u8 = 5;
    // All in one poll, which is more than tokio grants a task otherwise.
    on_ring(|| {
        tokio::task::unconstrained(async {
            let mut pairs: Vec<_> = (0..SOCKETS).map(|_| pair()).collect();
            let mut cx = Context::from_waker(Waker::noop());
            for round in 0..ROUNDS {
                for (number, (ours, theirs)) in pairs.iter_mut().enumerate() {
                    let _ = Pin::new(&mut *ours).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 0]));
                    theirs.write_all(&[round, number as u8]).unwrap();
                    let sent = [number as u8, round];
                    assert!(Pin::new(ours).poll_write(&mut cx, &sent).is_ready());
                }
                // More requests than there are places for what comes of them, before anything that completes is dealt with.
                with_ring(|ring| ring.crowd(9_000));
                before_park();
            }
            for (number, (ours, theirs)) in pairs.iter_mut().enumerate() {
                let mut seen = [0; 2 * ROUNDS as usize];
                ours.read_exact(&mut seen).await.unwrap();
                assert!(seen.chunks(2).enumerate().all(|(at, it)| it == [at as u8, number as u8]));
                theirs.read_exact(&mut seen).unwrap();
                assert!(seen.chunks(2).enumerate().all(|(at, it)| it == [number as u8, at as u8]));
            }
        })
    });
}

/// Sockets that the ring still has, when the kernel has ended what was cancelled.
fn sockets() -> usize {
    before_park();
    with_ring(|ring| ring.sockets()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the sizes, and however the reader's room: the same bytes, in order.
    #[test]
    fn any_sizes_pass(
        sizes in prop::collection::vec(1..40_000_usize, 1..12),
        room in 1..20_000_usize,
    ) {
        let sent = pattern(sizes.iter().sum(), room);
        let (copy, expected) = (sent.clone(), sent.clone());
        on_ring(|| async move {
            let (mut ours, theirs) = pair();
            let echo = echo(theirs);
            let (mut reads, mut writes) = tokio::io::split(&mut ours);
            let write = async {
                let mut left = &copy[..];
                for size in sizes {
                    writes.write_all(&left[..size]).await.unwrap();
                    left = &left[size..];
                }
            };
            let mut seen = Vec::new();
            let read = async {
                let mut chunk = vec![0; room];
                while seen.len() < sent.len() {
                    let count = reads.read(&mut chunk).await.unwrap();
                    assert!(count > 0);
                    seen.extend_from_slice(&chunk[..count]);
                }
            };
            tokio::join!(write, read);
            assert!(seen == expected);
            drop(ours);
            end_of(echo).await;
        });
    }
}
