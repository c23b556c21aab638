//! Lines of JSON over a Unix socket, and file descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_core::limits::HANDOVER_LISTENERS_MAX;

/// Bytes of a line.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;

/// What is written for a value.
pub(super) fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes a line, with the descriptors beside its first bytes. The socket blocks.
pub(super) fn write(
    socket: impl AsFd,
    value: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = line(value)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(HANDOVER_LISTENERS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("more than {HANDOVER_LISTENERS_MAX} sockets")));
    }
    let mut written = 0;
    while written < line.len() {
        let rest = [IoSlice::new(&line[written..])];
        written +=
            retry_on_intr(|| sendmsg(socket.as_fd(), &rest, &mut beside, SendFlags::NOSIGNAL))?;
        beside.clear();
    }
    Ok(())
}

/// Reads a line and at most so many descriptors, which are closed when this process runs another program.
pub(super) fn read<T: DeserializeOwned>(
    socket: impl AsFd,
    descriptors_max: usize,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let mut chunk = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(HANDOVER_LISTENERS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut chunk)];
        let count =
            retry_on_intr(|| recvmsg(socket.as_fd(), into, &mut beside, RecvFlags::CMSG_CLOEXEC))?
                .bytes;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&chunk[..count]);
        if text.ends_with(b"\n") {
            break;
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(io::Error::other("the line is too long"));
        }
    }
    if descriptors.len() > descriptors_max {
        return Err(io::Error::other("more descriptors than were asked for"));
    }
    Ok((serde_json::from_slice(&text)?, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_listening_socket_goes_on_in_other_hands() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A client that has not been accepted yet goes along.
        let mut client = TcpStream::connect(address).unwrap();
        write(&ours, &"a line", &[listener.as_fd()]).unwrap();
        let (text, mut received): (String, _) = read(&theirs, 1).unwrap();
        drop(listener);
        assert_eq!((text.as_str(), received.len()), ("a line", 1));
        let (mut accepted, _) = TcpListener::from(received.remove(0)).accept().unwrap();
        accepted.write_all(b"hello").unwrap();
        let mut seen = [0; 5];
        client.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"hello");
    }

    #[test]
    fn a_line_may_be_long_and_descriptors_that_nobody_asked_for_are_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let long = "x".repeat(20_000);
        write(&ours, &long, &[]).unwrap();
        assert_eq!(read::<String>(&theirs, 0).unwrap().0, long);
        let (pipe, other) = UnixStream::pair().unwrap();
        write(&ours, &"a line", &[pipe.as_fd()]).unwrap();
        assert!(read::<String>(&theirs, 0).is_err());
        drop(pipe);
        let mut rest = Vec::new();
        (&other).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
        drop(ours);
        assert!(read::<String>(&theirs, 0).is_err());
    }
}
