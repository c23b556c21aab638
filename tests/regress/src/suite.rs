//! The tests of one PostgreSQL source, the library that some of them load, and `pg_regress`, which runs them.

use crate::Options;
use crate::outcome::{Outcomes, read_outcomes};
use crate::way::Way;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use tidegate_test_support::{Cluster, poll};

/// What nearly every test needs to have run before it.
const FOUNDATION: [&str; 2] = ["test_setup", "create_index"];
/// Libraries of PostgreSQL's contrib that the tests expect beside their own.
const CONTRIB: [&str; 2] = ["refint.so", "autoinc.so"];

/// One way's results.
pub(crate) struct Run {
    pub(crate) outcomes: Outcomes,
    /// None: it took too long, and what was under way is missing.
    pub(crate) status: Option<ExitStatus>,
}

/// Everything that does not depend on the way.
pub(crate) struct Suite<'a> {
    options: &'a Options,
    regress: PathBuf,
}

impl Suite<'_> {
    /// Looks whether all of it is there.
    pub(crate) fn prepare(options: &Options) -> Result<Suite<'_>, String> {
        let regress = options.source.join("src/test/regress");
        if !regress.join("parallel_schedule").is_file() {
            return Err(format!("{} holds no regression tests", regress.display()));
        }
        Ok(Suite { options, regress })
    }

    /// Runs all tests one way; keeps what they said.
    pub(crate) fn run(&self, way: &Way) -> Result<Run, String> {
        let begun = Instant::now();
        let folder = Workplace::lay_out(&way.cluster, &self.regress)?;
        println!("==> {}", way.name);
        let log = folder.path.join("pg_regress.log");
        let mut child = self.start(way, &folder, &log)?;
        let limit = Duration::from_secs(60 * self.options.minutes_max);
        let status = wait(&mut child, limit);
        let kept = self.options.results.join(way.name);
        folder.keep(&kept)?;
        way.keep_log(&kept);
        let said = fs::read_to_string(&log).unwrap_or_default();
        let outcomes = read_outcomes(&said);
        if outcomes.is_empty() {
            return Err(format!("{}: no test ran ({status:?}):\n{said}", way.name));
        }
        let (tests, seconds) = (outcomes.len(), begun.elapsed().as_secs());
        let given_up = if status.is_none() { ", then given up" } else { "" };
        println!("==> {}: {tests} tests in {seconds} s{given_up}", way.name);
        if let Some(shared) = way.shared() {
            println!("{shared}");
        }
        Ok(Run { outcomes, status })
    }

    fn start(&self, way: &Way, folder: &Workplace, log: &Path) -> Result<Child, String> {
        let installation = way.cluster.installation();
        let program = installation.bin().join("../lib/pgxs/src/test/regress/pg_regress");
        let log = File::create(log).map_err(told("make a log"))?;
        let mut command = installation.server(&program.to_string_lossy());
        command
            .arg(format!("--bindir={}", installation.bin().display()))
            .arg(format!("--inputdir={}", folder.path.display()))
            .arg(format!("--outputdir={}", folder.path.display()))
            .arg(format!("--dlpath={}", folder.path.display()))
            .args(["--host=127.0.0.1", "--user=postgres"])
            .arg(format!("--port={}", way.port()))
            .arg(format!("--max-connections={}", self.options.max_connections));
        if self.options.tests.is_empty() {
            let schedule = folder.path.join("parallel_schedule");
            command.arg(format!("--schedule={}", schedule.display()));
        } else {
            command.args(FOUNDATION).args(&self.options.tests);
        }
        command
            .current_dir(&folder.path)
            .stdout(log.try_clone().map_err(told("share a log"))?)
            .stderr(log)
            .spawn()
            .map_err(told("start pg_regress"))
    }
}

/// A folder of the servers' account: the tests have the server write into it.
struct Workplace {
    path: PathBuf,
}

impl Workplace {
    fn lay_out(cluster: &Cluster, regress: &Path) -> Result<Workplace, String> {
        let path = cluster.directory().join("regress");
        let mut copy = Command::new("cp");
        succeed(copy.arg("-r").arg(regress).arg(&path))?;
        let workplace = Workplace { path };
        workplace.compile(cluster)?;
        if let Some(account) = cluster.installation().account() {
            let owner = format!("{}:{}", account.uid, account.gid);
            succeed(Command::new("chown").args(["-R", &owner]).arg(&workplace.path))?;
        }
        Ok(workplace)
    }

    /// Compiles the functions in C that the tests call, and puts contrib's beside them.
    fn compile(&self, cluster: &Cluster) -> Result<(), String> {
        let of = |what: &str| {
            let output = cluster.installation().client("pg_config").arg(what).output();
            let output = output.map_err(told("run pg_config"))?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let (include, libraries) = (of("--includedir-server")?, of("--pkglibdir")?);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-w", "-I", &include, "-I"]).arg(&self.path);
        compiler.arg(self.path.join("regress.c")).arg("-o").arg(self.path.join("regress.so"));
        succeed(&mut compiler)?;
        for library in CONTRIB {
            let from = Path::new(&libraries).join(library);
            fs::copy(&from, self.path.join(library))
                .map_err(|error| format!("could not copy {}: {error}", from.display()))?;
        }
        Ok(())
    }

    /// Copies what the tests said to where it stays.
    fn keep(&self, to: &Path) -> Result<(), String> {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).map_err(told("make the folder for results"))?;
        for name in ["results", "regression.diffs", "regression.out", "pg_regress.log"] {
            let from = self.path.join(name);
            if from.exists() {
                succeed(Command::new("cp").arg("-r").arg(from).arg(to))?;
            }
        }
        Ok(())
    }
}

/// None if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut ended = None;
    poll(limit, || {
        ended = child.try_wait().ok().flatten();
        ended.is_some()
    });
    if ended.is_none() {
        // It leads a process group, of which its psql are members.
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = child.wait();
    }
    ended
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(told("run a program"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn told(what: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("could not {what}: {error}")
}
