//! The admin thread: a listener, bounded connections, and an end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::limits::{
    ADMIN_BODY_TIME_MAX, ADMIN_CLOSE_TIME_MAX, ADMIN_CONNECTION_TIME_MAX, ADMIN_CONNECTIONS_MAX,
    ADMIN_HEAD_BYTES_MAX, ADMIN_HEAD_TIME_MAX, ADMIN_HEADERS_MAX,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Control;
use super::router::Router;
use crate::config::AdminConfig;

/// How long each part of a connection may take; tests shorten it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) connection: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: ADMIN_HEAD_TIME_MAX,
            body: ADMIN_BODY_TIME_MAX,
            connection: ADMIN_CONNECTION_TIME_MAX,
        }
    }
}

/// The running admin API. Dropping it ends its connections and its thread.
pub struct AdminHandle {
    address: SocketAddr,
    stop: watch::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl AdminHandle {
    /// Where it listens: the port that was given when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.stop.send_replace(());
        if let Some(thread) = self.thread.take() {
            // A panic of the admin thread is in the log already and must not take the process with
            // it.
            let _ = thread.join();
        }
    }
}

/// Answers on a thread of its own until the handle is dropped.
///
/// # Errors
/// The thread can't be started.
pub fn start(
    listener: TcpListener,
    config: &AdminConfig,
    control: Arc<dyn Control>,
) -> io::Result<AdminHandle> {
    start_with(listener, config, control, Timeouts::default())
}

pub(super) fn start_with(
    listener: TcpListener,
    config: &AdminConfig,
    control: Arc<dyn Control>,
    timeouts: Timeouts,
) -> io::Result<AdminHandle> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = Arc::new(Router::new(config, control, timeouts.body));
    let (stop, stopped) = watch::channel(());
    let thread = thread::Builder::new().name("tidegate-admin".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(serve(listener, router, timeouts, stopped)) {
            tracing::error!(%error, "the admin API ended");
        }
    })?;
    Ok(AdminHandle { address, stop, thread: Some(thread) })
}

async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    timeouts: Timeouts,
    mut stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Cancel safety: a permit or a connection that is dropped here was not yet used.
        let accepted = tokio::select! {
            _ = stopped.changed() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Some((stream, peer, permit)) => {
                let router = Arc::clone(&router);
                let connection = connection((stream, peer), router, timeouts, stopped.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: a pause keeps the loop from spinning.
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends those that are still there.
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    Ok(())
}

async fn accept(
    listener: &tokio::net::TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "the admin API could not accept a connection");
            None
        }
    }
}

async fn connection(
    (stream, peer): (tokio::net::TcpStream, SocketAddr),
    router: Arc<Router>,
    timeouts: Timeouts,
    mut stopped: watch::Receiver<()>,
) {
    let service = service_fn(move |request| {
        let router = Arc::clone(&router);
        async move { Ok::<_, std::convert::Infallible>(router.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(ADMIN_HEAD_BYTES_MAX)
        .max_headers(ADMIN_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return log_end(result),
        _ = tokio::time::sleep(timeouts.connection) => {}
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(result) = tokio::time::timeout(ADMIN_CLOSE_TIME_MAX, connection).await {
        log_end(result);
    }
}

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
