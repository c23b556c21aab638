//! Pgpool-II as a process of its own, with its cache of answers in shared memory.

use crate::process::{Tree, end_with_us};
use crate::targets::{DATABASE, Door, ROLE, START_TIME_MAX};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tidegate_test_support::{Cluster, free_port, wait_until};

const PROGRAMS: [&str; 3] = ["/usr/sbin/pgpool", "/usr/bin/pgpool", "/usr/local/bin/pgpool"];
/// A process a client; more than any load has.
const CHILDREN: u32 = 48;

/// A running Pgpool-II. Dropping it ends it.
pub struct Pgpool {
    child: Child,
    port: u16,
}

impl Pgpool {
    pub fn door(&self) -> Door {
        let tree = Some(Tree(self.child.id()));
        Door { port: self.port, role: ROLE, database: DATABASE, tree }
    }
}

impl Drop for Pgpool {
    fn drop(&mut self) {
        // SIGINT is its fast shutdown: it ends its children and removes its shared memory.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.child.wait();
    }
}

/// `TIDEGATE_PGPOOL`, else what is installed.
fn program() -> Option<String> {
    let named = std::env::var("TIDEGATE_PGPOOL").ok();
    named.into_iter().chain(PROGRAMS.map(str::to_owned)).find(|path| Path::new(path).exists())
}

/// Starts it in front of the primary, whose `pg_hba.conf` must trust [`ROLE`].
pub fn start(cluster: &Cluster) -> Result<Pgpool, String> {
    let program = program().ok_or("it is not installed (apt-get install pgpool2)")?;
    let (port, control_port) = (free()?, free()?);
    let folder = cluster.directory().join("pgpool");
    let config = folder.join("pgpool.conf");
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder.join("oids"))?;
        for empty in ["pcp.conf", "pool_hba.conf", "pool_passwd"] {
            fs::write(folder.join(empty), "")?;
        }
        fs::write(&config, configuration(cluster.primary().port(), port, control_port, &folder))
    };
    write().map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in ["", "oids", "pgpool.conf", "pcp.conf", "pool_hba.conf", "pool_passwd"] {
        let path = if path.is_empty() { folder.clone() } else { folder.join(path) };
        cluster.installation().hand_over(&path).map_err(|error| error.to_string())?;
    }
    let log = fs::File::create(folder.join("log")).map_err(|error| error.to_string())?;
    let mut command = cluster.installation().server(&program);
    command.args(["-n", "-f"]).arg(&config).args(["-F"]).arg(folder.join("pcp.conf"));
    command.arg("-a").arg(folder.join("pool_hba.conf"));
    command.stdout(Stdio::null()).stderr(log);
    end_with_us(&mut command, libc::SIGINT);
    let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let running = Pgpool { child, port };
    let door = running.door();
    let up = std::panic::catch_unwind(|| {
        wait_until(START_TIME_MAX, "Pgpool-II serves", || door.answers());
    });
    match up {
        Ok(()) => Ok(running),
        Err(_) => Err(fs::read_to_string(folder.join("log")).unwrap_or_default()),
    }
}

fn free() -> Result<u16, String> {
    free_port().map_err(|error| error.to_string())
}

fn configuration(server_port: u16, port: u16, control_port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "backend_clustering_mode = 'streaming_replication'\n\
         backend_hostname0 = '127.0.0.1'\n\
         backend_port0 = {server_port}\n\
         backend_weight0 = 1\n\
         backend_flag0 = 'ALWAYS_PRIMARY'\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         socket_dir = '{folder}'\n\
         pcp_port = {control_port}\n\
         pcp_socket_dir = '{folder}'\n\
         pid_file_name = '{folder}/pid'\n\
         logdir = '{folder}'\n\
         num_init_children = {CHILDREN}\n\
         max_pool = 1\n\
         sr_check_period = 0\n\
         health_check_period = 0\n\
         memory_cache_enabled = on\n\
         memqcache_method = 'shmem'\n\
         memqcache_oiddir = '{folder}/oids'\n"
    )
}
