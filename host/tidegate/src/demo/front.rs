//! The proxy of the demo: the one place that knows how Tidegate is started in this process.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What the proxy of the demo needs to know.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) admin_token: String,
    pub(super) admin_token_file: PathBuf,
    pub(super) primary: String,
    pub(super) replicas: Vec<String>,
}

impl Front {
    /// Serves until Ctrl-C or SIGTERM; `ready` runs once, when clients are served.
    pub(super) fn run(&self, ready: impl FnOnce() + Send + 'static) -> Result<(), String> {
        // SEAM: becomes `crate::serve::run` once that exists; until then the demo shows the bare primary.
        println!(
            "(not in front yet: {} and {} would serve {} + {} replicas; token of {} bytes)",
            self.listen,
            self.admin,
            self.primary,
            self.replicas.len(),
            self.admin_token.len()
        );
        ready();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("could not start a runtime: {error}"))?;
        runtime.block_on(async {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                    .map_err(|error| format!("could not watch for SIGTERM: {error}"))?;
            tokio::select! {
                result = tokio::signal::ctrl_c() => {
                    result.map_err(|error| format!("could not watch for Ctrl-C: {error}"))
                }
                _ = terminate.recv() => Ok(()),
            }
        })
    }
}
