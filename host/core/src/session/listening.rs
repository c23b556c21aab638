//! LISTEN without keeping a server: what a client listens to is found at the end of its transaction, and handed over to a
//! connection that listens for many (the crate `tidegate-listen`).
//!
//! The server runs LISTEN and UNLISTEN themselves, and so decides about transactions, savepoints and errors. A client that
//! listens gets a server that listens to the same, as it gets one with its settings; at the end of each of its transactions
//! the server is asked what is left of that, and stops. Only then is the client told that its transaction is over:
//!
//! ```text
//!  Apart ── it listens, and is lent the primary ──▶ Beginning ── told apart ──▶ Begun ◀─┐
//!    ▲  ╲                                                                         │     │ it keeps the server
//!    │   ╲── a text says LISTEN ─────────────────────────────────────────────┐    │     │
//!    │                                                                       ▼    ▼     │
//!    └────────────── the server goes back ── Ended ◀── all is told ── Ending, from the probe on
//! ```
//!
//! What the server says while it listens is told by the shared connection as well, so it is dropped here: but for what the
//! client itself notifies on channels that are only being handed over. Nothing else on these can be missed before the client
//! has been told that it listens.

use super::expected::Own;
use super::gather::Gather;
use super::pins::Pins;
use super::replies::Reply;
use super::settle::Switching;
use super::{Batch, Hold, Io, PoolMode, ServerState, Session};
use crate::channels::Channels;
use crate::limits::{
    CHANNELS_PER_CLIENT_MAX, NOTIFICATION_BYTES_MAX, NOTIFICATIONS_WAITING_BYTES_MAX,
};
use crate::plan::Target;
use crate::statement::{Effects, TextEncoding};
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame::Header;

/// What a session wants of the connection that listens for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenNeed {
    /// That the server in hand is known to be the client's: then call `handle_told_apart`.
    Lend,
    /// That the client listens to its `channels` from now on, and has been told what was committed before: then call
    /// `handle_listened`, or `handle_listen_refused`.
    Settle,
    /// That it listens to nothing any more.
    Forget,
}

/// Whether a client goes on being told what it listens to, after its server has not taken LISTEN or UNLISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    Goes,
    Fails,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Apart,
    Beginning,
    Begun(Since),
    Ending,
    Ended,
}

/// What has happened since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Nothing,
    Something,
}

#[derive(Debug, Default)]
pub(super) struct Listening {
    /// The process that the client was told is its own; `None`: LISTEN keeps the server.
    told: Option<i32>,
    /// What the shared connection listens to for this client.
    channels: Channels,
    /// What the server in hand is being brought to listen to.
    bringing: Option<Channels>,
    rare: Option<Box<Rare>>,
    stage: Stage,
    /// A text said LISTEN since the server was last asked.
    named: Option<()>,
    /// ReadyForQuery, which the client is told when all is settled.
    owed: Option<()>,
    need: Option<ListenNeed>,
}

/// What few sessions have.
#[derive(Debug, Default)]
struct Rare {
    /// What a server that the client keeps for LISTEN listens to.
    kept: Channels,
    /// The client's own notifications on channels that are being handed over: they come after those that were sent before.
    own: Vec<u8>,
}

impl Session {
    /// Has LISTEN carried out by a shared connection. `told` is the process that the client was told is its own.
    #[must_use]
    pub fn with_shared_listening(mut self, told: i32) -> Self {
        self.listening.told = Some(told);
        self
    }

    /// The process that the client was told is its own.
    pub(super) fn own_process(&self) -> Option<i32> {
        self.listening.told
    }

    /// What the shell is to see to, once.
    pub fn take_listen_need(&mut self) -> Option<ListenNeed> {
        self.listening.need.take()
    }

    /// What the shared connection listens to for this client.
    pub fn channels(&self) -> &Channels {
        &self.listening.channels
    }

    /// May the client be told a notification now?
    pub fn may_be_notified(&self) -> bool {
        self.is_at_rest() && self.is_between_replies()
    }

    /// Does the client wait for its ReadyForQuery, which it is told as soon as its notifications have been?
    pub fn owes_ready(&self) -> bool {
        self.listening.owed.is_some()
    }

    fn shares(&self) -> bool {
        self.listening.told.is_some()
            && self.mode == PoolMode::Transaction
            && !self.pins.contains(Pins::LISTEN)
    }

    /// Are frames of the client's held until the shell has seen to something?
    pub(super) fn waits_for_listener(&self) -> bool {
        matches!(self.listening.stage, Stage::Beginning | Stage::Ending)
    }

    /// Does each transaction have to be settled before the next begins, and the client told that it is over?
    fn settles_each(&self) -> bool {
        self.shares()
            && (self.listening.named.is_some() || matches!(self.listening.stage, Stage::Begun(_)))
    }

    // --- a server is lent ---------------------------------------------------------------------------------------

    pub(super) fn begin_listening(
        &mut self,
        target: Target,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) {
        self.listening.stage = Stage::Apart;
        let here = self.shares() && target == Target::Primary;
        let wanted = if here { self.listening.channels.clone() } else { Channels::default() };
        self.bring_channels(wanted, server, to_server);
        if here && !self.listening.channels.is_empty() {
            self.listening.stage = Stage::Beginning;
            self.listening.need = Some(ListenNeed::Lend);
        }
    }

    /// Brings the server to listen to what is wanted.
    fn bring_channels(
        &mut self,
        wanted: Channels,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) -> Switching {
        let Some(sql) = server.channels.switch_sql(&wanted) else { return Switching::NotNeeded };
        self.listening.bringing = Some(wanted);
        self.ask(Own::Listen, &sql, server, to_server);
        Switching::UnderWay
    }

    /// What was sent by those who had the server before has been told as theirs.
    pub fn handle_told_apart(&mut self) {
        if self.listening.stage == Stage::Beginning {
            self.listening.stage = Stage::Begun(Since::Nothing);
        }
    }

    /// What it was asked has been answered.
    pub(super) fn brought(&mut self, server: &mut ServerState) {
        if let Some(channels) = self.listening.bringing.take() {
            server.channels = channels;
        }
    }

    /// The server has not taken it: it is no primary, or it was cancelled. It listens to what it did before: the whole text
    /// is one transaction.
    pub(super) fn bring_failed(&mut self) -> Hearing {
        let wanted = self.listening.bringing.take();
        if self.pins.contains(Pins::LISTEN) && wanted.is_some_and(|wanted| !wanted.is_empty()) {
            // Nobody else listens for it.
            return Hearing::Fails;
        }
        if !self.pins.contains(Pins::LISTEN) {
            self.listening.stage = Stage::Apart;
        }
        Hearing::Goes
    }

    // --- something runs -----------------------------------------------------------------------------------------

    /// Something of the client's goes to the server.
    pub(super) fn note_running(&mut self) {
        if self.listening.stage == Stage::Begun(Since::Nothing) {
            self.listening.stage = Stage::Begun(Since::Something);
        }
    }

    pub(super) fn note_listen(&mut self, effects: Effects) {
        if effects.contains(Effects::LISTEN) && self.shares() {
            self.listening.named = Some(());
        }
    }

    /// After what ends with ReadyForQuery has been sent.
    pub(super) fn hold_for_listening(&mut self) {
        if self.settles_each() {
            self.hold = Hold::All;
        }
    }

    /// Is the client told later that it is between transactions?
    pub(super) fn withholds_ready(&mut self, status: TransactionStatus) -> bool {
        let withholds = status == TransactionStatus::Idle
            && self.settles_each()
            && self.expected.is_empty()
            && self.batch == Batch::Closed
            && (self.gone, self.leaves) == (None, None);
        if withholds {
            self.listening.owed = Some(());
        }
        withholds
    }

    /// A NotificationResponse of the server in hand.
    pub(super) fn notification(&mut self, header: Header, body: &[u8], io: &mut Io<'_>) -> Reply {
        if header.body_bytes as usize > NOTIFICATION_BYTES_MAX {
            return Reply::Pass;
        }
        if body.len() < header.body_bytes as usize {
            return Reply::Wait;
        }
        let (Some(told), Ok((process, channel, payload))) =
            (self.listening.told, backend::read_notification_response(body))
        else {
            return Reply::Pass;
        };
        let own = io.server.as_deref().is_some_and(|server| server.process == Some(process));
        if self.shares() {
            let shared = std::str::from_utf8(channel)
                .is_ok_and(|channel| self.listening.channels.contains(channel));
            if shared || !own && (self.settles_each() || self.waits_for_listener()) {
                return Reply::Swallow;
            }
            if !self.settles_each() && !self.may_listen_unseen() {
                // Whoever had the server before has left it listening.
                return Reply::Swallow;
            }
        }
        let process = match process {
            _ if own => told,
            // It would take it for its own.
            process if process == told => 0,
            _ => return Reply::Pass,
        };
        let write = |out: &mut Vec<u8>| {
            backend::notification_response(out, process, channel, payload);
        };
        let waits = own && self.settles_each();
        let waiting = self.listening.rare.as_ref().map_or(0, |rare| rare.own.len());
        if waits && waiting < NOTIFICATIONS_WAITING_BYTES_MAX {
            write(&mut self.listening.rare.get_or_insert_default().own);
        } else {
            io.to_client.send(write);
        }
        Reply::Swallow
    }

    fn may_listen_unseen(&self) -> bool {
        let touched = [&self.touched, &self.probing];
        touched.into_iter().flatten().any(|touched| touched.may_listen())
            || self.hidden.may_leave(self.reach)
    }

    // --- the transaction is over --------------------------------------------------------------------------------

    /// Is the server to be asked what it listens to?
    pub(super) fn asks_for_channels(&self) -> bool {
        self.shares()
            && (self.listening.named.is_some()
                || self.listening.stage == Stage::Begun(Since::Something))
    }

    /// The server has said what it listens to.
    pub(super) fn channels_found(&mut self, there: Channels) {
        self.listening.named = None;
        let found = match self.listening.stage {
            Stage::Begun(_) => there,
            // It was not brought to what the client listens to.
            _ => self.listening.channels.iter().chain(there.iter()).cloned().collect(),
        };
        if found.len() > CHANNELS_PER_CLIENT_MAX || !self.is_told_as_it_is() {
            return self.keep_server_for(found);
        }
        if found.is_empty() && self.listening.channels.is_empty() {
            self.listening.stage = Stage::Ended;
            return;
        }
        self.listening.stage = Stage::Ending;
        self.listening.channels = found;
        self.listening.need = Some(ListenNeed::Settle);
    }

    /// It could not be asked, so it may listen to anything that it ever listened to for this client.
    pub(super) fn channels_unknown(&mut self) {
        self.listening.named = None;
        self.keep_server_for(Channels::default());
        self.listening.stage = Stage::Apart;
    }

    /// Does the shared connection speak as the client does?
    fn is_told_as_it_is(&self) -> bool {
        let encoding = self.setting("client_encoding").unwrap_or("UTF8");
        encoding.eq_ignore_ascii_case("SQL_ASCII")
            || TextEncoding::named(encoding) == TextEncoding::Utf8
    }

    /// The client keeps its server, which listens for it, as long as it listens.
    fn keep_server_for(&mut self, channels: Channels) {
        self.pins = self.pins.and(Pins::LISTEN);
        self.listening.rare.get_or_insert_default().kept = channels;
        self.listening.channels = Channels::default();
        self.listening.need = Some(ListenNeed::Forget);
        self.listening.stage = Stage::Ended;
    }

    /// The shared connection listens to what it was to, and all that was committed before has been told.
    pub fn handle_listened(&mut self) {
        if self.listening.stage == Stage::Ending {
            self.listening.stage = Stage::Ended;
        }
    }

    /// There is no shared connection to be had: the client keeps its server instead.
    pub fn handle_listen_refused(&mut self) {
        if self.listening.stage == Stage::Ending {
            let channels = std::mem::take(&mut self.listening.channels);
            self.keep_server_for(channels);
        }
    }

    /// Its server is settled: tells the client that its transaction is over, if it has not been told.
    pub fn give_ready(&mut self, to_client: &mut Gather) {
        if let Some(rare) = self.listening.rare.take() {
            to_client.send(|out| out.extend_from_slice(&rare.own));
        }
        if self.listening.owed.take().is_some() {
            to_client.send(|out| backend::ready_for_query(out, TransactionStatus::Idle));
        }
    }

    /// Before the client keeps a server: brings it to what it has to listen to.
    pub(super) fn keep_listening(
        &mut self,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) -> Switching {
        if self.listening.told.is_none() || self.mode == PoolMode::Session {
            return Switching::NotNeeded;
        }
        if self.listening.stage != Stage::Ended {
            return Switching::NotNeeded;
        }
        self.listening.stage = Stage::Apart;
        if self.pins.contains(Pins::LISTEN) {
            let rare = self.listening.rare.as_deref_mut();
            let kept = rare.map(|rare| std::mem::take(&mut rare.kept)).unwrap_or_default();
            return self.bring_channels(kept, server, to_server);
        }
        let wanted = self.listening.channels.clone();
        let listens = !wanted.is_empty();
        let switching = self.bring_channels(wanted, server, to_server);
        if !listens {
            return switching;
        }
        self.listening.stage = Stage::Beginning;
        self.listening.need = Some(ListenNeed::Lend);
        Switching::UnderWay
    }
}
