//! `tidegate demo`: a throw-away cluster with a shop's data, and Tidegate in front of it.

pub mod cluster; // a primary and its replicas
pub mod error; // what can go wrong with them
pub mod install; // where PostgreSQL is, and as whom servers run
pub mod node; // one server
pub mod ports; // free ones
mod process; // signals
mod scratch; // a folder that is cleaned up in any case

mod front; // the proxy

pub use cluster::{Cluster, ClusterOptions, Durability, HostAuth, password_of};
pub use error::ClusterError;
pub use node::Node;
pub use ports::free_port;
pub use process::poll;
pub use scratch::AtExit;

use front::Front;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Instant;

const DATABASE: &str = "shop";
const ROLE: &str = "app";
const SHOP: &str = include_str!("shop.sql");
/// Who asks the servers what they are, and promotes: with the rights that docs/failover.md asks for.
const KEEPER: &str = "tidegate";
const KEEPER_RIGHTS: &str = "\
    ALTER ROLE tidegate REPLICATION; \
    GRANT pg_monitor, pg_signal_backend, pg_checkpoint TO tidegate; \
    GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO tidegate; \
    GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, default_transaction_read_only, synchronous_standby_names TO tidegate;";

/// What the command line may say.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// Streaming replicas beside the primary.
    pub replicas: usize,
    /// Where clients connect; a free port if none is given.
    pub port: Option<u16>,
    /// Where the admin API listens; a free port if none is given.
    pub admin_port: Option<u16>,
    /// Leave the cluster's folder behind.
    pub keep: bool,
    /// The cluster's folder, new or empty; a temporary one if none is given.
    pub dir: Option<PathBuf>,
}

/// Runs until Ctrl-C or SIGTERM, then stops everything and, without `keep`, removes it.
pub fn run(options: DemoOptions) -> Result<(), String> {
    let begun = Instant::now();
    let cluster = make_cluster(&options).map_err(|error| error.to_string())?;
    let front = make_front(&options, &cluster)?;
    let configured = front.configure(cluster.directory())?;
    let farewell = farewell(&options, &cluster);
    print("starting Tidegate in front …");
    let ended = front.run(configured, || print(&welcome(&front, &cluster, begun)));
    println!("\nStopping the servers …");
    drop(cluster);
    println!("{farewell}");
    ended
}

fn make_cluster(options: &DemoOptions) -> Result<Cluster, ClusterError> {
    let wanted = ClusterOptions {
        replicas: options.replicas,
        directory: keeping_directory(options),
        at_exit: if options.keep { AtExit::Keep } else { AtExit::Remove },
        ..ClusterOptions::default()
    };
    let what = match options.replicas {
        0 => "making a throw-away PostgreSQL primary".to_owned(),
        1 => "making a throw-away PostgreSQL primary and a streaming replica".to_owned(),
        n => format!("making a throw-away PostgreSQL primary and {n} streaming replicas"),
    };
    let cluster = step(&what, || Cluster::start(&wanted))?;
    step("filling it with a small shop's data", || {
        cluster.create_role(ROLE)?;
        cluster.create_role(KEEPER)?;
        cluster.create_database(DATABASE, "postgres")?;
        cluster.primary().psql_in(DATABASE, SHOP)?;
        cluster.primary().psql_in(DATABASE, KEEPER_RIGHTS)?;
        cluster.wait_until_caught_up()
    })?;
    Ok(cluster)
}

/// A folder that stays needs a name that says what it is.
fn keeping_directory(options: &DemoOptions) -> Option<PathBuf> {
    let unnamed_but_kept = options.keep && options.dir.is_none();
    if unnamed_but_kept {
        return Some(std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id())));
    }
    options.dir.clone()
}

fn make_front(options: &DemoOptions, cluster: &Cluster) -> Result<Front, String> {
    let token_file = cluster.directory().join("admin.token");
    let token = random_token()?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&token_file)
        .and_then(|mut file| writeln!(file, "{token}"))
        .map_err(|error| format!("could not write {}: {error}", token_file.display()))?;
    Ok(Front {
        listen: local(options.port)?,
        admin: local(options.admin_port)?,
        admin_token_file: token_file,
        primary: cluster.primary().url(ROLE, DATABASE),
        replicas: cluster.replicas().iter().map(|node| node.url(ROLE, DATABASE)).collect(),
        keeper: (KEEPER, password_of(KEEPER)),
    })
}

fn local(port: Option<u16>) -> Result<SocketAddr, String> {
    let port = match port {
        Some(port) => port,
        None => free_port().map_err(|error| format!("could not find a free port: {error}"))?,
    };
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// 128 random bits in hexadecimal.
fn random_token() -> Result<String, String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Says what happens before it happens, and how long it took after.
fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    print(&format!("{what} …"));
    let begun = Instant::now();
    let done = work();
    let word = if done.is_ok() { "done" } else { "failed" };
    println!(" {word} in {:.1} s", begun.elapsed().as_secs_f64());
    done
}

fn print(text: &str) {
    print!("{text}");
    let _ = std::io::stdout().flush();
}

fn welcome(front: &Front, cluster: &Cluster, begun: Instant) -> String {
    let version = cluster.installation().version();
    let servers: Vec<String> =
        cluster.nodes().map(|node| format!("{} :{}", node.name(), node.port())).collect();
    let url = format!("postgres://{ROLE}:{}@{}/{DATABASE}", password_of(ROLE), front.listen);
    let psql = cluster.installation().bin().join("psql");
    let admin = front.admin;
    let token_file = front.admin_token_file.display();
    format!(
        " done

Tidegate is ready, {seconds:.1} s after the start. {version}: {servers}

  connect    {url}
  psql       {psql} '{url}'
  admin API  http://{admin}   (bearer token in {token_file})

Try:
  SELECT * FROM revenue_by_month ORDER BY month DESC LIMIT 6;
  SELECT city, count(*) FROM customers GROUP BY city ORDER BY 2 DESC;
  BEGIN; UPDATE products SET stock = stock - 1 WHERE id = 7 RETURNING name, stock; ROLLBACK;
  SET statement_timeout = '2s'; PREPARE p AS SELECT name FROM products WHERE id = $1; EXECUTE p(3);
  SELECT name FROM products WHERE id = 7 /* user_id='me' */;   -- six times: this user has five a minute
  kill -9 $(head -1 {primary}/postmaster.pid)   -- and go on: a replica takes over; tidegate topology shows it
  curl -H \"Authorization: Bearer $(cat {token_file})\" http://{admin}/api/v1/pools

Ctrl-C stops everything.
",
        seconds = begun.elapsed().as_secs_f64(),
        servers = servers.join(", "),
        psql = psql.display(),
        primary = cluster.primary().data_directory().display(),
    )
}

fn farewell(options: &DemoOptions, cluster: &Cluster) -> String {
    if !options.keep {
        return "Everything is stopped and removed.".to_owned();
    }
    let directory = cluster.directory().display();
    let pg_ctl = cluster.installation().bin().join("pg_ctl");
    let prefix = match cluster.installation().account() {
        Some(account) => {
            format!("setpriv --reuid {} --regid {} --clear-groups ", account.uid, account.gid)
        }
        None => String::new(),
    };
    let start: Vec<String> = cluster
        .nodes()
        .map(|node| {
            format!(
                "  {prefix}{} -D {} -l {} start",
                pg_ctl.display(),
                node.data_directory().display(),
                node.log_path().display()
            )
        })
        .collect();
    format!(
        "Everything is stopped; the data stays in {directory}\nTo start it again:\n{}\n\
         To remove it:\n  rm -r {directory}",
        start.join("\n")
    )
}

#[cfg(test)]
mod tests;
