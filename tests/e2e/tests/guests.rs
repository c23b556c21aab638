//! Policies in other languages: the READMEs of plugins/examples, read and done, and the policy live.

use crate::own::{Folder, SOON, json, policies_answer};
use crate::routing::Split;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::tidegate::{TOKEN, binary};
use tidegate_test_support::{Client, shared_cluster, target_directory, test_database, wait_until};

/// The commands of the document's blocks.
fn commands(readme: &str) -> Vec<&str> {
    readme.split("\n```").filter_map(|block| block.strip_prefix("sh\n")).collect()
}

/// A copy of the example at its place under `root`, without what earlier builds have left there.
fn copy(language: &str, root: &Path) -> std::path::PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let example = Path::new("plugins/examples").join(language);
    let folder = root.join(&example);
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(repository.join(&example)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    let _ = fs::remove_file(folder.join("policy.wasm"));
    symlink(repository.join("wit"), root.join("wit")).unwrap();
    folder
}

/// Does what the README says, and sees that a client's reads of `products` move to the primary and others do not.
#[track_caller]
fn live(language: &str) {
    let root = Folder::new();
    let folder = copy(language, &root.file(""));
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let commands = commands(&readme);
    assert_eq!(commands.len(), 2, "{readme}");
    let database = test_database(&format!("guest_{language}"));
    let tables = "CREATE TABLE products (name text); CREATE TABLE orders (name text)";
    Client::connect(&shared_cluster().primary().url(ROLE, &database)).query(tables);
    let mut split = Split::start(shared_cluster(), database);
    wait_until(SOON, "the default policies answer", || policies_answer(&split.tidegate));
    let mut client = split.connect();
    let products = "SELECT name FROM products";
    wait_until(SOON, "products are read on replicas", || split.on_replica(&mut client, products));
    let programs = binary().parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let run = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", script]).current_dir(&folder);
        shell.env("PATH", format!("{programs}:{path}"));
        // What is built of others' tools stays for the next run.
        shell.env("CARGO_TARGET_DIR", target_directory().join("guests"));
        shell.env("TIDEGATE_ADMIN", split.tidegate.admin_address().to_string());
        shell.env("TIDEGATE_ADMIN_TOKEN", TOKEN);
        shell.env_remove("RUSTFLAGS").env_remove("CARGO").env_remove("RUSTC");
        shell.env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("CLIPPY_ARGS");
        let output = shell.output().unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}\n{out}\n{err}");
        out.into_owned()
    };
    let tested = run(commands[0]);
    assert!(tested.contains("fresh-reads 0.1.0: ok"), "{tested}");
    let explained = run(commands[1]);
    assert!(explained.contains("primary [fresh]"), "{explained}");
    let other = run("tidegate explain 'SELECT name FROM orders'");
    assert!(other.contains("built-in") && !other.contains("[fresh]"), "{other}");
    let active = &json(&split.tidegate, "/api/v1/plugins/routing")["active"]["name"];
    assert_eq!(active, "fresh-reads");
    // A client that was there before notices nothing but where its reads run.
    assert!(!split.on_replica(&mut client, products));
    // Once a replica shows as much as the client has seen on the primary.
    let orders = "SELECT name FROM orders";
    wait_until(SOON, "orders are read on replicas", || split.on_replica(&mut client, orders));
}

#[test]
fn a_policy_in_c_decides() {
    live("c");
}

#[test]
fn a_policy_in_javascript_decides() {
    live("javascript");
}

#[test]
fn a_policy_in_python_decides() {
    live("python");
}
