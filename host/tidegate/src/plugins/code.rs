//! Machine code of plugins that were compiled before: the state directory keeps it, so that a restart or a swap back to a
//! plugin that was here does not compile it again.
//!
//! The code runs as this process's own, so it is taken only from a folder and files that belong to this process's user and
//! that nobody else may write, which whoever can write may as well replace the program or its configuration. Files are
//! written beside their place and renamed, never changed; each begins with the hash of the rest, so that what a power loss
//! or a bad disk left is compiled anew.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tidegate_core::limits::{PLUGIN_CODE_BYTES_MAX, PLUGIN_CODE_FILES_MAX};
use tidegate_policy::{Compiler, LoadError, Settings};

use super::compiler::ChildProcess;
use crate::config::FileHash;

const FOLDER: &str = "code";
const EXTENSION: &str = "code";
const HASH_DIGITS: usize = 64;
/// Group and others may write.
const OTHERS_WRITE: u32 = 0o022;

/// Looks in its folder first, and has a process compile what is not there.
#[derive(Debug)]
pub struct KeptCode {
    folder: PathBuf,
    next: AtomicU64,
}

// SAFETY: what `read` gives was written by `keep` of a program that computes the same engine, which `engine` tells apart: it
// is in a file of our user's that nobody else may write, in a folder of which the same holds, and its hash is right. All else
// is what `ChildProcess` gives.
unsafe impl Compiler for KeptCode {
    fn encode(&self, module: &[u8]) -> Result<Vec<u8>, LoadError> {
        ChildProcess.encode(module)
    }

    fn compile(
        &self,
        settings: Settings,
        engine: u64,
        component: &[u8],
    ) -> Result<Vec<u8>, LoadError> {
        let path = self.path_of(settings, engine, component);
        match read(&path) {
            Ok(code) => {
                // What is used stays; that it could not be noted harms nobody.
                let used = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                tracing::debug!(noted = used.is_ok(), "a plugin's code was kept");
                return Ok(code);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "kept code is not used: the plugin is compiled again");
            }
        }
        let code = ChildProcess.compile(settings, engine, component)?;
        if let Err(error) = self.keep(&path, &code) {
            tracing::warn!(path = %path.display(), %error, "a plugin's code can't be kept: a restart compiles it again");
        }
        Ok(code)
    }
}

impl KeptCode {
    /// In the folder of the plugins below `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join(super::store::FOLDER).join(FOLDER), next: AtomicU64::new(0) }
    }

    fn path_of(&self, settings: Settings, engine: u64, component: &[u8]) -> PathBuf {
        let numbers = [engine, settings.instances as u64, settings.memory_bytes_max as u64];
        let mut key: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        key.extend_from_slice(component);
        self.folder.join(format!("{}.{EXTENSION}", FileHash::of(&key)))
    }

    fn keep(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        if code.len() as u64 > PLUGIN_CODE_BYTES_MAX {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        check_owner(&fs::symlink_metadata(&self.folder)?)?;
        let beside =
            path.with_extension(format!("{}.new", self.next.fetch_add(1, Ordering::Relaxed)));
        let written = write(&beside, code).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        self.sweep();
        written
    }

    /// Keeps what was used last.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(PLUGIN_CODE_FILES_MAX);
        for (_, path) in files.iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(FileHash::of(code).to_string().as_bytes())?;
    file.write_all(code)?;
    file.sync_all()
}

/// The code in a file that nobody else may have written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    check_owner(&fs::symlink_metadata(folder)?)?;
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no plain file"));
    }
    let file = File::open(path)?;
    check_owner(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(PLUGIN_CODE_BYTES_MAX + HASH_DIGITS as u64).read_to_end(&mut bytes)?;
    let hash = bytes.get(..HASH_DIGITS).and_then(|hash| std::str::from_utf8(hash).ok());
    let hash = hash.and_then(FileHash::from_hex);
    let code = bytes.split_off(bytes.len().min(HASH_DIGITS));
    if hash != Some(FileHash::of(&code)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is damaged: its hash is another",
        ));
    }
    Ok(code)
}

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if ours && metadata.mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else may have written it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_kept_is_given_back_unless_it_is_damaged_or_others_may_write_it() {
        let place = tempfile::tempdir().unwrap();
        let kept = KeptCode::new(place.path());
        let path = kept.path_of(Settings::default(), 7, b"plugin");
        assert_ne!(path, kept.path_of(Settings::default(), 8, b"plugin"), "of another engine");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        kept.keep(&path, b"code").unwrap();
        assert_eq!(read(&path).unwrap(), b"code");
        for open in [&path, &kept.folder] {
            let before = fs::metadata(open).unwrap().permissions();
            let mode = before.mode() | 0o020;
            fs::set_permissions(open, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            fs::set_permissions(open, before).unwrap();
        }
        assert_eq!(read(&path).unwrap(), b"code");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::write(&path, b"short").unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        kept.keep(&path, b"code").unwrap();
        assert_eq!(read(&path).unwrap(), b"code");
    }

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let place = tempfile::tempdir().unwrap();
        let kept = KeptCode::new(place.path());
        let path = |number: usize| kept.path_of(Settings::default(), 0, &number.to_le_bytes());
        for number in 0..PLUGIN_CODE_FILES_MAX {
            kept.keep(&path(number), b"code").unwrap();
            let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            File::open(path(number)).unwrap().set_modified(then).unwrap();
        }
        kept.keep(&path(PLUGIN_CODE_FILES_MAX), b"code").unwrap();
        assert_eq!(read(&path(0)).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!((1..=PLUGIN_CODE_FILES_MAX).all(|number| read(&path(number)).is_ok()));
        assert_eq!(fs::read_dir(&kept.folder).unwrap().count(), PLUGIN_CODE_FILES_MAX);
    }
}
