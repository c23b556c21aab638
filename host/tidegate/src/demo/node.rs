//! One PostgreSQL server of a throw-away cluster.

use super::error::ClusterError;
use super::install::Installation;
use super::ports;
use super::process::{Signal, children_of, ended_within, has_ended, poll, send};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A server is up, or has given up, within this; recovery after a kill is part of it.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// A fast shutdown waits for standbys to receive everything; after this it becomes an immediate one.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
const KILL_TIME_MAX: Duration = Duration::from_secs(10);
/// Free ports tried before we give up.
const PORT_ATTEMPTS_MAX: usize = 5;
/// The end of a log that goes into an error, in lines.
const LOG_TAIL_LINES: usize = 40;

/// A server and its data directory. All methods take `&self`: a cluster is shared by tests.
#[derive(Debug)]
pub struct Node {
    name: String,
    data: PathBuf,
    port: AtomicU16,
    installation: Installation,
    postmaster: Mutex<Option<Child>>,
}

impl Node {
    pub(super) fn new(installation: &Installation, name: &str, data: PathBuf) -> Node {
        Node {
            name: name.to_owned(),
            data,
            port: AtomicU16::new(0),
            installation: installation.clone(),
            postmaster: Mutex::new(None),
        }
    }

    /// `primary`, `replica-1`, …: also its folder and its `cluster_name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// The folder of its Unix socket, which only root and the servers' account can enter, and which trusts them.
    pub fn socket_directory(&self) -> &Path {
        self.data.parent().unwrap_or(&self.data)
    }

    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// `postgres://user:password@127.0.0.1:port/db`, with the password that [`super::cluster::password_of`] names.
    pub fn url(&self, user: &str, database: &str) -> String {
        let password = super::cluster::password_of(user);
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// Runs SQL as the superuser in database `postgres`; rows come as lines, columns separated by `|`.
    pub fn psql(&self, sql: &str) -> Result<String, ClusterError> {
        self.psql_in("postgres", sql)
    }

    /// The same in another database. Statements run one by one, and the first error ends it.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        let failed = |error| ClusterError::io("run psql".to_owned(), error);
        let mut child = self
            .installation
            .client("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"])
            .arg("-h")
            .arg(self.socket_directory())
            .args(["-p", &self.port().to_string(), "-d", database, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // psql stops reading at an error; its message says more than our broken pipe.
            let _ = input.write_all(sql.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(ClusterError::Program { name: format!("psql on {}", self.name), output: said })
        }
    }

    /// Starts on a free port, or on `wanted`, and waits until it accepts connections.
    pub(super) fn start_on(&self, wanted: Option<u16>) -> Result<(), ClusterError> {
        let mut attempts_left = if wanted.is_some() { 1 } else { PORT_ATTEMPTS_MAX };
        loop {
            attempts_left -= 1;
            let port = match wanted {
                Some(port) => port,
                None => ports::free_port()
                    .map_err(|error| ClusterError::io("find a free port".to_owned(), error))?,
            };
            self.port.store(port, Ordering::Relaxed);
            self.write_own_settings(port)?;
            match self.start() {
                Err(ClusterError::Server { log, .. })
                    if attempts_left > 0 && log.contains("Address already in use") => {}
                other => return other,
            }
        }
    }

    /// Starts on the port it had before and waits until it accepts connections. A running server is left alone.
    pub fn start(&self) -> Result<(), ClusterError> {
        let mut postmaster = self.lock();
        if postmaster.is_some() {
            return Ok(());
        }
        let log = self.open_log()?;
        let failed = |error| ClusterError::io(format!("start {}", self.name), error);
        let mut child = self
            .installation
            .server("postgres")
            .arg("-D")
            .arg(&self.data)
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let ready = self.wait_until_ready(&mut child);
        if ready.is_ok() {
            *postmaster = Some(child);
        } else {
            end(child, Signal::Quit, KILL_TIME_MAX);
        }
        ready
    }

    /// Fast shutdown: open transactions are aborted, everything is flushed.
    pub fn stop(&self) {
        if let Some(child) = self.lock().take() {
            self.signal_all(&child, Signal::Continue);
            end(child, Signal::Interrupt, STOP_TIME_MAX);
        }
    }

    /// Immediate shutdown, as at the end of a cluster: nothing is flushed, the next start recovers.
    pub fn stop_now(&self) {
        if let Some(child) = self.lock().take() {
            self.signal_all(&child, Signal::Continue);
            end(child, Signal::Quit, KILL_TIME_MAX);
        }
    }

    pub fn restart(&self) -> Result<(), ClusterError> {
        self.stop();
        self.start()
    }

    /// What pulling the plug does to its processes: all die at once, without a word to anybody.
    pub fn kill(&self) {
        if let Some(child) = self.lock().take() {
            send(child.id(), Signal::Stop); // it must not start successors meanwhile
            let children = children_of(child.id());
            self.signal_all(&child, Signal::Kill);
            end(child, Signal::Kill, KILL_TIME_MAX);
            // Each holds the shared memory until it has ended, and a successor finds it in use.
            poll(KILL_TIME_MAX, || children.iter().all(|pid| has_ended(*pid)));
        }
    }

    /// Freezes all its processes: connections stay open, the kernel even accepts new ones, nobody answers.
    pub fn pause(&self) {
        if let Some(child) = self.lock().as_ref() {
            send(child.id(), Signal::Stop);
            self.signal_all(child, Signal::Stop);
        }
    }

    pub fn resume(&self) {
        if let Some(child) = self.lock().as_ref() {
            self.signal_all(child, Signal::Continue);
        }
    }

    /// Whether its postmaster lives, paused or not.
    pub fn is_running(&self) -> bool {
        self.lock().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// `psql`, `pg_dump`, `pg_basebackup`, … of the installation this server runs from.
    pub fn client(&self, program: &str) -> Command {
        self.installation.client(program)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        // A test that panicked while it held the lock leaves the child as it was.
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal_all(&self, postmaster: &Child, signal: Signal) {
        for pid in children_of(postmaster.id()) {
            send(pid, signal);
        }
        send(postmaster.id(), signal);
    }

    /// Settings that differ by server; `postgresql.conf`, which a base backup copies, includes them last.
    fn write_own_settings(&self, port: u16) -> Result<(), ClusterError> {
        let path = self.data.join("node.conf");
        let settings = format!(
            "port = {port}\ncluster_name = '{}'\nunix_socket_directories = '{}'\n",
            self.name,
            self.socket_directory().display()
        );
        fs::write(&path, settings)
            .map_err(|error| ClusterError::io(format!("write {}", path.display()), error))?;
        self.installation.hand_over(&path)
    }

    /// The log stands beside the data directory, where a base backup does not copy it.
    fn open_log(&self) -> Result<File, ClusterError> {
        let path = self.log_path();
        let failed = |error| ClusterError::io(format!("open {}", path.display()), error);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        self.installation.hand_over(&path)?;
        Ok(file)
    }

    /// A postmaster writes its state into the eighth line of its pid file.
    fn wait_until_ready(&self, child: &mut Child) -> Result<(), ClusterError> {
        let pid_file = self.data.join("postmaster.pid");
        let pid = child.id().to_string();
        let mut ended = false;
        let is_ready = || {
            fs::read_to_string(&pid_file).is_ok_and(|text| {
                let mut lines = text.lines();
                lines.next() == Some(pid.as_str())
                    && lines.nth(6).is_some_and(|state| state.trim() == "ready")
            })
        };
        poll(START_TIME_MAX, || {
            ended = !matches!(child.try_wait(), Ok(None));
            ended || is_ready()
        });
        if ended {
            Err(ClusterError::Server {
                name: self.name.clone(),
                problem: "the server ended while it started".to_owned(),
                log: self.log_tail(),
            })
        } else if is_ready() {
            Ok(())
        } else {
            Err(ClusterError::Timeout {
                what: format!("{} to accept connections", self.name),
                waited: START_TIME_MAX,
                log: self.log_tail(),
            })
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// Sends the signal, waits, and kills what does not end; the child is reaped in any case.
fn end(mut child: Child, signal: Signal, limit: Duration) {
    send(child.id(), signal);
    if !ended_within(&mut child, limit) {
        for pid in children_of(child.id()) {
            send(pid, Signal::Kill);
        }
        send(child.id(), Signal::Kill);
        let _: io::Result<_> = child.wait();
    }
}
