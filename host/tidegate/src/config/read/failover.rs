//! `[failover]` and what is below it.

use super::{Reader, Table};
use crate::config::raw::{RawApiTls, RawEtcd, RawFailover, RawPatroni};

impl Reader<'_> {
    pub(super) fn failover(&mut self, table: &mut Table<'_, '_>) -> RawFailover {
        RawFailover {
            mode: self.value(table, "mode"),
            hold_max: self.value(table, "hold_max"),
            silent_max: self.value(table, "silent_max"),
            restart_max: self.value(table, "restart_max"),
            lag_bytes_max: self.value(table, "lag_bytes_max"),
            interval_min: self.value(table, "interval_min"),
            fencing: self.value(table, "fencing"),
            fence_command: self.list(table, "fence_command"),
            fence_timeout: self.value(table, "fence_timeout"),
            rejoin_command: self.list(table, "rejoin_command"),
            resync_after: self.value(table, "resync_after"),
            user: self.value(table, "user"),
            password: self.value(table, "password"),
            etcd: self.table_at(table, "etcd", "failover.etcd", Self::etcd),
            patroni: self.table_at(table, "patroni", "failover.patroni", Self::patroni),
        }
    }

    fn etcd(&mut self, table: &mut Table<'_, '_>) -> RawEtcd {
        RawEtcd {
            urls: self.list(table, "urls"),
            user: self.value(table, "user"),
            password: self.value(table, "password"),
            tls: self.api_tls(table),
            prefix: self.value(table, "prefix"),
            lease: self.value(table, "lease"),
        }
    }

    fn api_tls(&mut self, table: &mut Table<'_, '_>) -> RawApiTls {
        RawApiTls {
            root_ca: self.value(table, "root_ca"),
            cert: self.value(table, "cert"),
            key: self.value(table, "key"),
        }
    }

    fn patroni(&mut self, table: &mut Table<'_, '_>) -> RawPatroni {
        RawPatroni {
            urls: self.list(table, "urls"),
            user: self.value(table, "user"),
            password: self.value(table, "password"),
            tls: self.api_tls(table),
        }
    }
}
