//! One client's session after login, as a pure state machine: bytes in, bytes and needs out.
//!
//! ```text
//!            handle_client ──▶ to_server ─▶ ┌────────┐
//!  client ─┐                                │ server │   at most one at a time, lent by a pool
//!          └─◀ to_client ◀── handle_server ◀┘────────┘
//! ```
//!
//! Verbs: `handle_client`, `handle_server`, `handle_lease`, `handle_lease_refused`, `handle_client_gone`,
//! `handle_server_lost` take what happened; `settle` says whether the server may go back. Nothing blocks: when the
//! session cannot go on it says what it waits for ([`ClientNext`]). Only message headers are read; what needs no thought
//! is forwarded as a range of the input buffer ([`gather::Gather`]).
//!
//! Every message that a server will answer is noted in order in [`expected`]: a reply that does not fit the oldest note
//! means that the two sides no longer agree, and the server connection is closed rather than trusted.

pub mod gather;
pub mod hidden; // code that no statement names
pub mod login; // from the first packet to AuthenticationOk
pub mod prepared;

mod acknowledged; // commits that clients are told of
mod again; // a read whose replica dies
mod batches; // which batch is being sent, and which are over
mod client; // what a client sends
mod defaults; // ALTER ROLE … SET
mod expected; // the replies that are owed, in order
mod listening; // LISTEN by a connection that is shared
mod lost; // a server that is lost under its client
mod names; // named statements, which can be put back
mod overdue; // a statement that has run too long
mod pins; // why a client keeps its server
mod reading; // how texts are read
mod reasons; // why a session ended
mod replay; // transactions that are run again
mod replies; // what a server sends
mod settle; // when a server may go back, and what it takes along
mod state; // what is known of a server connection
#[cfg(test)]
mod tests;

pub use listening::ListenNeed;
pub use lost::Lost;
pub use pins::Pins;
pub use reasons::CloseReason;
pub use replay::{ReplayObstacle, ReplayTally};
pub use settle::{Gone, Settled};
pub use state::ServerState;

use crate::ids::ClientId;
use crate::plan::{Plan, Router, Target};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::statement::{StartDefaults, StringSyntax};
use batches::Batches;
use defaults::Defaults;
use expected::{Copying, Expected, Queue};
use gather::Gather;
use hidden::{Claim, Findings, HiddenCode, Reach};
use prepared::{Interner, Prepared, SchemaChange};
use settle::Touched;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tidegate_wire::backend::TransactionStatus;

/// How long a client keeps the server it was lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// Until its transaction ends and nothing is left in the server's session.
    #[default]
    Transaction,
    /// Until it disconnects.
    Session,
}

/// What a step may touch: the server it was lent, and the two directions' outgoing bytes.
///
/// In `handle_client`, `to_server` may forward ranges of the client's input; in `handle_server`, `to_client` may
/// forward ranges of the server's input. The other one only gets bytes of our own.
pub struct Io<'a> {
    pub server: Option<&'a mut ServerState>,
    pub interner: &'a mut Interner,
    pub router: &'a mut dyn Router,
    pub to_server: &'a mut Gather,
    pub to_client: &'a mut Gather,
}

/// How far `handle_client` came.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientStep {
    /// Bytes of the input that are dealt with; forwarded ones stay valid until `to_server` is sent.
    pub consumed: usize,
    pub next: ClientNext,
}

/// What the session needs before it takes more from its client.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientNext {
    /// Input of at least this many bytes beyond `consumed`.
    Read { bytes: usize },
    /// A server connection; then call again with the same input.
    Lease(Plan),
    /// Replies that the server owes; then call again with the same input.
    Replies,
    /// So long a time; then call again with the same input.
    Pause(Duration),
    /// Whoever is asked for an answer that may be kept; then call again with the same input.
    Recall,
    /// Nothing any more: send what waits in `to_client` and close.
    Close(CloseReason),
}

/// How far `handle_server` came.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerStep {
    pub consumed: usize,
    pub next: ServerNext,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ServerNext {
    Read {
        bytes: usize,
    },
    /// The server connection is of no more use; send what waits in `to_client` and close both. With `ServerDisconnected`
    /// the server has but said that it goes: ask `handle_server_lost` first.
    Close(CloseReason),
}

/// What becomes of a client's work when its server is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// There is none.
    None,
    /// It is in a transaction whose end nobody has asked for.
    RolledBack,
    /// It may have been committed.
    InDoubt,
}

/// What a session did since it was last asked; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Query, Execute and FunctionCall that went to a server.
    pub statements: u32,
    /// Prepared statements that were sent again, since this server did not know them.
    pub reprepared: u32,
    /// Times a server was given this client's settings.
    pub settings_applied: u32,
    /// Times a server was asked what a client has left.
    pub probes: u32,
    /// Statements that a limit refused.
    pub limited: u32,
    /// Statements that the routing policy rejected.
    pub forbidden: u32,
    /// Errors that a server answered with.
    pub errors: u32,
    pub replays: ReplayTally,
}

/// What becomes of a statement that was asked about.
#[derive(Clone, Debug)]
enum Fate {
    /// It has been charged.
    Runs,
    /// It is forbidden inside a transaction, which fails with this.
    Fails(Box<Refusal>),
}

/// What becomes of the frames of an extended batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// None is open: no extended message went to the server since its last Sync.
    Closed,
    /// The server is in an implicit transaction until the client's Sync, whatever replies have come.
    Open,
    /// The batch failed: everything up to the client's Sync is discarded, as the server does.
    SkipToSync,
}

/// What becomes of the rest of a frame whose head has been dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Forward,
    Discard,
}

/// When the client's frames must wait for replies that are owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// Everything waits: the server is being given this client's settings.
    All,
    /// Sync, Flush, Terminate and the data of a copy pass: a statement runs that may drop all prepared statements.
    Statements,
    /// Everything waits, but for an open copy: as many replies are owed as may be, and the server has been told to flush them.
    Many,
}

/// A statement by the name that its client gave it.
#[derive(Clone, Debug)]
struct Held {
    prepared: Arc<Prepared>,
    /// The batch in which it got the name.
    since: u32,
}

/// Is it known which settings are in force for what is parsed now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SettingsNow {
    Known,
    /// Something since the last look at them may have changed them, perhaps for this transaction alone.
    InDoubt,
}

/// One client's session. See the module for its verbs.
#[derive(Debug)]
pub struct Session {
    client: ClientId,
    mode: PoolMode,
    /// As last told to the client.
    status: TransactionStatus,
    batch: Batch,
    hold: Hold,
    copying: Copying,
    client_rest: (usize, Rest),
    server_rest: (usize, Rest),
    expected: Queue,
    batches: Batches,
    names: names::Names,
    /// The batch in which a name was last taken away.
    removed_in: u32,
    unnamed: Option<Arc<Prepared>>,
    /// The batch in which the unnamed statement was last replaced.
    unnamed_in: u32,
    /// What the client's start-up packet set: where RESET goes back to.
    startup: Arc<Settings>,
    /// What sessions begin with that do not ask for anything else, as far as that is known.
    server_settings: Arc<Settings>,
    /// What is in force for this client at transaction borders.
    settings: Arc<Settings>,
    /// How texts are read under them; `None`: only what is safe anywhere.
    reading: Option<StringSyntax>,
    settings_now: SettingsNow,
    touched: Option<Box<Touched>>,
    /// What the probe that is under way asks about.
    probing: Option<Box<Touched>>,
    pins: Pins,
    /// Something ran while this client kept its server that may have set what no view lists. It is reset before
    /// anybody else gets the server.
    unlisted: Option<()>,
    /// How far what has run since the session was last known may have reached.
    reach: Reach,
    hidden: Arc<HiddenCode>,
    /// The inspection of the database's catalogue that is under way.
    inspecting: Option<Box<(Claim, Findings)>>,
    /// A statement that drops all prepared statements is bound in this transaction; any Execute may run it.
    drops_statements: Option<()>,
    /// The client has said Terminate, and what it asked before is still being answered.
    leaves: Option<()>,
    /// The statements that the next Query names could not be laid open for it, which has been answered with why.
    laid_open_in_vain: Option<()>,
    gone: Option<Gone>,
    /// What the server in hand was chosen for.
    chosen: client::Chosen,
    /// The next statement has been asked about.
    admitted: Option<Fate>,
    /// Something was bound in the batch that is open.
    bound: Option<()>,
    /// Something ran on the primary that may have written, since the shell last asked.
    wrote: Option<()>,
    acknowledged: acknowledged::Acknowledged,
    /// A text that may commit a transaction went to the server and has not been answered.
    commits: Option<()>,
    /// A text that may change the schema went to the server since the last ReadyForQuery outside a transaction.
    changes_schema: Option<SchemaChange>,
    /// What a replica runs.
    kept: again::Kept,
    orphan: Option<lost::Orphan>,
    replay: replay::Replay,
    /// What runs is being cancelled since it has run for so many milliseconds.
    overdue: Option<NonZeroU32>,
    defaults: Defaults,
    vacated: Vec<String>,
    listening: listening::Listening,
    tally: Tally,
}

impl Session {
    /// A session at its first ReadyForQuery. `startup` are its start-up settings in the server's canonical form; `hidden` is
    /// what is known of its database.
    pub fn new(
        client: ClientId,
        mode: PoolMode,
        startup: Arc<Settings>,
        hidden: Arc<HiddenCode>,
    ) -> Self {
        let mut session = Self {
            client,
            mode,
            status: TransactionStatus::Idle,
            batch: Batch::Closed,
            hold: Hold::Nothing,
            copying: Copying::Nothing,
            client_rest: (0, Rest::Forward),
            server_rest: (0, Rest::Forward),
            expected: Queue::default(),
            batches: Batches::default(),
            names: names::Names::default(),
            removed_in: Batches::default().past(),
            unnamed: None,
            unnamed_in: Batches::default().past(),
            settings_now: SettingsNow::Known,
            settings: startup.clone(),
            reading: None,
            startup,
            server_settings: Arc::default(),
            touched: None,
            probing: None,
            pins: Pins::NONE,
            unlisted: None,
            reach: Reach::Nothing,
            hidden,
            inspecting: None,
            drops_statements: None,
            leaves: None,
            laid_open_in_vain: None,
            gone: None,
            chosen: client::Chosen::default(),
            admitted: None,
            bound: None,
            wrote: None,
            acknowledged: acknowledged::Acknowledged::default(),
            commits: None,
            changes_schema: None,
            kept: again::Kept::default(),
            orphan: None,
            replay: replay::Replay::default(),
            overdue: None,
            defaults: Defaults::default(),
            vacated: Vec::new(),
            listening: listening::Listening::default(),
            tally: Tally::default(),
        };
        session.heed_settings();
        session
    }

    pub fn client(&self) -> ClientId {
        self.client
    }

    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    pub fn pins(&self) -> Pins {
        self.pins
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Named prepared statements the client holds.
    pub fn prepared_count(&self) -> usize {
        self.names.len()
    }

    /// What happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whose sessions begin with other settings since the last call, for servers that were opened before.
    pub fn take_changed_defaults(&mut self) -> Vec<StartDefaults> {
        self.defaults.take_changed()
    }

    /// Have roles been made, altered or dropped since the last call? What is known of them may be out of date.
    pub fn take_changed_roles(&mut self) -> bool {
        self.defaults.take_changed_roles()
    }

    /// Does the server owe replies?
    pub fn is_waiting_for_replies(&self) -> bool {
        !self.expected.is_empty()
    }

    /// What would become of the client's work if the server were lost now.
    pub fn work_at_stake(&self) -> Work {
        let idle = self.status == TransactionStatus::Idle;
        match self.expected.is_owed_to_client() {
            false if idle && !self.owes_ready() => Work::None,
            false if idle => Work::InDoubt,
            true if idle || self.commits.is_some() => Work::InDoubt,
            _ => Work::RolledBack,
        }
    }

    /// Between transactions, with nothing asked and nothing half sent: a moment to close without harm.
    pub fn is_at_rest(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.expected.is_empty()
            && self.client_rest.0 == 0
            && self.batch == Batch::Closed
            && !self.owes_ready()
            && self.is_replay_quiet()
    }

    /// Terminate comes after what was sent before it, as on PostgreSQL: that is done, and answered if it is read.
    fn terminate(&mut self) -> ClientNext {
        let comes_to_an_end = self.batch == Batch::Closed
            && matches!(self.copying, Copying::Nothing | Copying::Out)
            && !self.expected.is_empty();
        if comes_to_an_end {
            self.leaves = Some(());
            return ClientNext::Replies;
        }
        ClientNext::Close(CloseReason::ClientTerminated)
    }

    /// Has every reply so far been passed on as a whole, so that a message of ours may follow?
    pub fn is_between_replies(&self) -> bool {
        self.server_rest.0 == 0 && !self.is_cut()
    }

    /// Gives back memory that an idle client does not need.
    pub fn shrink(&mut self) {
        self.expected.shrink();
        self.shrink_kept();
    }

    /// A server has been lent for this target. Gives it this client's settings first when they differ.
    pub fn handle_lease(
        &mut self,
        target: Target,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) {
        debug_assert!(self.expected.is_empty());
        self.begin_run();
        self.chosen = client::Chosen::for_target(target);
        server.begin_lease(self.client, self.batches.past());
        self.switch_settings(server, to_server);
        self.begin_listening(target, server, to_server);
        self.begin_failed(server, to_server);
    }

    /// No server could be had for the frame at the start of `input`: answers it and says how much of it is done.
    pub fn handle_lease_refused(
        &mut self,
        refusal: &Refusal,
        input: &[u8],
        to_client: &mut Gather,
    ) -> ClientStep {
        match self.refuse_replay(refusal, input, to_client) {
            Some(step) => step,
            None => client::refuse_frame(self, refusal, input, to_client),
        }
    }
}

/// A note in the queue is moved often; keep it within a cache line.
const _: () = assert!(size_of::<Expected>() <= 64);
