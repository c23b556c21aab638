//! The same messages to PostgreSQL itself and through Tidegate: what comes back must be the same.

use crate::clusters::{ROLE, shared_cluster, shared_tidegate, test_database};
use crate::{Client, Url};
use std::sync::OnceLock;

const FRONT: &str = "TIDEGATE_TEST_FRONT";

/// Runs `scenario` on a connection to PostgreSQL, then on one through Tidegate, and compares what they read.
///
/// `fixture` is SQL that prepares the tables before each of the two; scenarios run side by side in one database, so
/// give tables the test's name. What legitimately differs (process ids, OIDs of tables) is not in a transcript.
#[track_caller]
pub fn differential(fixture: &str, scenario: impl Fn(&mut Client)) {
    differential_url(fixture, |url| {
        let mut client = Client::connect(url);
        scenario(&mut client);
        client.transcript().to_vec()
    });
}

/// The same for scenarios that connect themselves, perhaps more than once; they return what is compared.
#[track_caller]
pub fn differential_url(fixture: &str, scenario: impl Fn(&str) -> Vec<String>) {
    let database = database();
    let direct_url = shared_cluster().primary().url(ROLE, database);
    let through_url = front_url(ROLE, database);
    let run = |url: &str| {
        let prepare = format!("SET ROLE {ROLE};\nSET client_min_messages = warning;\n{fixture}");
        if let Err(error) = shared_cluster().primary().psql_in(database, &prepare) {
            panic!("the fixture: {error}");
        }
        scenario(url)
    };
    let direct = run(&direct_url);
    let through = run(&through_url);
    assert!(direct == through, "the answers differ:\n{}", side_by_side(&direct, &through));
}

/// Where clients of the tests connect: the shared Tidegate. `TIDEGATE_TEST_FRONT=direct` (PostgreSQL itself) or
/// `host:port` (another pooler) instead shows whether a scenario is at fault.
pub fn front_url(user: &str, database: &str) -> String {
    match std::env::var(FRONT) {
        Err(_) => shared_tidegate().url(user, database),
        Ok(front) => {
            eprintln!("TIDEGATE_TEST_FRONT={front}: this is no test of Tidegate");
            let direct = shared_cluster().primary().url(user, database);
            if front == "direct" {
                return direct;
            }
            let address = Url::parse(&direct).address();
            direct.replace(&address, &front)
        }
    }
}

/// Whether clients of the tests really meet Tidegate.
pub fn front_is_tidegate() -> bool {
    std::env::var_os(FRONT).is_none()
}

fn database() -> &'static str {
    static DATABASE: OnceLock<String> = OnceLock::new();
    DATABASE.get_or_init(|| test_database("differential"))
}

/// The lines of both, those that differ marked.
fn side_by_side(direct: &[String], through: &[String]) -> String {
    let missing = "(nothing)".to_owned();
    let lines = (0..direct.len().max(through.len())).map(|index| {
        let (left, right) = (direct.get(index), through.get(index));
        let (left, right) = (left.unwrap_or(&missing), right.unwrap_or(&missing));
        if left == right {
            format!("    {left}")
        } else {
            format!("! PostgreSQL: {left}\n! Tidegate:   {right}")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
