//! `tidegate plugin`: the admin API's plugins from the command line, and tools for who writes them.

pub(super) mod api; // requests to a running Tidegate
mod bench; // tidegate plugin bench
mod build; // tidegate plugin build
mod cases; // statements and what is to be planned for them
mod create; // tidegate plugin new
mod replay; // tidegate plugin replay
mod sandbox; // where plugins are tried
mod sign; // tidegate plugin sign
mod table; // answers for people
mod trial; // tidegate plugin test

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use tidegate_core::limits::{POLICY_COMPONENT_BYTES_MAX, POLICY_SETTINGS_BYTES_MAX};
use tidegate_core::policy::Slot;
use tidegate_policy::{Source, embedded};

use crate::config::flag_value;
use crate::exit::Exit;
use crate::trace::Trace;
use api::{Admin, Request};
use cases::Cases;
use replay::{Replay, Side};

/// Of a record that is read: what `tidegate record` writes, several times.
const TRACE_BYTES_MAX: usize = 64 << 20;
/// Of a file with cases.
const CASES_BYTES_MAX: usize = 1 << 20;

pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate plugin list
  tidegate plugin build && tidegate plugin test routing my.wasm --cases cases.toml
  tidegate plugin bench routing my.wasm --sql 'SELECT * FROM reports WHERE id = 1'
  tidegate plugin push routing my.wasm --settings my.json --shadow 100
  tidegate plugin promote routing
  tidegate plugin rollback routing

The admin API's address is --admin or TIDEGATE_ADMIN, its token the first line of --admin-token-file or
TIDEGATE_ADMIN_TOKEN.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  tidegate plugin replay routing my.wasm --trace recorded.jsonl
  tidegate plugin replay routing new.wasm --against old.wasm --trace recorded.jsonl

Exit codes:
  0  every answer comes to the same
  1  some differ, or the plugin failed
  2  the plugins or the record could not be read";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PluginCommand {
    /// Who answers in each slot
    List {
        #[command(flatten)]
        admin: Admin,
        /// One slot, with its settings, history and differences, as JSON
        #[arg(value_name = "SLOT", value_parser = slot)]
        slot: Option<Slot>,
    },
    /// Upload a plugin; it answers from now on, unless it is tried out first
    Push(PushArgs),
    /// Give the active plugin other settings
    Configure {
        #[command(flatten)]
        admin: Admin,
        #[arg(value_name = "SLOT", value_parser = slot)]
        slot: Slot,
        /// A file with JSON, or JSON itself
        #[arg(value_name = "SETTINGS")]
        settings: String,
    },
    /// Have the candidates of these slots answer, all at once
    Promote(SlotsArgs),
    /// End the trial of a candidate
    Withdraw(SlotArgs),
    /// Have the previous version answer again
    Rollback(SlotArgs),
    /// Have Tidegate answer itself
    Disable(SlotArgs),
    /// Check a plugin in the sandbox, without a running Tidegate
    Test {
        #[arg(value_name = "SLOT", value_parser = slot)]
        slot: Slot,
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A file with JSON, or JSON itself [default: those of the cases]
        #[arg(long, value_name = "SETTINGS")]
        settings: Option<String>,
        /// Statements and what is to be planned for them, TOML
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
    },
    /// Compile a plugin's crate to WebAssembly, NAME.wasm in its folder
    Build {
        /// The crate's folder
        #[arg(value_name = "PATH", default_value = ".")]
        path: PathBuf,
    },
    /// Time every kind of call of a plugin in the sandbox, without a running Tidegate
    Bench(BenchArgs),
    /// Compare a plugin's answers with another's, for what `tidegate record` has written
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Sign a plugin with an Ed25519 key (PKCS#8), into FILE.sig, which push sends along
    Sign {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The private key, PEM or DER
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Make the key if it is not there
        #[arg(long)]
        make_key: bool,
    },
    /// Start a new plugin: a crate that builds, with a test
    New {
        /// Where to make it; the last part is its name
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Which kind of policy
        #[arg(long, value_name = "SLOT", value_parser = slot)]
        world: Slot,
        /// The folder of tidegate-sdk, if it is on this machine
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BenchArgs {
    #[arg(value_name = "SLOT", value_parser = slot)]
    slot: Slot,
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A file with JSON, or JSON itself
    #[arg(long, value_name = "SETTINGS")]
    settings: Option<String>,
    /// A statement to ask about, repeatable [default: four that come with Tidegate]
    #[arg(long, value_name = "SQL")]
    sql: Vec<String>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReplayArgs {
    #[arg(value_name = "SLOT", value_parser = slot)]
    slot: Slot,
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What `tidegate record` has written
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// A file with JSON, or JSON itself
    #[arg(long, value_name = "SETTINGS")]
    settings: Option<String>,
    /// Another plugin; `default`, the one that comes with Tidegate; or `builtin`, Tidegate without one
    #[arg(long, value_name = "FILE", default_value = "default")]
    against: String,
    /// Settings of that one
    #[arg(long, value_name = "SETTINGS")]
    against_settings: Option<String>,
    /// Differences that are shown; all are counted
    #[arg(long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// How an answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SlotArgs {
    #[command(flatten)]
    admin: Admin,
    #[arg(value_name = "SLOT", value_parser = slot)]
    slot: Slot,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SlotsArgs {
    #[command(flatten)]
    admin: Admin,
    #[arg(value_name = "SLOT", value_parser = slot, required = true)]
    slots: Vec<Slot>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PushArgs {
    #[command(flatten)]
    admin: Admin,
    #[arg(value_name = "SLOT", value_parser = slot)]
    slot: Slot,
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A file with JSON, or JSON itself
    #[arg(long, value_name = "SETTINGS")]
    settings: Option<String>,
    /// Only compare its answers, for this percentage of sessions
    #[arg(long, value_name = "PERCENT", conflicts_with = "canary")]
    shadow: Option<u8>,
    /// Let it answer for this percentage of sessions
    #[arg(long, value_name = "PERCENT")]
    canary: Option<u8>,
    /// Its signature [default: FILE.sig if that is there]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

/// Does what was asked; an error is a sentence on standard error.
pub(super) fn run(command: PluginCommand) -> Exit {
    if let PluginCommand::Replay(args) = &command {
        // Its exit code says more.
        return run_replay(args);
    }
    super::end(perform(command))
}

fn run_replay(args: &ReplayArgs) -> Exit {
    match compare(args) {
        Ok(outcome) => {
            let exit = match outcome {
                replay::Outcome::Same(_) => Exit::Ok,
                replay::Outcome::Differs(_) => Exit::Failure,
            };
            super::say(&outcome.words());
            exit
        }
        Err(words) => {
            eprintln!("tidegate: {words}");
            Exit::Usage
        }
    }
}

fn compare(args: &ReplayArgs) -> Result<replay::Outcome, String> {
    let text = String::from_utf8(read(&args.trace, TRACE_BYTES_MAX)?);
    let text = text.map_err(|_| format!("{} is not UTF-8", args.trace.display()))?;
    let trace = Trace::read(&text).map_err(|error| format!("{}: {error}", args.trace.display()))?;
    let settings = |given: &Option<String>| {
        given.as_deref().map(read_settings).transpose().map(Option::unwrap_or_default)
    };
    let (own, other) = (settings(&args.settings)?, settings(&args.against_settings)?);
    let file;
    let before = match args.against.as_str() {
        "builtin" => Side::BuiltIn,
        "default" => Side::Plugin { bytes: embedded(args.slot).bytes, settings: &other },
        path => {
            file = read_plugin(Path::new(path))?;
            Side::Plugin { bytes: &file, settings: &other }
        }
    };
    let bytes = read_plugin(&args.file)?;
    let after = Side::Plugin { bytes: &bytes, settings: &own };
    let (slot, most) = (args.slot, args.most);
    let format = if args.json { Format::Json } else { Format::Table };
    replay::run(Replay { slot, before, after, trace: &trace, most, format })
}

fn perform(command: PluginCommand) -> Result<String, String> {
    let post = |args: &SlotArgs, what: &str| {
        let path = format!("/api/v1/plugins/{}/{what}", args.slot.name());
        args.admin.ask(Request::new(Method::POST, path)).and_then(|answer| table::slots(&answer))
    };
    match command {
        PluginCommand::List { admin, slot: None } => {
            let request = Request::new(Method::GET, "/api/v1/plugins".to_owned());
            admin.ask(request).and_then(|answer| table::slots(&answer))
        }
        PluginCommand::List { admin, slot: Some(slot) } => {
            let path = format!("/api/v1/plugins/{}", slot.name());
            admin.ask(Request::new(Method::GET, path)).and_then(|answer| table::pretty(&answer))
        }
        PluginCommand::Push(args) => push(&args),
        PluginCommand::Configure { admin, slot, settings } => {
            let path = format!("/api/v1/plugins/{}/config", slot.name());
            let body = read_settings(&settings)?.into_bytes();
            let request = Request { body, ..Request::new(Method::PUT, path) };
            admin.ask(request).and_then(|answer| table::slots(&answer))
        }
        PluginCommand::Promote(SlotsArgs { admin, slots }) => {
            let names: Vec<&str> = slots.iter().map(|slot| slot.name()).collect();
            let path = format!("/api/v1/plugins/promote?slots={}", names.join(","));
            admin.ask(Request::new(Method::POST, path)).and_then(|answer| table::slots(&answer))
        }
        PluginCommand::Withdraw(args) => post(&args, "withdraw"),
        PluginCommand::Rollback(args) => post(&args, "rollback"),
        PluginCommand::Disable(args) => post(&args, "disable"),
        PluginCommand::Test { slot, file, settings, cases } => {
            let cases = cases.as_deref().map(|path| read_cases(path, slot)).transpose()?;
            let settings = match (settings.as_deref(), &cases) {
                (Some(given), _) => read_settings(given)?,
                (None, Some(cases)) => cases.settings()?,
                (None, None) => String::new(),
            };
            trial::run(slot, &read_plugin(&file)?, &settings, cases.as_ref())
        }
        PluginCommand::Build { path } => build::run(&path),
        PluginCommand::Replay(args) => compare(&args).map(replay::Outcome::words),
        PluginCommand::Bench(args) => measure(&args),
        PluginCommand::Sign { file, key, make_key } => {
            let make = if make_key { sign::Missing::Make } else { sign::Missing::Fail };
            sign::run(&file, &key, make)
        }
        PluginCommand::New { path, world, sdk } => create::run(&path, world, sdk.as_deref()),
    }
}

fn measure(args: &BenchArgs) -> Result<String, String> {
    let BenchArgs { slot, file, settings, sql, json } = args;
    let settings = settings.as_deref().map(read_settings).transpose()?.unwrap_or_default();
    let source = Source { slot: *slot, bytes: &read_plugin(file)?, settings: &settings };
    bench::run(source, sql, if *json { Format::Json } else { Format::Table })
}

fn push(args: &PushArgs) -> Result<String, String> {
    let mode = match (args.shadow, args.canary) {
        (Some(share), _) => format!("shadow&share={share}"),
        (None, Some(share)) => format!("canary&share={share}"),
        (None, None) => "activate".to_owned(),
    };
    let path = format!("/api/v1/plugins/{}?mode={mode}", args.slot.name());
    let mut request = Request { body: read_plugin(&args.file)?, ..Request::new(Method::PUT, path) };
    if let Some(settings) = &args.settings {
        request.headers.push(("tidegate-config", read_settings(settings)?));
    }
    if let Some(signature) = signature(args)? {
        request.headers.push(("tidegate-signature", signature));
    }
    args.admin.ask(request).and_then(|answer| table::slots(&answer))
}

fn signature(args: &PushArgs) -> Result<Option<String>, String> {
    let beside = sign::beside(&args.file);
    let path = match &args.signature {
        Some(path) => path,
        None if beside.exists() => &beside,
        None => return Ok(None),
    };
    let text = String::from_utf8(read(path, 1_000)?);
    let text = text.map_err(|_| format!("{} is not text", path.display()))?;
    Ok(Some(text.trim().to_owned()))
}

fn read_cases(path: &Path, slot: Slot) -> Result<Cases, String> {
    let text = String::from_utf8(read(path, CASES_BYTES_MAX)?);
    let text = text.map_err(|_| format!("{} is not UTF-8", path.display()))?;
    Cases::read(&text, slot).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_plugin(path: &Path) -> Result<Vec<u8>, String> {
    read(path, POLICY_COMPONENT_BYTES_MAX)
}

/// JSON on one line, from a file or as it was given.
fn read_settings(given: &str) -> Result<String, String> {
    let text = match given.trim_start().starts_with('{') {
        true => given.to_owned(),
        false => {
            let bytes = read(Path::new(given), POLICY_SETTINGS_BYTES_MAX)?;
            String::from_utf8(bytes).map_err(|_| format!("{given} is not UTF-8"))?
        }
    };
    let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
    let parsed = parsed.map_err(|error| format!("the settings are not a JSON object: {error}"))?;
    serde_json::to_string(&parsed).map_err(|error| error.to_string())
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(|error| fail(&error))?.len();
    if length > bytes_max as u64 {
        return Err(fail(&format!("{length} bytes are more than {bytes_max}")));
    }
    std::fs::read(path).map_err(|error| fail(&error))
}

fn slot(text: &str) -> Result<Slot, String> {
    flag_value(text)
}
