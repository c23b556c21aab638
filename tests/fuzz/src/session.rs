//! A session between a client and a server that may send anything, in any order.
//!
//! The input is a script: a byte that says who acts, a byte that says how many bytes follow, those bytes.

use std::sync::Arc;
use tidegate_core::ids::ClientId;
use tidegate_core::plan::{PrimaryOnly, Target};
use tidegate_core::refusal::Refusal;
use tidegate_core::session::gather::Gather;
use tidegate_core::session::prepared::Interner;
use tidegate_core::session::{
    ClientNext, Gone, Io, PoolMode, ServerNext, ServerState, Session, Settled,
};

/// One client, perhaps with a server, and what each has sent that the session has not taken yet.
struct World {
    session: Session,
    interner: Interner,
    server: Option<ServerState>,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    to_client: Gather,
    to_server: Gather,
}

/// What the world does after a step.
#[derive(PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

/// Runs the script: nothing panics, nothing loops, nothing is taken that was not sent, and a server that is given
/// back owes nothing.
pub fn session(script: &[u8]) {
    let mode = match script.first() {
        Some(b's') => PoolMode::Session,
        _ => PoolMode::Transaction,
    };
    let mut world = World {
        session: Session::new(ClientId(1), mode, Arc::default(), Arc::default()),
        interner: Interner::default(),
        server: None,
        from_client: Vec::new(),
        from_server: Vec::new(),
        to_client: Gather::default(),
        to_server: Gather::default(),
    };
    let mut rest = script.get(1..).unwrap_or_default();
    while let [actor, length, tail @ ..] = rest {
        let (bytes, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        let next = match actor {
            b'C' => world.client_sends(bytes),
            b'S' => world.server_sends(bytes),
            b'G' => world.client_goes(),
            _ => world.lease_is_refused(),
        };
        if next == Next::Ends {
            return;
        }
    }
}

impl World {
    fn client_sends(&mut self, bytes: &[u8]) -> Next {
        self.from_client.extend_from_slice(bytes);
        self.client_steps()
    }

    fn client_steps(&mut self) -> Next {
        // Each turn consumes input, takes a lease, or returns: as many turns as bytes and a few are enough.
        let mut turns = self.from_client.len() + 4;
        loop {
            assert!(turns > 0, "the client's input is never done with");
            turns -= 1;
            let io = Io {
                server: self.server.as_mut(),
                interner: &mut self.interner,
                router: &mut PrimaryOnly,
                to_server: &mut self.to_server,
                to_client: &mut self.to_client,
            };
            let step = self.session.handle_client(&self.from_client, io);
            self.sent(step.consumed, 0);
            match step.next {
                // Nobody limits here, so there is no pause; nor is anybody else asked for an answer.
                ClientNext::Read { .. }
                | ClientNext::Replies
                | ClientNext::Pause(_)
                | ClientNext::Recall => {
                    return self.settles();
                }
                ClientNext::Close(_) => return Next::Ends,
                ClientNext::Lease(_) => {
                    assert!(self.server.is_none(), "a second server is asked for");
                    let mut server = ServerState::new(3);
                    self.session.handle_lease(Target::Primary, &mut server, &mut self.to_server);
                    self.server = Some(server);
                    self.sent(0, 0);
                }
            }
        }
    }

    fn server_sends(&mut self, bytes: &[u8]) -> Next {
        if self.server.is_none() {
            return Next::Goes;
        }
        self.from_server.extend_from_slice(bytes);
        let io = Io {
            server: self.server.as_mut(),
            interner: &mut self.interner,
            router: &mut PrimaryOnly,
            to_server: &mut self.to_server,
            to_client: &mut self.to_client,
        };
        let step = self.session.handle_server(&self.from_server, io);
        let ServerNext::Read { .. } = step.next else { return Next::Ends };
        self.sent(0, step.consumed);
        match self.settles() {
            Next::Goes => self.client_steps(),
            Next::Ends => Next::Ends,
        }
    }

    /// Sends what waits, and takes what was consumed out of the buffers.
    fn sent(&mut self, of_client: usize, of_server: usize) {
        assert!(of_client <= self.from_client.len() && of_server <= self.from_server.len());
        // Panics when a segment lies outside the buffer.
        let bytes = self.to_server.to_bytes(&self.from_client).len();
        assert_eq!(bytes, self.to_server.bytes());
        let bytes = self.to_client.to_bytes(&self.from_server).len();
        assert_eq!(bytes, self.to_client.bytes());
        self.to_server.clear();
        self.to_client.clear();
        self.from_client.drain(..of_client);
        self.from_server.drain(..of_server);
    }

    fn settles(&mut self) -> Next {
        let Some(server) = self.server.as_mut() else { return Next::Goes };
        let settled = self.session.settle(server, &mut self.to_server);
        self.sent(0, 0);
        match settled {
            Settled::Busy | Settled::Keep => Next::Goes,
            Settled::Close => Next::Ends,
            Settled::Release => {
                assert!(!self.session.is_waiting_for_replies(), "replies are owed");
                self.server = None;
                self.from_server.clear();
                Next::Goes
            }
        }
    }

    fn client_goes(&mut self) -> Next {
        if self.server.is_none() {
            return Next::Ends;
        }
        self.from_client.clear();
        match self.session.handle_client_gone(&mut self.to_server) {
            Gone::Close => Next::Ends,
            Gone::Drain | Gone::CancelAndDrain => {
                self.sent(0, 0);
                self.settles();
                // Whatever the server says now has to end in a decision, not in a panic.
                self.server_sends(b"Z\0\0\0\x05I");
                Next::Ends
            }
        }
    }

    fn lease_is_refused(&mut self) -> Next {
        if self.server.is_some() || self.from_client.len() < 5 {
            return Next::Goes;
        }
        let io = Io {
            server: None,
            interner: &mut self.interner,
            router: &mut PrimaryOnly,
            to_server: &mut self.to_server,
            to_client: &mut self.to_client,
        };
        let step = self.session.handle_client(&self.from_client, io);
        self.sent(step.consumed, 0);
        match step.next {
            ClientNext::Lease(_) => {}
            ClientNext::Close(_) => return Next::Ends,
            ClientNext::Read { .. }
            | ClientNext::Replies
            | ClientNext::Pause(_)
            | ClientNext::Recall => {
                return Next::Goes;
            }
        }
        let refusal = Refusal::error("53300", "no server");
        let step =
            self.session.handle_lease_refused(&refusal, &self.from_client, &mut self.to_client);
        let taken = step.consumed.min(self.from_client.len());
        self.sent(taken, 0);
        match step.next {
            ClientNext::Close(_) => Next::Ends,
            _ => self.client_steps(),
        }
    }
}
