//! A throw-away Redis Cluster: three primaries that share the slots, and one replica of any of them.

use crate::redis::{Redis, RedisClient, Reply};
use crate::{free_port, wait_until};
use std::process::{Command, Stdio};
use std::time::Duration;

const PRIMARIES: usize = 3;
/// The node that is a primary of no slots until it is made a replica.
const SPARE: usize = PRIMARIES;
const SLOTS: usize = 16_384;
const AGREE_TIME_MAX: Duration = Duration::from_secs(60);
/// A node is gone that has not answered for so long: soon, and yet not on a busy machine alone.
const NODE_TIMEOUT_MS: &str = "1500";

/// Nodes by number; the last is the spare one.
#[derive(Debug)]
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
    buses: Vec<u16>,
}

impl RedisCluster {
    /// Waits until all slots are served; `arguments` of each node as on its command line.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        let buses: Vec<u16> = (0..=SPARE).map(|_| free_port().unwrap()).collect();
        let start = |bus: &u16| {
            let bus = bus.to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let times =
                ["--cluster-node-timeout", NODE_TIMEOUT_MS, "--repl-diskless-sync-delay", "0"];
            let always = ["--cluster-replica-validity-factor", "0"];
            Redis::start(&[&own[..], &times[..], &always[..], arguments].concat())
        };
        let cluster = Self { nodes: buses.iter().map(start).collect(), buses };
        for number in 0..PRIMARIES {
            let (first, last) = (SLOTS * number / PRIMARIES, SLOTS * (number + 1) / PRIMARIES - 1);
            let range = [first, last].map(|slot| slot.to_string());
            cluster.call(number, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]);
            cluster.call(number, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for number in 1..=SPARE {
            let (port, bus) =
                (cluster.nodes[number].port().to_string(), cluster.buses[number].to_string());
            cluster.call(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        wait_until(AGREE_TIME_MAX, "all nodes know all", || {
            (0..=SPARE).all(|number| {
                let Reply::Text(info) = cluster.ask(number, &["CLUSTER", "INFO"]) else {
                    return false;
                };
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            })
        });
        cluster
    }

    /// The slot of a key, and the primary that had it at the beginning.
    #[track_caller]
    pub fn place_of(&self, key: &str) -> (usize, usize) {
        let Reply::Number(slot) = self.ask(0, &["CLUSTER", "KEYSLOT", key]) else {
            panic!("no slot")
        };
        let slot = usize::try_from(slot).unwrap();
        let has = |number: &usize| slot < SLOTS * (number + 1) / PRIMARIES;
        (slot, (0..PRIMARIES).find(has).unwrap())
    }

    /// The number of the spare node, once it is a replica of that primary and has all that it has.
    #[track_caller]
    pub fn replicate(&self, primary: usize) -> usize {
        let id = self.id(primary);
        self.call(SPARE, &["CLUSTER", "REPLICATE", &id]);
        self.wait_until_synced(SPARE);
        SPARE
    }

    /// Until a replica has all that its primary has.
    #[track_caller]
    pub fn wait_until_synced(&self, replica: usize) {
        wait_until(AGREE_TIME_MAX, "the replica has everything", || {
            let Reply::Text(info) = self.ask(replica, &["INFO", "replication"]) else {
                return false;
            };
            info.contains("role:slave") && info.contains("master_link_status:up")
        });
    }

    #[track_caller]
    pub fn wait_until_promoted(&self, replica: usize) {
        wait_until(
            AGREE_TIME_MAX,
            "the replica is promoted",
            || matches!(self.ask(replica, &["INFO", "replication"]), Reply::Text(info) if info.contains("role:master")),
        );
    }

    /// Begins to move a slot: from now on its keys may be on either node.
    #[track_caller]
    pub fn begin_to_move(&self, slot: usize, from: usize, to: usize) {
        let slot = slot.to_string();
        self.call(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        self.call(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
    }

    /// Moves all keys of slots that are being moved, as `redis-cli` does.
    #[track_caller]
    pub fn finish_to_move(&self) {
        let output = Command::new("redis-cli")
            .args(["--cluster", "fix", &format!("127.0.0.1:{}", self.nodes[0].port())])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }

    fn id(&self, number: usize) -> String {
        match self.ask(number, &["CLUSTER", "MYID"]) {
            Reply::Text(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, number: usize, words: &[&str]) -> Reply {
        let mut client: RedisClient = self.nodes[number].client();
        client.call(words)
    }

    #[track_caller]
    fn call(&self, number: usize, words: &[&str]) {
        assert_eq!(self.ask(number, words), Reply::Text("OK".to_owned()), "{words:?}");
    }
}
