//! `tidegate.toml` to what was written, with every error and where it is.

mod failover; // [failover]
mod keeping; // [cache], [rates]
mod tables; // tables and values, whatever they are about

use std::sync::Arc;

use toml::de::DeTable;

use super::error::{ConfigError, Problem};
use super::raw::{
    Raw, RawAdmin, RawAlerts, RawAuth, RawCluster, RawHandover, RawHttp, RawLimits, RawLog,
    RawOverride, RawPeer, RawPin, RawPlugins, RawPool, RawQuota, RawRouting, RawServer, RawTls,
};
use super::value::Context;
use tables::Table;

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
            servers: self.servers(&mut root),
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

    fn servers(&mut self, root: &mut Table<'_, '_>) -> Vec<RawServer> {
        self.tables(root, "servers", "tables, each headed [[servers]]", |reader, origin, table| {
            RawServer {
                origin,
                name: reader.value(table, "name"),
                node_exporter: reader.value(table, "node_exporter"),
            }
        })
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
            transaction_replay: self.value(table, "transaction_replay"),
        }
    }

    fn routing(&mut self, table: &mut Table<'_, '_>) -> RawRouting {
        RawRouting {
            reads: self.value(table, "reads"),
            lag_max: self.value(table, "lag_max"),
            lag_return: self.value(table, "lag_return"),
            causality: self.value(table, "causality"),
            catch_up_max: self.value(table, "catch_up_max"),
            slow_start: self.value(table, "slow_start"),
            eject_time: self.value(table, "eject_time"),
            eject_ratio: self.value(table, "eject_ratio"),
            eject_floor: self.value(table, "eject_floor"),
            fallback_percent: self.value(table, "fallback_percent"),
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
}
