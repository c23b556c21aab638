//! The query that asks a server what its session holds, and what its answer means.

use super::{SETTINGS_ONLY, Touched};
use crate::channels::{Channel, Channels};
use crate::session::pins::Pins;
use crate::session::{ServerState, Session};
use crate::settings::{Settings, quote_literal};
use crate::statement::Effects;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use tidegate_wire::backend::read_data_row;

#[derive(Debug, Default)]
pub(super) struct ProbeAnswer {
    settings: Vec<(String, Option<String>)>,
    pins: Pins,
    channels: Vec<Channel>,
    failed: Option<()>,
}

impl Session {
    /// One query that answers rows of (`s`, setting, value), (`c`, channel, NULL) and (`p`, cause of a pin, NULL).
    pub(super) fn probe_sql(&self, touched: &Touched) -> String {
        let mut parts = Vec::new();
        let mut names: BTreeSet<&str> = touched.names.iter().map(String::as_str).collect();
        if touched.any_setting.is_some() {
            parts.push(
                "SELECT 's'::pg_catalog.text,name,pg_catalog.current_setting(name,true) FROM pg_catalog.pg_settings \
                 WHERE source OPERATOR(pg_catalog.=) 'session'"
                    .to_owned(),
            );
            // The view hides settings that no extension has declared, and the role.
            names.extend(
                self.settings.iter().map(|(name, _)| name).filter(|name| name.contains('.')),
            );
            names.retain(|name| name.contains('.'));
            names.insert("role");
        }
        names.remove("session_authorization");
        for name in names {
            let name = quote_literal(name);
            parts.push(format!(
                "SELECT 's'::pg_catalog.text,{name},pg_catalog.current_setting({name},true)"
            ));
        }
        let mut effects = touched.effects;
        if touched.asks_for_channels.is_some() {
            parts.push(CHANNELS_SQL.to_owned());
            effects = effects.without(Effects::LISTEN);
        }
        if !SETTINGS_ONLY.contains(effects.without(Effects::SESSION_AUTHORIZATION))
            || touched.effects.contains(Effects::SESSION_AUTHORIZATION)
            || !self.pins.is_empty()
        {
            parts.push(PINS_SQL.to_owned());
        }
        let mut sql = String::new();
        for (position, part) in parts.iter().enumerate() {
            let _ = write!(sql, "{}{part}", if position == 0 { "" } else { " UNION ALL " });
        }
        if sql.is_empty() {
            sql.push_str(
                "SELECT 's'::pg_catalog.text,''::pg_catalog.text,''::pg_catalog.text WHERE false",
            );
        }
        sql
    }

    pub(in crate::session) fn probe_row(&mut self, body: &[u8]) {
        let Some(touched) = self.probing.as_deref_mut() else { return };
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
        match read_data_row(body).as_deref() {
            Ok([Some(b"s"), Some(name), value]) => {
                match (text(name), value.map(text).transpose()) {
                    (Ok(name), Ok(value)) => touched.answer.settings.push((name, value)),
                    // In an encoding in which nobody could send it to another server.
                    _ => touched.answer.failed = Some(()),
                }
            }
            Ok([Some(b"c"), Some(channel), _]) => match std::str::from_utf8(channel) {
                Ok(channel) => touched.answer.channels.push(Channel::new(channel)),
                Err(_) => touched.answer.failed = Some(()),
            },
            Ok([Some(b"p"), Some(cause), _]) => {
                let pin = Pins::ALL.iter().find(|(_, name)| name.as_bytes() == *cause);
                touched.answer.pins =
                    touched.answer.pins.and(pin.map_or(Pins::SESSION_BOUND, |(pin, _)| *pin));
            }
            _ => touched.answer.failed = Some(()),
        }
    }

    pub(in crate::session) fn probe_failed(&mut self) {
        if let Some(touched) = self.probing.as_deref_mut() {
            touched.answer.failed = Some(());
        }
    }

    pub(in crate::session) fn probe_finished(&mut self, server: &mut ServerState) {
        let Some(touched) = self.probing.take() else { return };
        let kept = self.pins.contains(Pins::LISTEN);
        self.pins = self.pins.only(Pins::STICKY).and(touched.answer.pins);
        if touched.answer.failed.is_some() {
            // What is there is not known, so nobody else may have it.
            self.pins = self.pins.and(Pins::SESSION_BOUND);
            if touched.asks_for_channels.is_some() {
                self.channels_unknown();
            }
            return;
        }
        let channels: Channels = touched.answer.channels.into_iter().collect();
        if touched.asks_for_channels.is_some() {
            server.channels = match touched.unlistens {
                Some(()) => Channels::default(),
                None => channels.clone(),
            };
        } else if kept && !self.pins.contains(Pins::LISTEN) {
            server.channels = Channels::default();
        }
        let was_reset = touched.resets.is_some();
        let answered = touched.answer.settings.into_iter().filter_map(canonical);
        if touched.any_setting.is_some() {
            let there = Settings::default().with(answered);
            let mine = self
                .startup
                .with(there.iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
            self.settings = Arc::new(mine);
            server.settings = if was_reset {
                Arc::new(Settings::from_pairs(there.get("role").map(|role| ("role", role))))
            } else if there == *self.settings {
                self.settings.clone()
            } else {
                Arc::new(there)
            };
        } else {
            let changes: Vec<_> = answered.collect();
            let there = server.settings.with(changes.iter().cloned());
            let mine = self.settings.with(changes);
            server.settings = Arc::new(there);
            self.settings =
                if mine == *server.settings { server.settings.clone() } else { Arc::new(mine) };
        }
        self.heed_settings();
        if touched.asks_for_channels.is_some() {
            self.pins = self.pins.without(Pins::LISTEN);
            self.channels_found(channels);
        }
    }
}

/// A setting as it is kept: none for what belongs to a transaction, nothing for "no role".
fn canonical((name, value): (String, Option<String>)) -> Option<(String, Option<String>)> {
    let name = name.to_ascii_lowercase();
    if name.starts_with("transaction_") || name == "session_authorization" {
        return None;
    }
    let value = value.filter(|value| !(name == "role" && value == "none"));
    Some((name, value))
}

/// What the session listens to.
const CHANNELS_SQL: &str = "SELECT 'c'::pg_catalog.text,c,NULL::pg_catalog.text FROM pg_catalog.pg_listening_channels() AS c";

/// The state that cannot move between servers, as PostgreSQL's own views show it.
const PINS_SQL: &str = "\
SELECT 'p'::pg_catalog.text,'temporary_objects'::pg_catalog.text,NULL::pg_catalog.text \
WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0 AND (\
EXISTS(SELECT FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) OR \
EXISTS(SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())) \
UNION ALL SELECT 'p','advisory_locks',NULL WHERE EXISTS(SELECT FROM pg_catalog.pg_locks \
WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
UNION ALL SELECT 'p','hold_cursors',NULL WHERE EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'p','listen',NULL WHERE EXISTS(SELECT FROM pg_catalog.pg_listening_channels()) \
UNION ALL SELECT 'p','sql_prepared',NULL WHERE EXISTS(SELECT FROM pg_catalog.pg_prepared_statements \
WHERE from_sql OR pg_catalog.left(name,9) OPERATOR(pg_catalog.<>) 'tidegate_') \
UNION ALL SELECT 'p','session_authorization',NULL WHERE EXISTS(SELECT FROM pg_catalog.pg_stat_activity \
WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND usename OPERATOR(pg_catalog.<>) SESSION_USER)";
