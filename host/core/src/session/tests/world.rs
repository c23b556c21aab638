//! Clients, servers and what the shell does between them, one step at a time.

use super::fake::{Fake, Map};
pub(super) use super::router::*;
use crate::ids::ClientId;
use crate::plan::Target;
use crate::refusal::Refusal;
use crate::session::gather::Gather;
use crate::session::hidden::HiddenCode;
use crate::session::prepared::Interner;
use crate::session::{
    ClientNext, CloseReason, Gone, Io, Lost, PoolMode, ServerNext, ServerState, Session, Settled,
};
use crate::settings::Settings;
use std::sync::Arc;
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::error_fields::{self, field};
use tidegate_wire::frame::{HEADER_BYTES, Header};

pub(super) struct Server {
    pub fake: Fake,
    pub state: ServerState,
    input: Vec<u8>,
    lent_to: Option<usize>,
    closed: bool,
    pub replica: bool,
}

/// How texts begin that no replica may see; those of our own are not among them.
const NOT_FOR_REPLICAS: [&str; 13] = [
    "BEGIN",
    "COMMIT",
    "SAVEPOINT",
    "ROLLBACK TO",
    "SET ",
    "SELECT set_config",
    "SELECT poke",
    "PREPARE",
    "EXECUTE",
    "LISTEN",
    "CREATE",
    "DROP",
    "COPY",
];

pub(super) struct Client {
    pub session: Session,
    /// What has arrived and is not dealt with.
    pub input: Vec<u8>,
    pub received: Vec<u8>,
    pub server: Option<usize>,
    pub closed: Option<CloseReason>,
    pub gone: bool,
}

pub(super) struct World {
    pub clients: Vec<Client>,
    pub servers: Vec<Server>,
    pub interner: Interner,
    pub router: Reads,
    /// Statements a server keeps.
    pub prepared_max: usize,
    /// Which idle server is lent next; any number.
    pub choice: usize,
    /// The next leases are refused with this.
    pub refusal: Option<Refusal>,
    pub leases: usize,
    pub releases: usize,
    /// Units that were run again.
    pub repeated: usize,
}

pub(super) fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

impl World {
    pub(super) fn new(startups: &[Map]) -> Self {
        Self::with_mode(startups, PoolMode::Transaction)
    }

    /// A database in which code hides.
    pub(super) fn with_hidden_code(startups: &[Map]) -> Self {
        let hidden = HiddenCode::default();
        hidden.permit();
        Self::with(startups, PoolMode::Transaction, hidden.into())
    }

    pub(super) fn with_mode(startups: &[Map], mode: PoolMode) -> Self {
        Self::with(startups, mode, HiddenCode::nowhere().into())
    }

    fn with(startups: &[Map], mode: PoolMode, hidden: Arc<HiddenCode>) -> Self {
        let clients = startups.iter().enumerate().map(|(n, startup)| Client {
            session: Session::new(
                ClientId(n as u64),
                mode,
                Arc::new(Settings::from_pairs(startup.iter().map(|(n, v)| (n, v.as_str())))),
                hidden.clone(),
            ),
            input: Vec::new(),
            received: Vec::new(),
            server: None,
            closed: None,
            gone: false,
        });
        Self {
            clients: clients.collect(),
            servers: Vec::new(),
            interner: Interner::default(),
            router: Reads::default(),
            prepared_max: 3,
            choice: 0,
            refusal: None,
            leases: 0,
            releases: 0,
            repeated: 0,
        }
    }

    /// Bytes arrive from a client.
    pub(super) fn arrive(&mut self, client: usize, bytes: &[u8]) {
        if self.clients[client].closed.is_some() || self.clients[client].gone {
            return;
        }
        self.clients[client].input.extend_from_slice(bytes);
        self.pump(client);
    }

    /// Bytes that its server has flushed arrive for a client. Says whether there were any.
    pub(super) fn deliver(&mut self, client: usize, count: usize) -> bool {
        let Some(at) = self.clients[client].server else { return false };
        let bytes = self.servers[at].fake.take_output(count);
        if bytes.is_empty() {
            if self.servers[at].fake.dead {
                self.server_vanished(client);
                return true;
            }
            return false;
        }
        self.servers[at].input.extend_from_slice(&bytes);
        self.read_server(client, at);
        self.pump(client);
        true
    }

    /// The shell's answer to a server connection that broke.
    pub(super) fn server_vanished(&mut self, client: usize) {
        let mut to_client = Gather::default();
        let lost = self.clients[client].session.handle_server_lost(&mut to_client);
        self.drop_server(client);
        let (gone, closed) = (self.clients[client].gone, self.clients[client].closed.is_some());
        if gone || closed {
            return;
        }
        match lost {
            Lost::Again(unit) => {
                self.repeated += 1;
                self.clients[client].input.splice(..0, unit);
                self.lend(client, Target::Primary);
                self.pump(client);
            }
            Lost::Replays => {
                self.run_again(client);
                self.pump(client);
            }
            Lost::GoesOn => {
                self.clients[client].received.extend(to_client.to_bytes(&[]));
                self.pump(client);
            }
            Lost::Ends => {
                self.clients[client].closed.get_or_insert(CloseReason::ServerDisconnected);
            }
        }
    }

    /// A server for a transaction that is run again, if there is one.
    fn run_again(&mut self, client: usize) {
        match self.refusal.clone() {
            Some(refusal) => self.refuse(client, &refusal),
            None => self.lend(client, Target::Primary),
        }
    }

    /// A client's connection breaks; its server is drained to the end.
    pub(super) fn vanish(&mut self, client: usize) {
        self.clients[client].gone = true;
        self.clients[client].input.clear();
        if self.clients[client].server.is_none() {
            return;
        }
        let mut to_server = Gather::default();
        let gone = self.clients[client].session.handle_client_gone(&mut to_server);
        if gone == Gone::Close {
            self.drop_server(client);
            return;
        }
        self.send(client, to_server.to_bytes(&[]));
        self.settle(client);
    }

    fn send(&mut self, client: usize, bytes: Vec<u8>) {
        if let Some(at) = self.clients[client].server {
            self.servers[at].fake.feed(&bytes);
        }
    }

    fn drop_server(&mut self, client: usize) {
        if let Some(at) = self.clients[client].server.take() {
            self.servers[at].closed = true;
            self.servers[at].lent_to = None;
        }
    }

    fn read_server(&mut self, client: usize, at: usize) {
        let one = &mut self.clients[client];
        let server = &mut self.servers[at];
        let (mut to_server, mut to_client) = (Gather::default(), Gather::default());
        let step = one.session.handle_server(
            &server.input,
            Io {
                server: Some(&mut server.state),
                interner: &mut self.interner,
                router: &mut self.router,
                to_server: &mut to_server,
                to_client: &mut to_client,
            },
        );
        if !one.gone {
            one.received.extend(to_client.to_bytes(&server.input));
        }
        server.input.drain(..step.consumed);
        server.fake.feed(&to_server.to_bytes(&[]));
        match step.next {
            ServerNext::Read { bytes } => {
                assert!(bytes > server.input.len(), "{bytes} bytes are there");
                self.settle(client);
                let one = &self.clients[client];
                if one.session.is_to_run_again() && one.server.is_none() {
                    self.run_again(client);
                }
            }
            ServerNext::Close(CloseReason::ServerDisconnected) => self.server_vanished(client),
            ServerNext::Close(reason) => {
                self.drop_server(client);
                self.clients[client].closed = Some(reason);
            }
        }
    }

    fn settle(&mut self, client: usize) {
        let Some(at) = self.clients[client].server else { return };
        let one = &mut self.clients[client];
        let server = &mut self.servers[at];
        let mut to_server = Gather::default();
        let settled = one.session.settle(&mut server.state, &mut to_server);
        server.fake.feed(&to_server.to_bytes(&[]));
        match settled {
            Settled::Busy => assert!(to_server.is_empty() || one.session.is_waiting_for_replies()),
            Settled::Keep => assert!(!one.gone),
            Settled::Close => self.drop_server(client),
            Settled::Release => {
                assert_eq!(server.state.status(), TransactionStatus::Idle);
                assert!(!one.session.is_waiting_for_replies());
                assert!(server.input.is_empty(), "unread replies");
                for sql in server.fake.seen.iter().filter(|_| server.replica) {
                    let theirs = NOT_FOR_REPLICAS.iter().any(|start| sql.starts_with(start));
                    assert!(!theirs || sql.contains("pg_catalog"), "a replica got {sql}");
                }
                let known: Map = server
                    .state
                    .settings()
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                assert_eq!(server.fake.leftovers(&known), "");
                assert!(server.fake.named_count() <= self.prepared_max + 64);
                server.lent_to = None;
                one.server = None;
                self.releases += 1;
            }
        }
    }

    fn lend(&mut self, client: usize, target: Target) {
        // Now and then no replica is fresh enough.
        let target = match target {
            Target::Read if self.choice.is_multiple_of(5) => Target::Primary,
            target => target,
        };
        let replica = target == Target::Read;
        let idle: Vec<usize> = (0..self.servers.len())
            .filter(|at| self.servers[*at].replica == replica)
            .filter(|at| self.servers[*at].lent_to.is_none() && !self.servers[*at].closed)
            .collect();
        let at = if idle.is_empty() {
            self.servers.push(Server {
                fake: Fake::new(Map::new()),
                state: ServerState::new(self.prepared_max),
                input: Vec::new(),
                lent_to: None,
                closed: false,
                replica,
            });
            let at = self.servers.len() - 1;
            self.servers[at].fake.tick = at;
            at
        } else {
            idle[self.choice % idle.len()]
        };
        self.leases += 1;
        self.servers[at].lent_to = Some(client);
        self.clients[client].server = Some(at);
        let mut to_server = Gather::default();
        self.clients[client].session.handle_lease(
            target,
            &mut self.servers[at].state,
            &mut to_server,
        );
        self.send(client, to_server.to_bytes(&[]));
    }

    /// Everything a client has sent is handled as far as it goes.
    fn pump(&mut self, client: usize) {
        for _ in 0..100_000 {
            let one = &mut self.clients[client];
            if one.closed.is_some() || one.gone {
                return;
            }
            let (mut to_server, mut to_client) = (Gather::default(), Gather::default());
            let step = one.session.handle_client(
                &one.input,
                Io {
                    server: one.server.map(|at| &mut self.servers[at].state),
                    interner: &mut self.interner,
                    router: &mut self.router,
                    to_server: &mut to_server,
                    to_client: &mut to_client,
                },
            );
            one.received.extend(to_client.to_bytes(&[]));
            let bytes = to_server.to_bytes(&one.input);
            assert!(bytes.is_empty() || one.server.is_some(), "bytes for nobody");
            one.input.drain(..step.consumed);
            let left = one.input.len();
            self.send(client, bytes);
            self.settle(client);
            match step.next {
                ClientNext::Read { bytes } => {
                    assert!(bytes > left, "{bytes} bytes are there: {left}");
                    return;
                }
                ClientNext::Lease(plan) => {
                    assert!(self.clients[client].server.is_none());
                    let one = &mut self.clients[client];
                    let loss = one.session.take_loss(&one.input);
                    if let Some(refusal) = loss.or_else(|| self.refusal.clone()) {
                        self.refuse(client, &refusal);
                    } else {
                        self.lend(client, plan.target);
                    }
                }
                ClientNext::Replies => {
                    let one = &self.clients[client];
                    assert!(one.session.is_waiting_for_replies(), "waits for nothing");
                    return;
                }
                ClientNext::Pause(_) | ClientNext::Recall => {}
                ClientNext::Close(reason) => {
                    self.clients[client].closed = Some(reason);
                    self.vanish(client);
                    return;
                }
            }
        }
        panic!("the session does not come to rest");
    }

    fn refuse(&mut self, client: usize, refusal: &Refusal) {
        let one = &mut self.clients[client];
        let mut to_client = Gather::default();
        let step = one.session.handle_lease_refused(refusal, &one.input, &mut to_client);
        one.received.extend(to_client.to_bytes(&[]));
        one.input.drain(..step.consumed);
        if let ClientNext::Close(reason) = step.next {
            one.closed = Some(reason);
        }
    }

    /// Delivers whatever is on its way until nothing moves.
    pub(super) fn run_dry(&mut self) {
        while (0..self.clients.len()).fold(false, |moved, n| self.deliver(n, usize::MAX) | moved) {}
    }

    /// Sends bytes and returns what came for them.
    pub(super) fn ask(&mut self, client: usize, bytes: &[u8]) -> Vec<String> {
        self.clients[client].received.clear();
        self.arrive(client, bytes);
        self.told_in_all(client)
    }

    /// What came for everything since it was last asked.
    pub(super) fn told_in_all(&mut self, client: usize) -> Vec<String> {
        self.run_dry();
        told(&self.clients[client].received)
    }

    /// The texts that the servers have seen, own ones included.
    pub(super) fn seen(&self) -> Vec<String> {
        self.servers.iter().flat_map(|server| server.fake.seen.clone()).collect()
    }
}

/// What the same bytes get from a server of the client's own.
pub(super) fn alone(startup: &Map, bytes: &[u8]) -> Vec<String> {
    let mut fake = Fake::new(startup.clone());
    fake.feed(bytes);
    told(&fake.take_output(usize::MAX))
}

/// Messages as short words: the type, and what of it a client would act on.
pub(super) fn told(bytes: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(header) = Header::peek(&bytes[at..], 1 << 30).unwrap() {
        let body = &bytes[at + HEADER_BYTES..at + header.frame_bytes()];
        let text =
            |field| String::from_utf8_lossy(error_fields::find(body, field).unwrap()).into_owned();
        let word = match header.tag {
            b'E' => format!("E {} {}", text(field::SEVERITY_PLAIN), text(field::SQLSTATE)),
            b'N' => format!("N {}", text(field::SQLSTATE)),
            b'D' => format!("D {}", String::from_utf8_lossy(&body[6..])),
            b'Z' | b'C' | b'd' | b'S' => {
                let body = body.strip_suffix(b"\0").unwrap_or(body);
                format!("{} {}", header.tag as char, String::from_utf8_lossy(body))
            }
            other => (other as char).to_string(),
        };
        words.push(word.replace('\0', "="));
        at += header.frame_bytes();
    }
    assert_eq!(at, bytes.len(), "half a message");
    words
}
