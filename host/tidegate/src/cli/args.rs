//! Flags and help texts; what they mean for the configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::raw::{
    At, LogFilter, Raw, RawAdmin, RawAuth, RawCluster, RawLog, RawPool, RawTls,
};
use crate::config::{
    AuthMethod, ConfigError, ConfigSource, DEFAULT_FILE, FromText, Listen, LogFormat, Origin,
    PoolMode, Problem, ServerUrl, flag_value,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or drained in time
  1  something failed while running
  2  the command line or the configuration is wrong
  3  an address can't be listened on
  4  clients were cut off at the end of limits.shutdown_grace";

const SERVE_EXAMPLES: &str = "\
Examples:
  One server; its users log in with their own passwords:
    tidegate serve --primary postgres://postgres:secret@db:5432/shop
  A replica, and the admin API with a token from the environment:
    TIDEGATE_ADMIN_TOKEN=… tidegate serve --primary postgres://…@db1/shop \\
      --replica postgres://…@db2/shop --admin 127.0.0.1:6433
  Everything from a file (SIGHUP reads it again, SIGTERM drains):
    tidegate init && tidegate check && tidegate serve
  A new version in the place of the one that runs, without a client noticing:
    tidegate serve --take-over

Exit codes:
  0  done, or drained in time
  1  something failed while running
  2  the command line or the configuration is wrong
  3  an address can't be listened on
  4  clients were cut off at the end of limits.shutdown_grace";

const DEMO_EXAMPLES: &str = "\
Examples:
  tidegate demo
  tidegate demo --replicas 3 --port 6432 --admin-port 6433
  tidegate demo --keep --dir ./demo-cluster";

/// PostgreSQL middleware: applications connect to it as if it were their database.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve clients until SIGTERM or Ctrl-C, then drain
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeCommand),
    /// Say what is wrong with a configuration, all of it, and exit with 0 or 2
    Check(ServeArgs),
    /// Write a tidegate.toml in which every key is explained
    Init(InitArgs),
    /// Start a throw-away cluster with Tidegate in front, removed at Ctrl-C
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Load, swap and take back policies of a running Tidegate; make and test new ones
    Plugin(PluginArgs),
    /// Record which statements run, without what they hold, for `tidegate plugin replay`
    #[command(after_help = super::record::EXAMPLES)]
    Record(super::record::RecordArgs),
    /// Say what Tidegate and its policies make of a statement, without running it
    #[command(after_help = super::explain::EXAMPLES)]
    Explain(super::explain::ExplainArgs),
    /// Show the servers of a running Tidegate: roles, timelines, lag, and what was decided
    Topology(super::cluster::TopologyArgs),
    /// Make another server the primary, without loss
    #[command(after_help = super::cluster::SWITCHOVER_EXAMPLES)]
    Switchover(super::cluster::SwitchoverArgs),
    /// Make another server the primary in the place of one that is gone, whatever that loses
    #[command(after_help = super::cluster::FAILOVER_EXAMPLES)]
    Failover(super::cluster::FailoverArgs),
    /// Let no new reads go to a replica
    #[command(after_help = super::cluster::DRAIN_EXAMPLES)]
    Drain(super::cluster::ServerArgs),
    /// Let reads go there again
    Undrain(super::cluster::ServerArgs),
    /// Make a replica a copy of the primary again
    #[command(after_help = super::cluster::RESYNC_EXAMPLES)]
    Resync(super::cluster::ServerArgs),
    /// Send a test to everybody who is told when something is wrong
    Alert(super::alert::AlertArgs),
    /// Say what is kept of answers and how often it helped, and take it
    #[command(after_help = super::cache::EXAMPLES)]
    Cache(super::cache::CacheArgs),
    /// Hold a database's clients, let its transactions end and close its server connections
    #[command(after_help = super::pausing::PAUSE_EXAMPLES)]
    Pause(super::pausing::PauseArgs),
    /// Let held clients go on
    Resume(super::pausing::PoolsArgs),
    /// Replace server connections as they come free
    #[command(after_help = super::pausing::RECONNECT_EXAMPLES)]
    Reconnect(super::pausing::PoolsArgs),
    /// Make a component of one plugin, for a Tidegate that started this process
    #[command(hide = true)]
    EncodePlugin,
    /// Compile one plugin, for a Tidegate that started this process
    #[command(hide = true)]
    CompilePlugin(CompilePluginArgs),
    /// Print the version
    Version,
}

#[derive(Debug, clap::Args)]
pub(super) struct CompilePluginArgs {
    #[arg(long)]
    pub(super) instances: usize,
    #[arg(long)]
    pub(super) memory_bytes_max: usize,
}

#[derive(Debug, clap::Args)]
#[command(after_help = super::plugin::EXAMPLES)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    pub(super) command: super::plugin::PluginCommand,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeCommand {
    /// Take the listening sockets over from the process that serves, if there is one (see handover.dir)
    #[arg(long)]
    pub(super) take_over: bool,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

/// Flags win over the file.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration; tidegate.toml if that is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect, repeatable: ADDRESS:PORT or unix:PATH [default: 127.0.0.1:6432]
    #[arg(long, value_name = "ADDRESS", value_parser = flag::<Listen>)]
    listen: Vec<Listen>,
    /// The server that takes writes: postgres://USER:PASSWORD@HOST:PORT/DATABASE
    // Read later: clap's errors repeat the value, and with it the password.
    #[arg(long, value_name = "URL")]
    primary: Option<String>,
    /// A streaming replica of it, repeatable
    #[arg(long, value_name = "URL")]
    replica: Vec<String>,
    /// Where the admin API listens; its token is TIDEGATE_ADMIN_TOKEN [default: off]
    #[arg(long, value_name = "ADDRESS", value_parser = flag::<SocketAddr>)]
    admin: Option<SocketAddr>,
    /// A file whose first line is the admin token
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Data-plane threads; 0 is one for each processor [default: 0]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// When a server connection goes back to its pool: transaction or session [default:
    /// transaction]
    #[arg(long, value_name = "MODE", value_parser = flag::<PoolMode>)]
    pool_mode: Option<PoolMode>,
    /// Server connections a pool opens at most [default: 50]
    #[arg(long, value_name = "N")]
    pool_size: Option<usize>,
    /// How clients log in: passthrough, scram-sha-256, md5, password, certificate, trust [default:
    /// passthrough]
    #[arg(long, value_name = "METHOD", value_parser = flag::<AuthMethod>)]
    auth: Option<AuthMethod>,
    /// The users, as in PgBouncer's userlist.txt
    #[arg(long, value_name = "FILE")]
    users_file: Option<PathBuf>,
    /// The certificate chain that clients see, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Log lines as text or json [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = flag::<LogFormat>)]
    log: Option<LogFormat>,
    /// Levels, for all or by module: info, info,tidegate::upstream=debug [default: info]
    #[arg(long, value_name = "FILTER", value_parser = log_filter)]
    log_level: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// Where to write it; - is standard output
    #[arg(value_name = "PATH", default_value = DEFAULT_FILE)]
    pub(super) path: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Streaming replicas beside the primary
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) replicas: usize,
    /// Where clients connect [default: a free port]
    #[arg(long, value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// Where the admin API listens [default: a free port]
    #[arg(long, value_name = "PORT")]
    pub(super) admin_port: Option<u16>,
    /// Leave the cluster's folder behind
    #[arg(long)]
    pub(super) keep: bool,
    /// The cluster's folder, new or empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

impl ServeArgs {
    /// The file, and these flags over it.
    ///
    /// # Errors
    /// Flags whose values can't be read.
    pub(super) fn source(self) -> Result<ConfigSource, Vec<ConfigError>> {
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| is_there(file));
        let file = self.config.clone().or_else(default);
        Ok(ConfigSource::new(file, self.raw()?))
    }

    pub(super) fn raw(self) -> Result<Raw, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let primary = self.primary.as_slice();
        let cluster = RawCluster {
            primary: urls("--primary", "cluster.primary", primary, &mut errors).pop(),
            replicas: urls("--replica", "cluster.replicas", &self.replica, &mut errors),
            ..RawCluster::default()
        };
        let raw = Raw {
            listen: all("--listen", self.listen),
            workers: one("--workers", self.workers),
            cluster,
            admin: RawAdmin {
                address: one("--admin", self.admin),
                token_file: one("--admin-token-file", self.admin_token_file),
                ..RawAdmin::default()
            },
            pool: RawPool {
                mode: one("--pool-mode", self.pool_mode),
                size_max: one("--pool-size", self.pool_size),
                ..RawPool::default()
            },
            auth: RawAuth {
                method: one("--auth", self.auth),
                users_file: one("--users-file", self.users_file),
                ..RawAuth::default()
            },
            tls: RawTls {
                cert: one("--tls-cert", self.tls_cert),
                key: one("--tls-key", self.tls_key),
                ..RawTls::default()
            },
            log: RawLog {
                format: one("--log", self.log),
                filter: one("--log-level", self.log_level.map(LogFilter)),
            },
            ..Raw::default()
        };
        if errors.is_empty() { Ok(raw) } else { Err(errors) }
    }
}

fn urls(
    name: &'static str,
    key: &str,
    texts: &[String],
    errors: &mut Vec<ConfigError>,
) -> Vec<At<ServerUrl>> {
    let mut urls = Vec::with_capacity(texts.len());
    for text in texts {
        match flag_value(text) {
            Ok(url) => urls.push(At::flag(name, url)),
            Err(message) => errors.push(ConfigError {
                origin: Some(Origin::Flag(name)),
                key: key.to_owned(),
                problem: Problem::BadValue(message),
            }),
        }
    }
    urls
}

fn one<T>(name: &'static str, value: Option<T>) -> Option<At<T>> {
    value.map(|value| At::flag(name, value))
}

fn all<T>(name: &'static str, values: Vec<T>) -> Vec<At<T>> {
    values.into_iter().map(|value| At::flag(name, value)).collect()
}

/// A file that is there but can't be read is an error later, not a file that is not there.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn flag<T: FromText>(text: &str) -> Result<T, String> {
    flag_value(text)
}

fn log_filter(text: &str) -> Result<String, String> {
    flag_value::<LogFilter>(text).map(|filter| filter.0)
}
