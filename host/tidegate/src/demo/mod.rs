//! A throw-away cluster with the proxy in front (being written).

use std::path::PathBuf;

/// What `tidegate demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub replicas: usize,
    pub port: Option<u16>,
    pub admin_port: Option<u16>,
    pub keep: bool,
    pub dir: Option<PathBuf>,
}

/// Runs until Ctrl-C.
///
/// # Errors
/// What failed, as sentences.
pub fn run(options: DemoOptions) -> Result<(), String> {
    Err(format!("the demo is being written: {options:?}"))
}
