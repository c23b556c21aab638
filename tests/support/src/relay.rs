//! Stands between Tidegate and a server, passes bytes on, and makes the trouble that a network makes.

use crate::{Cluster, Node};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Length and code of a CancelRequest, as every start-up packet begins.
const CANCEL_BEGINS: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];

/// What becomes of bytes that pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Passing {
    #[default]
    On,
    /// What servers send is lost.
    RepliesLost,
    /// What is sent to servers is lost.
    RequestsLost,
    /// Neither arrives: a cable that is pulled.
    NothingArrives,
    /// What servers send arrives so much later.
    RepliesLate(Duration),
}

/// A relay in front of one server. Its threads end with the program.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    server: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    passing: Passing,
    holds_cancels: bool,
    /// Cancel requests that have come and wait.
    cancels_held: usize,
    /// Both ends of each connection that was opened.
    streams: Vec<TcpStream>,
    /// Bytes that were lost.
    lost: usize,
}

impl Relay {
    /// In front of the primary.
    pub fn start(cluster: &Cluster) -> Relay {
        Relay::before(cluster.primary())
    }

    /// In front of one server.
    pub fn before(node: &Node) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], node.port()));
        let shared = Arc::<Shared>::default();
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = accepting.clone();
                // Ends with its connection; an error is that end.
                std::thread::spawn(move || shared.connect(client, server));
            }
        });
        Relay { address, server, shared }
    }

    /// A URL of the server, made one of the relay; without TLS, so that it can read what passes.
    pub fn url_of(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address.to_string()) + "?sslmode=disable"
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_passing(&self, passing: Passing) {
        self.shared.lock().passing = passing;
    }

    /// Bytes that have been lost so far.
    pub fn lost(&self) -> usize {
        self.shared.lock().lost
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        for stream in self.shared.lock().streams.drain(..) {
            // One that has ended is as it should be.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cancel requests wait here until they are released.
    pub fn hold_cancels(&self) {
        self.shared.lock().holds_cancels = true;
    }

    pub fn release_cancels(&self) {
        self.shared.lock().holds_cancels = false;
        self.shared.changed.notify_all();
    }

    pub fn cancels_held(&self) -> usize {
        self.shared.lock().cancels_held
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: Arc<Shared>, mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
        let mut first = [0; 8];
        client.read_exact(&mut first)?;
        if first == CANCEL_BEGINS {
            let mut state = self.lock();
            state.cancels_held += 1;
            let released = self.changed.wait_while(state, |state| state.holds_cancels);
            released.unwrap_or_else(PoisonError::into_inner).cancels_held -= 1;
        }
        let mut server = TcpStream::connect(server)?;
        server.write_all(&first)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.lock().streams.push(stream.try_clone()?);
        }
        let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
        let replies = self.clone();
        std::thread::spawn(move || replies.pass(from_server, to_client, Passing::RepliesLost));
        self.pass(client, server, Passing::RequestsLost);
        Ok(())
    }

    /// Until one of the two ends; then the other is told.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, lost: Passing) {
        let mut chunk = [0; 16_384];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let passing = {
                let mut state = self.lock();
                if state.passing == lost || state.passing == Passing::NothingArrives {
                    state.lost += count;
                    continue;
                }
                state.passing
            };
            if let (Passing::RepliesLate(time), Passing::RepliesLost) = (passing, lost) {
                std::thread::sleep(time);
            }
            if to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}
