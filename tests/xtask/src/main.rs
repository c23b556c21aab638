//! The commands of this repository: `cargo xtask setup | demo | test | bench | fuzz | regress`.

mod fuzz; // libFuzzer and AddressSanitizer
mod lint; // while it builds
mod regress; // the source of PostgreSQL's own regression tests
mod run; // steps, what they say, how long they take
mod setup; // what must be installed

use run::{Outcome, Report, cargo, root, target_directory};
use setup::Need;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask <command>

  setup           install what is missing: what the build needs, PostgreSQL, Redis, the client suites' languages and packages
  demo [args …]   build Tidegate and run it in front of a throw-away PostgreSQL cluster (`--help` for its arguments)
  test            install, check the format, lint, build, and run all tests
  bench [args …]  measure Tidegate against PostgreSQL itself and PgBouncer
  fuzz [ENTRY …] [--runs N]
                  run libFuzzer with AddressSanitizer on the entries of tests/fuzz, or on those that are named
  regress [args …]
                  run PostgreSQL's own regression tests directly and through Tidegate, and compare
";

/// What all tests need.
const TEST_NEEDS: [Need; 6] =
    [Need::Libclang, Need::PostgreSql, Need::Redis, Need::Managers, Need::Wasm, Need::Clients];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "setup" => setup::install(&TEST_NEEDS),
        "demo" => demo(&rest),
        "test" if rest.is_empty() => test(),
        "bench" => bench(&rest),
        "fuzz" => fuzz::run(&rest),
        "regress" => regress(&rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(format!("`cargo xtask {command}` is not known here\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: &[String]) -> Result<(), String> {
    setup::install(&[Need::Libclang, Need::PostgreSql, Need::Wasm])?;
    build_release()?;
    // The demo takes our place, so that Ctrl-C and the exit code are its own.
    let error = Command::new(target_directory().join("release/tidegate"))
        .arg("demo")
        .args(arguments)
        .exec();
    Err(format!("could not start the demo: {error}"))
}

fn bench(arguments: &[String]) -> Result<(), String> {
    setup::install(&[Need::Libclang, Need::PostgreSql, Need::Redis, Need::Wasm, Need::PgBouncer])?;
    build_release()?;
    let mut bench = cargo();
    bench.args(["run", "--release", "--quiet", "--package", "tidegate-perf", "--"]).args(arguments);
    if std::env::var_os("TIDEGATE_BIN").is_none() {
        // Else the bench asks cargo again, which may build anew because it is another cargo's child.
        bench.env("TIDEGATE_BIN", target_directory().join("release/tidegate"));
    }
    run::step("bench", &mut bench)
}

/// A debug build, whose assertions hold with what these tests send.
fn regress(arguments: &[String]) -> Result<(), String> {
    setup::install(&[Need::Libclang, Need::PostgreSql, Need::Wasm])?;
    regress::install_headers()?;
    let source = regress::source()?;
    let packages = ["--package", "tidegate", "--package", "tidegate-regress"];
    run::step("building Tidegate", cargo().arg("build").args(packages))?;
    let mut regress = Command::new(target_directory().join("debug/tidegate-regress"));
    regress.arg("--source").arg(source).arg("--results").arg(target_directory().join("regress"));
    regress.env("TIDEGATE_BIN", target_directory().join("debug/tidegate")).args(arguments);
    run::step("regression tests", &mut regress)
}

/// A cargo for the workspace of the plugins, as native code, beside what the host's build compiles them to.
fn plugins() -> Command {
    let mut plugins = cargo();
    plugins.current_dir(root().join("plugins"));
    plugins.env("CARGO_TARGET_DIR", target_directory().join("plugins"));
    plugins
}

fn build_release() -> Result<(), String> {
    run::step("building Tidegate", cargo().args(["build", "--release", "--package", "tidegate"]))
}

/// Everything that a change must pass. A failed check does not hide the next one's findings; only a failed build does.
fn test() -> Result<(), String> {
    let mut report = Report::default();
    let installed = report.add("setup", || setup::install(&TEST_NEEDS).map(|()| 0));
    report.step("format", cargo().args(["fmt", "--all", "--check"]));
    report.step("plugins: format", plugins().args(["fmt", "--all", "--check"]));
    let all = ["build", "--workspace", "--all-targets", "--locked"];
    report.step("plugins: build and lint", lint::linting(plugins()).args(all));
    let tests = ["test", "--workspace", "--quiet", "--locked"];
    report.step("plugins: tests", lint::linting(plugins()).args(tests));
    let built = report.step("build and lint", lint::linting(cargo()).args(all));
    if built == Outcome::Passed {
        let mut unit = lint::linting(cargo());
        unit.args(["test", "--workspace", "--exclude", "tidegate-e2e"]);
        report.step("unit tests and rules", &mut unit);
        if installed == Outcome::Passed {
            let mut e2e = lint::linting(cargo());
            // The program of the step before: built for itself alone, some of what it uses would be built anew.
            e2e.env("TIDEGATE_BIN", target_directory().join("debug/tidegate"));
            report.step("end-to-end tests", e2e.args(["test", "--package", "tidegate-e2e"]));
        } else {
            report.skip("end-to-end tests", "what they need is not installed");
        }
    } else {
        report.skip("tests", "the build, or a lint, failed");
    }
    println!("\n{}", report.summary());
    println!("in {}", root().display());
    if report.passed() { Ok(()) } else { Err("some of this failed: see above".to_owned()) }
}
