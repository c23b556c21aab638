//! Servers between failovers: replicas that are slow, reads without replicas, a primary that is gone, machines, rights.

use crate::failover::{LONG, cluster, options, topology, wait_until_steady};
use crate::own::{
    SOON, cluster_with_replicas, json, metric, sqlstate, tidegate, wait_until_running,
};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Passing, Relay, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database,
    wait_until,
};

fn server(tidegate: &Tidegate, name: &str) -> Value {
    let topology = topology(tidegate);
    let mut servers = topology["servers"].as_array().into_iter().flatten();
    // At the start nothing is known of any.
    servers.find(|server| server["name"] == name).cloned().unwrap_or_default()
}

/// A metric of one server.
fn metric_of(tidegate: &Tidegate, name: &str, server: &str) -> f64 {
    let text = tidegate.admin_get("/metrics").body;
    let begin = format!("{name}{{server=\"{server}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok());
    value.unwrap_or_else(|| panic!("{begin} is not in {text}"))
}

fn pool_at(tidegate: &Tidegate, server: &str, role: &str) -> Value {
    let pools = json(tidegate, "/api/v1/pools");
    let mut pools = pools["pools"].as_array().unwrap().iter();
    pools.find(|pool| pool["server"] == server && pool["role"] == role).unwrap().clone()
}

/// A database with a table that the catalogue of a Tidegate in front of it knows.
fn database(name: &str) -> String {
    let database = test_database(name);
    let sql = "CREATE TABLE t (n int); CREATE TABLE locked (n int); GRANT ALL ON t, locked TO app";
    shared_cluster().primary().psql_in(&database, sql).unwrap();
    shared_cluster().wait_until_caught_up().unwrap();
    database
}

/// Waits until both replicas have run reads of this client.
fn wait_until_both_serve(tidegate: &Tidegate, client: &mut Client) {
    wait_until(SOON, "both replicas serve reads", || {
        client.query("SELECT count(*) FROM t");
        let ran =
            |server: &str| metric_of(tidegate, "tidegate_server_statements_total", server) > 0.0;
        ran("replica-1") && ran("replica-2")
    });
}

#[test]
fn a_replica_that_is_much_slower_gets_no_reads_for_a_time_and_few_at_first() {
    let (cluster, database) = (shared_cluster(), database("slow_replica"));
    let relay = Relay::before(cluster.replica(0));
    let mut options = TidegateOptions::for_cluster(cluster, &database);
    options.replicas[0] = relay.url_of(&options.replicas[0]);
    options.toml = Some(
        "workers = 1\n[pool]\nsize_min = 0\n[routing]\nslow_start = \"2s\"\neject_time = \"1h\"\n"
            .to_owned(),
    );
    let toml = options.toml.clone().unwrap();
    let tidegate = Tidegate::start(options);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    wait_until_both_serve(&tidegate, &mut client);
    relay.set_passing(Passing::RepliesLate(Duration::from_millis(200)));
    wait_until(LONG, "the slow one is left out", || {
        server(&tidegate, "replica-1")["ejected"] == "slow"
    });
    let slow = server(&tidegate, "replica-1");
    assert_eq!((&slow["serves_reads"], &slow["fault"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(metric_of(&tidegate, "tidegate_server_ejected", "replica-1"), 1.0);
    let statements =
        |server: &str| metric_of(&tidegate, "tidegate_server_statements_total", server);
    let before = (statements("replica-1"), statements("replica-2"));
    for _ in 0..20 {
        client.query("SELECT count(*) FROM t");
    }
    // Some may have had to see more than the other shows yet.
    assert_eq!(statements("replica-1"), before.0, "it was to have none");
    assert!(statements("replica-2") > before.1 + 10.0, "{:?}", statements("replica-2"));
    // A reload does not end it; but it is for no longer than is written now.
    tidegate.reload();
    wait_until(LONG, "it is left out still", || {
        server(&tidegate, "replica-1")["ejected"] == "slow"
    });
    assert_eq!(statements("replica-1"), before.0, "it was to have none");
    assert_eq!(tidegate.log().matches("reads leave \"replica-1\" for").count(), 1);
    relay.set_passing(Passing::On);
    tidegate.write_config(&toml.replace("1h", "1s"));
    tidegate.reload();
    wait_until(LONG, "it serves reads again", || {
        server(&tidegate, "replica-1")["serves_reads"] == true
    });
    let before = (statements("replica-1"), statements("replica-2"));
    wait_until(SOON, "it has some", || {
        client.query("SELECT count(*) FROM t");
        statements("replica-1") > before.0
    });
    assert!(tidegate.log().contains("\"replica-1\" is given reads again, few at first"));
}

#[test]
fn reads_that_no_replica_takes_leave_room_for_writes_on_the_primary() {
    let (cluster, database) = (shared_cluster(), database("fallback"));
    let toml = "workers = 1\n[pool]\nsize_min = 0\nsize_max = 4\nwait_max = \"500ms\"\n[routing]\nfallback_percent = 25\n";
    let tidegate = tidegate(cluster, &database, toml);
    let connect = || Client::connect(&tidegate.url(ROLE, &database));
    let (mut held, mut refused, mut writer) = (connect(), connect(), connect());
    wait_until_both_serve(&tidegate, &mut refused);
    for name in ["replica-1", "replica-2"] {
        assert_eq!(tidegate.command(&["drain", name]).0, 0);
    }
    wait_until(SOON, "reads go to the primary", || {
        refused.query("SELECT count(*) FROM t");
        let pools = json(&tidegate, "/api/v1/pools");
        let pools = pools["pools"].as_array().unwrap();
        pools.iter().any(|pool| pool["server"] == "primary" && pool["role"] == "read")
    });
    let drained = |server: &str, role: &str| pool_at(&tidegate, server, role)["drained"] == true;
    assert!(drained("replica-1", "read") && !drained("primary", "write"));
    assert_eq!(pool_at(&tidegate, "primary", "read")["size_max"], 1);
    // One read runs on the primary, until its table is unlocked.
    assert!(metric(&tidegate, "tidegate_reads_fallen_back_total") >= 1.0);
    let mut locker = Client::connect(&cluster.primary().url(ROLE, &database));
    locker.query("BEGIN");
    locker.query("LOCK TABLE locked");
    held.send(pipeline().query("SELECT n FROM locked"));
    wait_until_running(cluster, &database, "n FROM locked", 1);
    let answer = refused.query("SELECT count(*) FROM t");
    let error = answer.iter().find(|message| message.tag == b'E').expect("no room");
    assert_eq!(error.sqlstate(), "53300", "{error:?}");
    let (detail, hint) = (error.field(b'D').unwrap(), error.field(b'H').unwrap());
    assert!(detail.contains("No replica can run this read"), "{detail}");
    assert!(hint.contains("routing.fallback_percent"), "{hint}");
    for _ in 0..3 {
        assert_eq!(sqlstate(&mut writer, "INSERT INTO t VALUES (1)"), "");
    }
    locker.query("ROLLBACK");
    held.expect("T C ZI");
    assert_eq!(sqlstate(&mut refused, "SELECT count(*) FROM t"), "");
}

#[test]
fn property_42_pools_give_up_on_a_server_that_health_checks_miss_before_they_have_tried() {
    let cluster = cluster_with_replicas("missed", 1);
    let toml = "workers = 1\n[pool]\nsize_min = 0\n[failover]\nmode = \"off\"\n";
    let tidegate = tidegate(&cluster, "missed", toml);
    let mut client = Client::connect(&tidegate.url(ROLE, "missed"));
    assert_eq!(sqlstate(&mut client, "CREATE TABLE t ()"), "");
    cluster.primary().kill();
    wait_until(SOON, "health checks miss it", || {
        tidegate.log().contains("\"primary\" has not answered for a while")
    });
    let begun = Instant::now();
    let answer = client.query("INSERT INTO t DEFAULT VALUES");
    let waited = begun.elapsed();
    let error = answer.iter().find(|message| message.tag == b'E').expect("it is gone");
    assert_eq!(error.sqlstate(), "08006", "{error:?}");
    assert!(error.field(b'D').unwrap().contains("health checks get no answer"), "{error:?}");
    assert!(waited < Duration::from_millis(900), "it waited for an attempt: {waited:?}");
    assert_eq!(pool_at(&tidegate, "primary", "write")["breakers_open"], 1);
    cluster.primary().start().unwrap();
    wait_until(SOON, "it is used again", || {
        sqlstate(&mut client, "INSERT INTO t DEFAULT VALUES").is_empty()
    });
}

/// Says what a node_exporter says, to whoever asks.
fn exporter() -> SocketAddr {
    const TEXT: &str = "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 1\nnode_memory_MemTotal_bytes 1000\n\
        node_memory_MemAvailable_bytes 250\nnode_filesystem_size_bytes{fstype=\"ext4\",mountpoint=\"/\"} 1000\n\
        node_filesystem_avail_bytes{fstype=\"ext4\",mountpoint=\"/\"} 400\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(stream.try_clone().unwrap());
            let asked = head.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let begins = asked.collect::<Vec<_>>()[0].starts_with("GET /metrics ");
            let status = if begins { "200 OK" } else { "404 Not Found" };
            let length = TEXT.len();
            // Who hangs up has no more questions.
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{TEXT}");
        }
    });
    address
}

#[test]
fn how_busy_machines_are_is_told_or_why_it_is_not_known() {
    let cluster = shared_cluster();
    let database = test_database("load");
    let of = |user: &str, toml: String| {
        let url = |node: &tidegate_test_support::Node| node.url(user, &database);
        Tidegate::start(TidegateOptions {
            primary: url(cluster.primary()),
            replicas: cluster.replicas().iter().map(url).collect(),
            toml: Some(toml),
            ..TidegateOptions::default()
        })
    };
    let pool = "[pool]\nsize_min = 0\n";
    let exporter = exporter();
    let told = of(
        "postgres",
        format!("{pool}[[servers]]\nname = \"primary\"\nnode_exporter = \"http://{exporter}\"\n"),
    );
    wait_until(SOON, "machines are asked", || {
        let servers = ["primary", "replica-1"].map(|name| server(&told, name));
        servers.iter().all(|server| server["memory_percent"].is_number())
    });
    let (primary, replica) = (server(&told, "primary"), server(&told, "replica-1"));
    assert_eq!(
        (&primary["memory_percent"], &primary["disk_percent"]),
        (&75.0.into(), &60.0.into())
    );
    assert_eq!(
        (&primary["load_source"], &replica["load_source"]),
        (&"node_exporter".into(), &"database".into())
    );
    assert_eq!((&replica["disk_percent"], &replica["load_trouble"]), (&Value::Null, &Value::Null));
    let (code, said) = told.command(&["topology"]);
    assert_eq!(code, 0);
    assert!(said.contains("memory 75 %, disk 60 %") && said.contains("disk unknown"), "{said}");
    assert_eq!(metric_of(&told, "tidegate_server_disk_percent", "primary"), 60.0);
    wait_until(SOON, "two answers tell of processors", || {
        server(&told, "replica-1")["cpu_percent"].is_number()
    });

    let untold = of(ROLE, pool.to_owned());
    wait_until(SOON, "it is said what is missing", || {
        let trouble = server(&untold, "replica-1")["load_trouble"].to_string();
        trouble.contains("GRANT pg_read_server_files TO app;")
    });
    // The function that gives two files away.
    let page = include_str!("../../../docs/failover.md");
    let (_, rest) = page.split_once("```sql\nCREATE SCHEMA").unwrap();
    let (sql, _) = rest.split_once("```").unwrap();
    let sql = format!("CREATE SCHEMA{}", sql.replace("TO tidegate;", "TO app;"));
    cluster.primary().psql_in(&database, &sql).unwrap();
    cluster.wait_until_caught_up().unwrap();
    untold.reload();
    wait_until(SOON, "the function is asked", || {
        let replica = server(&untold, "replica-1");
        replica["load_source"] == "database" && replica["memory_percent"].is_number()
    });
}

#[test]
fn rights_that_a_failover_takes_are_named_and_the_sql_that_is_said_gives_them() {
    let cluster = cluster(1);
    cluster.create_role(ROLE).unwrap();
    cluster.wait_until_caught_up().unwrap();
    let mut options = options(&cluster, "mode = \"embedded\"");
    let url = |node: &tidegate_test_support::Node| node.url(ROLE, "postgres");
    options.primary = url(cluster.primary());
    options.replicas = vec![url(cluster.replica(0))];
    let tidegate = Tidegate::start(options);
    wait_until_steady(&tidegate);
    // Right after a start or a reload nothing is known of the cluster.
    let events = || topology(&tidegate)["events"].as_array().cloned().unwrap_or_default();
    let text = |event: &Value| event["text"].as_str().unwrap().to_owned();
    let lacking = || {
        let is_it = |text: &String| text.contains("takes rights that the user app lacks");
        events().iter().map(text).find(is_it)
    };
    wait_until(SOON, "it is said what is missing", || lacking().is_some());
    let said = lacking().unwrap();
    let (_, sql) = said.split_once("in database postgres: ").unwrap();
    assert!(sql.contains("GRANT ALTER SYSTEM ON PARAMETER primary_conninfo"), "{sql}");
    cluster.primary().psql(sql).unwrap();
    tidegate.reload();
    wait_until(SOON, "nothing is missing any more", || {
        events().iter().any(|event| text(event).contains("may do what a failover takes"))
    });
}
