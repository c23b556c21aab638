//! Sockets that listen, and which worker takes a client.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::login::Peer;
use crate::config::Listen;

/// Connections the kernel keeps until they are accepted; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// Pause after a failed accept (out of file descriptors, mostly): trying at once would only burn the processor.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket, not yet tied to a runtime. Every worker has a copy of it: whoever is free accepts.
#[derive(Debug)]
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl From<Bound> for OwnedFd {
    fn from(bound: Bound) -> Self {
        match bound {
            Bound::Tcp(listener) => listener.into(),
            Bound::Unix(listener) => listener.into(),
        }
    }
}

impl Bound {
    /// Binds and listens.
    pub fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let socket =
                    Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(BACKLOG)?;
                Ok(Self::Tcp(socket.into()))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                // As PostgreSQL's default: who may use the directory may connect, and then has to log in.
                fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// A socket that another process bound to this address.
    pub fn inherit(listen: &Listen, socket: OwnedFd) -> Self {
        match listen {
            Listen::Tcp(_) => Self::Tcp(socket.into()),
            Listen::Unix(_) => Self::Unix(socket.into()),
        }
    }

    /// Another handle of the same socket.
    pub fn copy(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }

    /// The address that was bound, which tells the port when 0 was asked for.
    pub fn address(&self, listen: &Listen) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| listen.to_string(), |at| at.to_string())
            }
            Self::Unix(_) => listen.to_string(),
        }
    }
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
                Err(_) => fs::remove_file(path),
            }
        }
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A listener tied to a worker's runtime.
#[derive(Debug)]
pub enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    pub fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Bound::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    /// The next client. Cancel safe.
    pub async fn accept(&self) -> io::Result<(crate::stream::Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((crate::stream::Socket::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((crate::stream::Socket::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// How many clients each worker has. A client goes to the worker with the fewest.
#[derive(Debug)]
pub struct Loads(Vec<AtomicUsize>);

impl Loads {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| AtomicUsize::new(0)).collect()))
    }

    /// Counts a client in and says whose it is: `own`'s unless another has clearly fewer.
    pub fn place(&self, own: usize) -> usize {
        let load = |worker: usize| {
            self.0.get(worker).map_or(usize::MAX, |load| load.load(Ordering::Relaxed))
        };
        let fewest = (0..self.0.len()).min_by_key(|worker| load(*worker)).unwrap_or(own);
        let chosen = if load(fewest) < load(own) { fewest } else { own };
        if let Some(load) = self.0.get(chosen) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        chosen
    }

    pub fn leave(&self, worker: usize) {
        if let Some(load) = self.0.get(worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn total(&self) -> usize {
        self.0.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_spread_evenly_whoever_accepts() {
        let loads = Loads::new(3);
        let mut counts = [0; 3];
        for _ in 0..30 {
            counts[loads.place(0)] += 1;
        }
        assert_eq!(counts, [10, 10, 10]);
        loads.leave(2);
        assert_eq!(loads.place(0), 2);
        assert_eq!(loads.total(), 30);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.1");
        let listen = Listen::Unix(path.clone());
        let first = Bound::bind(&listen).unwrap();
        assert_eq!(Bound::bind(&listen).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Bound::bind(&listen).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(Bound::bind(&listen).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
