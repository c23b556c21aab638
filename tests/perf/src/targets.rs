//! Those that are compared: PostgreSQL itself, PgBouncer and Tidegate, all on one throw-away primary.

use crate::pgbouncer::{self, PgBouncer};
use crate::process::Tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Durability, Tidegate, TidegateOptions, password_of, wait_until,
};

/// Logs in by SCRAM everywhere.
pub const ROLE: &str = "app";
/// PostgreSQL and PgBouncer let it in without a question. Tidegate has one method for all users, hence a process for
/// this.
pub const TRUSTED_ROLE: &str = "trusted";
pub const DATABASE: &str = "bench";
/// Server connections of a pool; the same for all proxies.
pub const POOL_SIZE: u32 = 20;
pub const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Direct,
    PgBouncer,
    /// One worker: PgBouncer has one thread.
    Tidegate,
    /// One worker, whose sockets are never by io_uring.
    TidegateEpoll,
    /// Two workers.
    TidegateTwo,
}

impl Name {
    pub const ALL: [Name; 5] =
        [Name::Direct, Name::PgBouncer, Name::Tidegate, Name::TidegateEpoll, Name::TidegateTwo];

    pub fn label(self) -> &'static str {
        match self {
            Name::Direct => "direct",
            Name::PgBouncer => "pgbouncer",
            Name::Tidegate => "tidegate",
            Name::TidegateEpoll => "tidegate-epoll",
            Name::TidegateTwo => "tidegate-2",
        }
    }

    pub fn is_tidegate(self) -> bool {
        matches!(self, Name::Tidegate | Name::TidegateEpoll | Name::TidegateTwo)
    }
}

/// Where, as whom and in whose account clients work.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    pub port: u16,
    pub role: &'static str,
    pub database: &'static str,
    /// The proxy's processes; none for the database itself.
    pub tree: Option<Tree>,
}

impl Door {
    pub fn url(&self) -> String {
        let password = password_of(self.role);
        format!("postgres://{}:{password}@127.0.0.1:{}/{}", self.role, self.port, self.database)
    }

    /// pgbench against it, without its task.
    pub fn pgbench(&self, cluster: &Cluster) -> Command {
        let mut command = cluster.installation().client("pgbench");
        command.env("PGPASSWORD", password_of(self.role)).env("PGSSLMODE", "disable");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-U", self.role, self.database]);
        command
    }

    /// One look at whether somebody logs clients in there.
    pub fn answers(&self) -> bool {
        let quietly = std::panic::take_hook();
        // The vocabulary of the tests panics where we ask.
        std::panic::set_hook(Box::new(|_| {}));
        let url = self.url();
        let answer = std::panic::catch_unwind(|| Client::connect(&url).value("SELECT 1"));
        std::panic::set_hook(quietly);
        answer.is_ok_and(|value| value.as_deref() == Some("1"))
    }
}

/// One of those compared, ready to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: Name,
    /// Asks for SCRAM.
    pub door: Door,
    /// For statements that are prepared by name.
    pub prepared: Door,
    /// Asks for nothing; none where that is not measured.
    pub trusting: Option<Door>,
}

/// Everything that runs while we measure. Dropping it stops it.
pub struct Stage {
    // Dropped in this order: proxies first.
    pgbouncer: Option<PgBouncer>,
    tidegate: Option<Tidegate>,
    tidegate_epoll: Option<Tidegate>,
    tidegate_two: Option<Tidegate>,
    tidegate_trusting: Option<Tidegate>,
    pub cluster: Cluster,
}

impl Stage {
    /// Starts a primary with pgbench's tables, and the proxies that can be had; says which cannot.
    pub fn start(scale: u32) -> Result<Stage, String> {
        let options = ClusterOptions {
            durability: Durability::None,
            hba: vec![format!("host all {TRUSTED_ROLE} 127.0.0.1/32 trust")],
            conf: vec!["max_connections = 500".into(), "shared_buffers = 256MB".into()],
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(&options).map_err(|error| error.to_string())?;
        fill(&cluster, scale)?;
        let users = write_users(&cluster)?;
        let pgbouncer = told("PgBouncer", pgbouncer::start(&cluster, &users));
        let tidegate =
            |workers, auth, toml| told("Tidegate", tidegate(&cluster, &users, workers, auth, toml));
        Ok(Stage {
            pgbouncer,
            tidegate: tidegate(1, "scram-sha-256", None),
            tidegate_epoll: tidegate(1, "scram-sha-256", Some("io = \"epoll\"\n")),
            tidegate_two: tidegate(2, "scram-sha-256", None),
            tidegate_trusting: tidegate(1, "trust", None),
            cluster,
        })
    }

    /// Those that run, in the order in which they are asked.
    pub fn targets(&self) -> Vec<Target> {
        let direct = direct(&self.cluster);
        let mut targets = vec![Target {
            name: Name::Direct,
            door: direct,
            prepared: direct,
            trusting: Some(Door { role: TRUSTED_ROLE, ..direct }),
        }];
        if let Some(running) = &self.pgbouncer {
            let door = running.door();
            targets.push(Target {
                name: Name::PgBouncer,
                door,
                prepared: Door { database: running.prepared_database(), ..door },
                trusting: Some(Door { role: TRUSTED_ROLE, ..door }),
            });
        }
        let trusting = self.tidegate_trusting.as_ref().map(door_of);
        if let Some(running) = &self.tidegate {
            let door = door_of(running);
            targets.push(Target { name: Name::Tidegate, door, prepared: door, trusting });
        }
        let others =
            [(Name::TidegateEpoll, &self.tidegate_epoll), (Name::TidegateTwo, &self.tidegate_two)];
        for (name, running) in others {
            if let Some(running) = running {
                let door = door_of(running);
                targets.push(Target { name, door, prepared: door, trusting: None });
            }
        }
        targets
    }

    /// How PgBouncer serves prepared statements here.
    pub fn pgbouncer_prepares(&self) -> &'static str {
        self.pgbouncer.as_ref().map_or("not measured", PgBouncer::prepares)
    }
}

fn direct(cluster: &Cluster) -> Door {
    Door { port: cluster.primary().port(), role: ROLE, database: DATABASE, tree: None }
}

pub fn door_of(running: &Tidegate) -> Door {
    let address = running.address();
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
    Door { port, role: ROLE, database: DATABASE, tree: Some(Tree(running.pid())) }
}

fn told<T>(name: &str, started: Result<T, String>) -> Option<T> {
    started.inspect_err(|error| eprintln!("  without {name}: {error}")).ok()
}

/// Roles, database and pgbench's tables.
pub fn fill(cluster: &Cluster, scale: u32) -> Result<(), String> {
    let error = |error: tidegate_test_support::ClusterError| error.to_string();
    cluster.create_role(ROLE).map_err(error)?;
    cluster.create_role(TRUSTED_ROLE).map_err(error)?;
    cluster.primary().psql(&format!("GRANT {ROLE} TO {TRUSTED_ROLE}")).map_err(error)?;
    cluster.create_database(DATABASE, ROLE).map_err(error)?;
    let mut command = direct(cluster).pgbench(cluster);
    let output = command.args(["-i", "-q", "-s", &scale.to_string()]).output();
    let output = output.map_err(|error| format!("pgbench: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("pgbench -i: {}", String::from_utf8_lossy(&output.stderr)))
}

/// One that asks for SCRAM and has one worker.
pub fn start_tidegate(cluster: &Cluster, toml: &str) -> Result<Tidegate, String> {
    tidegate(cluster, &write_users(cluster)?, 1, "scram-sha-256", Some(toml))
}

/// What the server itself keeps, as both proxies advise: a password in clear would have to be hashed anew.
fn write_users(cluster: &Cluster) -> Result<PathBuf, String> {
    let users = cluster.directory().join("users.txt");
    let lines = cluster
        .primary()
        .psql(&format!(
            "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid \
             WHERE rolname IN ('{ROLE}', '{TRUSTED_ROLE}')"
        ))
        .map_err(|error| error.to_string())?;
    fs::write(&users, lines + "\n").map_err(|error| format!("{}: {error}", users.display()))?;
    cluster.installation().hand_over(&users).map_err(|error| error.to_string())?;
    Ok(users)
}

fn tidegate(
    cluster: &Cluster,
    users: &Path,
    workers: u32,
    auth: &str,
    toml: Option<&str>,
) -> Result<Tidegate, String> {
    let mut options = TidegateOptions::for_cluster(cluster, DATABASE);
    options.toml = toml.map(str::to_owned);
    options.arguments = ["--auth", auth, "--users-file"].map(str::to_owned).into();
    options.arguments.push(users.display().to_string());
    options.arguments.extend(["--workers".to_owned(), workers.to_string()]);
    options.arguments.extend(["--pool-size".to_owned(), POOL_SIZE.to_string()]);
    let mut tidegate = Tidegate::launch(options);
    let up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(START_TIME_MAX, "Tidegate serves", || tidegate.is_healthy());
    }));
    if up.is_err() || !door_of(&tidegate).answers() {
        let log = tidegate.log_tail();
        tidegate.kill();
        return Err(format!("it does not serve; its log ends with:\n{log}"));
    }
    Ok(tidegate)
}
