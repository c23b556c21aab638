//! Counters of one worker: written by that worker alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_core::session::{Pins, ReplayObstacle};

/// A number with one writer. Increments are a plain load and store: no locked instruction on the
/// data path.
///
/// Two threads that write the same counter lose increments; that is the contract, not a fault to
/// defend against.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn increment(&self) {
        self.add(1);
    }

    /// For what is counted elsewhere, and told now and then.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// For gauges; stops at zero rather than wrap.
    pub fn decrement(&self) {
        self.0.store(self.get().saturating_sub(1), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares an enum that indexes an array of counters, with the label each variant has in metrics.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of the metric's label, and what the admin API says.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl CounterLabel for $name {
            const LABELS: &'static [&'static str] = &[$($label,)*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// A closed set of label values.
pub trait CounterLabel: Copy {
    const LABELS: &'static [&'static str];

    /// Below `LABELS.len()`.
    fn index(self) -> usize;
}

labels! {
    /// What kind of error a client was answered with, or that ended its connection.
    ErrorKind {
        /// Bytes that are not the protocol.
        Protocol = "protocol",
        /// A message or start-up packet beyond its bound.
        TooLarge = "too_large",
        /// TLS refused, demanded or failed.
        Tls = "tls",
        /// A wrong password, an unknown user, a method that can't be used.
        Authentication = "authentication",
        /// `clients_max` was reached.
        TooManyClients = "too_many_clients",
        /// The login took too long.
        LoginTimeout = "login_timeout",
        /// No server connection within `wait_max`.
        PoolTimeout = "pool_timeout",
        /// The queue of a pool was full.
        PoolQueueFull = "pool_queue_full",
        /// A limit had no room for the statement.
        RateLimited = "rate_limited",
        /// The routing policy rejected the statement.
        Rejected = "rejected",
        /// No connection to a server could be made.
        ServerUnreachable = "server_unreachable",
        /// The server refused the login.
        ServerLogin = "server_login",
        /// The server went away in the middle of work.
        ServerLost = "server_lost",
        /// The client went away in the middle of work.
        ClientLost = "client_lost",
        /// `client_idle_timeout` or `idle_in_transaction_timeout`.
        IdleTimeout = "idle_timeout",
        StatementTimeout = "statement_timeout",
        /// The statement asks for something Tidegate does not do.
        Unsupported = "unsupported",
        /// The process is draining.
        Shutdown = "shutdown",
        /// A fault of Tidegate itself.
        Internal = "internal",
    }
}

labels! {
    /// The slots of policies that statements are planned by.
    PlanSlot {
        Routing = "routing",
        Limiting = "limiting",
    }
}

labels! {
    /// What has become of a request to the HTTP endpoint.
    HttpOutcome {
        /// Its statements ran, and it has all of their rows.
        Answered = "answered",
        /// A statement failed.
        Failed = "failed",
        /// It is no request that is understood, or is too large.
        BadRequest = "bad_request",
        /// Its user is not let in, or its page.
        Unauthorized = "unauthorized",
        /// A limit has no room for it.
        Limited = "limited",
        /// No server can be had, or not in time.
        Unavailable = "unavailable",
        /// A statement failed after its first rows had gone out.
        Cut = "cut",
        /// Its client left before the end.
        Gone = "gone",
        /// A browser asked whether it may ask.
        Preflight = "preflight",
    }
}

/// Requests to the HTTP endpoint, by what has become of them. Its threads all count here: a request costs much more.
#[derive(Debug, Default)]
pub struct HttpTotals([AtomicU64; HttpOutcome::ALL.len()]);

impl HttpTotals {
    pub fn count(&self, outcome: HttpOutcome) {
        if let Some(counter) = self.0.get(outcome.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> Vec<u64> {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).collect()
    }
}

/// Why a client keeps its server beyond a transaction: a position in [`Pins::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinReason(pub usize);

impl CounterLabel for PinReason {
    const LABELS: &'static [&'static str] = &{
        let mut labels = [""; Pins::ALL.len()];
        let mut index = 0;
        while index < labels.len() {
            labels[index] = Pins::ALL[index].1;
            index += 1;
        }
        labels
    };

    fn index(self) -> usize {
        self.0
    }
}

/// Why an interrupted transaction was not run again: a position in [`ReplayObstacle::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp(pub ReplayObstacle);

impl CounterLabel for GivenUp {
    const LABELS: &'static [&'static str] = &{
        let mut labels = [""; ReplayObstacle::ALL.len()];
        let mut index = 0;
        while index < labels.len() {
            labels[index] = ReplayObstacle::ALL[index].label();
            index += 1;
        }
        labels
    };

    fn index(self) -> usize {
        ReplayObstacle::ALL.iter().position(|why| *why == self.0).unwrap_or_default()
    }
}

/// One counter for each value of a label.
#[derive(Debug)]
pub struct CounterBy<L: CounterLabel> {
    counters: Box<[Counter]>,
    label: std::marker::PhantomData<L>,
}

impl<L: CounterLabel> Default for CounterBy<L> {
    fn default() -> Self {
        let counters = L::LABELS.iter().map(|_| Counter::default()).collect();
        Self { counters, label: std::marker::PhantomData }
    }
}

impl<L: CounterLabel> CounterBy<L> {
    pub fn increment(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.increment();
        }
    }

    /// For what is counted elsewhere.
    pub fn set(&self, label: L, value: u64) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.set(value);
        }
    }

    pub fn get(&self, label: L) -> u64 {
        self.counters.get(label.index()).map_or(0, Counter::get)
    }

    /// In the order of the label's values.
    pub fn values(&self) -> Vec<u64> {
        self.counters.iter().map(Counter::get).collect()
    }
}

/// Declares [`WorkerStats`] and the plain copy of it.
macro_rules! worker_stats {
    ($($(#[$doc:meta])* $field:ident,)* ; $($(#[$by_doc:meta])* $by_field:ident: $label:ty,)*) => {
        /// What one worker counts. Aligned so that no two workers share a cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct WorkerStats {
            $($(#[$doc])* pub $field: Counter,)*
            $($(#[$by_doc])* pub $by_field: CounterBy<$label>,)*
        }

        /// A copy of [`WorkerStats`] at one moment, or the sum of several.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct WorkerTotals {
            $(pub $field: u64,)*
            $(pub $by_field: Vec<u64>,)*
        }

        impl WorkerStats {
            pub fn totals(&self) -> WorkerTotals {
                WorkerTotals {
                    $($field: self.$field.get(),)*
                    $($by_field: self.$by_field.values(),)*
                }
            }
        }

        impl WorkerTotals {
            /// Adds what another worker counted.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
                $(add_each(&mut self.$by_field, &other.$by_field);)*
            }
        }
    };
}

worker_stats! {
    clients_accepted,
    /// A gauge: clients connected now, logging in included.
    clients_open,
    logins_ok,
    logins_failed,
    /// Transactions that ended, committed or not; a statement outside a block is one.
    transactions,
    statements,
    bytes_from_clients,
    bytes_to_clients,
    bytes_to_servers,
    bytes_from_servers,
    cancels,
    /// Times a server was asked what state a client had left.
    probes,
    /// `SET`s sent to a server so that it has what its client set.
    settings_applied,
    /// Prepared statements sent again since this server did not know them.
    reprepared,
    reads_waited,
    /// Reads that no replica was fit for, or that the one that was chosen did not take.
    reads_fallen_back,
    reads_repeated,
    reads_disproved,
    /// Interrupted transactions that were run again, each time; that came back as they were, and that did not.
    replays,
    replays_succeeded,
    replays_differed,
    /// Prepared statements closed on a server to keep within its bound.
    prepared_evicted,
    /// Times a client waited for a server connection, and for how long in all.
    pool_waits,
    pool_wait_micros,
    servers_opened,
    servers_closed,
    server_connect_failures,
    /// A gauge: connections that listen for clients.
    listeners_open,
    /// Times one was lost while clients listened.
    listeners_lost,
    /// Notifications that came for clients.
    notifications,
    /// Texts whose shape was known, those that were parsed, and shapes that made room for others.
    shapes_found,
    shapes_made,
    shapes_evicted,
    ;
    /// Statements whose plan was known, and plans made.
    plans_found: PlanSlot,
    plans_made: PlanSlot,
    errors: ErrorKind,
    pins: PinReason,
    replays_given_up: GivenUp,
}

fn add_each(sum: &mut Vec<u64>, other: &[u64]) {
    if sum.len() < other.len() {
        sum.resize(other.len(), 0);
    }
    for (value, more) in sum.iter_mut().zip(other) {
        *value = value.wrapping_add(*more);
    }
}
