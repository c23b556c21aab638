//! Two servers that a real Patroni manages, with an etcd of their own.

use crate::http::{self, Response};
use crate::tidegate::{leash, new_directory};
use crate::{Cluster, ClusterOptions, Etcd, free_port, password_of, wait_until};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const START_TIME_MAX: Duration = Duration::from_secs(90);
/// Who may order switchovers.
pub const API_USER: &str = "api";
pub const API_PASSWORD: &str = "api-password";

/// One Patroni with its server. Dropping it kills Patroni; the server ends with the folder.
#[derive(Debug)]
struct Member {
    name: String,
    api_port: u16,
    port: u16,
    data: PathBuf,
    child: Child,
    leash: Child,
}

/// A Patroni cluster, `p1` and `p2`.
#[derive(Debug)]
pub struct Patroni {
    // Dropped in this order: nobody starts a server again when the folder goes.
    members: Vec<Member>,
    etcd: Etcd,
    /// Whose folder the servers are in, and whose janitor ends them.
    home: Cluster,
}

impl Patroni {
    /// Waits until one leads and the other follows it. `tags` are those of `p2`, as YAML.
    #[track_caller]
    pub fn start(tags: &str) -> Patroni {
        let etcd = Etcd::start();
        let home = Cluster::start(&ClusterOptions::default()).unwrap();
        home.primary().stop_now();
        let mut patroni = Patroni { members: Vec::new(), etcd, home };
        patroni.add("p1", "{}");
        wait_until(START_TIME_MAX, "p1 leads", || patroni.leader().as_deref() == Some("p1"));
        patroni.add("p2", tags);
        wait_until(START_TIME_MAX, "p2 follows", || {
            let members = patroni.told();
            let follows = |member: &serde_json::Value| {
                let state = member["state"].as_str().unwrap_or_default();
                member["role"] == "replica" && ["running", "streaming"].contains(&state)
            };
            members.iter().any(follows)
        });
        patroni
    }

    fn add(&mut self, name: &str, tags: &str) {
        let folder = self.home.directory().to_owned();
        let data = folder.join(name);
        let (api_port, port) = (free_port().unwrap(), free_port().unwrap());
        let installation = self.home.installation();
        let password = password_of("postgres");
        let login = format!("{{username: postgres, password: {password}}}");
        let text = format!(
            "scope: shop\nnamespace: /patroni/\nname: {name}\n\
             restapi:\n  listen: 127.0.0.1:{api_port}\n  connect_address: 127.0.0.1:{api_port}\n  \
             authentication: {{username: {API_USER}, password: {API_PASSWORD}}}\n\
             etcd3: {{host: '{}'}}\n\
             bootstrap:\n  dcs:\n    ttl: 10\n    loop_wait: 1\n    retry_timeout: 3\n    \
             primary_start_timeout: 0\n    master_start_timeout: 0\n    \
             postgresql: {{parameters: {{fsync: 'off', wal_retrieve_retry_interval: 200ms}}}}\n  \
             initdb: [encoding: UTF8, no-locale, no-sync]\n  \
             pg_hba: [local all all trust, host all all 127.0.0.1/32 md5, host replication all 127.0.0.1/32 md5]\n\
             postgresql:\n  listen: 127.0.0.1:{port}\n  connect_address: 127.0.0.1:{port}\n  \
             data_dir: {data}\n  bin_dir: {bin}\n  pgpass: {folder}/pgpass-{name}\n  \
             authentication: {{superuser: {login}, replication: {login}}}\n  \
             parameters: {{unix_socket_directories: '{folder}'}}\n\
             tags: {tags}\n",
            self.etcd.address(),
            data = data.display(),
            bin = installation.bin().display(),
            folder = folder.display(),
        );
        let directory = new_directory();
        let log = File::create(directory.join("log")).unwrap();
        let path = directory.join("patroni.yml");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("patroni");
        command.arg(&path).current_dir(&directory).env("HOME", &folder).process_group(0);
        if let Some(account) = installation.account() {
            command.gid(account.gid).uid(account.uid);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("patroni: {error}"));
        let leash = leash(&child, &directory);
        self.members.push(Member { name: name.to_owned(), api_port, port, data, child, leash });
    }

    /// The servers' URLs, as the superuser in `postgres`.
    pub fn urls(&self) -> Vec<String> {
        let password = password_of("postgres");
        let url = |member: &Member| {
            format!("postgres://postgres:{password}@127.0.0.1:{}/postgres", member.port)
        };
        self.members.iter().map(url).collect()
    }

    /// Of the REST APIs.
    pub fn api_urls(&self) -> Vec<String> {
        let url = |member: &Member| format!("http://127.0.0.1:{}", member.api_port);
        self.members.iter().map(url).collect()
    }

    /// What `GET /cluster` says of the members.
    pub fn told(&self) -> Vec<serde_json::Value> {
        let answer = self.members.iter().find_map(|member| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, member.api_port));
            http::request(address, "GET", "/cluster", "", "").ok()
        });
        let value: serde_json::Value =
            answer.and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default();
        value["members"].as_array().cloned().unwrap_or_default()
    }

    /// Who leads, and runs.
    pub fn leader(&self) -> Option<String> {
        let leader = self.told().into_iter().find(|member| {
            member["role"] == "leader"
                && member["state"] == "running"
                && member["timeline"].is_number()
        });
        Some(leader?["name"].as_str()?.to_owned())
    }

    /// Has Patroni do it, past Tidegate.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Response {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.members[0].api_port));
        // `api:api-password`, as basic authentication has it.
        let login = "Authorization: Basic YXBpOmFwaS1wYXNzd29yZA==\r\n";
        http::send(address, ("POST", path), "", login, body.as_bytes()).unwrap()
    }

    /// Kills a member's server, all at once; its Patroni lives on.
    pub fn kill_server(&self, name: &str) {
        let member = self.members.iter().find(|member| member.name == name).unwrap();
        let pid = std::fs::read_to_string(member.data.join("postmaster.pid")).unwrap();
        let pid: libc::pid_t = pid.lines().next().unwrap().parse().unwrap();
        // SAFETY: kill touches no memory; the number is that of a server in a folder of ours.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.leash.stdin.take());
        let _ = self.leash.wait();
    }
}
