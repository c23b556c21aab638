//! Every key of `tidegate.toml`, once: what `tidegate init` writes and `docs/configuration.md`
//! explains.

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Empty for keys above the first table.
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) default: Fallback,
    pub(super) reload: Reload,
    /// Sentences without Markdown but for back-ticks.
    pub(super) doc: &'static str,
}

/// What holds without the key; as it would be written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    Value(&'static str),
    /// Must be written, like this.
    Needed(&'static str),
    /// Nothing holds; this is what a value looks like.
    Example(&'static str),
}

/// When a new value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// At a reload: for new connections, or at once where that breaks none.
    Live,
    Restart,
}

impl Key {
    pub(super) fn path(&self) -> String {
        if self.table.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.table, self.name)
        }
    }
}

/// The tables, in the order of the file, with what stands above each.
pub(super) const TABLES: &[(&str, &str)] = &[
    ("", ""),
    (
        "peers",
        "The other Tidegates behind the same address; repeat the table for each. Cancel requests for their clients are \
         forwarded to them, once.",
    ),
    ("cluster", "The servers behind the proxy."),
    (
        "servers",
        "What is to be known of single servers beside their URLs; repeat the table for more.",
    ),
    (
        "admin",
        "The admin HTTP API: health, metrics, pools, reload, drain. Off unless `address` is set.",
    ),
    (
        "http",
        "The HTTP query endpoint, `POST /sql` (docs/http.md): statements for those who can't open a connection, as the database \
         user that they log in as. Off unless `listen` is set; with `[tls]` it speaks TLS.",
    ),
    (
        "pool",
        "Each pair of database and user has a pool for writes, and one for reads at each replica. \
         Sizes count server connections of one pool, over all workers.",
    ),
    (
        "pools",
        "Settings for some pools; repeat the table for more. The first that matches wins, and what it does not name is as \
         in `[pool]`.",
    ),
    (
        "quotas",
        "How many clients and server connections one database or one user may have, over all pools; repeat the table for \
         more. `\"*\"` stands for each one that has no table of its own.",
    ),
    (
        "routing",
        "Where statements run that a client has not directed itself (`SET tidegate.route`). Without replicas, all run on the \
         primary.",
    ),
    (
        "failover",
        "Which server is the primary when the configured one dies, hangs or is demoted. It takes replicas; the user of the \
         servers' URLs must see and do what it needs: docs/failover.md.",
    ),
    (
        "failover.etcd",
        "With `mode = \"etcd\"`: an etcd (3.4 or newer), where several Tidegates on one cluster of servers agree which of them \
         promotes. The same for all of them.",
    ),
    ("failover.patroni", "With `mode = \"external\"`: Patroni's REST API."),
    (
        "alerts",
        "Who is told when something is wrong with the servers (docs/alerts.md); repeat the table for more receivers. Each \
         trouble is told once, again while it lasts, and when it is over.",
    ),
    (
        "plugins",
        "Policies as WebAssembly. Those that come with Tidegate are in place unless others were uploaded (`tidegate plugin \
         push`) or are pinned below.",
    ),
    (
        "pins",
        "A slot's policy from a file, told by its hash; repeat the table for more slots. The admin API leaves a pinned slot \
         alone.",
    ),
    ("auth", "How clients prove who they are."),
    ("tls", "TLS towards clients. Towards servers, each URL's `sslmode` decides."),
    (
        "handover",
        "A new process takes the listening sockets over from the one that runs (`tidegate serve --take-over`), which serves its \
         clients until they go.",
    ),
    ("limits", "Bounds on clients and on the process."),
    (
        "rates",
        "How many statements may run within a sliding window; more are refused with SQLSTATE 53400. The limiting plugin that \
         comes with Tidegate is told these; another one has its own settings. Statements inside an open transaction are \
         counted and never refused.",
    ),
    (
        "rates.redis",
        "Counts in a Redis that several Tidegates share (`docs/policies.md#several-tidegates-and-one-redis`): the limits of `[rates]`, and \
         of any limiting plugin, then hold for all of them together. It may be the Redis of `[cache.redis]`. Without `url`, there \
         is none, and each counts for itself.",
    ),
    (
        "cache",
        "Answers that are kept in memory, as far as the caching policy wants it (`docs/cache.md`); nothing unless it is told to. With \
         `handover.dir` nothing is kept, nor with `[[peers]]` unless they share a Redis: another process could write past this \
         one.",
    ),
    (
        "cache.warm",
        "Statements that are asked at start, so that their answers are there (`docs/cache.md#answers-that-are-there-before-anybody-asks`); \
         repeat the table for more. What the caching policy does not want is not kept.",
    ),
    (
        "cache.redis",
        "Answers in a Redis that all Tidegates in front of one cluster share (`docs/cache.md`). Each must name all others in \
         `[[peers]]`: nothing is served while one of them is not heard. Without `url`, there is none.",
    ),
    ("log", "Lines on standard error."),
];

use self::Fallback::{Example, Needed, Value};
use self::Reload::{Live, Restart};

// One line a key, however long: the table is read by column.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("", "listen", Value(r#"["127.0.0.1:6432"]"#), Restart, "Where clients connect: `ADDRESS:PORT`, or `unix:` and the path of a socket, which libpq wants to be `DIR/.s.PGSQL.PORT`. `*` is every address."),
    key("", "peer_id", Example("1"), Restart, "The number of this Tidegate among several that clients reach by one address (1 to 255): it is in the cancel keys, so that a cancel request that comes to another one finds its way (`[[peers]]`)."),
    key("", "workers", Value("0"), Restart, "Data-plane threads. 0: one for each processor."),
    key("", "io", Value(r#""auto""#), Restart, "How sockets are read and written once logged in: `io_uring` (fewer system calls; Linux 6.1), `epoll`, or `auto`: io_uring where the kernel lets us have it and while a worker has several messages at a time, for which it pays. TLS is always by epoll."),

    key("peers", "id", Example("2"), Live, "Its `peer_id`."),
    key("peers", "address", Example(r#""10.0.0.2:6432""#), Live, "`HOST:PORT`, where its clients connect."),

    key("cluster", "primary", Needed(r#""postgres://postgres@127.0.0.1:5432/postgres""#), Live, "The server that takes writes: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, percent-encoded, with the parameters `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `channel_binding`, `sslnegotiation`, `max_protocol_version` (`3.0` unless `3.2` or `latest`) and `host` (a directory is a Unix socket) of libpq."),
    key("cluster", "replicas", Value("[]"), Live, "Its streaming replicas, as URLs."),
    key("cluster", "password", Example(r#""${DATABASE_PASSWORD}""#), Live, "The password of the URLs that have none; taken as it is, without percent-encoding."),

    key("servers", "name", Example(r#""primary""#), Live, "Which server: `primary`, or `replica-1`, `replica-2`, … in the order of `cluster.replicas`. It keeps its name, whatever it becomes."),
    key("servers", "node_exporter", Example(r#""http://10.0.0.2:9100/metrics""#), Live, "A Prometheus node_exporter on its machine, which says how busy that is: processors, memory, disk (docs/failover.md). Unless written, the server itself is asked, as far as our user may."),

    key("admin", "address", Example(r#""127.0.0.1:6433""#), Restart, "Where it listens."),
    key("admin", "token", Example(r#""${ADMIN_TOKEN}""#), Restart, "The bearer token. The environment variable `TIDEGATE_ADMIN_TOKEN` comes before this key; with neither, nor a file, a token is made up at each start and the file it is in is named on standard output."),
    key("admin", "token_file", Example(r#""/run/secrets/tidegate-admin-token""#), Restart, "A file whose first line is the token."),
    key("admin", "allow_remote", Value("false"), Restart, "Lets `address` be one that other machines reach. The API speaks plain HTTP: put TLS in front."),
    key("admin", "open_metrics", Value("false"), Restart, "Lets `/metrics` be read without the token."),

    key("http", "listen", Example(r#""127.0.0.1:6434""#), Restart, "Where it listens: `ADDRESS:PORT`."),
    key("http", "allow_plain", Value("false"), Restart, "Takes passwords without TLS from other machines too: for a proxy in front that speaks TLS."),
    key("http", "cors_origins", Value("[]"), Restart, "The web pages that may ask, by their origins (`https://app.example.com`), or `*`. From other pages no request is taken, whatever the password."),
    key("http", "connections_max", Value("1000"), Restart, "Connections at once; more wait."),
    key("http", "body_mib_max", Value("16"), Restart, "A request's body, in MiB, 16 at most."),
    key("http", "result_mib_max", Value("256"), Restart, "An answer, in MiB. A longer one is cut off, so that it can't be taken for whole."),
    key("http", "time_max", Value(r#""300s""#), Restart, "A request is answered within this, or its statement cancelled."),

    key("pool", "mode", Value(r#""transaction""#), Live, "When a server connection goes back: `transaction`, at the end of each; `session`, when the client leaves."),
    key("pool", "size_min", Value("10"), Live, "Connections kept open once the pool is in use."),
    key("pool", "size_max", Value("50"), Live, "Connections opened at most. More clients than that wait in order."),
    key("pool", "critical_max", Value("2"), Live, "Connections beyond `size_max` that are opened for critical statements alone (`SET tidegate.priority = 'critical'`, a comment, the routing policy), when all others are in use. 0: critical statements wait with the others, before them."),
    key("pool", "idle_max", Value(r#""300s""#), Live, "A connection above `size_min` is closed after this long without work."),
    key("pool", "lifetime_max", Value(r#""1h""#), Live, "A connection older than this is closed when it is next idle. `off`: never."),
    key("pool", "wait_max", Value(r#""30s""#), Live, "A client waits this long for a connection before it gets an error."),
    key("pool", "pause_max", Value(r#""300s""#), Live, "While a database is paused (`tidegate pause`), a statement is held this long before it gets an error; `wait_max` begins anew when it is resumed."),
    key("pool", "utilisation_warn_percent", Value("80"), Live, "A pool with more of its `size_max` in use warns."),
    key("pool", "utilisation_clear_percent", Value("70"), Live, "Below this the warning ends."),
    key("pool", "connect_timeout", Value(r#""5s""#), Live, "One attempt to connect to a server and log in."),
    key("pool", "transaction_replay", Value("false"), Live, "A transaction that loses its server, or that cannot be serialized (40001, 40P01), is run again, and goes on if all its answers are those that its client has been told; for clients that log in from then on (docs/failover.md). `SET tidegate.transaction_replay = 'on'` or `'off'` says so for one session."),

    key("pools", "database", Example(r#""reports""#), Live, "The database whose pools this is about; every one unless written."),
    key("pools", "user", Example(r#""analyst""#), Live, "The user whose pools this is about; every one unless written."),
    key("pools", "mode", Example(r#""session""#), Live, "As in `[pool]`."),
    key("pools", "size_min", Example("0"), Live, "As in `[pool]`."),
    key("pools", "size_max", Example("5"), Live, "As in `[pool]`."),
    key("pools", "critical_max", Example("0"), Live, "As in `[pool]`."),
    key("pools", "idle_max", Example(r#""60s""#), Live, "As in `[pool]`."),
    key("pools", "lifetime_max", Example(r#""off""#), Live, "As in `[pool]`."),
    key("pools", "wait_max", Example(r#""2min""#), Live, "As in `[pool]`."),
    key("pools", "pause_max", Example(r#""10min""#), Live, "As in `[pool]`."),
    key("pools", "utilisation_warn_percent", Example("90"), Live, "As in `[pool]`."),
    key("pools", "utilisation_clear_percent", Example("80"), Live, "As in `[pool]`."),
    key("pools", "connect_timeout", Example(r#""10s""#), Live, "As in `[pool]`."),
    key("pools", "transaction_replay", Example("true"), Live, "As in `[pool]`."),

    key("quotas", "database", Example(r#""reports""#), Live, "The database that this is about; or `user`, not both."),
    key("quotas", "user", Example(r#""analyst""#), Live, "The user that this is about."),
    key("quotas", "clients_max", Example("100"), Live, "Clients connected at once; one more is told so with SQLSTATE 53300 when it has logged in. Unless written, there is no bound but `limits.clients_max`."),
    key("quotas", "servers_max", Example("20"), Live, "Connections to each server, over all pools: a pool that needs one more takes the place of an idle one of another pool, or waits. Unless written, there is no bound but the pools' own."),

    key("routing", "reads", Value(r#""split""#), Live, "`split`: a statement that is proven to be nothing but a read runs on a replica that shows everything this client has written and seen; everything else on the primary. `primary`: everything."),
    key("routing", "lag_max", Value(r#""5s""#), Live, "A replica that is further behind the primary serves no reads."),
    key("routing", "lag_return", Value(r#""2s""#), Live, "One that was too far behind serves reads again when it is less than this behind."),
    key("routing", "causality", Value(r#""session""#), Live, "What reads on replicas are sure to see. `session`: what their own session has written and seen. `global`: also what any session had written through this Tidegate before they began. `off`: whatever the replica has, up to `lag_max` old."),
    key("routing", "catch_up_max", Value(r#""10ms""#), Live, "A read that no replica is fresh enough for waits this long for one to catch up; then the primary runs it. `off`: the primary runs it at once."),
    key("routing", "slow_start", Value(r#""10s""#), Live, "A replica that begins to serve reads, or does so again, gets a tenth of its share at first, and more and more until it has all of it after this. `off`: all of it at once."),
    key("routing", "eject_time", Value(r#""30s""#), Live, "A replica that is much slower than the others, or fails half of its reads, gets none for so long; twice as long each time it happens again, up to sixteen times. At most half of the good replicas are left out for being slow. `off`: none ever."),
    key("routing", "eject_ratio", Value("4"), Live, "Slow is who typically takes more than so many times what the others do (the median of them) ..."),
    key("routing", "eject_floor", Value(r#""25ms""#), Live, "... and longer by more than this."),
    key("routing", "fallback_percent", Value("50"), Live, "Reads that no replica can run go to the primary, by connections of their own: at most this part of `pool.size_max`, in percent, so that writes have room. More reads wait, up to `pool.wait_max`, then fail with SQLSTATE 53300."),

    key("failover", "mode", Value(r#""follow""#), Live, "`off`: the primary is the one that is configured. `follow`: somebody else promotes (Patroni, an operator), Tidegate sees it and sends writes there. `embedded`: Tidegate promotes the best replica when the primary is gone; one Tidegate for one cluster, and no other manager beside it. `etcd`: the same for several Tidegates, of which the one that holds a lease in etcd promotes. `external`: Patroni promotes; it is asked who leads, and does what `tidegate switchover` and `tidegate failover` order."),
    key("failover", "hold_max", Value(r#""10s""#), Live, "While the primary may be gone, statements for it are held this long at most; then they fail as they would without."),
    key("failover", "silent_max", Value(r#""3s""#), Live, "A primary that does not answer, or cannot be reached, is given this long before it counts as gone; one whose machine refuses connections is not."),
    key("failover", "restart_max", Value(r#""5s""#), Live, "The same for one that is being stopped, starts, or recovers from a crash: it may be back in a moment."),
    key("failover", "lag_bytes_max", Value("1048576"), Live, "A replica that lacks more of what the primary is known to have written is not promoted."),
    key("failover", "interval_min", Value(r#""60s""#), Live, "After a failover none follows for so long."),
    key("failover", "fencing", Value(r#""best-effort""#), Live, "`required`: nobody is promoted unless `fence_command` has said that the old primary is stopped. `best-effort`: it runs if there is one, and Tidegate sends nothing to the old primary in any case."),
    key("failover", "fence_command", Example(r#"["/usr/local/bin/fence", "--now"]"#), Live, "Stops the old primary before another is promoted; 0 is success. `TIDEGATE_SERVER`, `TIDEGATE_HOST` and `TIDEGATE_PORT` in its environment say which, `TIDEGATE_ACTION` why (`failover`; `switchover`: in an orderly way, so that it can follow the new one)."),
    key("failover", "fence_timeout", Value(r#""10s""#), Live, "The command is given this long."),
    key("failover", "rejoin_command", Example(r#"["/usr/local/bin/rejoin"]"#), Live, "Makes an old primary a replica of the new one (pg_rewind, pg_basebackup) when it has been replaced; the environment has `TIDEGATE_PRIMARY_HOST` and `TIDEGATE_PRIMARY_PORT` besides."),
    key("failover", "resync_after", Value(r#""60s""#), Live, "With `mode = \"embedded\"` or `\"etcd\"`: a replica that has not followed the primary for this long, though both are well, is made a copy of it again by `rejoin_command`, which is told `TIDEGATE_ACTION=resync`. Before, after a sixth of this time, it is told again who the primary is. `off`: neither."),

    key("failover", "user", Example(r#""tidegate""#), Live, "Who asks servers what they are, and promotes; the user of each server's URL unless written."),
    key("failover", "password", Example(r#""${FAILOVER_PASSWORD}""#), Live, "Its password."),

    key("failover.etcd", "urls", Example(r#"["https://10.0.0.5:2379", "https://10.0.0.6:2379"]"#), Live, "Its members, asked one after the other until one answers."),
    key("failover.etcd", "user", Example(r#""tidegate""#), Live, "Who logs in to etcd, if it wants that; it reads and writes below `prefix`."),
    key("failover.etcd", "password", Example(r#""${ETCD_PASSWORD}""#), Live, "Its password."),
    key("failover.etcd", "root_ca", Example(r#""/etc/tidegate/etcd-ca.pem""#), Live, "With `https://`, a file of certificates to trust; the system's unless written."),
    key("failover.etcd", "cert", Example(r#""/etc/tidegate/etcd-client.crt""#), Live, "With `https://`, the certificate that is shown to etcd, PEM: for one that asks for it (`--client-cert-auth`). Read again when etcd does not answer."),
    key("failover.etcd", "key", Example(r#""/etc/tidegate/etcd-client.key""#), Live, "Its key, PEM, not encrypted."),
    key("failover.etcd", "prefix", Value(r#""/tidegate""#), Live, "What all keys begin with. Those who have the same manage the same servers: give each cluster of servers a prefix of its own."),
    key("failover.etcd", "lease", Value(r#""6s""#), Live, "Whoever is not heard for so long, in whole seconds, leads no more, and is not waited for. The same everywhere."),

    key("failover.patroni", "urls", Example(r#"["http://10.0.0.1:8008", "http://10.0.0.2:8008"]"#), Live, "Its members' REST APIs, asked one after the other until one answers; port 8008 of each server's machine unless written."),
    key("failover.patroni", "user", Example(r#""patroni""#), Live, "Who orders switchovers and failovers (Patroni's `restapi.authentication`)."),
    key("failover.patroni", "password", Example(r#""${PATRONI_PASSWORD}""#), Live, "Its password."),
    key("failover.patroni", "root_ca", Example(r#""/etc/tidegate/patroni-ca.pem""#), Live, "With `https://`, a file of certificates to trust; the system's unless written."),
    key("failover.patroni", "cert", Example(r#""/etc/tidegate/patroni-client.crt""#), Live, "With `https://`, the certificate that is shown to Patroni, PEM: for one that asks for it (`restapi.verify_client`). Read again when Patroni does not answer."),
    key("failover.patroni", "key", Example(r#""/etc/tidegate/patroni-client.key""#), Live, "Its key, PEM, not encrypted."),

    key("alerts", "kind", Example(r#""webhook""#), Live, "`webhook`: JSON by POST. `slack`: an incoming webhook of Slack's. `pagerduty`: Events API v2. `email`: by SMTP."),
    key("alerts", "url", Example(r#""${ALERTS_URL}""#), Live, "Where it goes: `https://…`, for e-mail `smtp://HOST:587` (STARTTLS, without which nothing is sent), `smtps://HOST:465`, or `smtp+plain://` to this machine; PagerDuty's own unless written."),
    key("alerts", "token", Example(r#""${ALERTS_TOKEN}""#), Live, "A webhook's bearer token, or PagerDuty's routing key."),
    key("alerts", "from", Example(r#""tidegate@example.com""#), Live, "Whom e-mail comes from."),
    key("alerts", "to", Example(r#"["dba@example.com"]"#), Live, "Who gets e-mail."),
    key("alerts", "user", Example(r#""tidegate""#), Live, "Who logs in to the mail server, if it wants that."),
    key("alerts", "password", Example(r#""${SMTP_PASSWORD}""#), Live, "Its password."),
    key("alerts", "root_ca", Example(r#""/etc/tidegate/alerts-ca.pem""#), Live, "A file of certificates to trust; the system's unless written."),
    key("alerts", "repeat", Example(r#""1h""#), Live, "What lasts is told again after this; one hour unless written."),

    key("plugins", "state_dir", Example(r#""/var/lib/tidegate""#), Restart, "Where uploaded plugins are kept, so that they are there after a restart; made if it is not there. Unless written, they are gone at the end of the process."),
    key("plugins", "signatures", Value(r#""off""#), Restart, "Ed25519 signatures of uploads: `off`: not looked at; `optional`: one that is there must be good; `required`: no upload without."),
    key("plugins", "keys", Example(r#"["MCowBQYDK2VwAyEAUNhY4JhezH9gQYqvDMWrWH9CwlcKiECVqejMrND2VFw="]"#), Restart, "The public keys that signatures are checked with, in base64 as `tidegate plugin sign` prints them (32 bytes, or what `openssl pkey -pubout` writes between its lines)."),
    key("plugins", "memory_mib_max", Value("16"), Restart, "Memory of one instance of a plugin, in MiB; each plugin has an instance for each worker."),
    key("plugins", "plan_time_max", Value(r#""5ms""#), Restart, "A plugin that is asked about a shape of statements and has not answered after this is stopped, if it has used the processor that long; the host answers itself."),
    key("plugins", "decide_time_max", Value(r#""1ms""#), Restart, "The same for the question about one execution."),

    key("pins", "slot", Example(r#""routing""#), Restart, "`routing`, `caching`, `limiting` or `advising`."),
    key("pins", "file", Example(r#""/etc/tidegate/router.wasm""#), Restart, "The plugin."),
    key("pins", "sha256", Example(r#""ad95131bc0b799c0b1af477fb14fcf26a6a9f76079e48bf090acb7e8367bfd0e""#), Restart, "Its SHA-256 in hexadecimal; a file with another is not loaded."),
    key("pins", "settings", Example(r#"'{"lag_ms_max": 900}'"#), Restart, "The plugin's settings, JSON."),

    key("auth", "method", Value(r#""passthrough""#), Live, "`passthrough`: the primary's users log in with their own passwords, checked by the primary. `scram-sha-256`, `md5`, `password` (in clear: over TLS or from this machine only): against `users_file`. `certificate`: a certificate of `tls.client_ca` whose common name is the user. `trust`: nothing is asked."),
    key("auth", "users_file", Example(r#""/etc/tidegate/users.txt""#), Live, "PgBouncer's userlist.txt: a line for each user, `\"user\" \"secret\"`, where the secret is a password or what `pg_authid.rolpassword` holds."),
    key("auth", "hba_file", Example(r#""/etc/tidegate/pg_hba.conf""#), Live, "Who may connect from where, and how: PostgreSQL's `pg_hba.conf`, in place of `method`, which then only says where users are known from. The methods are `trust`, `reject`, `scram-sha-256`, `md5`, `password`, `cert` and `peer`; names of hosts, other methods and options are errors."),
    key("auth", "query", Example(r#""SELECT * FROM tidegate.user_lookup($1)""#), Live, "How users are looked up, as PgBouncer's `auth_query`: `$1` is the user, and the answer is one row with its name and what `pg_authid.rolpassword` holds, or none. Names are written with their schema, since the search path is `pg_catalog`; it runs read-only. With `passthrough` it takes the place of `pg_authid`; with the other methods users of `users_file` come first."),
    key("auth", "query_user", Example(r#""tidegate_lookup""#), Live, "Who runs `query`; the user of the primary's URL unless written. It need be no superuser, only allowed to call a SECURITY DEFINER function."),
    key("auth", "query_password", Example(r#""${DATABASE_PASSWORD}""#), Live, "The password of `query_user`; for the user of the primary's URL, that of the URL unless written."),
    key("auth", "query_database", Example(r#""postgres""#), Live, "Where `query` runs; the database of the primary's URL unless written."),
    key("auth", "trust_remote", Value(r#""refuse""#), Live, "With `trust`, whether other machines are believed too: `refuse` or `allow`."),

    key("tls", "mode", Example(r#""require""#), Live, "`disable`; `allow` or `prefer`: TLS for clients that ask; `require`: no session without, Unix sockets excepted; `verify-full`: and the client shows a certificate of `client_ca`. Unless written: `prefer` when there is a certificate, else `disable`."),
    key("tls", "cert", Example(r#""/etc/tidegate/server.crt""#), Live, "The certificate chain, PEM."),
    key("tls", "key", Example(r#""/etc/tidegate/server.key""#), Live, "Its private key, PEM."),
    key("tls", "client_ca", Example(r#""/etc/tidegate/clients.crt""#), Live, "The certificates that clients' certificates must lead to, PEM."),

    key("handover", "dir", Example(r#""/run/tidegate""#), Restart, "A folder of this user's alone (mode 0700), made if it is not there, in which processes find each other. Each Tidegate needs one of its own. Unless written, sockets are not handed over."),
    key("handover", "grace", Value(r#""1h""#), Live, "A process that was taken over serves its clients this long at most; then it drains."),

    key("limits", "clients_max", Value("20000"), Live, "Clients connected at once; one more is refused with SQLSTATE 53300."),
    key("limits", "login_timeout", Value(r#""60s""#), Live, "From the connection to the end of the login."),
    key("limits", "statement_timeout", Value(r#""off""#), Live, "A statement that has run this long on a server is cancelled there, and its client gets SQLSTATE 57014; measured in tenths of a second, and for statements that are sent together as one. `30s` is a start, where no backup or report needs longer."),
    key("limits", "critical_statement_timeout", Value(r#""off""#), Live, "The same for statements that wait before others (`SET tidegate.priority = 'critical'`, a comment, the routing policy). `60s` is a start."),
    key("limits", "client_idle_timeout", Value(r#""off""#), Live, "A client outside a transaction is disconnected after this long without a word."),
    key("limits", "idle_in_transaction_timeout", Value(r#""off""#), Live, "The same inside a transaction, where a client holds a server connection."),
    key("limits", "shutdown_grace", Value(r#""25s""#), Live, "A drain waits this long for clients to finish."),
    key("limits", "prepared_per_server_max", Value("500"), Live, "Prepared statements kept on one server connection before the least recently used is closed."),

    key("rates", "per_end_user", Value("0"), Restart, "Statements of each of the application's users, named by a comment (`/* user_id='7' */`) or `SET tidegate.user_id`. `0`: no limit; 100 is a start."),
    key("rates", "all", Value("0"), Restart, "Statements of all together. `0`: no limit; 10000 is a start."),
    key("rates", "window", Value(r#""60s""#), Restart, "The length of the window."),
    key("rates", "wait_max", Value(r#""250ms""#), Restart, "A statement over a limit waits this long at most for room, then is refused. `off`: refused at once."),
    key("rates", "administrators", Example(r#"["postgres"]"#), Restart, "Database users, or roles that users are members of, that are counted and never refused."),

    key("rates.redis", "url", Example(r#""redis://:${REDIS_PASSWORD}@10.0.0.9:6379""#), Restart, "`redis://USER:PASSWORD@HOST:PORT/NUMBER`, `rediss://…` (TLS), or `unix:///PATH`. Of a Redis Cluster, one node or several, as in `redis://HOST:PORT,HOST:PORT`; the others are found (`docs/cache.md#a-redis-cluster`)."),
    key("rates.redis", "root_ca", Example(r#""/etc/tidegate/redis-ca.pem""#), Restart, "With `rediss://`, a file of certificates to trust; the system's unless written."),
    key("rates.redis", "prefix", Value(r#""tidegate""#), Restart, "What all keys begin with. Those who have the same count together: give each cluster that shares a Redis with another one a prefix of its own."),
    key("rates.redis", "deadline", Value(r#""50ms""#), Restart, "A statement waits this long at most for Redis to count it; then `fail_mode` decides."),
    key("rates.redis", "fail_mode", Value(r#""local""#), Restart, "While Redis does not answer: `local` (each Tidegate counts alone, with the limit divided by their number), `open` (everything passes) or `closed` (nothing that is limited does)."),
    key("cache", "entries_max", Value("1000"), Restart, "Answers; the one that was asked for longest ago makes room. `0`: nothing is kept."),
    key("cache", "memory_mib_max", Value("64"), Restart, "Memory of answers and their keys, in MiB."),
    key("cache", "ttl_max", Value(r#""60s""#), Restart, "No answer is kept longer, whatever the policy says."),
    key("cache", "compress_kib_min", Value("16"), Restart, "Answers of so many KiB and more are kept compressed (LZ4), in memory and in Redis, where that saves an eighth; a hit opens them again. `0`: none are."),
    key("cache", "admission", Value(r#""always""#), Restart, "When there is no room left: `always`, each answer is kept, in place of the one that was asked for longest ago; `second`, those that were asked for a while ago, so that a scan of many different statements, each once, neither takes the room of what is asked for again nor costs a copy of each answer. With `[cache.redis]` it is `always`."),
    key("cache", "inspect_per_second", Value("0"), Restart, "One in a hundred of the answers that are given from memory or Redis, and so many in a second for each worker at most, is read once more on the primary and compared (`docs/cache.md#is-what-is-kept-true`). `0`: none is."),
    key("cache", "single_flight", Value(r#""5s""#), Restart, "Of several reads of the same at the same time one runs, and the others wait this long at most for what it brings. `off`: all run."),
    key("cache", "write_through", Value(r#""250ms""#), Restart, "A writer waits this long at most for answers that a policy has written through: they are read again before it hears that it has committed. `off`: they are but taken."),
    key("cache", "follow_wal", Value("false"), Restart, "Writes that do not pass Tidegate are followed in the log of each database, and take what they change (`docs/cache.md#writes-past-tidegate`); what is not followed is not kept. Needs `wal_level = logical` on the primary, and a user with REPLICATION."),
    key("cache", "follow_user", Example(r#""tidegate_follow""#), Restart, "Who follows; the user of the primary's URL unless written."),
    key("cache", "follow_password", Example(r#""${FOLLOW_PASSWORD}""#), Restart, "Its password."),

    key("cache.warm", "database", Example(r#""shop""#), Restart, "Where; the database of the primary's URL unless written."),
    key("cache.warm", "user", Example(r#""app""#), Restart, "As whom: only clients of this user find the answers. The user of the primary's URL unless written."),
    key("cache.warm", "password", Example(r#""${APP_PASSWORD}""#), Restart, "The user's password. The user of the primary's URL, and one that has logged in already, need none."),
    key("cache.warm", "settings", Example(r#"["TimeZone=UTC"]"#), Restart, "Start-up parameters of the clients that are to find the answers: other settings, other answers."),
    key("cache.warm", "statements", Example(r#"["SELECT * FROM products WHERE featured"]"#), Restart, "As clients send them, in a Query, 4 at the same time."),
    key("cache.warm", "file", Example(r#""/etc/tidegate/warm.sql""#), Restart, "More of them, one a line; empty lines and those that begin with `--` do not count."),

    key("cache.redis", "url", Example(r#""redis://:${REDIS_PASSWORD}@10.0.0.9:6379""#), Restart, "`redis://USER:PASSWORD@HOST:PORT/NUMBER`, `rediss://…` (TLS), or `unix:///PATH`. Of a Redis Cluster, one node or several, as in `redis://HOST:PORT,HOST:PORT`; the others are found (`docs/cache.md#a-redis-cluster`)."),
    key("cache.redis", "root_ca", Example(r#""/etc/tidegate/redis-ca.pem""#), Restart, "With `rediss://`, a file of certificates to trust; the system's unless written."),
    key("cache.redis", "prefix", Value(r#""tidegate""#), Restart, "What all keys begin with. Behind it they name the cluster, so that several may have one prefix."),
    key("cache.redis", "deadline", Value(r#""50ms""#), Restart, "A read waits this long at most for what Redis has; then a server is asked."),
    key("cache.redis", "lease", Value(r#""500ms""#), Restart, "Answers are served as long as every other Tidegate has been heard within this. When Redis is lost, commits wait this long at most and half as long again, once: until nobody serves what they change. The same everywhere."),
    key("cache.redis", "reliance", Value(r#""20ms""#), Restart, "What Redis has told of tables that have not changed for a second stands so long without being asked for again; who changes one waits so long before the commit. Up to a quarter of `lease`; `off`: each answer is asked for. The same everywhere."),

    key("log", "format", Value(r#""text""#), Restart, "`text` or `json`."),
    key("log", "filter", Value(r#""info""#), Live, "Levels, for all or by module: `info`, `info,tidegate::upstream=debug`. Orders over the admin API (the target `tidegate::audit`) are logged whatever it says, unless it names them: `warn,tidegate::audit=off`."),
];

const fn key(
    table: &'static str,
    name: &'static str,
    default: Fallback,
    reload: Reload,
    doc: &'static str,
) -> Key {
    Key { table, name, default, reload, doc }
}
