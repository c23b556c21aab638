//! The HTTP endpoint's door to the process: clients for the workers, the listeners' certificate.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use super::Handle;
use crate::config::Config;
use crate::data::login::Peer;
use crate::exit::Exit;
use crate::http::{self, Door, HttpHandle};
use crate::observe::stats::HttpTotals;
use crate::stream::LeftSocket;
use crate::tls::Acceptor;

/// The endpoint, while it runs, and what it counts.
#[derive(Default)]
pub(super) struct Endpoint {
    running: Mutex<Option<HttpHandle>>,
    pub(super) totals: HttpTotals,
}

impl Door for Handle {
    fn connect(&self, peer: Peer) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        match self.shared.bring(LeftSocket::Unix(theirs), peer) {
            true => Ok(ours),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.settled().login.tls.clone()
    }

    fn totals(&self) -> &HttpTotals {
        &self.http.totals
    }
}

impl Handle {
    /// With a thread for each worker.
    pub(super) fn start_http(
        self: &Arc<Self>,
        config: &Config,
        listener: Option<TcpListener>,
    ) -> Result<(), (Exit, String)> {
        let (Some(http), Some(listener)) = (&config.http, listener) else { return Ok(()) };
        let door: Arc<dyn Door> = self.clone();
        let started = http::start(listener, http, config.workers, &door)
            .map_err(|error| (Exit::Failure, format!("the HTTP endpoint: {error}")))?;
        tracing::info!(address = %started.address(), "listening for HTTP");
        *self.http.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        Ok(())
    }

    /// No new connections over HTTP.
    pub(super) fn drain_http(&self) {
        if let Some(http) = &*self.http.running.lock().unwrap_or_else(PoisonError::into_inner) {
            http.drain();
        }
    }

    /// What is under way has a moment, then it is over.
    pub(super) fn stop_http(&self) {
        let http = self.http.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(http);
    }
}
