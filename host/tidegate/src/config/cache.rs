//! How much is kept of answers, and whether anything may be.

use std::sync::Arc;
use std::time::Duration;

use tidegate_cache::Bounds;
use tidegate_core::limits::{FOLLOW_TIME_DEFAULT, WARM_STATEMENTS_MAX, WRITE_THROUGH_TIME_DEFAULT};

use super::check::{Checker, timeout};
use super::checked::Secret;
use super::error::Problem;
use super::raw::{At, RawCache, RawWarm};
use super::sharing::RedisSettings;

/// Answers unless configured (property 18).
const ENTRIES_DEFAULT: usize = 1_000;
const ENTRIES_MAX: usize = 10_000_000;
const MEMORY_MIB_DEFAULT: usize = 64;
const MEMORY_MIB_MAX: usize = 1 << 20;
/// From so many KiB on, answers are compressed.
const COMPRESS_KIB_DEFAULT: usize = 16;
const COMPRESS_KIB_MAX: usize = 1 << 20;
const INSPECT_MAX: usize = 1_000;
const TTL_DEFAULT: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = tidegate_core::limits::POLICY_TTL_MAX;

/// `[cache]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    pub bounds: Bounds,
    /// Answers of at least so many bytes are compressed; `None`: none are.
    pub pack_min: Option<usize>,
    /// What is kept when there is no room left.
    pub admission: Admission,
    /// So many answers that are given are read once more in a second; 0 for none.
    pub inspect_per_second: u32,
    /// So long a read waits for another of the same; `None`: none does.
    pub single_flight: Option<Duration>,
    /// So long a writer waits for answers that are read again; `None`: none are.
    pub write_through: Option<Duration>,
    /// Who follows writes that pass nobody, if they are followed.
    pub follow: Option<FollowSettings>,
    /// What is asked at start, so that its answers are there.
    pub warm: Vec<WarmSettings>,
    /// What several processes share, if they do.
    pub redis: Option<RedisSettings>,
}

/// `cache.follow_wal`: as whom; the primary URL's user unless written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowSettings {
    pub user: Option<String>,
    pub password: Option<Secret>,
}

/// `[[cache.warm]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmSettings {
    /// The primary URL's unless written; and so is `user`.
    pub database: Option<String>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Start-up parameters.
    pub settings: Vec<(String, String)>,
    pub statements: Arc<[String]>,
}

/// Which answers are kept when others have to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Each.
    #[default]
    Always,
    /// Those that were asked for a while ago.
    Second,
}

impl Admission {
    pub const ALL: [Self; 2] = [Self::Always, Self::Second];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Second => "second",
        }
    }
}

/// Whether answers may be kept in this process at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    Allowed,
    /// The configuration says so, or other processes may write without this one hearing of it.
    Never,
}

impl super::Config {
    /// Others that clients reach by the same address write past this process, unless all share what they keep; and so does one
    /// that hands over and keeps its clients.
    pub fn keeping(&self) -> Keeping {
        let alone = self.peers.is_empty() || self.cache.redis.is_some();
        let alone = alone && self.handover.dir.is_none();
        if alone && self.cache.bounds.entries > 0 { Keeping::Allowed } else { Keeping::Never }
    }
}

impl Checker {
    pub(super) fn cache(&mut self, written: RawCache) -> CacheSettings {
        let RawCache {
            entries_max,
            memory_mib_max,
            ttl_max,
            compress_kib_min,
            admission,
            inspect_per_second,
            single_flight,
            write_through,
            follow_wal,
            follow_user,
            follow_password,
            warm,
            redis,
        } = written;
        let entries =
            self.bounded("cache.entries_max", entries_max, 0..=ENTRIES_MAX, ENTRIES_DEFAULT);
        let mib = self.bounded(
            "cache.memory_mib_max",
            memory_mib_max,
            1..=MEMORY_MIB_MAX,
            MEMORY_MIB_DEFAULT,
        );
        let ttl = match ttl_max {
            None => TTL_DEFAULT,
            Some(At { value, origin }) => {
                if value.is_zero() || value > TTL_MAX {
                    let message = format!("{value:?} is not from 1 ms to {TTL_MAX:?}");
                    self.bad_value(&origin, "cache.ttl_max", message);
                }
                value
            }
        };
        let kib = self.bounded(
            "cache.compress_kib_min",
            compress_kib_min,
            0..=COMPRESS_KIB_MAX,
            COMPRESS_KIB_DEFAULT,
        );
        let pack_min = (kib > 0).then_some(kib << 10);
        let admission = admission.map_or_else(Admission::default, |admission| admission.value);
        let inspect_key = "cache.inspect_per_second";
        let inspections = self.bounded(inspect_key, inspect_per_second, 0..=INSPECT_MAX, 0);
        let inspect_per_second = u32::try_from(inspections).unwrap_or_default();
        let redis = self.redis(redis);
        let bounds = Bounds { entries, bytes: mib << 20, ttl };
        let single_flight = timeout(&single_flight, Some(FOLLOW_TIME_DEFAULT));
        let write_through = timeout(&write_through, Some(WRITE_THROUGH_TIME_DEFAULT));
        let follow = self.follow(follow_wal, follow_user, follow_password);
        let warm = warm.into_iter().map(|warm| self.warm(warm)).collect();
        CacheSettings {
            bounds,
            pack_min,
            admission,
            inspect_per_second,
            single_flight,
            write_through,
            follow,
            warm,
            redis,
        }
    }

    fn follow(
        &mut self,
        follow_wal: Option<At<bool>>,
        user: Option<At<String>>,
        password: Option<At<Secret>>,
    ) -> Option<FollowSettings> {
        if let (Some(password), None) = (&password, &user) {
            let message = "whose password it is says cache.follow_user, which is missing";
            self.contradiction(&password.origin, "cache.follow_password", message);
        }
        follow_wal.is_some_and(|follow| follow.value).then(|| FollowSettings {
            user: user.map(|user| user.value),
            password: password.map(|password| password.value),
        })
    }

    fn warm(&mut self, written: RawWarm) -> WarmSettings {
        let RawWarm { origin, database, user, password, settings, statements, file } = written;
        let mut texts: Vec<String> =
            statements.into_iter().map(|statement| statement.value).collect();
        if let Some(At { value, origin }) = file {
            match std::fs::read_to_string(&value) {
                Ok(text) => texts.extend(statements_of(&text)),
                Err(error) => {
                    let problem = Problem::Unreadable(format!("{}: {error}", value.display()));
                    self.fail(Some(&origin), "cache.warm.file", problem);
                }
            }
        }
        if texts.is_empty() || texts.len() > WARM_STATEMENTS_MAX {
            let message = format!("needs 1 to {WARM_STATEMENTS_MAX} statements, here or in a file");
            self.bad_value(&origin, "cache.warm.statements", message);
        }
        let mut pairs = Vec::with_capacity(settings.len());
        for At { value, origin } in settings {
            match value.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => {
                    pairs.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                _ => self.bad_value(&origin, "cache.warm.settings", "is not NAME=VALUE"),
            }
        }
        WarmSettings {
            database: database.map(|database| database.value),
            user: user.map(|user| user.value),
            password: password.map(|password| password.value),
            settings: pairs,
            statements: texts.into(),
        }
    }
}

/// One in each line that is neither empty nor a comment.
pub fn statements_of(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("--")).map(str::to_owned)
}
