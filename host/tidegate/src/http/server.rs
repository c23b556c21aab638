//! Threads that accept, connections with or without TLS, and an end.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::limits::{
    HTTP_CLOSE_TIME_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_TIME_MAX, HTTP_HEADERS_MAX,
    HTTP_STALL_TIME_MAX,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::Door;
use super::router::{Caller, Router};
use crate::config::HttpConfig;
use crate::data::clients::Encrypted;
use crate::data::listener::ACCEPT_PAUSE;
use crate::upstream::KnownKeys;

/// The first byte of a TLS ClientHello, which no HTTP request has.
const TLS_HANDSHAKE: u8 = 0x16;
/// A thread's helpers, which hash passwords: the first login with one costs some milliseconds.
const BLOCKING_THREADS_MAX: usize = 1;

/// The running endpoint. Dropping it ends its connections and its threads.
pub struct HttpHandle {
    address: SocketAddr,
    life: watch::Sender<Life>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// How far it is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Serving,
    /// No new connections; those that are there end with the answer under way.
    Draining,
    /// What is under way has a moment.
    Ending,
}

impl HttpHandle {
    /// Where it listens: the port that was given when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and has each connection close when it has answered.
    pub fn drain(&self) {
        self.life.send_replace(Life::Draining);
    }
}

impl Drop for HttpHandle {
    fn drop(&mut self) {
        self.life.send_replace(Life::Ending);
        for thread in self.threads.drain(..) {
            // A panic there is in the log already and must not take the process with it.
            let _ = thread.join();
        }
    }
}

/// Answers on so many threads until the handle is dropped.
///
/// # Errors
/// A thread can't be started.
pub fn start(
    listener: TcpListener,
    config: &HttpConfig,
    threads: usize,
    door: &Arc<dyn Door>,
) -> io::Result<HttpHandle> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let permits = Arc::new(Semaphore::new(config.connections_max));
    let (life, lives) = watch::channel(Life::Serving);
    let known = Arc::new(KnownKeys::new()?);
    let mut handle = HttpHandle { address, life, threads: Vec::new() };
    for index in 0..threads {
        let listener = listener.try_clone()?;
        let (config, door) = (config.clone(), door.clone());
        let (permits, lives, known) = (permits.clone(), lives.clone(), known.clone());
        let serve = move || {
            if let Err(error) = run(listener, Router::new(config, door, known), permits, lives) {
                tracing::error!(%error, "a thread of the HTTP endpoint ended");
            }
        };
        let thread = thread::Builder::new().name(format!("tidegate-http-{index}")).spawn(serve)?;
        handle.threads.push(thread);
    }
    Ok(handle)
}

fn run(
    listener: TcpListener,
    router: Router,
    permits: Arc<Semaphore>,
    lives: watch::Receiver<Life>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(listener, Arc::new(router), permits, lives))
}

async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    permits: Arc<Semaphore>,
    mut lives: watch::Receiver<Life>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    while *lives.borrow_and_update() == Life::Serving {
        // Cancel safety: a permit or a connection that is dropped here was not yet used.
        let accepted = tokio::select! {
            _ = lives.changed() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Some((stream, peer, permit)) => {
                let connection = connection(stream, peer, router.clone(), lives.clone());
                connections.spawn_local(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: a pause keeps the loop from spinning.
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let ending = async {
        // An error: whoever would say so is gone.
        let _ = lives.wait_for(|life| *life == Life::Ending).await;
        tokio::time::sleep(HTTP_CLOSE_TIME_MAX).await;
    };
    let all = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends those that are still there.
    tokio::select! {
        () = ending => {}
        () = all => {}
    }
    Ok(())
}

async fn accept(
    listener: &tokio::net::TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "the HTTP endpoint could not accept a connection");
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Arc<Router>,
    lives: watch::Receiver<Life>,
) {
    // Answers are written as a whole, or in large pieces.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HTTP_HEAD_TIME_MAX, handshake(stream, &router));
    match handshake.await {
        Ok(Ok(Opened::Plain(stream))) => {
            exchange(stream, Caller { address, encrypted: Encrypted::No }, router, lives).await;
        }
        Ok(Ok(Opened::Tls(stream))) => {
            exchange(*stream, Caller { address, encrypted: Encrypted::Yes }, router, lives).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended before its request"),
        Err(_) => tracing::debug!("an HTTP connection said nothing"),
    }
}

enum Opened {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// TLS if that is what comes, and there is a certificate.
async fn handshake(stream: TcpStream, router: &Router) -> io::Result<Opened> {
    let Some(acceptor) = router.door().acceptor() else { return Ok(Opened::Plain(stream)) };
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [TLS_HANDSHAKE] {
        return Ok(Opened::Plain(stream));
    }
    let stream = acceptor.http_acceptor().accept(stream).await?;
    Ok(Opened::Tls(Box::new(stream)))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    caller: Caller,
    router: Arc<Router>,
    mut lives: watch::Receiver<Life>,
) {
    let blocked = Rc::new(Cell::new(None));
    let watched = Watched { stream, blocked: blocked.clone() };
    let service = service_fn(move |request| {
        let router = Arc::clone(&router);
        async move { Ok::<_, std::convert::Infallible>(router.answer(request, caller).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEAD_TIME_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .max_headers(HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(watched), service);
    let mut connection = pin!(connection);
    let mut stalled = pin!(stalled(&blocked));
    tokio::select! {
        result = connection.as_mut() => return log_end(result),
        () = &mut stalled => return tracing::debug!("an HTTP client took nothing for too long"),
        _ = lives.wait_for(|life| *life != Life::Serving) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = connection => log_end(result),
        () = stalled => tracing::debug!("an HTTP client took nothing for too long"),
    }
}

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Returns when what is to be sent has been refused for too long.
async fn stalled(blocked: &Cell<Option<Instant>>) {
    loop {
        tokio::time::sleep(HTTP_STALL_TIME_MAX / 8).await;
        if blocked.get().is_some_and(|since| since.elapsed() >= HTTP_STALL_TIME_MAX) {
            return;
        }
    }
}

/// A stream of which it is known since when it takes nothing.
struct Watched<S> {
    stream: S,
    blocked: Rc<Cell<Option<Instant>>>,
}

impl<S> Watched<S> {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        let since = written.is_pending().then(|| self.blocked.get().unwrap_or_else(Instant::now));
        self.blocked.set(since);
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
