//! The built binary as a process of its own, with a port for clients and one for the admin API.

use crate::clusters::{ROLE, profile_directory};
use crate::http::{self, Response};
use crate::{Cluster, free_port, password_of, wait_until};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Clients are served, or the test fails, within this.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// A drain ends within this.
const END_TIME_MAX: Duration = Duration::from_secs(60);
/// The end of the log that a failing test shows, in lines.
const LOG_TAIL_LINES: usize = 40;
pub const TOKEN: &str = "token-of-the-tests";

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct TidegateOptions {
    /// `--primary`
    pub primary: String,
    /// `--replica`, each
    pub replicas: Vec<String>,
    /// The text of a configuration file, given by `--config`.
    pub toml: Option<String>,
    /// More arguments of `tidegate serve`.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

impl TidegateOptions {
    /// In front of all nodes of a cluster, as the tests' role.
    pub fn for_cluster(cluster: &Cluster, database: &str) -> TidegateOptions {
        TidegateOptions {
            primary: cluster.primary().url(ROLE, database),
            replicas: cluster.replicas().iter().map(|node| node.url(ROLE, database)).collect(),
            ..TidegateOptions::default()
        }
    }
}

/// A running `tidegate serve`. Dropping it, or the end of the test program, kills it.
#[derive(Debug)]
pub struct Tidegate {
    child: Child,
    leash: Child,
    directory: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Tidegate {
    /// Starts it and waits until `GET /healthz` says 200; panics with the log otherwise.
    #[track_caller]
    pub fn start(options: TidegateOptions) -> Tidegate {
        crate::failure::remember_reasons();
        let mut tidegate = Tidegate::launch(options);
        let deadline = Instant::now() + START_TIME_MAX;
        while !tidegate.is_healthy() {
            if let Ok(Some(status)) = tidegate.child.try_wait() {
                panic!("tidegate ended ({status}); its log:\n{}", tidegate.log_tail());
            }
            assert!(Instant::now() < deadline, "not healthy; its log:\n{}", tidegate.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
        tidegate
    }

    /// Starts it and waits for nothing: for configurations that are refused, or servers that are down.
    #[track_caller]
    pub fn launch(options: TidegateOptions) -> Tidegate {
        let local = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        Tidegate::launch_at(options, local(), local())
    }

    /// Starts another one at the same addresses, which takes them over, and waits for nothing.
    #[track_caller]
    pub fn launch_successor(&self, mut options: TidegateOptions) -> Tidegate {
        options.arguments.push("--take-over".to_owned());
        Tidegate::launch_at(options, self.listen, self.admin)
    }

    /// The same, and waits until it has taken over.
    #[track_caller]
    pub fn start_successor(&self, options: TidegateOptions) -> Tidegate {
        let mut successor = self.launch_successor(options);
        wait_until(START_TIME_MAX, "a successor takes over", || {
            let ended = successor.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended; its log:\n{}", successor.log_tail());
            successor.log().contains("took over:")
        });
        successor
    }

    #[track_caller]
    fn launch_at(options: TidegateOptions, listen: SocketAddr, admin: SocketAddr) -> Tidegate {
        // Built first: a build that fails must not leave a folder behind.
        let binary = binary();
        let directory = new_directory();
        let log = File::create(directory.join("log")).unwrap();
        let mut command = Command::new(binary);
        command.arg("serve");
        if let Some(toml) = with_driver(options.toml.as_deref()) {
            fs::write(directory.join("tidegate.toml"), toml).unwrap();
            command.args(["--config", "tidegate.toml"]);
        }
        command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
        if !options.primary.is_empty() {
            command.args(["--primary", &options.primary]);
        }
        for replica in &options.replicas {
            command.args(["--replica", replica]);
        }
        let child = command
            .args(&options.arguments)
            .env("TIDEGATE_ADMIN_TOKEN", TOKEN)
            .envs(options.environment)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let leash = leash(&child, &directory);
        Tidegate { child, leash, directory, listen, admin }
    }

    /// Where clients connect: `host:port`.
    pub fn address(&self) -> String {
        self.listen.to_string()
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has in use (VmRSS), in KiB.
    #[track_caller]
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{}@{}/{database}", password_of(user), self.listen)
    }

    pub fn is_healthy(&self) -> bool {
        http::request(self.admin, "GET", "/healthz", "", "")
            .is_ok_and(|answer| answer.status == 200)
    }

    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Response {
        self.admin_request("GET", path, "")
    }

    #[track_caller]
    pub fn admin_post(&self, path: &str, body: &str) -> Response {
        self.admin_request("POST", path, body)
    }

    #[track_caller]
    pub fn admin_put(&self, path: &str, body: &str) -> Response {
        self.admin_request("PUT", path, body)
    }

    /// Uploads a plugin; `query` is what follows the slot.
    #[track_caller]
    pub fn push(&self, slot: &str, query: &str, settings: &str, plugin: &[u8]) -> Response {
        let settings = match settings {
            "" => String::new(),
            settings => format!("Tidegate-Config: {settings}\r\n"),
        };
        let path = format!("/api/v1/plugins/{slot}{query}");
        match http::send(self.admin, ("PUT", &path), TOKEN, &settings, plugin) {
            Ok(response) => response,
            Err(error) => panic!("PUT {path}: {error}; log:\n{}", self.log_tail()),
        }
    }

    /// Runs `tidegate plugin` against it; its exit code and what it printed.
    #[track_caller]
    pub fn plugin_command(&self, arguments: &[&str]) -> (i32, String) {
        self.command(&[&["plugin"], arguments].concat())
    }

    /// Runs another `tidegate` against it, in its folder; its exit code and what it printed.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(binary())
            .args(arguments)
            .env("TIDEGATE_ADMIN", self.admin.to_string())
            .env("TIDEGATE_ADMIN_TOKEN", TOKEN)
            .current_dir(&self.directory)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// A file that a command left in its folder.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    /// Reads the configuration again, by the admin API.
    #[track_caller]
    pub fn reload(&self) {
        let answer = self.admin_post("/api/v1/reload", "");
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }

    /// Replaces the text of the configuration file; it is read at the next reload.
    pub fn write_config(&self, toml: &str) {
        fs::write(self.directory.join("tidegate.toml"), toml).unwrap();
    }

    pub fn sighup(&self) {
        self.signal(libc::SIGHUP);
    }

    /// Sends SIGTERM and goes on.
    pub fn sigterm(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends SIGTERM and waits for the end; its exit code, -1 if a signal ended it.
    #[track_caller]
    pub fn terminate(mut self) -> i32 {
        self.sigterm();
        self.wait()
    }

    /// Waits until it ends of itself; its exit code, -1 if a signal ended it.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let mut code = None;
        wait_until(END_TIME_MAX, "tidegate ends", || {
            code = self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        code.unwrap()
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        tail(&self.log_path())
    }

    #[track_caller]
    fn admin_request(&self, method: &str, path: &str, body: &str) -> Response {
        match http::request(self.admin, method, path, TOKEN, body) {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error}; log:\n{}", self.log_tail()),
        }
    }

    /// SIGSTOP: it does nothing, and does not know.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill touches no memory; the child is not reaped while we hold it, so the pid is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            crate::failure::show("tidegate", &self.log_tail());
        }
        drop(self.leash.stdin.take());
        let _ = self.leash.wait();
    }
}

/// Where a test does not say otherwise, half of them, by their names, have all sockets on a ring, if the kernel has one for us,
/// and the others have Tidegate's default, which takes a ring while much happens. `TIDEGATE_TEST_IO` says it for all.
fn with_driver(toml: Option<&str>) -> Option<String> {
    if toml.is_some_and(|toml| toml.contains("io = ")) {
        return toml.map(str::to_owned);
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let io = match std::env::var("TIDEGATE_TEST_IO") {
        Ok(io) => io,
        Err(_) if name.bytes().map(u32::from).sum::<u32>() % 2 == 1 && has_io_uring() => {
            "io_uring".to_owned()
        }
        Err(_) => return toml.map(str::to_owned),
    };
    Some(format!("io = \"{io}\"\n{}", toml.unwrap_or_default()))
}

/// As far as files tell: a sandbox may still forbid it, which Tidegate says when it starts.
fn has_io_uring() -> bool {
    let file = |name: &str| fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
    let release = file("osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // Before Linux 6.6 nothing disables it.
    let disabled = file("io_uring_disabled").is_ok_and(|value| value.trim() != "0");
    version >= (6, 1) && !disabled
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// `TIDEGATE_BIN`, else the binary of this test's profile, built now if it is older than its sources.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return PathBuf::from(path);
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let profile = profile_directory();
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let mut build = Command::new(cargo);
        // `ring` is built anew when these change, and all that depends on it with it.
        for (name, _) in std::env::vars_os() {
            let is_of_package =
                |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
            if name.to_str().is_some_and(is_of_package) {
                build.env_remove(name);
            }
        }
        build.args(["build", "--quiet", "--package", "tidegate", "--bin", "tidegate"]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        profile.join("tidegate")
    });
    built.clone()
}

pub(crate) fn new_directory() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("tidegate-test-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    directory.canonicalize().unwrap()
}

/// A shell that waits on a pipe whose other end is ours alone: however this program ends, it then kills the child
/// (known by its working folder, since a number may have been given to another process) and removes the folder.
pub(crate) fn leash(child: &Child, directory: &Path) -> Child {
    const SCRIPT: &str = "trap '' INT TERM HUP QUIT; cat >/dev/null; \
        [ \"$(readlink /proc/$1/cwd)\" = \"$2\" ] && kill -KILL \"$1\"; rm -rf -- \"$2\"";
    Command::new("/bin/sh")
        .args(["-c", SCRIPT, "tidegate-leash", &child.id().to_string()])
        .arg(directory)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
