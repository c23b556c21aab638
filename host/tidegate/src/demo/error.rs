//! What can go wrong while a throw-away cluster is made or handled.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug)]
pub enum ClusterError {
    /// No folder holds PostgreSQL's server programs.
    NotInstalled,
    /// We are root, and there is no account to run the servers as.
    NoServerAccount,
    /// A file, folder, port or process could not be had.
    Io { doing: String, error: io::Error },
    /// One of PostgreSQL's programs failed; `output` is what it said.
    Program { name: String, output: String },
    /// A server ended or refused while we waited for it; `log` is the end of its log.
    Server { name: String, problem: String, log: String },
    /// Something did not happen in time.
    Timeout { what: String, waited: Duration, log: String },
    /// A Unix socket in this folder would have a longer name than the system allows.
    PathTooLong(PathBuf),
    /// The folder asked for holds something already.
    DirectoryInUse(PathBuf),
}

impl ClusterError {
    pub(super) fn io(doing: String, error: io::Error) -> ClusterError {
        ClusterError::Io { doing, error }
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::NotInstalled => f.write_str(
                "PostgreSQL's server programs are not installed: looked in PATH, \
                 /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and `pg_config --bindir`. \
                 Debian and Ubuntu: apt-get install postgresql; Fedora: dnf install \
                 postgresql-server postgresql-contrib; macOS: brew install postgresql",
            ),
            ClusterError::NoServerAccount => f.write_str(
                "PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` is an \
                 account here: run as another user",
            ),
            ClusterError::Io { doing, error } => write!(f, "could not {doing}: {error}"),
            ClusterError::Program { name, output } => write!(f, "{name} failed: {output}"),
            ClusterError::Server { name, problem, log } => {
                write!(f, "{name}: {problem}; its log ends with:\n{log}")
            }
            ClusterError::Timeout { what, waited, log } => {
                write!(f, "waited {} s for {what}; the log ends with:\n{log}", waited.as_secs())
            }
            ClusterError::PathTooLong(path) => {
                write!(f, "{} is too long a path for a Unix socket", path.display())
            }
            ClusterError::DirectoryInUse(path) => {
                write!(f, "{} is not empty: name a new folder", path.display())
            }
        }
    }
}

impl std::error::Error for ClusterError {}
