//! Tests of the command line.

use std::os::unix::fs::PermissionsExt;

use clap::{CommandFactory, Parser};

use super::args::{Args, Command};
use super::{check, token};
use crate::config::{AuthMethod, Listen, PoolMode, Secret, init};
use crate::exit::Exit;

/// The flags of `tidegate serve` over a file of a temporary folder.
fn source(file: Option<&str>, flags: &[&str]) -> (tempfile::TempDir, crate::config::ConfigSource) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let args = ["tidegate", "serve", "--config", &path];
    let args = Args::try_parse_from(args.iter().chain(flags)).unwrap();
    let Command::Serve(serve) = args.command else { panic!("not serve") };
    (dir, serve.serve.source().unwrap())
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn the_contract_for_scripts_holds() {
    let (_dir, source) = source(
        None,
        &[
            "--listen",
            "127.0.0.1:6432",
            "--primary",
            "postgres://user:password@host:5432/db",
            "--replica",
            "postgres://user:password@r1:5432/db",
            "--replica",
            "postgres://user:password@r2:5432/db",
            "--admin",
            "127.0.0.1:6433",
        ],
    );
    let config = source.read().unwrap();
    assert_eq!(config.listen, [Listen::Tcp(([127, 0, 0, 1], 6432).into())]);
    assert_eq!(config.auth.method, AuthMethod::Passthrough);
    let names: Vec<_> = config.cluster.replicas.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(
        (config.cluster.primary.name.as_str(), names),
        ("primary", vec!["replica-1", "replica-2"])
    );
    assert_eq!(config.admin.map(|admin| admin.address), Some(([127, 0, 0, 1], 6433).into()));
}

#[test]
fn flags_win_over_the_file_and_errors_name_the_flag() {
    let file = "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n[cluster]\nprimary = \"postgres://a@one/db\"\n\
                password = \"p\"\n[pool]\nmode = \"session\"\nsize_min = 20\n";
    let flags = ["--listen", "127.0.0.1:3", "--primary", "postgres://a@two/db", "--pool-mode"];
    let (_dir, good) = source(Some(file), &[&flags[..], &["transaction"]].concat());
    let config = good.read().unwrap();
    assert_eq!(config.listen, [Listen::Tcp(([127, 0, 0, 1], 3).into())]);
    assert_eq!(config.cluster.primary.address.to_string(), "two:5432");
    assert_eq!(config.cluster.primary.password, Some(Secret::new("p")));
    assert_eq!((config.pool.mode, config.pool.size_min), (PoolMode::Transaction, 20));
    let (_dir, bad) = source(Some(file), &["--workers", "9999", "--pool-size", "10"]);
    let told: Vec<String> = bad.read().unwrap_err().iter().map(ToString::to_string).collect();
    assert!(told[0].ends_with("tidegate.toml:7:12: pool.size_min: 20 is above pool.size_max 10"));
    assert_eq!(told[1], "--workers: workers: 9999 is not from 0 to 1024");
    assert_eq!(told.len(), 2);
}

#[test]
fn a_value_that_could_not_be_read_is_not_called_missing_too() {
    let (_dir, source) = source(Some("cluster.primary = \"nonsense\""), &[]);
    let told = source.read().unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn a_bad_url_on_the_command_line_is_told_without_its_password() {
    let args = ["tidegate", "serve", "--primary", "postgres://app:hunter2@db:x/shop"];
    let Command::Serve(serve) = Args::try_parse_from(args).unwrap().command else {
        panic!("not serve")
    };
    let told = serve.serve.source().unwrap_err();
    assert!(told[0].to_string().starts_with("--primary: cluster.primary: the port is not"));
    assert!(!format!("{told:?}").contains("hunter2"));
}

#[test]
fn a_token_file_is_read_and_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "s3cret\nsecond line\n").unwrap();
    let file = "cluster.primary = \"postgres://a@db\"\nadmin = { address = \"127.0.0.1:1\", token = \"x\" }";
    let (_dir, source) = source(Some(file), &["--admin-token-file", path.to_str().unwrap()]);
    let config = source.read().unwrap();
    assert_eq!(config.admin.as_ref().map(|admin| admin.token.reveal()), Some("s3cret"));
    assert!(token::publish(&config, &source).unwrap().is_none());
}

#[test]
fn a_made_up_token_is_in_a_file_for_its_owner_until_the_end() {
    let flags = ["--primary", "postgres://a@db", "--admin", "127.0.0.1:0"];
    let (_dir, source) = source(None, &flags);
    let config = source.read().unwrap();
    assert_eq!(source.read().unwrap().admin, config.admin, "a reload keeps the token");
    let file = token::publish(&config, &source).unwrap().unwrap();
    let path = file.0.clone();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = config.admin.unwrap().token;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", token.reveal()));
    assert_eq!(token.reveal().len(), 64);
    drop(file);
    assert!(!path.exists());
}

#[test]
fn a_summary_shows_the_servers_without_passwords() {
    let (_dir, source) = source(None, &["--primary", "postgres://a:hunter2@db/shop"]);
    let summary = check::summary(&source.read().unwrap(), &source);
    assert!(summary.contains("postgres://a@db:5432/shop?sslmode=prefer"), "{summary}");
    assert!(!summary.contains("hunter2"), "{summary}");
}

#[test]
fn init_writes_a_file_once_and_again_only_when_forced() {
    let dir = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let path = dir.path().to_str().unwrap();
        let args = Args::try_parse_from(["tidegate", "init", path].iter().chain(flags)).unwrap();
        let Command::Init(args) = args.command else { panic!("not init") };
        super::init::run(&args)
    };
    let path = dir.path().join("tidegate.toml");
    assert_eq!(run(&[]), Exit::Ok);
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(run(&[]), Exit::Usage);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(run(&["--force"]), Exit::Ok);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), init::template());
}

#[test]
fn help_and_operations_list_the_exit_codes() {
    let help = Args::command().render_long_help().to_string();
    let mut command = Args::command();
    let serve = command.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let page = std::fs::read_to_string(path).unwrap();
    for exit in Exit::ALL {
        let line = format!("  {}  {}", exit.code(), exit.meaning());
        assert!(help.contains(&line) && serve.contains(&line), "{line}");
        assert!(page.contains(&format!("| {} | {} |", exit.code(), exit.meaning())), "{line}");
    }
}
