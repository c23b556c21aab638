//! A network, and a disk, that only one server has: namespaces of the kernel, which end with the processes in them.
//!
//! A thread enters one, and the server that it starts is in it. It takes root.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;

/// For tests of networks between machines (RFC 2544): these addresses are nobody's.
pub const ADDRESSES: &str = "198.18.0.0/15";

/// Of the far end: nobody's, either.
const MAC: &str = "02:00:00:00:00:02";

/// A server's own network, behind a cable that can be pulled: nothing arrives then, and nobody is told.
#[derive(Debug)]
pub struct Link {
    namespace: File,
    /// Its end of the cable.
    end: String,
    address: Ipv4Addr,
}

impl Link {
    /// # Errors
    /// The kernel lets nobody here make one.
    pub fn new() -> io::Result<Link> {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let (ours, end) = (format!("tg{pid}n{number}a"), format!("tg{pid}n{number}b"));
        let (third, fourth) = ((pid as u8).wrapping_add(number), ((pid >> 8) as u8 & 0x3f) << 2);
        let [own, address] = [1, 2].map(|last| Ipv4Addr::new(198, 18, third, fourth + last));
        let peer = ["type", "veth", "peer", "name", &end, "address", MAC];
        ip(&[&["link", "add", &ours], &peer[..]].concat())?;
        let namespace =
            new_network(|thread| ip(&["link", "set", &end, "netns", &thread.to_string()]))?;
        let link = Link { namespace, end, address };
        ip(&["addr", "add", &format!("{own}/30"), "dev", &ours])?;
        ip(&["link", "set", &ours, "up"])?;
        link.inside(|| {
            ip(&["link", "set", "lo", "up"])?;
            ip(&["addr", "add", &format!("{address}/30"), "dev", &link.end])?;
            ip(&["link", "set", &link.end, "up"])
        })?;
        // Else it would be noticed after a while that there is no such machine.
        let there = address.to_string();
        ip(&["neigh", "replace", &there, "lladdr", MAC, "dev", &ours, "nud", "permanent"])?;
        Ok(link)
    }

    /// Where the server is, seen from here.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What is started here is in that network.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            // SAFETY: the call takes a descriptor that is open, and touches no memory; this thread alone changes.
            check(unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) }).unwrap();
        };
        aside(|| {
            enter();
            act()
        })
    }

    #[track_caller]
    pub fn cut(&self) {
        self.inside(|| ip(&["link", "set", &self.end, "down"])).unwrap();
    }

    #[track_caller]
    pub fn mend(&self) {
        self.inside(|| ip(&["link", "set", &self.end, "up"])).unwrap();
    }
}

/// `fill` is told of a thread that is in it.
fn new_network(fill: impl FnOnce(i32) -> io::Result<()>) -> io::Result<File> {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let within = scope.spawn(move || -> io::Result<File> {
            // SAFETY: the call touches no memory; this thread alone changes.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            // SAFETY: the call touches no memory.
            let own = unsafe { libc::gettid() };
            let _ = tell.send(own);
            // Until it is filled, or that has failed.
            let _ = ended.recv();
            Ok(namespace)
        });
        let filled = told.recv().map_or(Ok(()), fill);
        drop(end);
        let namespace = within.join().expect("it has panicked")?;
        filled.map(|()| namespace)
    })
}

/// A folder of a server that is a small disk of its own, as that server sees it.
#[derive(Debug)]
pub struct SmallDisk {
    namespace: File,
    folder: PathBuf,
    mib: u64,
}

impl SmallDisk {
    /// In the place of a folder of a server that is stopped: with what is in it, and room for so much more.
    #[track_caller]
    pub fn in_place_of(folder: &Path, mib_free: u64) -> SmallDisk {
        let folder = folder.to_owned();
        let path = folder.display();
        let (namespace, mib) = aside(|| {
            // SAFETY: the call touches no memory; this thread alone changes.
            check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).unwrap_or_else(|error| {
                panic!("no namespace for a disk: {error}; run the tests as root")
            });
            let used = shell(&format!("du -sm --apparent-size '{path}' | cut -f1"));
            let mib = used.trim().parse::<u64>().unwrap() + mib_free;
            shell(&format!(
                "mount --make-rprivate / && cp -a '{path}' '{path}.copy' && \
                 mount -t tmpfs -o size={mib}m tmpfs '{path}' && cp -a '{path}.copy/.' '{path}' && \
                 rm -rf '{path}.copy'"
            ));
            (File::open("/proc/thread-self/ns/mnt").unwrap(), mib)
        });
        SmallDisk { namespace, folder, mib }
    }

    /// What is started here sees the disk.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        aside(|| {
            // SAFETY: the call touches no memory; this thread alone changes.
            check(unsafe { libc::unshare(libc::CLONE_FS) }).unwrap();
            // SAFETY: the call takes a descriptor that is open, and touches no memory; this thread alone changes.
            check(unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNS) }).unwrap();
            act()
        })
    }

    /// So much more room.
    #[track_caller]
    pub fn grow(&mut self, mib: u64) {
        self.mib += mib;
        let (mib, path) = (self.mib, self.folder.display().to_string());
        self.inside(|| shell(&format!("mount -o remount,size={mib}m '{path}'")));
    }
}

/// On a thread of its own: whatever it enters, the program stays where it is.
fn aside<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(move || sender.send(act()));
    });
    receiver.recv().expect("it has panicked")
}

fn check(outcome: i32) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(io::Error::other(said())) }
}

#[track_caller]
fn shell(script: &str) -> String {
    let output = Command::new("/bin/sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
