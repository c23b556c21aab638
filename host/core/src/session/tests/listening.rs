//! LISTEN that is handed over: what the server is asked, and when the client is told.

use crate::ids::ClientId;
use crate::plan::{PrimaryOnly, Target};
use crate::refusal::Refusal;
use crate::session::gather::Gather;
use crate::session::hidden::HiddenCode;
use crate::session::prepared::Interner;
use crate::session::{
    CloseReason, Io, ListenNeed, Pins, PoolMode, ServerNext, ServerState, Session, Settled,
};
use std::sync::Arc;
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frontend;

const TOLD: i32 = 77;
const PROCESS: i32 = 5;

/// A client and the server that it is lent, with what goes to each.
struct Pair {
    session: Session,
    server: ServerState,
    interner: Interner,
}

impl Pair {
    fn new() -> Self {
        let hidden = Arc::new(HiddenCode::nowhere());
        let session = Session::new(ClientId(1), PoolMode::Transaction, Arc::default(), hidden);
        Self {
            session: session.with_shared_listening(TOLD),
            server: ServerState::default().with_process(Some(PROCESS)),
            interner: Interner::default(),
        }
    }

    /// Lends the server; what it is sent.
    fn lend(&mut self) -> String {
        let mut to_server = Gather::default();
        self.session.handle_lease(Target::Primary, &mut self.server, &mut to_server);
        queries(&to_server.to_bytes(&[]))
    }

    /// Something arrives; what becomes of it, and what goes to the server and to the client.
    fn handle<T>(
        &mut self,
        arrives: impl FnOnce(&mut Session, Io<'_>) -> T,
    ) -> (T, Gather, Gather) {
        let (mut to_server, mut to_client) = (Gather::default(), Gather::default());
        let io = Io {
            server: Some(&mut self.server),
            interner: &mut self.interner,
            router: &mut PrimaryOnly,
            to_server: &mut to_server,
            to_client: &mut to_client,
        };
        (arrives(&mut self.session, io), to_server, to_client)
    }

    /// The client sends a Query; what reaches the server.
    fn ask(&mut self, sql: &str) -> String {
        let mut input = Vec::new();
        frontend::query(&mut input, sql.as_bytes());
        let (step, to_server, _) = self.handle(|session, io| session.handle_client(&input, io));
        assert_eq!(step.consumed, to_server.bytes());
        queries(&to_server.to_bytes(&input))
    }

    /// The server answers; what reaches the client.
    fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut input = Vec::new();
        write(&mut input);
        let (step, to_server, to_client) =
            self.handle(|session, io| session.handle_server(&input, io));
        assert_eq!((step.consumed, to_server.bytes()), (input.len(), 0));
        tags(&to_client.to_bytes(&input))
    }

    fn settle(&mut self) -> (Settled, String) {
        let mut to_server = Gather::default();
        let settled = self.session.settle(&mut self.server, &mut to_server);
        (settled, queries(&to_server.to_bytes(&[])))
    }

    fn ready(&mut self) -> String {
        let mut to_client = Gather::default();
        self.session.give_ready(&mut to_client);
        tags(&to_client.to_bytes(&[]))
    }

    /// The answer to a probe: these channels.
    fn found(&mut self, channels: &[&str]) {
        let told = self.answer(|out| {
            for channel in channels {
                backend::data_row(out, &[Some(b"c"), Some(channel.as_bytes()), None]);
            }
            done(out, b"SELECT 1", TransactionStatus::Idle);
        });
        assert_eq!(told, "");
    }

    /// It listens to `a`, and its server has gone back.
    fn listening() -> Self {
        let mut pair = Self::new();
        pair.lend();
        pair.ask("LISTEN a");
        pair.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
        pair.settle();
        pair.found(&["a"]);
        assert_eq!(pair.session.take_listen_need(), Some(ListenNeed::Settle));
        pair.session.handle_listened();
        assert_eq!(pair.settle().0, Settled::Release);
        assert_eq!(pair.ready(), "Z");
        pair
    }

    /// The server has it listen to `a`, and its notifications are told apart.
    fn lend_listening(&mut self) {
        assert_eq!(self.lend(), "LISTEN \"a\";|");
        self.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
        assert_eq!(self.session.take_listen_need(), Some(ListenNeed::Lend));
        assert_eq!(self.ask("SELECT 1"), "", "others' notifications may still come");
        self.session.handle_told_apart();
    }
}

fn done(out: &mut Vec<u8>, tag: &[u8], status: TransactionStatus) {
    backend::command_complete(out, tag);
    backend::ready_for_query(out, status);
}

fn frames(bytes: &[u8]) -> Vec<(char, &[u8])> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let length = 1 + u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        frames.push((char::from(rest[0]), &rest[5..length]));
        rest = &rest[length..];
    }
    frames
}

fn tags(bytes: &[u8]) -> String {
    frames(bytes).into_iter().map(|(tag, _)| tag).collect()
}

fn queries(bytes: &[u8]) -> String {
    let text = |(_, body): (char, &[u8])| {
        format!("{}|", String::from_utf8_lossy(&body[..body.len().saturating_sub(1)]))
    };
    frames(bytes).into_iter().map(text).collect()
}

#[test]
fn a_client_is_told_that_it_listens_when_somebody_listens_for_it() {
    let mut pair = Pair::new();
    assert_eq!(pair.lend(), "", "who does not listen pays nothing");
    assert_eq!(pair.ask("LISTEN a"), "LISTEN a|");
    assert_eq!(pair.ask("SELECT 1"), "", "what follows waits");
    // Its own comes at once, another's is told by whoever listens, or was sent before it listened.
    let told = pair.answer(|out| {
        backend::command_complete(out, b"LISTEN");
        backend::notification_response(out, PROCESS, b"a", b"own");
        backend::notification_response(out, 6, b"a", b"another's");
        backend::ready_for_query(out, TransactionStatus::Idle);
    });
    assert_eq!(told, "C");
    let (settled, asked) = pair.settle();
    assert_eq!(settled, Settled::Busy);
    assert!(asked.contains("pg_listening_channels") && asked.ends_with(";UNLISTEN *|"), "{asked}");
    pair.found(&["a"]);
    assert_eq!(pair.session.take_listen_need(), Some(ListenNeed::Settle));
    assert!(pair.session.channels().contains("a") && !pair.session.is_at_rest());
    assert_eq!(pair.settle(), (Settled::Busy, String::new()));
    pair.session.handle_listened();
    assert_eq!(pair.settle(), (Settled::Release, String::new()));
    assert_eq!((pair.ready().as_str(), pair.ready().as_str()), ("AZ", ""));
    assert!(pair.session.pins().is_empty() && pair.session.may_be_notified());
}

#[test]
fn a_listening_client_is_lent_a_server_that_listens_and_learns_what_is_left() {
    let mut pair = Pair::listening();
    pair.lend_listening();
    assert_eq!(pair.ask("BEGIN; UNLISTEN a"), "BEGIN; UNLISTEN a|");
    let told = pair.answer(|out| done(out, b"UNLISTEN", TransactionStatus::InTransaction));
    assert_eq!(told, "CZ", "inside a transaction nothing is settled");
    pair.ask("COMMIT");
    assert_eq!(pair.answer(|out| done(out, b"COMMIT", TransactionStatus::Idle)), "C");
    pair.settle();
    pair.found(&[]);
    assert_eq!(pair.session.take_listen_need(), Some(ListenNeed::Settle));
    assert!(pair.session.channels().is_empty());
    pair.session.handle_listened();
    assert_eq!(pair.settle().0, Settled::Release);
    assert_eq!(pair.ready(), "Z");
    assert_eq!(pair.lend(), "");
}

#[test]
fn what_the_shared_connection_tells_is_not_told_twice() {
    let mut pair = Pair::listening();
    pair.lend_listening();
    pair.ask("NOTIFY a");
    let told = pair.answer(|out| {
        backend::command_complete(out, b"NOTIFY");
        backend::notification_response(out, PROCESS, b"a", b"own");
        backend::ready_for_query(out, TransactionStatus::Idle);
    });
    assert_eq!(told, "C");
}

#[test]
fn without_a_shared_connection_the_server_is_kept() {
    let mut pair = Pair::new();
    pair.lend();
    pair.ask("LISTEN a");
    pair.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
    pair.settle();
    pair.found(&["a"]);
    pair.session.take_listen_need();
    pair.session.handle_listen_refused();
    assert_eq!(pair.settle(), (Settled::Busy, "LISTEN \"a\";|".to_owned()));
    pair.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
    assert_eq!(pair.settle().0, Settled::Keep);
    assert_eq!(pair.ready(), "Z");
    assert_eq!(pair.session.take_listen_need(), Some(ListenNeed::Forget));
    assert!(pair.session.pins().contains(Pins::LISTEN));
    let heard = pair.answer(|out| backend::notification_response(out, 6, b"a", b"heard"));
    assert_eq!(heard, "A");
}

/// An error, as a cancel makes it.
fn cancelled(out: &mut Vec<u8>) {
    Refusal::error("57014", "canceling statement due to user request").write(out);
    backend::ready_for_query(out, TransactionStatus::Idle);
}

#[test]
fn a_server_that_has_not_taken_it_listens_to_what_it_did_before() {
    let mut pair = Pair::listening();
    pair.lend();
    assert_eq!(pair.answer(cancelled), "");
    assert!(!pair.server.listens(), "it never did");
    pair.server.channels = ["a"].into_iter().collect();
    let mut pair = Pair { session: Pair::new().session, ..pair };
    assert_eq!(pair.lend(), "UNLISTEN *|");
    assert!(pair.server.listens());
    assert_eq!(pair.answer(cancelled), "");
    assert!(pair.server.listens(), "it still does");
}

#[test]
fn who_is_not_heard_for_by_anybody_is_told() {
    let mut pair = Pair::new();
    pair.lend();
    pair.ask("LISTEN a");
    pair.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
    pair.settle();
    pair.found(&["a"]);
    pair.session.handle_listen_refused();
    assert_eq!(pair.settle(), (Settled::Busy, "LISTEN \"a\";|".to_owned()));
    let mut input = Vec::new();
    Refusal::error("57014", "canceling statement due to user request").write(&mut input);
    let (step, _, to_client) = pair.handle(|session, io| session.handle_server(&input, io));
    assert_eq!(step.next, ServerNext::Close(CloseReason::ServerProtocol));
    assert_eq!(tags(&to_client.to_bytes(&input)), "E");
}

#[test]
fn one_that_does_not_speak_utf_8_keeps_its_server() {
    let mut pair = Pair::new();
    pair.lend();
    pair.ask("SET client_encoding = 'LATIN1'; LISTEN a");
    pair.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
    pair.settle();
    pair.answer(|out| {
        backend::data_row(out, &[Some(b"s"), Some(b"client_encoding"), Some(b"LATIN1")]);
        backend::data_row(out, &[Some(b"c"), Some(b"a"), None]);
        done(out, b"SELECT 2", TransactionStatus::Idle);
    });
    assert_eq!(pair.settle().1, "LISTEN \"a\";|");
    pair.answer(|out| done(out, b"LISTEN", TransactionStatus::Idle));
    assert_eq!(pair.settle().0, Settled::Keep);
    assert!(pair.session.pins().contains(Pins::LISTEN));
}
