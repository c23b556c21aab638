//! Free TCP ports for servers of our own.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which kernels take the local ports of outgoing connections (Linux: 32768 up), so that no
/// connection can take a port while its server restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports looked at before we say that none is free.
const ATTEMPTS_MAX: u32 = 200;

/// A port of 127.0.0.1 that was free a moment ago. Starts at a random place, so that parallel runs rarely meet; the
/// caller tries again when somebody was faster.
pub fn free_port() -> io::Result<u16> {
    let width = u64::from(PORTS.end - PORTS.start);
    let mut problem = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..ATTEMPTS_MAX {
        let offset = RandomState::new().hash_one(attempt) % width;
        let port = PORTS.start + u16::try_from(offset).unwrap_or(0);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port().unwrap();
        assert!(PORTS.contains(&port));
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }
}
