//! `tidegate.toml` to what was written, with every error and where it is.

mod failover; // [failover]
mod keeping; // [cache], [rates]

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, Problem, nearest};
use super::keys::{KEYS, TABLES};
use super::raw::{
    At, Raw, RawAdmin, RawAlerts, RawAuth, RawCluster, RawHandover, RawHttp, RawLimits, RawLog,
    RawOverride, RawPeer, RawPin, RawPlugins, RawPool, RawQuota, RawRouting, RawTls,
};
use super::value::{Bare, Context, FromText, expand};

/// What reading a file gave: values where they could be read, and everything that is wrong.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) raw: Raw,
    pub(super) errors: Vec<ConfigError>,
}

/// Reads a whole file, called `file` in errors.
pub(super) fn read(text: &str, file: &str, context: Context<'_>) -> Reading {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, file: file.into(), context, errors: Vec::new() };
    for error in syntax {
        let origin = reader.origin(error.span().unwrap_or(0..0));
        reader.errors.push(ConfigError {
            origin: Some(origin),
            key: String::new(),
            problem: Problem::Syntax(error.message().to_owned()),
        });
    }
    let raw = reader.document(document.get_ref());
    Reading { raw, errors: reader.errors }
}

struct Reader<'a> {
    text: &'a str,
    file: Arc<str>,
    context: Context<'a>,
    errors: Vec<ConfigError>,
}

/// One table of the document; each key that is taken is known from then on.
struct Table<'t, 'i> {
    path: &'static str,
    entries: &'t DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    fn new(path: &'static str, entries: &'t DeTable<'i>) -> Self {
        Self { path, entries, known: Vec::new() }
    }

    fn take(&mut self, name: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        debug_assert!(self.is_documented(name), "{} is not in KEYS", self.path_of(name));
        self.known.push(name);
        let found = self.entries.iter().find(|(key, _)| key.get_ref() == name);
        found.map(|(_, value)| value)
    }

    fn is_documented(&self, name: &str) -> bool {
        let path = self.path_of(name);
        let is_table = TABLES.iter().any(|(table, _)| *table == path);
        is_table || KEYS.iter().any(|key| key.table == self.path && key.name == name)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) -> Raw {
        let mut root = Table::new("", document);
        let raw = Raw {
            listen: self.list(&mut root, "listen"),
            workers: self.value(&mut root, "workers"),
            io: self.value(&mut root, "io"),
            peer_id: self.value(&mut root, "peer_id"),
            peers: self.peers(&mut root),
            cluster: self.table(&mut root, "cluster", Self::cluster),
            admin: self.table(&mut root, "admin", Self::admin),
            http: self.table(&mut root, "http", Self::http),
            pool: self.table(&mut root, "pool", Self::pool),
            pools: self.overrides(&mut root),
            quotas: self.quotas(&mut root),
            routing: self.table(&mut root, "routing", Self::routing),
            failover: self.table(&mut root, "failover", Self::failover),
            alerts: self.alerts(&mut root),
            plugins: self.table(&mut root, "plugins", Self::plugins),
            pins: self.pins(&mut root),
            auth: self.table(&mut root, "auth", Self::auth),
            tls: self.table(&mut root, "tls", Self::tls),
            handover: self.table(&mut root, "handover", Self::handover),
            limits: self.table(&mut root, "limits", Self::limits),
            rates: self.table(&mut root, "rates", Self::rates),
            cache: self.table(&mut root, "cache", Self::cache),
            log: self.table(&mut root, "log", Self::log),
        };
        self.unknown_keys(&root);
        raw
    }

    fn cluster(&mut self, table: &mut Table<'_, '_>) -> RawCluster {
        RawCluster {
            primary: self.value(table, "primary"),
            replicas: self.list(table, "replicas"),
            password: self.value(table, "password"),
        }
    }

    fn admin(&mut self, table: &mut Table<'_, '_>) -> RawAdmin {
        RawAdmin {
            address: self.value(table, "address"),
            token: self.value(table, "token"),
            token_file: self.value(table, "token_file"),
            allow_remote: self.value(table, "allow_remote"),
            open_metrics: self.value(table, "open_metrics"),
        }
    }

    fn http(&mut self, table: &mut Table<'_, '_>) -> RawHttp {
        RawHttp {
            listen: self.value(table, "listen"),
            allow_plain: self.value(table, "allow_plain"),
            cors_origins: self.list(table, "cors_origins"),
            connections_max: self.value(table, "connections_max"),
            body_mib_max: self.value(table, "body_mib_max"),
            result_mib_max: self.value(table, "result_mib_max"),
            time_max: self.value(table, "time_max"),
        }
    }

    fn pool(&mut self, table: &mut Table<'_, '_>) -> RawPool {
        RawPool {
            mode: self.value(table, "mode"),
            size_min: self.value(table, "size_min"),
            size_max: self.value(table, "size_max"),
            critical_max: self.value(table, "critical_max"),
            idle_max: self.value(table, "idle_max"),
            lifetime_max: self.value(table, "lifetime_max"),
            wait_max: self.value(table, "wait_max"),
            pause_max: self.value(table, "pause_max"),
            utilisation_warn_percent: self.value(table, "utilisation_warn_percent"),
            utilisation_clear_percent: self.value(table, "utilisation_clear_percent"),
            connect_timeout: self.value(table, "connect_timeout"),
        }
    }

    fn routing(&mut self, table: &mut Table<'_, '_>) -> RawRouting {
        RawRouting {
            reads: self.value(table, "reads"),
            lag_max: self.value(table, "lag_max"),
            lag_return: self.value(table, "lag_return"),
            causality: self.value(table, "causality"),
            catch_up_max: self.value(table, "catch_up_max"),
        }
    }

    fn auth(&mut self, table: &mut Table<'_, '_>) -> RawAuth {
        RawAuth {
            method: self.value(table, "method"),
            users_file: self.value(table, "users_file"),
            hba_file: self.value(table, "hba_file"),
            query: self.value(table, "query"),
            query_user: self.value(table, "query_user"),
            query_password: self.value(table, "query_password"),
            query_database: self.value(table, "query_database"),
            trust_remote: self.value(table, "trust_remote"),
        }
    }

    fn tls(&mut self, table: &mut Table<'_, '_>) -> RawTls {
        RawTls {
            mode: self.value(table, "mode"),
            cert: self.value(table, "cert"),
            key: self.value(table, "key"),
            client_ca: self.value(table, "client_ca"),
        }
    }

    fn handover(&mut self, table: &mut Table<'_, '_>) -> RawHandover {
        RawHandover { dir: self.value(table, "dir"), grace: self.value(table, "grace") }
    }

    fn limits(&mut self, table: &mut Table<'_, '_>) -> RawLimits {
        RawLimits {
            clients_max: self.value(table, "clients_max"),
            login_timeout: self.value(table, "login_timeout"),
            statement_timeout: self.value(table, "statement_timeout"),
            critical_statement_timeout: self.value(table, "critical_statement_timeout"),
            client_idle_timeout: self.value(table, "client_idle_timeout"),
            idle_in_transaction_timeout: self.value(table, "idle_in_transaction_timeout"),
            shutdown_grace: self.value(table, "shutdown_grace"),
            prepared_per_server_max: self.value(table, "prepared_per_server_max"),
        }
    }

    fn log(&mut self, table: &mut Table<'_, '_>) -> RawLog {
        RawLog { format: self.value(table, "format"), filter: self.value(table, "filter") }
    }

    fn overrides(&mut self, root: &mut Table<'_, '_>) -> Vec<RawOverride> {
        self.tables(root, "pools", "tables, each headed [[pools]]", |reader, origin, table| {
            RawOverride {
                origin,
                database: reader.value(table, "database"),
                user: reader.value(table, "user"),
                settings: reader.pool(table),
            }
        })
    }

    fn quotas(&mut self, root: &mut Table<'_, '_>) -> Vec<RawQuota> {
        self.tables(root, "quotas", "tables, each headed [[quotas]]", |reader, origin, table| {
            RawQuota {
                origin,
                database: reader.value(table, "database"),
                user: reader.value(table, "user"),
                clients_max: reader.value(table, "clients_max"),
                servers_max: reader.value(table, "servers_max"),
            }
        })
    }

    fn alerts(&mut self, root: &mut Table<'_, '_>) -> Vec<RawAlerts> {
        self.tables(root, "alerts", "tables, each headed [[alerts]]", |reader, origin, table| {
            RawAlerts {
                origin,
                kind: reader.value(table, "kind"),
                url: reader.value(table, "url"),
                token: reader.value(table, "token"),
                from: reader.value(table, "from"),
                to: reader.list(table, "to"),
                user: reader.value(table, "user"),
                password: reader.value(table, "password"),
                root_ca: reader.value(table, "root_ca"),
                repeat: reader.value(table, "repeat"),
            }
        })
    }

    fn plugins(&mut self, table: &mut Table<'_, '_>) -> RawPlugins {
        RawPlugins {
            state_dir: self.value(table, "state_dir"),
            signatures: self.value(table, "signatures"),
            keys: self.list(table, "keys"),
            memory_mib_max: self.value(table, "memory_mib_max"),
            plan_time_max: self.value(table, "plan_time_max"),
            decide_time_max: self.value(table, "decide_time_max"),
        }
    }

    fn pins(&mut self, root: &mut Table<'_, '_>) -> Vec<RawPin> {
        self.tables(root, "pins", "tables, each headed [[pins]]", |reader, origin, table| RawPin {
            origin,
            slot: reader.value(table, "slot"),
            file: reader.value(table, "file"),
            sha256: reader.value(table, "sha256"),
            settings: reader.value(table, "settings"),
        })
    }

    fn peers(&mut self, root: &mut Table<'_, '_>) -> Vec<RawPeer> {
        let expected = "tables, each headed [[peers]]";
        self.tables(root, "peers", expected, |reader, origin, table| RawPeer {
            origin,
            id: reader.value(table, "id"),
            address: reader.value(table, "address"),
        })
    }

    /// Reads an array of tables.
    fn tables<T>(
        &mut self,
        root: &mut Table<'_, '_>,
        name: &'static str,
        expected: &'static str,
        read: fn(&mut Self, Origin, &mut Table<'_, '_>) -> T,
    ) -> Vec<T> {
        self.tables_at(root, name, name, expected, read)
    }

    /// The same inside another table; `path` is what the whole document calls it.
    fn tables_at<T>(
        &mut self,
        outer: &mut Table<'_, '_>,
        name: &'static str,
        path: &'static str,
        expected: &'static str,
        read: fn(&mut Self, Origin, &mut Table<'_, '_>) -> T,
    ) -> Vec<T> {
        let Some(written) = outer.take(name) else {
            return Vec::new();
        };
        let Some(tables) = written.get_ref().as_array() else {
            self.wrong_type(path, written, expected);
            return Vec::new();
        };
        let mut all = Vec::new();
        for written in tables.iter() {
            let Some(entries) = written.get_ref().as_table() else {
                self.wrong_type(path, written, "a table");
                continue;
            };
            let mut table = Table::new(path, entries);
            let origin = self.origin(written.span());
            all.push(read(self, origin, &mut table));
            self.unknown_keys(&table);
        }
        all
    }

    /// Reads a table of the document; a missing one reads as an empty one.
    fn table<T>(
        &mut self,
        root: &mut Table<'_, '_>,
        name: &'static str,
        read: fn(&mut Self, &mut Table<'_, '_>) -> T,
    ) -> T {
        self.table_at(root, name, name, read)
    }

    /// The same inside another table; `path` is what the whole document calls it.
    fn table_at<T>(
        &mut self,
        outer: &mut Table<'_, '_>,
        name: &'static str,
        path: &'static str,
        read: fn(&mut Self, &mut Table<'_, '_>) -> T,
    ) -> T {
        let empty = DeTable::new();
        let written = outer.take(name);
        let entries = written.and_then(|written| written.get_ref().as_table());
        if let (Some(written), None) = (written, entries) {
            self.wrong_type(path, written, "a table");
        }
        let mut table = Table::new(path, entries.unwrap_or(&empty));
        let read = read(self, &mut table);
        self.unknown_keys(&table);
        read
    }

    fn value<T: FromText>(
        &mut self,
        table: &mut Table<'_, '_>,
        name: &'static str,
    ) -> Option<At<T>> {
        let path = table.path_of(name);
        table.take(name).and_then(|written| self.convert(&path, written))
    }

    /// Reads an array; one value alone is an array of one.
    fn list<T: FromText>(&mut self, table: &mut Table<'_, '_>, name: &'static str) -> Vec<At<T>> {
        let path = table.path_of(name);
        let Some(written) = table.take(name) else {
            return Vec::new();
        };
        match written.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| self.convert(&path, item)).collect()
            }
            _ => self.convert(&path, written).into_iter().collect(),
        }
    }

    fn convert<T: FromText>(
        &mut self,
        path: &str,
        written: &Spanned<DeValue<'_>>,
    ) -> Option<At<T>> {
        let origin = self.origin(written.span());
        let text = match (written.get_ref(), T::BARE) {
            (DeValue::String(text), _) => expand(text, self.context),
            (DeValue::Integer(number), Bare::Integer) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Ok(number.to_string()),
                    Err(_) => Err("the number is too large".to_owned()),
                }
            }
            (DeValue::Boolean(value), Bare::Boolean) => Ok(value.to_string()),
            _ => {
                self.wrong_type(path, written, T::EXPECTED);
                return None;
            }
        };
        let value = text.and_then(|text| T::from_text(&text, self.context));
        match value {
            Ok(value) => Some(At { value, origin }),
            Err(message) => {
                self.push(origin, path.to_owned(), Problem::BadValue(message));
                None
            }
        }
    }

    fn wrong_type(&mut self, path: &str, written: &Spanned<DeValue<'_>>, expected: &'static str) {
        let found = match written.get_ref() {
            DeValue::Integer(_) => "an integer",
            DeValue::Array(_) => "an array",
            DeValue::String(_) => "a string",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Table(_) => "a table",
        };
        let origin = self.origin(written.span());
        self.push(origin, path.to_owned(), Problem::WrongType { expected, found });
    }

    fn unknown_keys(&mut self, table: &Table<'_, '_>) {
        for (key, _) in table.entries.iter() {
            let name = key.get_ref().as_ref();
            if table.known.contains(&name) {
                continue;
            }
            // A key of that very name in another table was meant more likely than a similar one
            // here.
            let elsewhere = KEYS.iter().find(|known| known.name == name).map(|key| key.path());
            let here = || nearest(name, table.known.iter().copied()).map(str::to_owned);
            let problem = Problem::UnknownKey { nearest: elsewhere.or_else(here) };
            let origin = self.origin(key.span());
            self.push(origin, table.path_of(name), problem);
        }
    }

    fn push(&mut self, origin: Origin, key: String, problem: Problem) {
        self.errors.push(ConfigError { origin: Some(origin), key, problem });
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            file: Arc::clone(&self.file),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}
