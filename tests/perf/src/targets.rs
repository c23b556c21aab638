//! The three that are compared: PostgreSQL itself, PgBouncer and Tidegate, all on one throw-away primary.

use crate::process::Tree;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Durability, Tidegate, TidegateOptions, free_port, password_of,
    wait_until,
};

pub const ROLE: &str = "app";
pub const DATABASE: &str = "bench";
/// PgBouncer's name for the same database with a pool in session mode: PgBouncer before 1.21 keeps no prepared
/// statements in transaction mode.
pub const SESSION_DATABASE: &str = "bench_session";
/// Server connections of a pool; the same for both proxies.
const POOL_SIZE: u32 = 50;
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Direct,
    PgBouncer,
    Tidegate,
}

impl Name {
    pub const ALL: [Name; 3] = [Name::Direct, Name::PgBouncer, Name::Tidegate];

    pub fn label(self) -> &'static str {
        match self {
            Name::Direct => "direct",
            Name::PgBouncer => "pgbouncer",
            Name::Tidegate => "tidegate",
        }
    }
}

/// One of the three, ready to be asked.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: Name,
    pub port: u16,
    /// The proxy's processes; none for the database itself.
    pub tree: Option<Tree>,
    /// The database's name where statements are prepared by name.
    pub prepared_database: &'static str,
}

impl Target {
    pub fn url(&self) -> String {
        format!("postgres://{ROLE}:{}@127.0.0.1:{}/{DATABASE}", password_of(ROLE), self.port)
    }
}

/// Everything that runs while we measure. Dropping it stops it.
pub struct Stage {
    // Dropped in this order: proxies first.
    pgbouncer: Option<PgBouncer>,
    tidegate: Option<Tidegate>,
    pub cluster: Cluster,
}

struct PgBouncer {
    child: Child,
    port: u16,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stage {
    /// Starts a primary with pgbench's tables, and the proxies that can be had; says which cannot.
    pub fn start(scale: u32) -> Result<Stage, String> {
        let options = ClusterOptions {
            durability: Durability::None,
            conf: vec!["max_connections = 500".into(), "shared_buffers = 256MB".into()],
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(&options).map_err(|error| error.to_string())?;
        cluster.create_role(ROLE).map_err(|error| error.to_string())?;
        cluster.create_database(DATABASE, ROLE).map_err(|error| error.to_string())?;
        let output = pgbench(&cluster, cluster.primary().port(), DATABASE)
            .args(["-i", "-q", "-s", &scale.to_string()])
            .output();
        let output = output.map_err(|error| format!("pgbench: {error}"))?;
        if !output.status.success() {
            return Err(format!("pgbench -i: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let pgbouncer = start_pgbouncer(&cluster)
            .inspect_err(|error| eprintln!("  without PgBouncer: {error}"))
            .ok();
        let tidegate = start_tidegate(&cluster)
            .inspect_err(|error| eprintln!("  without Tidegate: {error}"))
            .ok();
        Ok(Stage { pgbouncer, tidegate, cluster })
    }

    /// Those that run, in the order in which they are asked.
    pub fn targets(&self) -> Vec<Target> {
        let direct = Target {
            name: Name::Direct,
            port: self.cluster.primary().port(),
            tree: None,
            prepared_database: DATABASE,
        };
        let pgbouncer = self.pgbouncer.as_ref().map(|running| Target {
            name: Name::PgBouncer,
            port: running.port,
            tree: Some(Tree(running.child.id())),
            prepared_database: SESSION_DATABASE,
        });
        let tidegate = self.tidegate.as_ref().map(|running| Target {
            name: Name::Tidegate,
            port: port_of(&running.address()),
            tree: Some(Tree(running.pid())),
            prepared_database: DATABASE,
        });
        [Some(direct), pgbouncer, tidegate].into_iter().flatten().collect()
    }
}

/// pgbench for a database of a target, without its task.
pub fn pgbench(cluster: &Cluster, port: u16, database: &str) -> Command {
    let mut command = cluster.installation().client("pgbench");
    command.env("PGPASSWORD", password_of(ROLE)).env("PGSSLMODE", "disable");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", ROLE, database]);
    command
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0)
}

/// One look at whether somebody logs clients in there.
fn answers(port: u16) -> bool {
    let url = format!("postgres://{ROLE}:{}@127.0.0.1:{port}/{DATABASE}", password_of(ROLE));
    let quietly = std::panic::take_hook();
    // The vocabulary of the tests panics where we ask.
    std::panic::set_hook(Box::new(|_| {}));
    let answer = std::panic::catch_unwind(|| Client::connect(&url).value("SELECT 1"));
    std::panic::set_hook(quietly);
    answer.is_ok_and(|value| value.as_deref() == Some("1"))
}

fn start_tidegate(cluster: &Cluster) -> Result<Tidegate, String> {
    let mut tidegate = Tidegate::launch(TidegateOptions::for_cluster(cluster, DATABASE));
    let up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(START_TIME_MAX, "Tidegate serves", || tidegate.is_healthy());
    }));
    if up.is_err() || !answers(port_of(&tidegate.address())) {
        let log = tidegate.log_tail();
        tidegate.kill();
        return Err(format!("it does not serve; its log ends with:\n{log}"));
    }
    Ok(tidegate)
}

fn start_pgbouncer(cluster: &Cluster) -> Result<PgBouncer, String> {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or("it is not installed (apt-get install pgbouncer)")?;
    let port = free_port().map_err(|error| error.to_string())?;
    let folder = cluster.directory().join("pgbouncer");
    let config = folder.join("pgbouncer.ini");
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let users = format!("\"{ROLE}\" \"{}\"\n", password_of(ROLE));
        fs::write(folder.join("users.txt"), users)?;
        fs::write(&config, configuration(cluster.primary().port(), port, &folder))
    };
    write().map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in [&folder, &config, &folder.join("users.txt")] {
        cluster.installation().hand_over(path).map_err(|error| error.to_string())?;
    }
    let mut command = cluster.installation().server(program);
    command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // Ends with us, however we end.
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let running = PgBouncer { child, port };
    let up = std::panic::catch_unwind(|| {
        wait_until(START_TIME_MAX, "PgBouncer serves", || answers(port));
    });
    match up {
        Ok(()) => Ok(running),
        Err(_) => Err(fs::read_to_string(folder.join("log")).unwrap_or_default()),
    }
}

fn configuration(server_port: u16, port: u16, folder: &Path) -> String {
    let server = format!("host=127.0.0.1 port={server_port} dbname={DATABASE}");
    let folder = folder.display();
    format!(
        "[databases]\n\
         {DATABASE} = {server}\n\
         {SESSION_DATABASE} = {server} pool_mode=session pool_size=300\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {folder}/users.txt\n\
         logfile = {folder}/log\n\
         pool_mode = transaction\n\
         default_pool_size = {POOL_SIZE}\n\
         max_client_conn = 15000\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         ignore_startup_parameters = extra_float_digits\n"
    )
}
