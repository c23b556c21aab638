//! PgBouncer as a process of its own, set up as its documentation recommends for many short transactions.

use crate::process::{Tree, end_with_us};
use crate::targets::{DATABASE, Door, POOL_SIZE, ROLE, START_TIME_MAX, TRUSTED_ROLE};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tidegate_test_support::{Cluster, free_port, wait_until};

/// Its name for the same database with a pool in session mode.
const SESSION_DATABASE: &str = "bench_session";
const PROGRAMS: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
/// The first that keeps prepared statements in transaction mode.
const PREPARES_SINCE: (u32, u32) = (1, 21);

/// A running PgBouncer. Dropping it kills it.
pub struct PgBouncer {
    child: Child,
    port: u16,
    version: (u32, u32),
}

impl PgBouncer {
    pub fn door(&self) -> Door {
        let tree = Some(Tree(self.child.id()));
        Door { port: self.port, role: ROLE, database: DATABASE, tree }
    }

    pub fn prepared_database(&self) -> &'static str {
        if self.version >= PREPARES_SINCE { DATABASE } else { SESSION_DATABASE }
    }

    /// For the report: which pool `prepared` runs in.
    pub fn prepares(&self) -> &'static str {
        if self.version >= PREPARES_SINCE {
            "in transaction mode, max_prepared_statements = 200"
        } else {
            "in session mode, one server connection for each client: before 1.21 no other works"
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `TIDEGATE_PGBOUNCER`, else what is installed.
fn program() -> Option<String> {
    let named = std::env::var("TIDEGATE_PGBOUNCER").ok();
    named.into_iter().chain(PROGRAMS.map(str::to_owned)).find(|path| Path::new(path).exists())
}

/// The first line of `pgbouncer --version`.
pub fn version_line() -> Option<String> {
    let output = Command::new(program()?).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Major and minor of `PgBouncer 1.18.0`.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Starts it in front of the primary; `users` is its userlist.txt.
pub fn start(cluster: &Cluster, users: &Path) -> Result<PgBouncer, String> {
    let program = program().ok_or("it is not installed (apt-get install pgbouncer)")?;
    let version = version_line().and_then(|line| parse_version(&line)).unwrap_or((0, 0));
    let port = free_port().map_err(|error| error.to_string())?;
    let folder = cluster.directory().join("pgbouncer");
    let (config, hba) = (folder.join("pgbouncer.ini"), folder.join("hba.conf"));
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let rules = format!(
            "host all {TRUSTED_ROLE} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        );
        fs::write(&hba, rules)?;
        fs::write(&config, configuration(cluster.primary().port(), port, &folder, users, version))
    };
    write().map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in [&folder, &config, &hba] {
        cluster.installation().hand_over(path).map_err(|error| error.to_string())?;
    }
    let mut command = cluster.installation().server(&program);
    command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    end_with_us(&mut command, libc::SIGKILL);
    let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let running = PgBouncer { child, port, version };
    let door = running.door();
    let up = std::panic::catch_unwind(|| {
        wait_until(START_TIME_MAX, "PgBouncer serves", || door.answers());
    });
    match up {
        Ok(()) => Ok(running),
        Err(_) => Err(fs::read_to_string(folder.join("log")).unwrap_or_default()),
    }
}

fn configuration(
    server_port: u16,
    port: u16,
    folder: &Path,
    users: &Path,
    version: (u32, u32),
) -> String {
    let server = format!("host=127.0.0.1 port={server_port} dbname={DATABASE}");
    let (folder, users) = (folder.display(), users.display());
    let prepared = if version >= PREPARES_SINCE { "max_prepared_statements = 200\n" } else { "" };
    format!(
        "[databases]\n\
         {DATABASE} = {server}\n\
         {SESSION_DATABASE} = {server} pool_mode=session pool_size=300\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = hba\n\
         auth_hba_file = {folder}/hba.conf\n\
         auth_file = {users}\n\
         logfile = {folder}/log\n\
         pool_mode = transaction\n\
         default_pool_size = {POOL_SIZE}\n\
         max_client_conn = 15000\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         ignore_startup_parameters = extra_float_digits\n\
         {prepared}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("PgBouncer 1.18.0"), Some((1, 18)));
        assert!(parse_version("PgBouncer 1.9.0") < Some(PREPARES_SINCE));
        assert!(parse_version("PgBouncer 1.25.1") >= Some(PREPARES_SINCE));
        assert_eq!(parse_version("nothing"), None);
    }
}
