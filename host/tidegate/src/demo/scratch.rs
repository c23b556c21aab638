//! A folder for servers that is cleaned up however this program ends.
//!
//! A small shell, the janitor, waits on a pipe whose other end only we hold. When we drop it, panic, exit without
//! destructors or are killed, the pipe closes and the janitor stops the servers and removes the folder.

use super::error::ClusterError;
use super::install::Installation;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What becomes of the folder at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtExit {
    #[default]
    Remove,
    Keep,
}

/// The longest `sun_path` of a Unix socket on Linux without its final NUL, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest name that a socket gets in the folder: `/.s.PGSQL.65535.lock`, in bytes.
const SOCKET_NAME_BYTES_MAX: usize = 20;

#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    janitor: Child,
}

impl Scratch {
    /// A new folder under the system's temporary one, removed at the end.
    pub(super) fn temporary(installation: &Installation) -> Result<Scratch, ClusterError> {
        let parent = temporary_parent(installation);
        let pid = std::process::id();
        let mut number = 0u32;
        let path = loop {
            let path = parent.join(format!("tidegate-{pid}-{number}"));
            match private_folder().create(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    return Err(ClusterError::io(format!("make {}", path.display()), error));
                }
            }
        };
        Scratch::adopt(installation, path, AtExit::Remove)
    }

    /// The folder asked for: new, or empty.
    pub(super) fn at(
        installation: &Installation,
        path: &Path,
        at_exit: AtExit,
    ) -> Result<Scratch, ClusterError> {
        let failed = |error| ClusterError::io(format!("make {}", path.display()), error);
        private_folder().recursive(true).create(path).map_err(failed)?;
        if fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(ClusterError::DirectoryInUse(path.to_owned()));
        }
        Scratch::adopt(installation, path.to_owned(), at_exit)
    }

    fn adopt(
        installation: &Installation,
        path: PathBuf,
        at_exit: AtExit,
    ) -> Result<Scratch, ClusterError> {
        let failed = |error| ClusterError::io(format!("prepare {}", path.display()), error);
        // The janitor compares with the kernel's idea of a server's working directory.
        let path = path.canonicalize().map_err(failed)?;
        let janitor = Command::new("/bin/sh")
            .args(["-c", include_str!("janitor.sh"), "tidegate-janitor"])
            .arg(&path)
            .arg(match at_exit {
                AtExit::Remove => "remove",
                AtExit::Keep => "keep",
            })
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let scratch = Scratch { path, janitor };
        installation.hand_over(&scratch.path)?;
        if scratch.path.as_os_str().len() + SOCKET_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX {
            return Err(ClusterError::PathTooLong(scratch.path.clone()));
        }
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// `TMPDIR`, unless the servers' account cannot enter it.
fn temporary_parent(installation: &Installation) -> PathBuf {
    let wanted = std::env::temp_dir();
    let open_to_all = |folder: &Path| {
        fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    };
    if installation.account().is_none() || wanted.ancestors().all(open_to_all) {
        wanted
    } else {
        PathBuf::from("/tmp")
    }
}
