//! When a server may go back to its pool, and what must be known, cleared or kept before.
//!
//! What a text *may* have done is found by reading it ([`crate::statement`]); what it *did* is asked of the server, once,
//! when the transaction has ended: one query of ours (the probe) lists the settings in force and the state that cannot
//! move. So rollbacks, savepoints, functions, counted locks and `ON COMMIT DROP` need no model of ours.

mod probe; // what the server is asked

use super::expected::{Copying, Expected, Own};
use super::gather::Gather;
use super::hidden::Reach;
use super::pins::Pins;
use super::prepared::SchemaChange;
use super::state::Unnamed;
use super::{Batch, Hold, PoolMode, Rest, ServerState, Session, SettingsNow};
use crate::settings::{Settings, same, switch_sql};
use crate::statement::{Analysis, Effects, Kind, SettingTouched, TextEncoding};
use probe::ProbeAnswer;
use std::collections::BTreeSet;
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frontend;

/// Whether the server may go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Something is under way; ask again after the next step.
    Busy,
    /// The client keeps its server: it is pinned, or in session mode.
    Keep,
    /// Nothing of this client is left on the server.
    Release,
    /// The server's session cannot be cleaned.
    Close,
}

/// What becomes of the server of a client that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It has half a message: close it.
    Close,
    /// Nothing is running: go on until `settle` says Release or Close.
    Drain,
    /// The same, but something is running that nobody waits for: cancel it.
    CancelAndDrain,
}

/// What the texts since the last probe may have done.
#[derive(Debug, Default)]
pub(super) struct Touched {
    effects: Effects,
    /// Settings that were SET by name.
    names: BTreeSet<String>,
    /// Settings that were RESET by name.
    reset: BTreeSet<String>,
    /// Settings were reset, or changed in ways that no name tells.
    any_setting: Option<()>,
    /// The probe ends with RESET ALL.
    resets: Option<()>,
    /// Settings that a text may reset to the server's value, and that go back to the start-up packet's then.
    restores: BTreeSet<String>,
    /// Such a text has run.
    was_reset: Option<()>,
    /// The server is asked what it listens to,
    asks_for_channels: Option<()>,
    /// and stops.
    unlistens: Option<()>,
    /// A transaction has ended since: what it touched may stand, though nobody has asked yet.
    may_stand: Option<()>,
    answer: ProbeAnswer,
}

impl Touched {
    /// Something ran that may have set what no view lists: settings with a dot that no extension has declared. They
    /// are reset, so that they reach nobody else; a client that wants to keep them names them in its own text.
    fn needs_reset(&self) -> bool {
        self.effects.intersects(Effects::UNKNOWN_SETTINGS.with(Effects::EXECUTES))
    }

    /// Is it not the transaction alone that has touched something?
    pub(super) fn may_outlive_transaction(&self) -> bool {
        self.may_stand.is_some() || self.asks_for_channels.is_some()
    }

    pub(super) fn prepares(&self) -> bool {
        self.effects.contains(Effects::PREPARES)
    }

    /// May something that no text names have made the server listen?
    pub(super) fn may_listen(&self) -> bool {
        self.effects.intersects(Effects::UNKNOWN_SETTINGS.with(Effects::EXECUTES))
    }

    /// May a later text have to be read in another way than the session's settings say?
    pub(super) fn changes_reading(&self) -> bool {
        const READING: [&str; 2] = ["standard_conforming_strings", "client_encoding"];
        READING.iter().any(|name| self.names.contains(*name) || self.reset.contains(*name))
    }
}

/// Does a value of `search_path` hold `pg_temp`?
fn names_temporary_schema(value: &str) -> bool {
    value.as_bytes().windows(7).any(|seven| seven.eq_ignore_ascii_case(b"pg_temp"))
}

/// Effects after which the server is asked what is left.
const LEAVES_STATE: Effects = Effects::SETS
    .with(Effects::RESET_ALL)
    .with(Effects::UNKNOWN_SETTINGS)
    .with(Effects::TEMP_OBJECTS)
    .with(Effects::ADVISORY_LOCK)
    .with(Effects::HOLD_CURSOR)
    .with(Effects::LISTEN)
    .with(Effects::PREPARES)
    .with(Effects::EXECUTES)
    .with(Effects::DISCARD_ALL)
    .with(Effects::SESSION_AUTHORIZATION)
    .with(Effects::TIDEGATE_SET);

/// Effects after which a pinned client's server is asked whether the cause is gone.
const REMOVES_STATE: Effects = Effects::DROPS
    .with(Effects::ADVISORY_UNLOCK)
    .with(Effects::CLOSES_CURSOR)
    .with(Effects::UNLISTEN)
    .with(Effects::DEALLOCATES)
    .with(Effects::DISCARD_TEMP)
    .with(Effects::ENDS);

/// Effects that concern settings alone.
const SETTINGS_ONLY: Effects = Effects::SETS.with(Effects::RESET_ALL).with(Effects::TIDEGATE_SET);

/// Effects after which all settings are asked for, not only those that were named.
const ANY_SETTING: Effects = Effects::RESET_ALL
    .with(Effects::UNKNOWN_SETTINGS)
    .with(Effects::EXECUTES)
    .with(Effects::DISCARD_ALL);

/// Effects after which a text may be parsed under other settings than the session's.
const PARSES_OTHERWISE: Effects =
    ANY_SETTING.with(Effects::SETS).with(Effects::SESSION_AUTHORIZATION);

impl Session {
    /// Databases that nobody may be connected to for what went to the server since the last call.
    pub fn take_vacated(&mut self) -> Vec<String> {
        std::mem::take(&mut self.vacated)
    }

    /// Notes what a text that goes to the server may do.
    pub(super) fn note_effects(&mut self, analysis: &Analysis) {
        self.note_for_replay(analysis);
        let reach = Reach::of(analysis);
        self.reach = self.reach.max(reach);
        if self.hidden.may_leave(reach) {
            self.settings_now = SettingsNow::InDoubt;
        }
        if analysis.effects.is_empty() && analysis.names.is_empty() {
            return;
        }
        let rolls_back = analysis.kind == Kind::Rollback && analysis.statements == 1;
        if analysis.effects.contains(Effects::ENDS) && !rolls_back {
            self.commits = Some(());
        }
        if analysis.effects.contains(Effects::DDL)
            && !analysis.effects.contains(Effects::TEMP_OBJECTS)
        {
            self.changes_schema = self.changes_schema.max(Some(SchemaChange::of(analysis)));
        }
        self.vacated.extend_from_slice(&analysis.vacated);
        self.defaults.handle_text(&analysis.start_defaults, self.settings.get("role"));
        if !analysis.names.is_empty() || analysis.effects.intersects(PARSES_OTHERWISE) {
            self.settings_now = SettingsNow::InDoubt;
        }
        for name in &analysis.names {
            match name {
                SettingTouched::Set(name) => {
                    let touched = self.touched.get_or_insert_default();
                    touched.restores.remove(name);
                    touched.names.insert(name.clone());
                }
                SettingTouched::Reset(name) => {
                    let touched = self.touched.get_or_insert_default();
                    touched.any_setting = Some(());
                    touched.reset.insert(name.clone());
                    if self.startup.get(name).is_some() {
                        touched.restores.insert(name.clone());
                    }
                }
                SettingTouched::ResetAll => self.note_reset(),
                SettingTouched::SetLocal(name) => {
                    if let Some(touched) = &mut self.touched {
                        touched.restores.remove(name);
                    }
                }
            }
        }
        if analysis.effects.contains(Effects::DISCARD_ALL) {
            self.note_reset();
        }
        self.note_listen(analysis.effects);
        self.touch(analysis.effects);
    }

    fn note_reset(&mut self) {
        let touched = self.touched.get_or_insert_default();
        touched.any_setting = Some(());
        touched.restores.extend(self.startup.iter().map(|(name, _)| name.to_owned()));
    }

    /// Settings with which a session keeps its server: where `pg_temp` is searched, what is created may be temporary without
    /// a word that says so; and values in another encoding than UTF-8 cannot be sent on as we have them.
    pub(in crate::session) fn note_settings_that_bind(&mut self) {
        let encoding = TextEncoding::named(self.setting("client_encoding").unwrap_or("UTF8"));
        let unsendable = encoding != TextEncoding::Utf8
            && self.settings.iter().any(|(_, value)| !value.is_ascii());
        if unsendable || self.setting("search_path").is_some_and(names_temporary_schema) {
            self.pins = self.pins.and(Pins::SESSION_BOUND);
        }
    }

    /// A transaction has ended.
    pub(super) fn note_end(&mut self) {
        if let Some(touched) = &mut self.touched {
            touched.may_stand = Some(());
        }
    }

    /// Is nothing touched but settings, in the transaction that is open, with which they go?
    pub(super) fn touches_settings_only(&self) -> bool {
        self.touched.as_deref().is_none_or(|touched| {
            SETTINGS_ONLY.contains(touched.effects) && !touched.may_outlive_transaction()
        })
    }

    /// Does something run after which settings of the start-up packet must be restored?
    pub(super) fn restores_settings(&self) -> bool {
        self.touched.as_deref().is_some_and(|touched| !touched.restores.is_empty())
    }

    /// A RESET or DISCARD ALL has run.
    pub(super) fn reset_done(&mut self) {
        if let Some(touched) = &mut self.touched {
            touched.was_reset = Some(());
        }
    }

    /// What was reset has been rolled back. What is to be restored stands: a RESET behind what failed may still run.
    pub(super) fn reset_undone(&mut self) {
        if let Some(touched) = &mut self.touched {
            touched.was_reset = None;
        }
    }

    /// Sends what puts the start-up packet's values back; they stand for the server's own in this client's RESET.
    fn restore_settings(&mut self, server: &mut ServerState, to_server: &mut Gather) -> Switching {
        let Some(touched) = self.touched.as_deref_mut() else { return Switching::NotNeeded };
        if touched.was_reset.take().is_none() {
            if server.status == TransactionStatus::Idle {
                touched.restores.clear();
            }
            return Switching::NotNeeded;
        }
        let names = std::mem::take(&mut touched.restores);
        if names.is_empty() || server.status == TransactionStatus::Failed {
            return Switching::NotNeeded;
        }
        let wanted =
            Settings::from_pairs(self.startup.iter().filter(|(name, _)| names.contains(*name)));
        let Some(sql) = switch_sql(&Settings::default(), &wanted) else {
            return Switching::NotNeeded;
        };
        self.ask(Own::Restore, &sql, server, to_server);
        self.hold = Hold::All;
        Switching::UnderWay
    }

    pub(super) fn touch(&mut self, effects: Effects) {
        let sticky = [
            (Effects::SEED, Pins::SEED),
            (Effects::SEQUENCE_STATE, Pins::SEQUENCES),
            (Effects::LOADS, Pins::LOADED),
            (Effects::SESSION_BOUND, Pins::SESSION_BOUND),
        ];
        for (effect, pin) in sticky {
            if effects.intersects(effect) {
                self.pins = self.pins.and(pin);
            }
        }
        let asks = effects.intersects(LEAVES_STATE)
            || (!self.pins.is_empty() && effects.intersects(REMOVES_STATE));
        if asks {
            let touched = self.touched.get_or_insert_default();
            touched.effects |= effects;
            if effects.intersects(ANY_SETTING) {
                touched.any_setting = Some(());
            }
        }
    }

    /// Of a message, a batch, a COPY, or of what is answered.
    fn is_in_the_middle(&self) -> bool {
        !self.expected.is_empty()
            || self.batch != Batch::Closed
            || self.copying != Copying::Nothing
            || self.client_rest.0 > 0
            || self.server_rest.0 > 0
    }

    /// Decides about the server after a step; may send it a query of ours.
    pub fn settle(&mut self, server: &mut ServerState, to_server: &mut Gather) -> Settled {
        if self.is_in_the_middle() {
            return Settled::Busy;
        }
        if self.gone.is_some() {
            return self.settle_for_the_next(server, to_server);
        }
        if self.restores_settings()
            && self.restore_settings(server, to_server) == Switching::UnderWay
        {
            return Settled::Busy;
        }
        if let Some(settled) = self.settle_replay(server, to_server) {
            return settled;
        }
        if server.status != TransactionStatus::Idle || self.waits_for_listener() {
            return Settled::Busy;
        }
        let free = self.pins.is_empty() && self.mode == PoolMode::Transaction;
        if free && self.inspect(server, to_server) {
            return Settled::Busy;
        }
        if (free || self.touched.is_some()) && self.hidden.may_leave(self.reach) {
            self.touch(Effects::UNKNOWN_SETTINGS);
        }
        if free && self.unlisted.is_some() {
            self.touched.get_or_insert_default();
        }
        if self.asks_for_channels() {
            self.touched.get_or_insert_default().asks_for_channels = Some(());
        }
        if let Some(mut touched) = self.touched.take() {
            if touched.needs_reset() {
                self.unlisted = Some(());
            }
            if free && self.unlisted.take().is_some() {
                (touched.resets, touched.any_setting) = (Some(()), Some(()));
            }
            let mut sql = self.probe_sql(&touched);
            if touched.resets.is_some() {
                sql.push_str(";RESET ALL");
                self.hold = Hold::All;
            }
            if free && touched.asks_for_channels.is_some() {
                touched.unlistens = Some(());
                sql.push_str(";UNLISTEN *");
            }
            self.probing = Some(touched);
            self.reach = Reach::Nothing;
            self.tally.probes += 1;
            self.ask(Own::Probe, &sql, server, to_server);
            return Settled::Busy;
        }
        self.settings_now = SettingsNow::Known;
        if free {
            self.reach = Reach::Nothing;
            self.server_settled();
            return Settled::Release;
        }
        if self.switch_settings(server, to_server) == Switching::UnderWay
            || self.keep_listening(server, to_server) == Switching::UnderWay
        {
            return Settled::Busy;
        }
        self.server_settled();
        Settled::Keep
    }

    fn settle_for_the_next(&mut self, server: &mut ServerState, to_server: &mut Gather) -> Settled {
        if server.status != TransactionStatus::Idle {
            self.ask(Own::Rollback, "ROLLBACK", server, to_server);
            return Settled::Busy;
        }
        if !self.pins.only(Pins::FOR_EVER).is_empty() {
            return Settled::Close;
        }
        let hidden = self.hidden.may_leave(self.reach);
        let listens = !server.channels.is_empty();
        let left = self.touched.is_some() || self.unlisted.is_some() || hidden || listens;
        if self.mode == PoolMode::Session || !self.pins.is_empty() || left {
            self.ask(Own::Discard, "DISCARD ALL", server, to_server);
            return Settled::Busy;
        }
        Settled::Release
    }

    /// The client is gone. Says what becomes of its server; then go on with `handle_server` and `settle`.
    pub fn handle_client_gone(&mut self, to_server: &mut Gather) -> Gone {
        self.end_record();
        let running = !self.expected.is_empty() && self.leaves.is_none();
        let half_sent = self.client_rest.0 > 0 && self.client_rest.1 == Rest::Forward;
        if half_sent || self.copying == Copying::Both {
            self.gone = Some(Gone::Close);
            return Gone::Close;
        }
        self.client_rest.0 = 0;
        self.end_batch_of_gone(to_server);
        let gone = if running { Gone::CancelAndDrain } else { Gone::Drain };
        self.gone = Some(gone);
        gone
    }

    /// Says what the client that is gone no longer says, so that the server comes to ReadyForQuery.
    pub(super) fn end_batch_of_gone(&mut self, to_server: &mut Gather) {
        if matches!(self.copying, Copying::In { .. }) {
            to_server.send(|out| frontend::copy_fail(out, b"client disconnected"));
            self.copying = Copying::Nothing;
        }
        if self.batch != Batch::Closed {
            to_server.send(frontend::sync);
            self.push_end(Expected::Sync);
            self.batch = Batch::Closed;
        }
    }

    /// Brings the server's settings to this client's.
    pub(super) fn switch_settings(
        &mut self,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) -> Switching {
        if same(&server.settings, &self.settings) {
            return Switching::NotNeeded;
        }
        let Some(sql) = switch_sql(&server.settings, &self.settings) else {
            return Switching::NotNeeded;
        };
        self.tally.settings_applied += 1;
        self.ask(Own::Switch, &sql, server, to_server);
        Switching::UnderWay
    }

    pub(super) fn ask(
        &mut self,
        own: Own,
        sql: &str,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) {
        // Like every Query, it ends the unnamed statement.
        server.set_unnamed(Unnamed::Absent, self.batches.past());
        to_server.send(|out| frontend::query(out, sql.as_bytes()));
        self.expected.push(Expected::Own(own));
        // The next statement must run under the settings that this one gives or finds.
        self.hold = Hold::All;
    }

    /// The client's DISCARD ALL succeeded.
    pub(super) fn session_discarded(&mut self) {
        self.pins = self.pins.without(Pins::SEED).without(Pins::SEQUENCES);
        self.unlisted = None;
    }

    /// Our DISCARD ALL succeeded: nothing of this client is left.
    pub(super) fn session_cleared(&mut self) {
        self.mode = PoolMode::Transaction;
        self.pins = Pins::NONE;
        (self.touched, self.unlisted, self.reach) = (None, None, Reach::Nothing);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switching {
    NotNeeded,
    UnderWay,
}
