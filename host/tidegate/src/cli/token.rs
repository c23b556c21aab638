//! The file of an admin token that was made up since nobody gave one. The token itself is never
//! printed or logged.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::config::{Config, ConfigSource};

/// Removes the file when dropped.
#[derive(Debug)]
pub(super) struct TokenFile(pub(super) PathBuf);

impl Drop for TokenFile {
    fn drop(&mut self) {
        // The folder of temporary files may have been emptied by somebody else.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes the token for its owner alone, if it was made up, and says where on standard output.
///
/// # Errors
/// A sentence: the file can't be written.
pub(super) fn publish(config: &Config, source: &ConfigSource) -> Result<Option<TokenFile>, String> {
    let token = config.admin.as_ref().map(|admin| &admin.token);
    let (Some(token), Some(made_up)) = (token, source.made_up_token()) else {
        return Ok(None);
    };
    if token != made_up {
        return Ok(None);
    }
    let name = random_name().ok_or("the system gave no random bytes; set TIDEGATE_ADMIN_TOKEN")?;
    let path = std::env::temp_dir().join(name);
    let fail = |error| format!("{} can't be written: {error}", path.display());
    // `create_new`: a link that somebody left in a shared folder is not followed.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut opened = opened.map_err(fail)?;
    let file = TokenFile(path.clone());
    writeln!(opened, "{}", token.reveal()).map_err(fail)?;
    super::say(&format!("admin token: {}\n", file.0.display()));
    Ok(Some(file))
}

fn random_name() -> Option<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("tidegate-admin-token-{:016x}", u64::from_ne_bytes(bytes)))
}
