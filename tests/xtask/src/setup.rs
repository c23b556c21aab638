//! What must be installed: found out first, then installed by name where that is possible, else listed.

use crate::run::{root, shown, step, target_directory};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command of ours needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// What the build needs beside Rust and a linker.
    Libclang,
    PostgreSql,
    PgBouncer,
    /// For answers that several Tidegates share.
    Redis,
    /// For several Tidegates, of which one promotes; and who promotes instead of them.
    Managers,
    /// Rust for WebAssembly: the default policies are plugins.
    Wasm,
    /// Python and Node with the packages of the client suites.
    Clients,
}

/// One thing that may be missing.
struct Tool {
    what: &'static str,
    debian: &'static [&'static str],
    elsewhere: &'static str,
    present: fn() -> bool,
}

const POSTGRESQL: Tool = Tool {
    what: "PostgreSQL's server programs",
    debian: &["postgresql", "postgresql-contrib"],
    elsewhere: "PostgreSQL 14 or newer, with `initdb` in PATH or found by `pg_config --bindir`",
    present: has_postgresql,
};
const LIBCLANG: Tool = Tool {
    what: "libclang, which reads the headers of PostgreSQL's parser at the build",
    debian: &["libclang-dev"],
    elsewhere: "libclang with clang's own headers (LLVM 14 or newer), found by `llvm-config` or LIBCLANG_PATH",
    present: has_libclang,
};
const PGBOUNCER: Tool = Tool {
    what: "PgBouncer",
    debian: &["pgbouncer"],
    elsewhere: "PgBouncer, as `pgbouncer` in PATH",
    present: || in_path("pgbouncer") || Path::new("/usr/sbin/pgbouncer").exists(),
};
const REDIS: Tool = Tool {
    what: "Redis",
    debian: &["redis-server"],
    elsewhere: "Redis 6 or newer, as `redis-server` in PATH",
    present: || in_path("redis-server"),
};
const ETCD: Tool = Tool {
    what: "etcd",
    debian: &["etcd-server"],
    elsewhere: "etcd 3.4 or newer, as `etcd` in PATH",
    present: || in_path("etcd"),
};
const PATRONI: Tool = Tool {
    what: "Patroni",
    debian: &["patroni", "python3-etcd"],
    elsewhere: "Patroni 3.0 or newer with support for etcd (`pip install 'patroni[psycopg3,etcd3]'`), as `patroni` in PATH",
    present: || in_path("patroni"),
};
const WASM: Tool = Tool {
    what: "Rust for WebAssembly",
    debian: &["rustc-web", "cargo-web", "rust-web-src", "lld"],
    elsewhere: "Rust's wasm32-unknown-unknown (`rustup target add wasm32-unknown-unknown`)",
    present: has_wasm,
};
const PYTHON: Tool = Tool {
    what: "Python with venv",
    debian: &["python3", "python3-venv"],
    elsewhere: "Python 3.10 or newer with its `venv` and `ensurepip` modules, as `python3` in PATH",
    present: || {
        let check = "import venv, ensurepip, sys; sys.exit(sys.version_info < (3, 10))";
        succeeds(Command::new("python3").args(["-c", check]))
    },
};
const NODE: Tool = Tool {
    what: "Node",
    debian: &["nodejs"],
    elsewhere: "Node 18 or newer, as `node` in PATH",
    present: || {
        let check = "process.exit(process.versions.node.split('.')[0] < 18 ? 1 : 0)";
        succeeds(Command::new("node").args(["-e", check]))
    },
};
const NPM: Tool = Tool {
    what: "npm",
    debian: &["npm"],
    elsewhere: "npm, as `npm` in PATH",
    present: || in_path("npm"),
};
const CURL: Tool = Tool {
    what: "curl, for the examples of docs/http.md",
    debian: &["curl"],
    elsewhere: "curl, as `curl` in PATH",
    present: || in_path("curl"),
};

/// Makes sure that everything needed is there.
pub(crate) fn install(needs: &[Need]) -> Result<(), String> {
    let tools = needs.iter().flat_map(|need| match need {
        Need::Libclang => &[LIBCLANG][..],
        Need::PostgreSql => &[POSTGRESQL],
        Need::PgBouncer => &[PGBOUNCER],
        Need::Redis => &[REDIS],
        Need::Managers => &[ETCD, PATRONI],
        Need::Wasm => &[WASM],
        Need::Clients => &[PYTHON, NODE, NPM, CURL],
    });
    let missing: Vec<&Tool> = tools.filter(|tool| !(tool.present)()).collect();
    if missing.is_empty() {
        println!("system packages: all there");
    } else {
        install_tools(&missing)?;
    }
    if needs.contains(&Need::Clients) {
        install_python_packages()?;
        install_node_packages()?;
    }
    Ok(())
}

fn install_tools(missing: &[&Tool]) -> Result<(), String> {
    let list = |part: fn(&Tool) -> &'static str| {
        missing.iter().map(|tool| format!("  {}\n", part(tool))).collect::<String>()
    };
    if !in_path("apt-get") {
        let list = list(|tool| tool.elsewhere);
        return Err(format!("this system has no apt-get: please install\n{list}and try again"));
    }
    println!("missing:\n{}", list(|tool| tool.what).trim_end());
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.debian).copied().collect();
    step("apt-get update", &mut apt(&["update", "-qq"])?)?;
    if packages.contains(&"postgresql") {
        avoid_a_system_cluster()?;
    }
    install_packages(&packages)?;
    let still = missing.iter().filter(|tool| !(tool.present)());
    let still: Vec<&str> = still.map(|tool| tool.elsewhere).collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(format!(
        "apt-get installed its packages, but this is still needed:\n  {}",
        still.join("\n  ")
    ))
}

/// Installs without starting services: the tests and the demo start servers of their own.
pub(crate) fn install_packages(packages: &[&str]) -> Result<(), String> {
    let policy = ServicePolicy::deny();
    let mut apt = apt(&["install", "-y", "-qq", "--no-install-recommends"])?;
    let installed = step(&format!("apt-get install {}", packages.join(" ")), apt.args(packages));
    drop(policy);
    installed
}

/// Debian's package makes a cluster and starts it, unless its configuration says otherwise before.
fn avoid_a_system_cluster() -> Result<(), String> {
    const FILE: &str = "/etc/postgresql-common/createcluster.conf";
    if Path::new(FILE).exists() {
        return Ok(()); // installed before us: whoever did that has decided
    }
    install_packages(&["postgresql-common"])?;
    let script = format!("echo 'create_main_cluster = false' >> {FILE}");
    step("no system cluster", as_root("sh")?.args(["-c", &script]))
}

/// While it lives, packages that are installed do not start their services (`invoke-rc.d` asks this script).
struct ServicePolicy {
    path: Option<&'static str>,
}

impl ServicePolicy {
    fn deny() -> ServicePolicy {
        const PATH: &str = "/usr/sbin/policy-rc.d";
        let script = format!(
            "[ ! -e {PATH} ] && printf '#!/bin/sh\\nexit 101\\n' > {PATH} && chmod 755 {PATH}"
        );
        let made = as_root("sh").is_ok_and(|mut sh| succeeds(sh.args(["-c", &script])));
        ServicePolicy { path: made.then_some(PATH) }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let (Some(path), Ok(mut rm)) = (self.path, as_root("rm")) {
            succeeds(rm.args(["-f", path]));
        }
    }
}

pub(crate) fn apt(arguments: &[&str]) -> Result<Command, String> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
    Ok(command)
}

/// The program with root's rights: as it is when we are root, else by sudo.
fn as_root(program: &str) -> Result<Command, String> {
    let ids = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = ids.lines().any(|line| line.starts_with("Uid:\t0\t0"));
    if root {
        return Ok(Command::new(program));
    }
    if !in_path("sudo") {
        return Err(
            "system packages are missing, and we are neither root nor is there sudo".to_owned()
        );
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    Ok(sudo)
}

fn install_python_packages() -> Result<(), String> {
    let wanted = suites().join("requirements.txt");
    let environment = target_directory().join("clients/venv");
    if is_current(&environment, &wanted) {
        println!("Python packages: all there");
        return Ok(());
    }
    let mut venv = Command::new("python3");
    step("Python environment", venv.args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted);
    step("Python packages", &mut pip)?;
    mark_current(&environment, &wanted)
}

fn install_node_packages() -> Result<(), String> {
    let wanted = suites().join("package-lock.json");
    let folder = target_directory().join("clients/node");
    if is_current(&folder, &wanted) {
        println!("Node packages: all there");
        return Ok(());
    }
    for name in ["package.json", "package-lock.json"] {
        fs::create_dir_all(&folder)
            .and_then(|()| fs::copy(suites().join(name), folder.join(name)))
            .map_err(|error| format!("could not copy {name} to {}: {error}", folder.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
    step("Node packages", &mut npm)?;
    mark_current(&folder, &wanted)
}

fn suites() -> PathBuf {
    root().join("tests/e2e/clients")
}

/// Whether the folder was filled from a list with these very bytes.
fn is_current(folder: &Path, list: &Path) -> bool {
    let (then, now) = (fs::read(folder.join(STAMP)), fs::read(list));
    matches!((then, now), (Ok(then), Ok(now)) if then == now)
}

fn mark_current(folder: &Path, list: &Path) -> Result<(), String> {
    fs::copy(list, folder.join(STAMP)).map(drop).map_err(|error| {
        format!("could not note what is installed in {}: {error}", folder.display())
    })
}

const STAMP: &str = ".installed-from";

fn has_postgresql() -> bool {
    let newest = || {
        fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut versions| {
            versions.any(|version| {
                version.is_ok_and(|version| version.path().join("bin/initdb").exists())
            })
        })
    };
    let by_pg_config = || {
        let output = Command::new("pg_config").arg("--bindir").output();
        output.is_ok_and(|output| {
            let bin = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Path::new(&bin).join("initdb").exists()
        })
    };
    in_path("initdb") || newest() || by_pg_config()
}

fn has_libclang() -> bool {
    let entries = |folder: &Path| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let is_library = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libclang") && !name.starts_with("libclang-cpp") && name.contains(".so")
    };
    let is_complete = |llvm: PathBuf| {
        entries(&llvm.join("lib")).any(is_library)
            && entries(&llvm.join("lib/clang")).any(|v| v.join("include/stddef.h").exists())
    };
    let is_llvm = |path: &PathBuf| path.to_string_lossy().contains("/llvm");
    std::env::var_os("LIBCLANG_PATH").is_some()
        || entries(Path::new("/usr/lib")).filter(is_llvm).any(is_complete)
        || succeeds(Command::new("llvm-config").arg("--libdir"))
}

/// The target of the Rust that builds us, or Debian's packages: as `host/policy/build.rs` looks for them.
fn has_wasm() -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    let libraries = rustc.args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]);
    let is_installed = libraries.output().is_ok_and(|output| {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&folder).exists()
    });
    let std = "/usr/lib/rustlib/src/rust/library/std";
    let debian = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/wasm-ld", std];
    is_installed || debian.iter().all(|program| Path::new(program).exists())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    match command.output() {
        Ok(output) => output.status.success(),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                eprintln!("{}: {error}", shown(command));
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_current_only_for_the_same_list() {
        let folder = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let list = folder.join("list");
        fs::write(&list, "a==1").unwrap();
        assert!(!is_current(&folder, &list));
        mark_current(&folder, &list).unwrap();
        assert!(is_current(&folder, &list));
        fs::write(&list, "a==2").unwrap();
        assert!(!is_current(&folder, &list));
        fs::remove_dir_all(&folder).unwrap();
    }
}
