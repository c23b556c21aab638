//! An open server connection: what is known of it, how it closes, how it moves to another worker.

use super::shared::TravellingPlace;

use crate::observe::served::ServerStats;
use crate::stream::{LeftSocket, Stream};
use crate::upstream::{BackendKey, NewServer, Target};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;
use tidegate_core::ids::ServerId;
use tidegate_core::limits::PREPARED_PER_SERVER_MAX;
use tidegate_core::session::ServerState;
use tidegate_pool::Donation;
use tokio::io::AsyncWrite;

/// One open, logged-in server connection.
#[derive(Debug)]
pub struct Server {
    pub id: ServerId,
    pub stream: Stream,
    pub backend_key: Option<BackendKey>,
    /// As the server last reported them.
    pub parameters: Vec<(String, String)>,
    pub target: Arc<Target>,
    pub opened_at: Instant,
    pub state: ServerState,
    /// Where it is counted what the server does.
    pub served: Arc<ServerStats>,
}

/// Terminate: the type byte and the length.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

impl Server {
    pub(super) fn new(
        id: ServerId,
        new: NewServer,
        target: Arc<Target>,
        served: Arc<ServerStats>,
        now: Instant,
    ) -> Self {
        let process = new.backend_key.as_ref().map(|key| key.pid);
        Self {
            id,
            stream: new.stream,
            backend_key: new.backend_key,
            parameters: new.parameters,
            target,
            opened_at: now,
            served,
            state: ServerState::new(PREPARED_PER_SERVER_MAX).with_process(process),
        }
    }

    /// Says goodbye as far as the socket takes it at once, and closes. Never blocks: a full send
    /// buffer means that the server learns it from the end of the stream.
    #[allow(clippy::boxed_local, reason = "a server lives in its box")]
    pub fn close(mut self: Box<Self>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Pin::new(&mut self.stream);
        let written = stream.as_mut().poll_write(&mut cx, &TERMINATE);
        if written.is_ready() {
            let _ = stream.as_mut().poll_flush(&mut cx);
            let _ = stream.poll_shutdown(&mut cx);
        }
    }

    /// Takes the connection off this worker's reactor; `Err` is the connection, when its stream
    /// cannot move (TLS, or something is on its way); its place in the budget is given back then.
    pub(super) fn into_moved(
        self: Box<Self>,
        donation: Donation,
        place: TravellingPlace,
    ) -> Result<MovedServer, Box<Self>> {
        let mut server = self;
        let socket = match server.stream {
            Stream::Plain(socket) => match socket.leave() {
                Ok(left) => left,
                Err(socket) => {
                    server.stream = Stream::Plain(socket);
                    return Err(server);
                }
            },
            encrypted => {
                server.stream = encrypted;
                return Err(server);
            }
        };
        let Server { backend_key, parameters, target, state, served, .. } = *server;
        Ok(MovedServer { socket, place, backend_key, parameters, target, state, served, donation })
    }
}

/// A connection between two workers.
#[derive(Debug)]
pub struct MovedServer {
    socket: LeftSocket,
    place: TravellingPlace,
    backend_key: Option<BackendKey>,
    parameters: Vec<(String, String)>,
    target: Arc<Target>,
    state: ServerState,
    served: Arc<ServerStats>,
    pub(super) donation: Donation,
}

impl MovedServer {
    /// Puts the connection on this worker's reactor. Dropped, or failed, its place in the budget is
    /// given back.
    pub(super) fn into_server(self) -> io::Result<Box<Server>> {
        let mut stream = Stream::Plain(self.socket.arrive()?);
        stream.settle();
        self.place.arrive();
        Ok(Box::new(Server {
            id: self.donation.server,
            stream,
            backend_key: self.backend_key,
            parameters: self.parameters,
            target: self.target,
            opened_at: self.donation.opened_at,
            state: self.state,
            served: self.served,
        }))
    }
}
