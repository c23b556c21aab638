//! The command line: what may be asked for, and who does it.

mod alert; // tidegate alert
mod args; // flags, help texts
mod cache; // tidegate cache
mod check; // tidegate check
mod cluster; // tidegate topology, switchover, failover, drain, undrain, resync
mod explain; // tidegate explain
mod init; // tidegate init
mod pausing; // tidegate pause, resume, reconnect
mod plugin; // tidegate plugin
mod record; // tidegate record
mod token; // the file of a made-up admin token

#[cfg(test)]
mod tests;

use std::io::Write;

use clap::Parser;

use crate::config::{Config, ConfigError, ConfigSource};
use crate::demo::{self, DemoOptions};
use crate::exit::Exit;
use crate::plugins::{Work, work_for_parent};
use crate::serve::{self, Beginning};
use args::{Args, Command, CompilePluginArgs, DemoArgs, ServeArgs, ServeCommand};
use tidegate_policy::Settings;

/// Does what the command line of this process asks for.
pub fn main() -> Exit {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are "errors" that end well. Nothing can be done about a closed
            // standard output.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    match args.command {
        Command::Serve(args) => run_serve(args),
        Command::Check(args) => run_check(args),
        Command::Init(args) => init::run(&args),
        Command::Demo(args) => run_demo(args),
        Command::Plugin(args) => plugin::run(args.command),
        Command::Record(args) => record::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Topology(args) => cluster::topology(&args),
        Command::Switchover(args) => cluster::switchover(&args),
        Command::Failover(args) => cluster::failover(&args),
        Command::Drain(args) => cluster::drain(&args),
        Command::Undrain(args) => cluster::undrain(&args),
        Command::Resync(args) => cluster::resync(&args),
        Command::Alert(args) => alert::run(&args),
        Command::Cache(args) => cache::run(args),
        Command::Pause(args) => pausing::pause(&args),
        Command::Resume(args) => pausing::resume(&args),
        Command::Reconnect(args) => pausing::reconnect(&args),
        Command::EncodePlugin => run_work(Work::Encode),
        Command::CompilePlugin(CompilePluginArgs { instances, memory_bytes_max }) => {
            run_work(Work::Compile(Settings { instances, memory_bytes_max, ..Settings::default() }))
        }
        Command::Version => {
            say(&format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
            Exit::Ok
        }
    }
}

fn run_serve(args: ServeCommand) -> Exit {
    let beginning = if args.take_over { Beginning::TakeOver } else { Beginning::Alone };
    let (config, source) = match read(args.serve) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    // Held until the end: dropping it removes the file.
    let _token_file = match token::publish(&config, &source) {
        Ok(file) => file,
        Err(message) => {
            eprintln!("tidegate: {message}");
            return Exit::Failure;
        }
    };
    serve::run(config, source, beginning)
}

fn run_work(work: Work) -> Exit {
    match work_for_parent(work) {
        Ok(()) => Exit::Ok,
        Err(message) => {
            // The parent tells it on, as it stands.
            eprint!("{message}");
            Exit::Failure
        }
    }
}

fn run_check(args: ServeArgs) -> Exit {
    match read(args) {
        Ok((config, source)) => {
            say(&check::summary(&config, &source));
            Exit::Ok
        }
        Err(exit) => exit,
    }
}

/// Reads the file and the flags, or reports every error.
fn read(args: ServeArgs) -> Result<(Config, ConfigSource), Exit> {
    let source = args.source().map_err(|errors| report(Source::Flags, &errors))?;
    let from = if source.file().is_some() { Source::File } else { Source::Flags };
    match source.read() {
        Ok(config) => Ok((config, source)),
        Err(errors) => Err(report(from, &errors)),
    }
}

fn run_demo(args: DemoArgs) -> Exit {
    let DemoArgs { replicas, port, admin_port, keep, dir } = args;
    match demo::run(DemoOptions { replicas, port, admin_port, keep, dir }) {
        Ok(()) => Exit::Ok,
        Err(message) => {
            eprintln!("tidegate: {message}");
            Exit::Failure
        }
    }
}

/// Writes to standard output. A reader that has gone, as in `tidegate init - | head`, is no error.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What went wrong, on standard error.
fn fail(words: &str) -> Exit {
    eprintln!("tidegate: {words}");
    Exit::Failure
}

/// What was asked for, or what went wrong.
fn end(done: Result<String, String>) -> Exit {
    match done {
        Ok(words) => {
            say(&words);
            Exit::Ok
        }
        Err(words) => fail(&words),
    }
}

/// What there is of a configuration.
#[derive(Clone, Copy)]
enum Source {
    File,
    Flags,
}

/// Every error on a line of its own, then what to do.
fn report(source: Source, errors: &[ConfigError]) -> Exit {
    for error in errors {
        eprintln!("{error}");
    }
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    };
    let hint = match source {
        Source::File => "docs/configuration.md explains every key",
        Source::Flags => {
            "`tidegate init` writes a tidegate.toml, `tidegate serve --help` lists the flags"
        }
    };
    eprintln!("tidegate: {count} in the configuration; {hint}");
    Exit::Usage
}
