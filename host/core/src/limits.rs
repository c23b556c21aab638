//! Every bound of the program, named, with why. A queue, map, message or retry without an entry here is a bug.

mod cache; // answers that are kept, entries of applications
mod failover; // transactions that are run again, commits that may be lost
mod routing; // replicas, catalogues

pub use cache::*;
pub use failover::*;
pub use routing::*;

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
/// A read that a replica runs is kept, to be run again when the replica dies, up to this. A copy for each read, and little
/// beside what the read itself costs; longer texts are rare.
pub const UNIT_KEPT_BYTES_MAX: usize = 16 << 10;
/// The room for it that an idle client keeps.
pub const UNIT_KEPT_IDLE_BYTES: usize = 256;
/// Notifications that wait for a client to end its transaction, or to read; one that has more is disconnected. PostgreSQL's
/// own queue is one for all, and a session that does not take from it fills it for all. In bytes.
pub const NOTIFICATIONS_WAITING_BYTES_MAX: usize = 4 << 20;
/// What one that waits takes besides its channel and its payload, in bytes.
pub const NOTIFICATION_BYTES_OVERHEAD: usize = 64;
/// A NotificationResponse is shorter than this (PostgreSQL: channel 64, payload 8 000), in bytes.
pub const NOTIFICATION_BYTES_MAX: usize = 16 << 10;
/// A client that listens to more channels than this keeps its server, as one did before there were shared listeners.
pub const CHANNELS_PER_CLIENT_MAX: usize = 10_000;
/// A LISTEN waits so long for the connection that listens for it; then the client keeps its own server instead.
pub const LISTEN_TIME_MAX: Duration = Duration::from_secs(5);
/// Attempts to connect it again: the first pause, doubled up to the longest.
pub const LISTENER_PAUSE_FIRST: Duration = Duration::from_millis(100);
pub const LISTENER_PAUSE_MAX: Duration = Duration::from_secs(5);
/// One that is told nothing is asked this often whether it lives; its answer must come within `CONNECT_TIME_MAX`.
pub const LISTENER_CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// A connection that nobody listens with any more is kept so long for the next.
pub const LISTENER_IDLE_MAX: Duration = Duration::from_secs(10);

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
/// That the grammar refuses a text is believed this long: whoever retries it in a loop costs no parse each time.
pub const SHAPE_REFUSED_TIME: Duration = Duration::from_secs(1);
/// Tags that are read from one statement's comments, and the bytes of comments that are looked at.
pub const TAGS_MAX: usize = 32;
pub const TAGS_BYTES_MAX: usize = 8 << 10;

// --- pools -------------------------------------------------------------------------------------------

/// Server connections a pool keeps at least / at most (property 13).
pub const POOL_SIZE_MIN: usize = 10;
pub const POOL_SIZE_MAX: usize = 50;
/// And beyond them for critical statements alone, by default: a health check and one more.
pub const POOL_CRITICAL_MAX: usize = 2;
/// An idle server connection above the minimum is closed after this (property 14).
pub const POOL_IDLE_MAX: Duration = Duration::from_secs(300);
/// Utilisation that warns, and that clears the warning, in percent (property 15).
pub const POOL_UTILISATION_WARN_PERCENT: u32 = 80;
pub const POOL_UTILISATION_CLEAR_PERCENT: u32 = 70;
/// A statement waits for a server connection at most this long.
pub const POOL_WAIT_MAX: Duration = Duration::from_secs(30);
/// A statement is held at most this long while an operator has paused its database: longer than a server takes to start.
pub const POOL_PAUSE_MAX: Duration = Duration::from_secs(300);
/// A client waits this long before a pool that is busy gives up a connection for it: opening another one costs more than
/// many statements.
pub const QUOTA_PATIENCE: Duration = Duration::from_millis(100);
/// A call for a place in a quota that is used up counts for so long unless it is repeated (it is, at each tick).
pub const QUOTA_WANT_TIME: Duration = Duration::from_millis(400);
/// Databases that may be paused by name.
pub const PAUSED_DATABASES_MAX: usize = 1_024;
/// Clients that may wait for one pool.
pub const POOL_WAITERS_MAX: usize = 20_000;
/// Attempts to open a server connection before a waiter is told (property 41).
pub const CONNECT_ATTEMPTS_MAX: u32 = 3;
/// First pause after a failed connection; it doubles (property 16) up to the maximum.
pub const CONNECT_BACKOFF_FIRST: Duration = Duration::from_secs(1);
pub const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// One attempt to connect and log in to a server.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
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
/// Databases and users whose clients and server connections may be bounded by name; looked through at each login.
pub const QUOTAS_MAX: usize = 1_000;
/// Data-plane threads; more than any machine's cores is a typing error.
pub const WORKERS_MAX: usize = 1_024;

// --- hand-over ---------------------------------------------------------------------------------------

/// Listening sockets that one process hands to the next.
pub const HANDOVER_LISTENERS_MAX: usize = 64;
/// One answer of another process; a new one has this long to start, which compiles plugins.
pub const HANDOVER_ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
pub const HANDOVER_START_TIME_MAX: Duration = Duration::from_secs(120);
/// Processes that ask this one at once, each on a thread; more wait.
pub const HANDOVER_ASKING_MAX: usize = 16;
/// Processes that a cancel request is passed on to, and cancel requests that are passed on at once.
pub const HANDOVER_SIBLINGS_MAX: usize = 16;
pub const HANDOVER_CANCELS_MAX: usize = 16;
/// A process that has handed over serves its clients for so long at most, unless configured.
pub const HANDOVER_GRACE: Duration = Duration::from_secs(3_600);
/// Its idle server connections close after this: the next process opens its own.
pub const HANDED_OVER_IDLE_MAX: Duration = Duration::from_secs(1);

// --- configuration -----------------------------------------------------------------------------------

/// `tidegate.toml`, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The users file, in bytes: more than a hundred thousand users.
pub const USERS_FILE_BYTES_MAX: u64 = 16 << 20;
/// A file of rules on who may connect, and each that it includes, in bytes.
pub const HBA_FILE_BYTES_MAX: u64 = 1 << 20;
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
/// A request body, in bytes, but for plugins and their settings.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;
/// From the first byte a connection may send to the end of the head, and from there to the end of the body.
pub const ADMIN_HEAD_TIME_MAX: Duration = Duration::from_secs(10);
pub const ADMIN_BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The rest of the process answers the admin API within this.
pub const ADMIN_ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// A pause answers within this, done or not; whoever wants to wait longer asks again.
pub const PAUSE_ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection is asked to close at this age, and cut soon after: a reader that stalls holds nothing for ever.
pub const ADMIN_CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
pub const ADMIN_CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// Clients or servers one answer lists, unless `?limit=` says otherwise; and what it may say.
pub const ADMIN_LIST_DEFAULT: usize = 1_000;
pub const ADMIN_LIST_MAX: usize = 100_000;

// --- the HTTP query endpoint ---------------------------------------------------------------------------

/// Connections at once, unless configured, and what that may be set to; more wait in the kernel's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 1_000;
pub const HTTP_CONNECTIONS_CONFIG_MAX: usize = 100_000;
/// A request head, in bytes and in header lines: a connection string has a few hundred bytes.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 << 10;
pub const HTTP_HEADERS_MAX: usize = 100;
/// A request body, in bytes: as long as a statement may be and still be understood.
pub const HTTP_BODY_BYTES_MAX: usize = STATEMENT_BYTES_MAX;
/// Statements of one request, which are one batch and so one transaction.
pub const HTTP_STATEMENTS_MAX: usize = 1_000;
/// Parameters of one statement (the protocol counts them in 16 bits).
pub const HTTP_PARAMETERS_MAX: usize = 65_535;
/// How deep an array may be that is a parameter (PostgreSQL: MAXDIM).
pub const HTTP_ARRAY_DEPTH_MAX: usize = 6;
/// An answer that is shorter is sent as a whole, with its length, so that an error on the way to it is still told as one; a
/// longer one goes out in pieces of this, of which each connection holds two at most. In bytes.
pub const HTTP_PIECE_BYTES: usize = 128 << 10;
/// One row, which is held as a whole, in bytes.
pub const HTTP_ROW_BYTES_MAX: usize = 32 << 20;
/// An answer, in bytes, unless configured.
pub const HTTP_RESULT_BYTES_MAX: usize = 256 << 20;
/// From the first byte a connection may send to the end of the head, and from there to the end of the body. Longer than
/// common clients keep an idle connection.
pub const HTTP_HEAD_TIME_MAX: Duration = Duration::from_secs(30);
pub const HTTP_BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// From the end of the head to the end of the answer, unless configured.
pub const HTTP_REQUEST_TIME_MAX: Duration = Duration::from_secs(300);
/// A client that takes nothing of its answer for so long is cut.
pub const HTTP_STALL_TIME_MAX: Duration = Duration::from_secs(30);
/// A request that is under way when the process ends has this long.
pub const HTTP_CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
/// Passwords whose keys are known, so that a login with one does not hash it again (some 150 bytes each).
pub const HTTP_KEYS_KNOWN_MAX: usize = 10_000;
/// Pairs of database and user of which it is known when they wrote over HTTP; whoever is beyond counts as having written.
pub const HTTP_WRITERS_MAX: usize = 10_000;
/// Web origins that may be listed.
pub const HTTP_ORIGINS_MAX: usize = 100;

// --- circuit breaker (property 42) -------------------------------------------------------------------

/// Outcomes of the last this many seconds decide; one bucket a second.
pub const BREAKER_WINDOW_SECS: usize = 60;
/// Failures, in percent of the calls in the window, from which the breaker opens.
pub const BREAKER_FAILURE_PERCENT: u32 = 50;
/// Fewer calls than this in the window prove nothing.
pub const BREAKER_CALLS_MIN: u32 = 5;
/// An open breaker rejects for this long, then lets one probe through.
pub const BREAKER_OPEN_TIME: Duration = Duration::from_secs(30);
/// It opens early when so many of the last few seconds failed, and so much of all of them, in percent: the three attempts
/// that a client waits for.
pub const BREAKER_BURST_SECS: usize = 5;
pub const BREAKER_BURST_FAILURES: u32 = 3;
pub const BREAKER_BURST_PERCENT: u32 = 90;
/// And when health checks have not found the server for so long, and so often: longer than a restart takes.
pub const PRESENCE_TIME_MAX: Duration = Duration::from_secs(3);
pub const PRESENCE_FAULTS_MIN: u32 = 3;

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

const _: () = assert!(LISTENER_PAUSE_FIRST.as_nanos() < LISTENER_PAUSE_MAX.as_nanos());
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
/// How long a login waits for the room that an idle connection leaves at a full server, before each new attempt.
pub const LOGIN_ROOM_PAUSES: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];
/// After telling a client why it is refused, this long is given for the message to be read before the socket goes.
pub const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
/// Bytes of a refused client that are read and thrown away so that its socket is not reset, at most.
pub const LINGER_BYTES_MAX: usize = 64 << 10;

// --- policies: what a plugin may use -----------------------------------------------------------------

/// A plugin's file, in bytes: CPython compiled to WASM has 18 MB.
pub const POLICY_COMPONENT_BYTES_MAX: usize = 32 << 20;
/// Uploads read and checked at once: each holds its file in memory. One more is told to come again.
pub const PLUGIN_UPLOADS_MAX: usize = 2;
/// From an upload's head to the end of its body, and from there to the answer: large files compile for seconds, at low priority.
pub const PLUGIN_BODY_TIME_MAX: Duration = Duration::from_secs(60);
pub const PLUGIN_LOAD_TIME_MAX: Duration = Duration::from_secs(300);
/// The process that compiles a plugin: memory that it may write, in bytes, and processor time. CPython takes 330 MB and 10 s.
pub const PLUGIN_COMPILER_MEMORY_MAX: u64 = 4 << 30;
pub const PLUGIN_COMPILER_CPU_TIME_MAX: Duration = Duration::from_secs(110);
/// What it may give back, in bytes: three times a plugin's size is usual.
pub const PLUGIN_CODE_BYTES_MAX: u64 = 1 << 30;
/// Plugins whose code is kept.
pub const PLUGIN_CODE_FILES_MAX: usize = 16;
/// Plugins of the configuration and the state directory are in place before clients are served, unless that takes longer.
pub const PLUGIN_RESTORE_TIME_MAX: Duration = Duration::from_secs(20);
/// Orders and events that wait for the thread that compiles.
pub const PLUGIN_ORDERS_MAX: usize = 32;
/// What happened in one slot, kept for operators.
pub const PLUGIN_HISTORY_MAX: usize = 50;
/// The file that says who answers in which slot: settings of three versions in each of four slots, quoted.
pub const PLUGIN_MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Keys whose signatures are believed, and pinned files.
pub const PLUGIN_KEYS_MAX: usize = 16;
/// What `plugins.plan_time_max` and `plugins.decide_time_max` may be.
pub const PLUGIN_TIME_CONFIG_MAX: Duration = Duration::from_secs(1);
/// A plugin's settings, in bytes.
pub const POLICY_SETTINGS_BYTES_MAX: usize = 64 << 10;
/// Memory of one instance unless configured, in bytes; and what it may be configured to.
pub const POLICY_MEMORY_BYTES_MAX: usize = 16 << 20;
pub const POLICY_MEMORY_CONFIG_MAX: usize = 256 << 20;
/// Entries of all tables of one instance (functions, mostly).
pub const POLICY_TABLE_ENTRIES_MAX: usize = 20_000;
/// Stack of a plugin, in bytes: a quarter of what a thread has by default.
pub const POLICY_STACK_BYTES_MAX: usize = 512 << 10;
/// How often running plugins are looked at.
pub const POLICY_TICK: Duration = Duration::from_millis(1);
/// Time on the clock after which a call is looked at: for a plan, and for a decision about one execution.
pub const POLICY_PLAN_TIME_MAX: Duration = Duration::from_millis(5);
pub const POLICY_DECIDE_TIME_MAX: Duration = Duration::from_millis(1);
/// CPU time that a call may use from then on. A thread that waits for a processor has used none, and is not blamed.
pub const POLICY_CPU_TIME_MAX: Duration = Duration::from_millis(3);
/// The same for `init` and for advice, which no statement waits for.
pub const POLICY_BACKGROUND_TIME_MAX: Duration = Duration::from_secs(1);
/// Calls of the host within one call.
pub const POLICY_HOST_CALLS_MAX: u32 = 1_000;
/// Handles that one instance holds: three streams, each taken more than once by what languages bring along.
pub const POLICY_HANDLES_MAX: u32 = 64;
/// Random bytes of one call of the host.
pub const POLICY_RANDOM_BYTES_MAX: usize = 4 << 10;
/// Strings and lists that one call of a plugin may hand over, in bytes.
pub const POLICY_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Instances of one generation: more threads than this share them.
pub const POLICY_INSTANCES_MAX: usize = 16;
/// Generations that live at a time: active, previous and candidate of four slots, and as many that are drained.
pub const POLICY_GENERATIONS_MAX: usize = 24;

/// `tidegate plugin bench`: calls of one kind, for so long at most; and instances that are started.
pub const BENCH_CALLS_MAX: usize = 20_000;
pub const BENCH_STARTS_MAX: usize = 200;
pub const BENCH_TIME_MAX: Duration = Duration::from_millis(300);

/// `tidegate record`: how long at most, kinds of executions and bytes of them on each worker, and bytes of the answer. What
/// nobody came for is given up after a while.
pub const RECORD_TIME_MAX: Duration = Duration::from_secs(240);
pub const RECORD_LINES_MAX: usize = 10_000;
pub const RECORD_BYTES_MAX: usize = 8 << 20;
pub const RECORD_KEPT_TIME_MAX: Duration = Duration::from_secs(5);

// --- policies: what an answer may hold ---------------------------------------------------------------

/// Names for metrics and errors, in bytes.
pub const POLICY_LABEL_BYTES_MAX: usize = 64;
/// Words for a client or an operator, in bytes.
pub const POLICY_REASON_BYTES_MAX: usize = 512;
/// A template of a key or a tag, in bytes, and its texts and placeholders together.
pub const POLICY_KEY_BYTES_MAX: usize = 256;
pub const POLICY_TEMPLATE_PARTS_MAX: usize = 16;
/// Replicas that a rule names.
pub const POLICY_SERVERS_MAX: usize = 64;
/// A lag bound that still bounds something.
pub const POLICY_LAG_MAX: Duration = Duration::from_secs(3_600);
/// A replica's weight; 100 is ordinary.
pub const POLICY_WEIGHT_MAX: f64 = 1_000_000.0;
/// CPU from which a replica's share falls to a tenth, in percent (property 36).
pub const POLICY_CPU_PERCENT_HIGH: f64 = 80.0;
/// Tags of a cache rule or an invalidation, and parts of a key.
pub const POLICY_TAGS_MAX: usize = 64;
pub const POLICY_KEY_PARTS_MAX: usize = 16;
/// How long a result may be kept.
pub const POLICY_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A result that may be kept, in bytes.
pub const POLICY_RESULT_BYTES_MAX: usize = 1 << 20;
/// Buckets that one statement is counted in; their windows; and the factor by which `decide` makes it dearer.
pub const POLICY_BUCKETS_MAX: usize = 8;
pub const POLICY_LIMIT_WINDOW_MAX: Duration = Duration::from_secs(24 * 3_600);
pub const POLICY_LIMIT_FACTOR_MAX: u32 = 10_000;
/// Roles of one user that a policy is told of.
pub const POLICY_ROLES_MAX: usize = 256;
/// A statement over its limit may wait so long, no longer than for a connection.
pub const POLICY_QUEUE_TIME_MAX: Duration = POOL_WAIT_MAX;
/// Buckets that are counted at a time, of all policies: 300 bytes each. Beyond, those with little in them go.
pub const LIMIT_WINDOWS_MAX: usize = 65_536;
/// Users that are named as administrators.
pub const RATE_ADMINISTRATORS_MAX: usize = 1_000;
/// The window of limits unless configured (properties 26 and 27).
pub const POLICY_LIMIT_WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// A short wait costs less than a refusal, after which pools connect anew.
pub const POLICY_LIMIT_WAIT_DEFAULT: Duration = Duration::from_millis(250);
/// Suggestions of one advice, and columns of one (PostgreSQL's INDEX_MAX_KEYS).
pub const POLICY_SUGGESTIONS_MAX: usize = 100;
pub const POLICY_INDEX_COLUMNS_MAX: usize = 32;
/// A constant in an index's condition, in bytes.
pub const POLICY_VALUE_BYTES_MAX: usize = 256;
/// Answers that one thread keeps, each for a shape.
pub const POLICY_PLANS_MAX: usize = 20_000;

// --- policies: when one is taken out -----------------------------------------------------------------

/// So many faults within the window put a plugin in quarantine.
pub const POLICY_FAULTS_MAX: usize = 10;
pub const POLICY_FAULT_WINDOW: Duration = Duration::from_secs(60);
/// A canary with so many faults is rolled back.
pub const POLICY_CANARY_FAULTS_MAX: u64 = 3;
/// Statements on either side before anything is compared, and those after which a candidate is good.
pub const POLICY_CANARY_CALLS_MIN: u64 = 200;
pub const POLICY_CANARY_CALLS_GOOD: u64 = 2_000;
/// More errors than the active version's, in points of a percentage, roll back.
pub const POLICY_CANARY_ERROR_POINTS: u64 = 1;
/// A mean time above the active version's by more than this and the slack rolls back.
pub const POLICY_CANARY_LATENCY_PERCENT: u128 = 50;
pub const POLICY_CANARY_LATENCY_SLACK: Duration = Duration::from_micros(100);
/// Differences between a candidate and the active version that are kept with their inputs.
pub const POLICY_DIFFERENCES_MAX: usize = 100;

// --- policies: what the host lends -------------------------------------------------------------------

/// Keys of one slot's store, and a key, a value and all of them in bytes.
pub const POLICY_STATE_KEYS_MAX: usize = 10_000;
pub const POLICY_STATE_KEY_BYTES_MAX: usize = 256;
pub const POLICY_STATE_VALUE_BYTES_MAX: usize = 64 << 10;
pub const POLICY_STATE_BYTES_MAX: usize = 4 << 20;
/// Messages that one slot may log in each interval; the rest are counted.
pub const POLICY_LOG_LINES_MAX: u32 = 50;
pub const POLICY_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// A message, in bytes; the rest of it is cut.
pub const POLICY_LOG_BYTES_MAX: usize = 1_024;
/// Metrics of one slot.
pub const POLICY_METRICS_MAX: usize = 64;

const _: () = assert!(RECORD_TIME_MAX.as_nanos() < ADMIN_CONNECTION_TIME_MAX.as_nanos());
const _: () = assert!(POLICY_FAULTS_MAX > 1 && POLICY_INSTANCES_MAX > 0);
const _: () = assert!(POLICY_MEMORY_BYTES_MAX <= POLICY_MEMORY_CONFIG_MAX);
const _: () = assert!(POLICY_CANARY_CALLS_MIN <= POLICY_CANARY_CALLS_GOOD);
const _: () = assert!(POLICY_STATE_VALUE_BYTES_MAX <= POLICY_STATE_BYTES_MAX);
const _: () = assert!(POLICY_DECIDE_TIME_MAX.as_nanos() <= POLICY_PLAN_TIME_MAX.as_nanos());
const _: () = assert!(LOGIN_DELAY_FIRST.as_nanos() <= LOGIN_DELAY_MAX.as_nanos());
const _: () = assert!(LOGIN_DELAY_MAX.as_nanos() < LOGIN_TIME_MAX.as_nanos());
