//! What is kept of answers, and what is counted of statements.

use super::super::raw::{RawCache, RawRateRedis, RawRates, RawRedis, RawWarm};
use super::{Reader, Table};

impl Reader<'_> {
    pub(super) fn cache(&mut self, table: &mut Table<'_, '_>) -> RawCache {
        RawCache {
            entries_max: self.value(table, "entries_max"),
            memory_mib_max: self.value(table, "memory_mib_max"),
            ttl_max: self.value(table, "ttl_max"),
            compress_kib_min: self.value(table, "compress_kib_min"),
            admission: self.value(table, "admission"),
            inspect_per_second: self.value(table, "inspect_per_second"),
            single_flight: self.value(table, "single_flight"),
            write_through: self.value(table, "write_through"),
            follow_wal: self.value(table, "follow_wal"),
            follow_user: self.value(table, "follow_user"),
            follow_password: self.value(table, "follow_password"),
            warm: self.warm(table),
            redis: self.table_at(table, "redis", "cache.redis", Self::redis),
        }
    }

    fn warm(&mut self, cache: &mut Table<'_, '_>) -> Vec<RawWarm> {
        let (path, expected) = ("cache.warm", "tables, each headed [[cache.warm]]");
        self.tables_at(cache, "warm", path, expected, |reader, origin, table| RawWarm {
            origin,
            database: reader.value(table, "database"),
            user: reader.value(table, "user"),
            password: reader.value(table, "password"),
            settings: reader.list(table, "settings"),
            statements: reader.list(table, "statements"),
            file: reader.value(table, "file"),
        })
    }

    fn redis(&mut self, table: &mut Table<'_, '_>) -> RawRedis {
        RawRedis {
            url: self.value(table, "url"),
            root_ca: self.value(table, "root_ca"),
            prefix: self.value(table, "prefix"),
            deadline: self.value(table, "deadline"),
            lease: self.value(table, "lease"),
            reliance: self.value(table, "reliance"),
        }
    }

    pub(super) fn rates(&mut self, table: &mut Table<'_, '_>) -> RawRates {
        RawRates {
            per_end_user: self.value(table, "per_end_user"),
            all: self.value(table, "all"),
            window: self.value(table, "window"),
            wait_max: self.value(table, "wait_max"),
            administrators: self.list(table, "administrators"),
            redis: self.table_at(table, "redis", "rates.redis", Self::rate_redis),
        }
    }

    fn rate_redis(&mut self, table: &mut Table<'_, '_>) -> RawRateRedis {
        RawRateRedis {
            url: self.value(table, "url"),
            root_ca: self.value(table, "root_ca"),
            prefix: self.value(table, "prefix"),
            deadline: self.value(table, "deadline"),
            fail_mode: self.value(table, "fail_mode"),
        }
    }
}
