//! The cluster as a whole: quick to come, and gone without a trace.

use super::*;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn postmasters_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_cluster_replicates_survives_and_leaves_nothing() {
    let options = ClusterOptions { replicas: 2, ..ClusterOptions::default() };
    let cluster = Cluster::start(&options).unwrap();
    let directory = cluster.directory().to_owned();
    assert!(!postmasters_in(&directory).is_empty());

    cluster.primary().psql("CREATE TABLE t AS SELECT 42 AS a").unwrap();
    cluster.wait_until_caught_up().unwrap();
    for replica in cluster.replicas() {
        assert_eq!(replica.psql("SELECT a, pg_is_in_recovery() FROM t").unwrap(), "42|t");
        assert!(replica.psql("CREATE TABLE u ()").is_err());
    }

    cluster.primary().kill();
    assert!(!cluster.primary().is_running());
    cluster.primary().start().unwrap();
    assert_eq!(cluster.primary().psql("SELECT a FROM t").unwrap(), "42");
    cluster.wait_until_streaming().unwrap();

    cluster.replica(1).pause();
    cluster.replica(0).restart().unwrap();
    drop(cluster);
    assert_eq!(postmasters_in(&directory), Vec::<String>::new());
    assert!(!directory.exists());
}

#[test]
fn passwords_are_asked_for_over_tcp() {
    let cluster = Cluster::start(&ClusterOptions::default()).unwrap();
    cluster.create_role("app").unwrap();
    cluster.create_role("app").unwrap();
    let ask = |url: &str| {
        let output = cluster.primary().client("psql").args([url, "-Atc", "SELECT 1"]).output();
        output.unwrap().status.success()
    };
    let url = cluster.primary().url("app", "postgres");
    assert!(ask(&url));
    assert!(!ask(&url.replace("app-password", "wrong")));
}

#[test]
fn settings_and_rules_of_the_caller_win() {
    let options = ClusterOptions {
        hba: vec!["host all app 127.0.0.1/32 reject".to_owned()],
        conf: vec!["max_connections = 17".to_owned()],
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    assert_eq!(cluster.primary().psql("SHOW max_connections").unwrap(), "17");
    cluster.create_role("app").unwrap();
    let url = cluster.primary().url("app", "postgres");
    let output = cluster.primary().client("psql").args([&url, "-c", "SELECT 1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("rejects"));
}

#[test]
fn a_folder_in_use_is_refused() {
    let options =
        ClusterOptions { directory: Some(PathBuf::from("/usr")), ..ClusterOptions::default() };
    assert!(matches!(Cluster::start(&options), Err(ClusterError::DirectoryInUse(_))));
}

/// The program under test ends here by SIGKILL, with a paused server: the janitor must do all the work.
#[test]
fn a_killed_program_leaves_nothing() {
    const CHILD: &str = "TIDEGATE_TEST_CLUSTER_TO_KILL";
    if std::env::var_os(CHILD).is_some() {
        let options = ClusterOptions { replicas: 1, ..ClusterOptions::default() };
        let cluster = Cluster::start(&options).unwrap();
        cluster.replica(0).pause();
        println!("directory={}", cluster.directory().display());
        std::io::stdin().lines().next(); // until we are killed
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "demo::tests::a_killed_program_leaves_nothing", "--nocapture"])
        .env(CHILD, "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let directory = std::io::BufRead::lines(output)
        .map_while(Result::ok)
        .find_map(|line| line.split_once("directory=").map(|(_, path)| PathBuf::from(path)))
        .unwrap();
    assert!(!postmasters_in(&directory).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = || !directory.exists() && postmasters_in(&directory).is_empty();
    assert!(poll(Duration::from_secs(20), gone), "{} is left", directory.display());
}
