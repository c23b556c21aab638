//! Files that outlive the process: plugins by their hash, and the manifest that says who answers.
//!
//! A file is written beside its place, synced, and renamed: whatever happens, each name holds a whole file or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tidegate_core::limits::{PLUGIN_MANIFEST_BYTES_MAX, POLICY_COMPONENT_BYTES_MAX};

use crate::config::FileHash;

pub(super) const FOLDER: &str = "plugins";
const MANIFEST: &str = "manifest";
const EXTENSION: &str = "wasm";
/// What is being written; left behind by a process that was killed.
const HALF_WRITTEN: &str = "new";

/// `<state_dir>/plugins`.
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn new(state_dir: PathBuf) -> Self {
        Self { folder: state_dir.join(FOLDER) }
    }

    /// Keeps a plugin.
    pub(super) fn put(&self, hash: &FileHash, bytes: &[u8]) -> io::Result<()> {
        let path = self.path_of(hash);
        // One that is there already may be damaged.
        if self.get(hash).is_ok() {
            return Ok(());
        }
        self.write(&path, bytes)
    }

    /// A plugin that was kept.
    ///
    /// # Errors
    /// It is not there, or is not what was written.
    pub(super) fn get(&self, hash: &FileHash) -> io::Result<Vec<u8>> {
        let bytes = read(&self.path_of(hash), POLICY_COMPONENT_BYTES_MAX as u64)?;
        if FileHash::of(&bytes) == *hash {
            return Ok(bytes);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file is damaged: its hash is another"))
    }

    /// Replaces the manifest. It begins with a line that holds the hash of the rest.
    pub(super) fn put_manifest(&self, text: &str) -> io::Result<()> {
        let whole = format!("{}\n{text}", FileHash::of(text.as_bytes()));
        self.write(&self.folder.join(MANIFEST), whole.as_bytes())
    }

    /// The manifest, if there is one.
    pub(super) fn manifest(&self) -> io::Result<Option<String>> {
        let whole = match read(&self.folder.join(MANIFEST), PLUGIN_MANIFEST_BYTES_MAX) {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the manifest is damaged: its hash is another",
            )
        };
        let whole = String::from_utf8(whole).map_err(|_| damaged())?;
        let (hash, text) = whole.split_once('\n').ok_or_else(damaged)?;
        if FileHash::from_hex(hash) != Some(FileHash::of(text.as_bytes())) {
            return Err(damaged());
        }
        Ok(Some(text.to_owned()))
    }

    /// Removes plugins that nobody names, and what was never finished. What can't be removed stays.
    pub(super) fn sweep(&self, named: &[FileHash]) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let goes = match extension {
                Some(EXTENSION) => {
                    FileHash::from_hex(stem).is_some_and(|hash| !named.contains(&hash))
                }
                Some(HALF_WRITTEN) => true,
                _ => false,
            };
            if goes {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn path_of(&self, hash: &FileHash) -> PathBuf {
        self.folder.join(format!("{hash}.{EXTENSION}"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let beside = path.with_extension(HALF_WRITTEN);
        let written = write_beside(&beside, bytes).and_then(|()| fs::rename(&beside, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        // The name is kept only when its folder is.
        File::open(&self.folder)?.sync_all()
    }
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a file up to a length.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("it is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}
