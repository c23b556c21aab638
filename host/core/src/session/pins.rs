//! Why a client keeps its server: state that cannot move between servers.

/// Why a client keeps its server between transactions, one bit per cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u16);

impl Pins {
    pub const NONE: Self = Self(0);
    pub const TEMPORARY_OBJECTS: Self = Self(1);
    pub const ADVISORY_LOCKS: Self = Self(1 << 1);
    pub const HOLD_CURSORS: Self = Self(1 << 2);
    pub const LISTEN: Self = Self(1 << 3);
    pub const SQL_PREPARED: Self = Self(1 << 4);
    pub const SESSION_AUTHORIZATION: Self = Self(1 << 5);
    /// `setseed`, until the session is discarded.
    pub const SEED: Self = Self(1 << 6);
    /// `currval` or `lastval` was used, until the session is discarded.
    pub const SEQUENCES: Self = Self(1 << 7);
    /// A library was loaded; only closing the connection undoes it.
    pub const LOADED: Self = Self(1 << 8);
    /// State that cannot be asked for; only closing the connection undoes it.
    pub const SESSION_BOUND: Self = Self(1 << 9);

    /// Every cause with the word for it in metrics and the admin API, which is also what the probe answers.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::TEMPORARY_OBJECTS, "temporary_objects"),
        (Self::ADVISORY_LOCKS, "advisory_locks"),
        (Self::HOLD_CURSORS, "hold_cursors"),
        (Self::LISTEN, "listen"),
        (Self::SQL_PREPARED, "sql_prepared"),
        (Self::SESSION_AUTHORIZATION, "session_authorization"),
        (Self::SEED, "seed"),
        (Self::SEQUENCES, "sequences"),
        (Self::LOADED, "loaded_library"),
        (Self::SESSION_BOUND, "session_bound"),
    ];

    /// The causes that no probe can show, so they stay until DISCARD ALL or the end.
    pub(super) const STICKY: Self =
        Self(Self::SEED.0 | Self::SEQUENCES.0 | Self::LOADED.0 | Self::SESSION_BOUND.0);
    /// The causes that not even DISCARD ALL ends.
    pub(super) const FOR_EVER: Self = Self(Self::LOADED.0 | Self::SESSION_BOUND.0);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |(pin, _)| self.contains(*pin)).map(|(_, name)| *name)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}
