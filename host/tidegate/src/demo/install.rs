//! Where PostgreSQL's programs are, and as whom its servers run.

use super::error::ClusterError;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variables that would steer PostgreSQL's programs to somebody else's server.
const FOREIGN_VARIABLES: [&str; 12] = [
    "PGDATA",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGDATABASE",
    "PGSERVICE",
    "PGOPTIONS",
    "PGSSLMODE",
    "PGAPPNAME",
];

/// Accounts a server may run as when we are root, which PostgreSQL refuses; the first that exists is taken.
const SERVER_ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// One installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Installation {
    bin: PathBuf,
    account: Option<Account>,
}

/// An unprivileged account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Installation {
    /// Looks in `PATH`, then for the newest of Debian's and Red Hat's versioned folders, then asks `pg_config`.
    pub fn find() -> Result<Installation, ClusterError> {
        let bin = from_path()
            .or_else(newest_versioned)
            .or_else(from_pg_config)
            .ok_or(ClusterError::NotInstalled)?;
        // SAFETY: geteuid takes no argument, touches no memory and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        let account = if root { Some(server_account()?) } else { None };
        Ok(Installation { bin, account })
    }

    /// The folder that holds `postgres`, `initdb`, `psql` and the others.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The account servers run as, when it is not our own.
    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// One of PostgreSQL's programs with our own rights, deaf to the caller's PG variables and standard input.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        for variable in FOREIGN_VARIABLES {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// One of PostgreSQL's programs as the servers' account, in a folder that account can enter, and out of reach of
    /// the terminal's Ctrl-C, which is ours to answer.
    pub fn server(&self, program: &str) -> Command {
        let mut command = self.client(program);
        command.current_dir("/").process_group(0);
        if let Some(account) = self.account {
            // The standard library drops supplementary groups when root sets a uid.
            command.gid(account.gid).uid(account.uid);
        }
        command
    }

    /// Gives a file or folder of ours to the servers' account.
    pub fn hand_over(&self, path: &Path) -> Result<(), ClusterError> {
        let Some(account) = self.account else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .map_err(|error| ClusterError::io(format!("give {} away", path.display()), error))
    }

    /// The version as `postgres --version` says it, for people.
    pub fn version(&self) -> String {
        let output = self.client("postgres").arg("--version").output();
        output.map_or_else(
            |_| "postgres".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }
}

fn complete(bin: &Path) -> bool {
    ["postgres", "initdb", "pg_basebackup", "psql"].iter().all(|name| bin.join(name).is_file())
}

fn from_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).find(|bin| complete(bin))
}

fn newest_versioned() -> Option<PathBuf> {
    let debian = versioned("/usr/lib/postgresql", "");
    let red_hat = versioned("/usr", "pgsql-");
    debian.into_iter().chain(red_hat).max_by_key(|(version, _)| *version).map(|(_, bin)| bin)
}

fn versioned(parent: &str, prefix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| complete(bin))
        .collect()
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let bin = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    complete(&bin).then_some(bin)
}

fn server_account() -> Result<Account, ClusterError> {
    let passwd = fs::read_to_string("/etc/passwd")
        .map_err(|error| ClusterError::io("read /etc/passwd".to_owned(), error))?;
    SERVER_ACCOUNTS
        .iter()
        .find_map(|name| account_in(&passwd, name))
        .ok_or(ClusterError::NoServerAccount)
}

/// Finds `name:password:uid:gid:…` in the text of a passwd file; never root.
fn account_in(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then_some(Account { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresx:x:5:6::/:\npostgres:x:101:104:,,,:/:\n";
        assert_eq!(account_in(passwd, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(account_in(passwd, "nobody"), None);
    }

    #[test]
    fn root_is_never_a_servers_account() {
        assert_eq!(account_in("root:x:0:0::/root:/bin/sh\n", "root"), None);
    }
}
