//! Builds everything, waits, drains (being written).

use crate::config::{Config, ConfigSource};
use crate::exit::Exit;

/// Serves until told to stop.
pub fn run(config: Config, source: ConfigSource) -> Exit {
    let _ = (config, source);
    eprintln!("tidegate: serve is being written");
    Exit::Failure
}
