//! What the other processes ask of this one, on a thread of its own.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tidegate_core::limits::{
    HANDOVER_ANSWER_TIME_MAX, HANDOVER_ASKING_MAX, HANDOVER_CANCELS_MAX, HANDOVER_START_TIME_MAX,
};
use tokio::sync::Semaphore;

use super::{LOOK_INTERVAL, Listeners, Request, Response, SUFFIX, Siblings, descriptors, sockets};

/// The process, as others may ask of it. Called on threads that may block.
pub trait Host: Send + Sync + 'static {
    /// The listening sockets, for a process that wants to take over; it serves on.
    ///
    /// # Errors
    /// Why not, as a sentence.
    fn offer(&self) -> Result<Listeners, String>;
    /// The other process failed before it was ready.
    fn keep(&self);
    /// The other process serves: accepts no more. `kept` are the addresses that it listens on.
    fn hand_over(&self, kept: Vec<String>);
    /// Cancels what the client with this key runs; false when nobody has it. Returns when it was seen to.
    fn cancel(&self, pid: i32, secret: &[u8]) -> bool;
}

/// This process's socket in the folder; removed when dropped.
#[derive(Debug)]
pub struct Open {
    path: PathBuf,
    listener: Option<UnixListener>,
}

/// Makes the folder if it is not there, and the process's socket in it.
///
/// # Errors
/// It cannot be made, or is not this user's alone.
pub fn open(dir: &Path) -> io::Result<Open> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::metadata(dir)?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own || found.permissions().mode() & 0o077 != 0 {
        let words = "others may use the folder: it must be this user's, with mode 0700";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    remove_stale(dir);
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let path = dir.join(format!("{:016x}{SUFFIX}", u64::from_ne_bytes(random)));
    let listener = UnixListener::bind(&path)?;
    let open = Open { path, listener: Some(listener) };
    fs::set_permissions(&open.path, fs::Permissions::from_mode(0o600))?;
    Ok(open)
}

impl Open {
    /// The other processes of the folder.
    pub fn siblings(&self) -> Siblings {
        let dir = self.path.parent().map(Path::to_owned).unwrap_or_default();
        Siblings { dir, own: self.path.clone(), turns: Semaphore::new(HANDOVER_CANCELS_MAX) }
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn serve(&mut self, host: Arc<dyn Host>) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let dir = self.path.parent().map(Path::to_owned).unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HANDOVER_ASKING_MAX)
            .build()?;
        listener.set_nonblocking(true)?;
        thread::Builder::new().name("tidegate-handover".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(accept(listener, &dir, host)) {
                tracing::error!(%error, "hand-over ended");
            }
        })?;
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What processes left that ended badly.
fn remove_stale(dir: &Path) {
    for path in sockets(dir) {
        let refused = UnixStream::connect(&path).err();
        if refused.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(&path);
        }
    }
}

async fn accept(listener: UnixListener, dir: &Path, host: Arc<dyn Host>) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let asking = Arc::new(Semaphore::new(HANDOVER_ASKING_MAX));
    let mut looked_at = Instant::now();
    loop {
        let permit = asking.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        if looked_at.elapsed() > LOOK_INTERVAL {
            remove_stale(dir);
            looked_at = Instant::now();
        }
        let (host, stream) = (Arc::clone(&host), stream.into_std()?);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = answer(&stream, host.as_ref()) {
                tracing::debug!(%error, "another process asked and was not answered");
            }
            drop(permit);
        });
    }
}

fn answer(stream: &UnixStream, host: &dyn Host) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HANDOVER_ANSWER_TIME_MAX))?;
    stream.set_write_timeout(Some(HANDOVER_ANSWER_TIME_MAX))?;
    match descriptors::read(stream, 0)?.0 {
        Request::Cancel { pid, secret } => {
            let found = host.cancel(pid, &secret);
            descriptors::write(stream, &Response::Cancelled(found), &[])
        }
        Request::TakeOver => match host.offer() {
            Ok(listeners) => {
                let outcome = hand_over(stream, host, &listeners);
                if outcome.is_err() {
                    host.keep();
                }
                outcome
            }
            Err(words) => descriptors::write(stream, &Response::Refused(words), &[]),
        },
        Request::Ready { .. } => {
            let words = "nothing was taken over".to_owned();
            descriptors::write(stream, &Response::Refused(words), &[])
        }
    }
}

/// An error means that the other process is not ready, and never will be.
fn hand_over(stream: &UnixStream, host: &dyn Host, listeners: &Listeners) -> io::Result<()> {
    let names = listeners.iter().map(|(name, _)| name.clone()).collect();
    let sockets: Vec<_> = listeners.iter().map(|(_, socket)| socket.as_fd()).collect();
    descriptors::write(stream, &Response::Listeners(names), &sockets)?;
    stream.set_read_timeout(Some(HANDOVER_START_TIME_MAX))?;
    let Request::Ready { kept } = descriptors::read(stream, 0)?.0 else {
        return Err(io::Error::other("the other process asks for something else"));
    };
    host.hand_over(kept);
    // It serves, whether it hears this or not.
    let _ = descriptors::write(stream, &Response::Done, &[]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Predecessor;
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Fake(Mutex<Vec<String>>);

    impl Fake {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }
    }

    impl Host for Fake {
        fn offer(&self) -> Result<Listeners, String> {
            if self.0.lock().unwrap().iter().any(|seen| seen.starts_with("handed")) {
                return Err("handed over already".to_owned());
            }
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            Ok(vec![("127.0.0.1:1".to_owned(), listener.into())])
        }
        fn keep(&self) {
            self.note("kept".to_owned());
        }
        fn hand_over(&self, kept: Vec<String>) {
            self.note(format!("handed over {}", kept.join(" ")));
        }
        fn cancel(&self, pid: i32, secret: &[u8]) -> bool {
            self.note(format!("cancel {pid}"));
            pid == 7 && secret == [1, 2]
        }
    }

    fn started(dir: &Path) -> (Open, Arc<Fake>) {
        let fake = Arc::new(Fake::default());
        let mut open = open(dir).unwrap();
        open.serve(fake.clone()).unwrap();
        (open, fake)
    }

    fn wait_for(fake: &Fake, what: &str) {
        let deadline = Instant::now() + HANDOVER_ANSWER_TIME_MAX;
        while !fake.0.lock().unwrap().iter().any(|seen| seen == what) {
            assert!(Instant::now() < deadline, "{what}: {:?}", fake.0);
            thread::yield_now();
        }
    }

    #[test]
    fn sockets_are_handed_over_once_and_a_failure_before_that_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("made");
        assert!(Predecessor::ask(&dir).unwrap().is_none(), "nobody is there");
        let (open, fake) = started(&dir);
        let failed = Predecessor::ask(&dir).unwrap().unwrap();
        assert_eq!(failed.listeners[0].0, "127.0.0.1:1");
        drop(failed);
        wait_for(&fake, "kept");
        let taken = Predecessor::ask(&dir).unwrap().unwrap();
        taken.ready(vec!["here".to_owned()]).unwrap();
        wait_for(&fake, "handed over here");
        assert_eq!(Predecessor::ask(&dir).unwrap_err(), "handed over already");
        drop(open);
        assert!(sockets(&dir).is_empty());
    }

    #[test]
    fn a_cancel_request_reaches_the_process_that_made_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("made");
        let ((_one, first), (_two, second)) = (started(&dir), started(&dir));
        let (own, third) = started(&dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(own.siblings().cancel(6, &[1, 2]));
        wait_for(&first, "cancel 6");
        wait_for(&second, "cancel 6");
        assert_eq!(*third.0.lock().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_folder_that_others_may_use_is_refused_and_what_the_dead_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(open(folder.path()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let left = folder.path().join(format!("dead{SUFFIX}"));
        drop(UnixListener::bind(&left).unwrap());
        let open = open(folder.path()).unwrap();
        assert_eq!(sockets(folder.path()), std::slice::from_ref(&open.path));
    }
}
