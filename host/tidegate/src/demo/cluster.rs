//! A throw-away PostgreSQL cluster: a primary and streaming replicas, made in a few seconds, gone without a trace.
//!
//! Used by `tidegate demo` and by the tests. Everything is synchronous and runs the installed programs.

use super::error::ClusterError;
use super::install::Installation;
use super::node::Node;
use super::process::poll;
use super::scratch::{AtExit, Scratch};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

/// Replicas stream, or have caught up, within this.
const REPLICATION_TIME_MAX: Duration = Duration::from_secs(60);
/// Room for 16 replicas, their base backups and a logical client or two.
const WAL_SENDERS: usize = 20;

/// How servers ask TCP clients for proof; the Unix socket always trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostAuth {
    #[default]
    ScramSha256,
    /// Roles then get md5 hashes, else servers would ask for SCRAM all the same.
    Md5,
    /// The password in clear.
    Password,
    Trust,
}

/// Whether servers wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// `fsync = off`: a killed server recovers, a machine that loses power does not.
    #[default]
    None,
    Fsync,
}

/// What to make.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    pub replicas: usize,
    pub host_auth: HostAuth,
    pub durability: Durability,
    /// Lines for `pg_hba.conf`, put before ours, so that they win.
    pub hba: Vec<String>,
    /// Lines for `postgresql.conf` of all servers, put after ours, so that they win.
    pub conf: Vec<String>,
    /// The folder to use: new or empty. A temporary one if none is named.
    pub directory: Option<PathBuf>,
    pub at_exit: AtExit,
}

/// A running cluster. Dropping it stops the servers and removes the folder; so does the end of the program, even by
/// SIGKILL, a moment later.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the servers stop before their folder goes.
    primary: Node,
    replicas: Vec<Node>,
    installation: Installation,
    scratch: Scratch,
}

/// The password of every role that a cluster makes.
pub fn password_of(user: &str) -> String {
    format!("{user}-password")
}

impl Cluster {
    /// Makes and starts a cluster; returns when all replicas stream.
    pub fn start(options: &ClusterOptions) -> Result<Cluster, ClusterError> {
        let installation = Installation::find()?;
        let scratch = match &options.directory {
            Some(path) => Scratch::at(&installation, path, options.at_exit)?,
            None => Scratch::temporary(&installation)?,
        };
        let primary = Node::new(&installation, "primary", scratch.path().join("primary"));
        copy_template(&installation, primary.data_directory())?;
        configure(primary.data_directory(), options)?;
        primary.start_on(None)?;
        let replicas = thread::scope(|scope| {
            let building: Vec<_> = (1..=options.replicas)
                .map(|number| {
                    let (installation, scratch, primary) = (&installation, &scratch, &primary);
                    scope.spawn(move || build_replica(installation, scratch, primary, number))
                })
                .collect();
            building
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Result<Vec<Node>, ClusterError>>()
        })?;
        let cluster = Cluster { primary, replicas, installation, scratch };
        cluster.wait_until_streaming()?;
        Ok(cluster)
    }

    pub fn primary(&self) -> &Node {
        &self.primary
    }

    /// The replicas; the first is number 0, though its name is `replica-1`.
    pub fn replicas(&self) -> &[Node] {
        &self.replicas
    }

    /// One replica, counted from 0; panics, like an index, when there are not so many.
    pub fn replica(&self, index: usize) -> &Node {
        &self.replicas[index]
    }

    /// Primary first, then replicas.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The folder that holds the data directories (`primary`, `replica-1`, …) and their logs beside them.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// A login role with the password of [`password_of`]; no trouble if it exists.
    pub fn create_role(&self, name: &str) -> Result<(), ClusterError> {
        let password = password_of(name);
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'; \
             EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        );
        self.primary.psql(&sql).map(drop)
    }

    /// A database that belongs to a role.
    pub fn create_database(&self, name: &str, owner: &str) -> Result<(), ClusterError> {
        self.primary.psql(&format!("CREATE DATABASE \"{name}\" OWNER \"{owner}\"")).map(drop)
    }

    /// Waits until every replica streams from the primary.
    pub fn wait_until_streaming(&self) -> Result<(), ClusterError> {
        let wanted = self.replicas.len().to_string();
        self.wait_for_primary(
            "all replicas to stream",
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'",
            &wanted,
        )
    }

    /// Waits until every replica has replayed what the primary has written by now.
    pub fn wait_until_caught_up(&self) -> Result<(), ClusterError> {
        let target = self.primary.psql("SELECT pg_current_wal_insert_lsn()")?;
        self.wait_for_primary(
            "all replicas to catch up",
            &format!(
                "SELECT count(*) FROM pg_stat_replication \
                 WHERE state = 'streaming' AND replay_lsn >= '{target}'"
            ),
            &self.replicas.len().to_string(),
        )
    }

    fn wait_for_primary(&self, what: &str, sql: &str, wanted: &str) -> Result<(), ClusterError> {
        if wanted == "0" {
            return Ok(());
        }
        let mut last = Ok(String::new());
        let held = poll(REPLICATION_TIME_MAX, || {
            last = self.primary.psql(sql);
            last.as_ref().is_ok_and(|answer| answer == wanted)
        });
        last?;
        if held {
            return Ok(());
        }
        Err(ClusterError::Timeout {
            what: what.to_owned(),
            waited: REPLICATION_TIME_MAX,
            log: self.nodes().map(Node::log_tail).collect::<Vec<_>>().join("\n---\n"),
        })
    }
}

/// `initdb` runs once in a program; clusters copy what it made.
fn copy_template(installation: &Installation, to: &Path) -> Result<(), ClusterError> {
    static TEMPLATE: OnceLock<Result<Scratch, String>> = OnceLock::new();
    let template = TEMPLATE
        .get_or_init(|| make_template(installation).map_err(|error| error.to_string()))
        .as_ref()
        .map_err(|output| ClusterError::Program {
            name: "initdb".to_owned(),
            output: output.clone(),
        })?;
    let mut copy = Command::new("cp");
    run("cp", copy.arg("-a").arg(template.path().join("data")).arg(to))
}

fn make_template(installation: &Installation) -> Result<Scratch, ClusterError> {
    let scratch = Scratch::temporary(installation)?;
    let password_file = scratch.path().join("password");
    fs::write(&password_file, password_of("postgres"))
        .map_err(|error| ClusterError::io("write a password file".to_owned(), error))?;
    installation.hand_over(&password_file)?;
    let mut initdb = installation.server("initdb");
    initdb
        .args(["--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg(format!("--pwfile={}", password_file.display()))
        .arg("-D")
        .arg(scratch.path().join("data"));
    run("initdb", &mut initdb)?;
    Ok(scratch)
}

fn configure(data: &Path, options: &ClusterOptions) -> Result<(), ClusterError> {
    let durability = match options.durability {
        Durability::None => "fsync = off\nfull_page_writes = off\n",
        Durability::Fsync => "",
    };
    let (method, encryption) = match options.host_auth {
        HostAuth::ScramSha256 => ("scram-sha-256", "scram-sha-256"),
        HostAuth::Md5 => ("md5", "md5"),
        HostAuth::Password => ("password", "scram-sha-256"),
        HostAuth::Trust => ("trust", "scram-sha-256"),
    };
    let settings = format!(
        "\n# --- a throw-away cluster ---\n\
         listen_addresses = '127.0.0.1'\n\
         unix_socket_permissions = 0700\n\
         max_connections = 200\n\
         password_encryption = '{encryption}'\n\
         wal_level = logical\n\
         max_wal_senders = {WAL_SENDERS}\n\
         max_replication_slots = {WAL_SENDERS}\n\
         wal_keep_size = 512MB # base backups run side by side, before their slots hold anything\n\
         max_prepared_transactions = 20\n\
         hot_standby = on\n\
         wal_receiver_status_interval = 1s\n\
         wal_retrieve_retry_interval = 200ms\n\
         dynamic_shared_memory_type = mmap # a killed server then leaves nothing in /dev/shm\n\
         logging_collector = off\n\
         {durability}{}\n\
         include_if_exists 'node.conf'\n",
        options.conf.join("\n")
    );
    append(&data.join("postgresql.conf"), &settings)?;
    let hba = format!(
        "{}\n\
         local all all trust\n\
         local replication all trust\n\
         host all all 127.0.0.1/32 {method}\n\
         host replication all 127.0.0.1/32 {method}\n",
        options.hba.join("\n")
    );
    let path = data.join("pg_hba.conf");
    fs::write(&path, hba)
        .map_err(|error| ClusterError::io(format!("write {}", path.display()), error))
}

fn append(path: &Path, text: &str) -> Result<(), ClusterError> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| ClusterError::io(format!("write {}", path.display()), error))
}

fn build_replica(
    installation: &Installation,
    scratch: &Scratch,
    primary: &Node,
    number: usize,
) -> Result<Node, ClusterError> {
    let name = format!("replica-{number}");
    let slot = format!("replica_{number}");
    let node = Node::new(installation, &name, scratch.path().join(&name));
    // The socket asks for no password; another primary, by TCP, will.
    let connection = format!(
        "host={} port={} user=postgres password={} application_name={name}",
        primary.socket_directory().display(),
        primary.port(),
        password_of("postgres")
    );
    let mut backup = installation.server("pg_basebackup");
    backup
        .arg("-D")
        .arg(node.data_directory())
        .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"])
        .args(["--create-slot", "--slot", &slot, "--dbname", &connection]);
    run("pg_basebackup", &mut backup)?;
    node.start_on(None)?;
    Ok(node)
}

fn run(name: &str, command: &mut Command) -> Result<(), ClusterError> {
    let output =
        command.output().map_err(|error| ClusterError::io(format!("run {name}"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(ClusterError::Program {
        name: name.to_owned(),
        output: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}
