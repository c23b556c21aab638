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
/// Replies a client may be owed before it is read no further (back-pressure, with a Flush so that they come).
pub const OUTSTANDING_REPLIES_MAX: usize = 4_096;

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

const _: () = assert!(POOL_SIZE_MIN <= POOL_SIZE_MAX);
const _: () = assert!(POOL_UTILISATION_CLEAR_PERCENT < POOL_UTILISATION_WARN_PERCENT);
const _: () = assert!(STATEMENT_BYTES_MAX < FRAME_BYTES_MAX);

// --- who is who --------------------------------------------------------------------------------------

/// What is known of a user, or that there is none, is believed this long: a storm of logins is one query.
pub const USER_CACHE_TIME_MAX: Duration = Duration::from_secs(1);
/// That passwords cannot be read at all is believed this long.
pub const USER_DENIED_TIME_MAX: Duration = Duration::from_secs(30);
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
