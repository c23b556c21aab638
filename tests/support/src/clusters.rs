//! The cluster and the Tidegate that all tests of one program share, and a database for each test.

use crate::tidegate::{Tidegate, TidegateOptions};
use crate::{Cluster, ClusterOptions};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The role that tests log in as; it owns the databases of [`test_database`].
pub const ROLE: &str = "app";

/// One primary with two replicas for the whole program. Do not kill or pause its servers: make a `Cluster` for that.
/// It is never dropped: its janitor removes it when the program ends.
pub fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let options = ClusterOptions { replicas: 2, ..ClusterOptions::default() };
        let cluster = Cluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
        cluster.create_role(ROLE).unwrap_or_else(|error| panic!("{error}"));
        cluster
    })
}

/// Few server connections, so that clients share them and what one leaves behind meets the next; and none that
/// outlive their test by much, since every test has a database of its own.
const FEW_CONNECTIONS: &str = "\
    [pool]\nsize_min = 0\nsize_max = 3\nidle_max = \"1s\"\nutilisation_warn_percent = 100\n";

/// One Tidegate in front of the shared cluster, with three server connections for each database. A test that needs
/// other settings, or that stops it, starts its own.
pub fn shared_tidegate() -> &'static Tidegate {
    static TIDEGATE: OnceLock<Tidegate> = OnceLock::new();
    TIDEGATE.get_or_init(|| {
        let database = test_database("shared");
        let mut options = TidegateOptions::for_cluster(shared_cluster(), &database);
        options.toml = Some(FEW_CONNECTIONS.to_owned());
        let tidegate = Tidegate::start(options);
        let log = tidegate.log_path();
        let earlier_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // What failed comes last, where one looks first.
            eprintln!("the shared Tidegate's log ends with:\n{}", crate::tidegate::tail(&log));
            earlier_hook(panic);
        }));
        tidegate
    })
}

/// A new database of the shared cluster that belongs to [`ROLE`]; its name starts with `name`.
pub fn test_database(name: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let database = format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let cluster = shared_cluster();
    cluster.create_database(&database, ROLE).unwrap_or_else(|error| panic!("{error}"));
    database
}

/// `target/`: the folder above the profile's that holds this test program.
pub fn target_directory() -> PathBuf {
    profile_directory().parent().map(Path::to_owned).expect("a target folder")
}

/// `target/debug` or `target/release`.
pub(crate) fn profile_directory() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.parent().expect("its folder");
    let in_deps = folder.file_name().is_some_and(|name| name == "deps");
    if in_deps {
        folder.parent().expect("the profile's folder").to_owned()
    } else {
        folder.to_owned()
    }
}
