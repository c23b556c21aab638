//! Every bound of the program, named, with why. A queue, map, message or retry without an entry here is a bug.

use std::time::Duration;

// --- start-up, before anybody is authenticated -------------------------------------------------------

/// A start-up packet is at most this long (PostgreSQL: MAX_STARTUP_PACKET_LENGTH), in bytes.
pub const STARTUP_PACKET_BYTES_MAX: usize = 10_000;
/// A password or SASL message before authentication is at most this long (PostgreSQL: PG_MAX_AUTH_TOKEN_LENGTH), in bytes.
pub const AUTH_MESSAGE_BYTES_MAX: usize = 65_535;
/// From accept to ReadyForQuery (PostgreSQL's `authentication_timeout` default).
pub const LOGIN_TIME_MAX: Duration = Duration::from_secs(60);
/// Names longer than this are cut, as PostgreSQL does (NAMEDATALEN - 1), in bytes.
pub const IDENTIFIER_BYTES_MAX: usize = 63;

// --- sessions ----------------------------------------------------------------------------------------

/// A frame longer than this cannot be valid (PostgreSQL: PQ_LARGE_MESSAGE_LIMIT, 1 GiB - 1), in bytes.
pub const FRAME_BYTES_MAX: usize = 0x3fff_ffff;
/// Statement text up to this long is read as a whole and understood; longer text is streamed unread and pins, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 16 << 20;
/// Named prepared statements one client may hold; more is refused with 54000.
pub const PREPARED_PER_CLIENT_MAX: usize = 10_000;
/// Prepared statements kept on one server connection before the least recently used is closed (PgBouncer: 200).
pub const PREPARED_PER_SERVER_MAX: usize = 500;
/// ALTER ROLE … SET and ALTER DATABASE … SET of one transaction that are told apart; more concern everybody.
pub const START_DEFAULTS_MAX: usize = 64;
/// Replies a client may be owed before it is read no further (back-pressure, with a Flush so that they come).
pub const OUTSTANDING_REPLIES_MAX: usize = 4_096;

// --- routing -----------------------------------------------------------------------------------------

/// Positions of the primary's log that are remembered to tell how fresh replicas are. At five a second this is more than
/// twice as far back as a replica may lag and still be read.
pub const FRESHNESS_SAMPLES_MAX: usize = 64;

/// A replica further behind serves no reads (property 10).
pub const REPLICA_LAG_MAX: Duration = Duration::from_secs(5);
/// One that was too far behind serves reads again below this (property 10).
pub const REPLICA_LAG_RETURN: Duration = Duration::from_secs(2);
/// Databases whose catalogue is kept; statements of others stay on the primary.
pub const CATALOGUES_MAX: usize = 64;
/// Functions and relations of one database beyond which its catalogue is not kept (some 100 bytes each).
pub const CATALOGUE_ROWS_MAX: usize = 500_000;

// --- statements --------------------------------------------------------------------------------------

/// Text up to this long gets a fingerprint (about a nanosecond a byte), in bytes; longer text runs on the primary.
pub const SHAPE_TEXT_BYTES_MAX: usize = 1 << 20;
/// What is left of a text without its literals is parsed up to this length, in bytes.
pub const SHAPE_PARSE_BYTES_MAX: usize = 256 << 10;
/// Tokens of a text without its literals: a bound on the parser's time and memory (about 100 ns and 200 bytes each).
pub const SHAPE_TOKENS_MAX: usize = 8_192;
/// Uses of tables, of columns, and functions that one shape may list, each.
pub const SHAPE_NAMES_MAX: usize = 256;
/// Normalized text that a shape keeps, in bytes.
pub const NORMALIZED_BYTES_MAX: usize = 8 << 10;
/// Memory of one worker's cache of shapes, unless configured: some 30 000 statements of an ordinary application, in bytes.
pub const SHAPE_CACHE_BYTES_MAX: usize = 32 << 20;
/// That a text cannot be parsed is believed this long: an extension or a newer grammar is not a matter of seconds, but
/// the text whose literal was at fault says nothing about the next one.
pub const SHAPE_REFUSED_TIME: Duration = Duration::from_secs(1);
/// Tags that are read from one statement's comments, and the bytes of comments that are looked at.
pub const TAGS_MAX: usize = 32;
pub const TAGS_BYTES_MAX: usize = 8 << 10;

// --- pools -------------------------------------------------------------------------------------------

/// Server connections a pool keeps at least / at most (property 13).
pub const POOL_SIZE_MIN: usize = 10;
pub const POOL_SIZE_MAX: usize = 50;
/// An idle server connection above the minimum is closed after this (property 14).
pub const POOL_IDLE_MAX: Duration = Duration::from_secs(300);
/// Utilisation that warns, and that clears the warning, in percent (property 15).
pub const POOL_UTILISATION_WARN_PERCENT: u32 = 80;
pub const POOL_UTILISATION_CLEAR_PERCENT: u32 = 70;
/// A statement waits for a server connection at most this long.
pub const POOL_WAIT_MAX: Duration = Duration::from_secs(30);
/// Clients that may wait for one pool.
pub const POOL_WAITERS_MAX: usize = 20_000;
/// Attempts to open a server connection before a waiter is told (property 41).
pub const CONNECT_ATTEMPTS_MAX: u32 = 3;
/// First pause after a failed connection; it doubles (property 16) up to the maximum.
pub const CONNECT_BACKOFF_FIRST: Duration = Duration::from_secs(1);
pub const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// One attempt to connect and log in to a server.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

// --- the process -------------------------------------------------------------------------------------

/// Clients connected at once, unless configured; each is a file descriptor and a few hundred bytes.
pub const CLIENTS_MAX: usize = 20_000;
/// A drain waits this long for clients to finish, unless configured (Kubernetes kills after 30 s).
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
/// What `limits.clients_max` and `pool.size_max` may be set to.
pub const CLIENTS_CONFIG_MAX: usize = 1_000_000;
pub const POOL_SIZE_CONFIG_MAX: usize = 10_000;
/// A server connection is replaced at this age, unless configured (PgBouncer's `server_lifetime`).
pub const SERVER_LIFETIME_MAX: Duration = Duration::from_secs(3_600);
/// Data-plane threads; more than any machine's cores is a typing error.
pub const WORKERS_MAX: usize = 1_024;

// --- configuration -----------------------------------------------------------------------------------

/// `tidegate.toml`, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The users file, in bytes: more than a hundred thousand users.
pub const USERS_FILE_BYTES_MAX: u64 = 16 << 20;
/// A token file, in bytes.
pub const TOKEN_FILE_BYTES_MAX: u64 = 4_096;
/// Any configured duration, so that no deadline overflows a clock.
pub const CONFIG_DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

// --- the admin API -----------------------------------------------------------------------------------

/// Connections at once; more wait in the kernel's backlog.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// A request head, in bytes and in header lines (hyper's minimum buffer is 8 KiB).
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 << 10;
pub const ADMIN_HEADERS_MAX: usize = 64;
/// A request body, in bytes: no resource reads one yet.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;
/// From the first byte a connection may send to the end of the head, and from there to the end of the body.
pub const ADMIN_HEAD_TIME_MAX: Duration = Duration::from_secs(10);
pub const ADMIN_BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The rest of the process answers the admin API within this.
pub const ADMIN_ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// A connection is asked to close at this age, and cut soon after: a reader that stalls holds nothing for ever.
pub const ADMIN_CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
pub const ADMIN_CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// Clients or servers one answer lists, unless `?limit=` says otherwise; and what it may say.
pub const ADMIN_LIST_DEFAULT: usize = 1_000;
pub const ADMIN_LIST_MAX: usize = 100_000;

/// Connections one worker opens at the same time for one pool; more would only make the server's fork queue longer.
pub const POOL_CONNECTING_MAX: usize = 8;
/// Pause between two calls for help from a worker whose clients wait while others hold the pool's connections.
pub const POOL_BEG_INTERVAL: Duration = Duration::from_millis(100);
/// A client waits this long before its worker calls for help, if the worker has connections of the pool at all.
pub const POOL_BEG_AFTER: Duration = Duration::from_millis(50);
/// Calls for help one pool part remembers; a worker has at most one, so this bounds the number of workers that can starve.
pub const POOL_DEBTS_MAX: usize = 256;
/// Pause before an idle connection that the minimum keeps alive is looked at again.
pub const POOL_IDLE_RECHECK: Duration = Duration::from_secs(5);
/// Bytes an idle server connection may send (parameter changes, notices) between two checks before it is given up.
pub const POOL_IDLE_BYTES_MAX: usize = 8_192;

// --- circuit breaker (property 42) -------------------------------------------------------------------

/// Outcomes of the last this many seconds decide; one bucket a second.
pub const BREAKER_WINDOW_SECS: usize = 60;
/// Failures, in percent of the calls in the window, from which the breaker opens.
pub const BREAKER_FAILURE_PERCENT: u32 = 50;
/// Fewer calls than this in the window prove nothing.
pub const BREAKER_CALLS_MIN: u32 = 5;
/// An open breaker rejects for this long, then lets one probe through.
pub const BREAKER_OPEN_TIME: Duration = Duration::from_secs(30);

/// Attempts in a row at a server that is full, while idle connections of other pools are closed, before clients are told.
pub const ROOM_TRIES_MAX: u32 = 5;
/// Pause before such an attempt is repeated: a closed connection's slot is free when its process has ended.
pub const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// Pauses between probes of a server that is lost: they double from the first to the longest, which is shorter while
/// clients want a connection, and for so long after the last one did.
pub const PROBE_PAUSE_FIRST: Duration = Duration::from_millis(500);
pub const PROBE_PAUSE_WANTED_MAX: Duration = Duration::from_secs(2);
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(10);
pub const PROBE_WANTED_TIME: Duration = Duration::from_secs(30);

const _: () = assert!(POOL_SIZE_MIN <= POOL_SIZE_MAX);
const _: () = assert!(POOL_SIZE_MAX >= 1 && POOL_CONNECTING_MAX >= 1 && CONNECT_ATTEMPTS_MAX >= 1);
const _: () = assert!(PROBE_PAUSE_FIRST.as_nanos() <= PROBE_PAUSE_WANTED_MAX.as_nanos());
const _: () = assert!(PROBE_PAUSE_WANTED_MAX.as_nanos() <= PROBE_PAUSE_MAX.as_nanos());
const _: () = assert!(POOL_UTILISATION_CLEAR_PERCENT < POOL_UTILISATION_WARN_PERCENT);
const _: () = assert!(STATEMENT_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(ADMIN_LIST_DEFAULT <= ADMIN_LIST_MAX);
const _: () = assert!(CLIENTS_MAX <= CLIENTS_CONFIG_MAX);
const _: () = assert!(POOL_SIZE_MAX <= POOL_SIZE_CONFIG_MAX);

// --- who is who --------------------------------------------------------------------------------------

/// What is known of a user, or that there is none, is believed this long: a storm of logins is one query.
pub const USER_CACHE_TIME_MAX: Duration = Duration::from_secs(1);
/// The look-up of the operator's own user, whose answer is not needed, is waited for at most this long.
pub const OWN_USER_LOOKUP_TIME_MAX: Duration = Duration::from_secs(1);
/// That passwords cannot be read at all is believed this long.
pub const USER_DENIED_TIME_MAX: Duration = Duration::from_secs(30);
/// Failed logins from one address that are answered at once; the next waits for the first delay, and each after that
/// twice as long as the one before, up to the longest. Who has not failed for so long starts anew.
pub const LOGIN_FAILURES_FREE: u32 = 10;
pub const LOGIN_DELAY_FIRST: Duration = Duration::from_millis(100);
pub const LOGIN_DELAY_MAX: Duration = Duration::from_secs(2);
pub const LOGIN_FAILURES_TIME: Duration = Duration::from_secs(60);
/// Addresses, and users at an address, whose failures are counted (some 100 bytes each).
pub const LOGIN_FAILURES_TRACKED_MAX: usize = 10_000;
/// Users remembered at a time; the one not asked for longest is forgotten first.
pub const USERS_CACHED_MAX: usize = 1_000;
/// Logins that may wait for their user to be looked up; more are refused.
pub const USER_LOOKUPS_WAITING_MAX: usize = 1_000;
/// Logins tried at the server at a time on behalf of clients that nobody knows yet.
pub const LOGIN_TRIALS_MAX: usize = 8;
/// A message from a server while we log in or ask it something ourselves is at most this long, in bytes.
pub const SERVER_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// After telling a client why it is refused, this long is given for the message to be read before the socket goes.
pub const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
/// Bytes of a refused client that are read and thrown away so that its socket is not reset, at most.
pub const LINGER_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(LOGIN_DELAY_FIRST.as_nanos() <= LOGIN_DELAY_MAX.as_nanos());
const _: () = assert!(LOGIN_DELAY_MAX.as_nanos() < LOGIN_TIME_MAX.as_nanos());
