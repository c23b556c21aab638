//! `GET /api/v1/cluster`, `POST /api/v1/cluster/…`: the servers, and what is ordered about them.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::Control;
use super::reply::{Problem, Reply, json};
use crate::plugins::Who;
use crate::view::{Force, LossReport, LostCommit, MemberView, Ordered, Topology};

/// The servers as they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// `steady`, `suspect`, `promoting`, …
    pub state: String,
    /// `failover.mode`.
    pub mode: String,
    /// The server that writes go to.
    pub primary: String,
    /// Statements for the primary wait.
    pub held: bool,
    /// The primary first.
    pub servers: Vec<ServerReport>,
    /// What was decided, oldest first.
    pub events: Vec<EventReport>,
    /// Acknowledged commits that the last failover has lost; null: there was none that lost anything it had not brought to rest.
    #[serde(default)]
    pub losses: Option<LossesReport>,
}

/// What a failover has lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossesReport {
    pub at_unix_ms: u64,
    /// Who was primary, and who became it.
    pub before: String,
    pub after: String,
    /// So far the new one has the log of the one before.
    pub fork: String,
    /// What was acknowledged until then is there; null: nothing is known to be.
    pub safe_until_unix_ms: Option<u64>,
    /// Commits that are lost, and those that may be.
    pub lost: usize,
    pub uncertain: usize,
    /// Some that may be lost are not remembered any more.
    pub cut: bool,
    /// The first of them, oldest first.
    pub commits: Vec<LostCommitReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCommitReport {
    pub acknowledged_unix_ms: u64,
    pub user: String,
    pub database: String,
    pub application: String,
    /// What it did that writes, first of all: `INSERT`, `UPDATE`, …
    pub verb: String,
    /// It is lost for certain.
    pub certain: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    pub name: String,
    pub address: String,
    /// By its own word: `primary` or `replica`; null: it does not answer.
    pub role: Option<String>,
    pub timeline: Option<u32>,
    /// Written or received, as PostgreSQL writes positions of the log.
    pub position: Option<String>,
    /// Of a replica.
    pub lag_ms: Option<u64>,
    pub serves_reads: bool,
    /// `slow` or `failing`: it would serve reads, and is left out for a time.
    pub ejected: Option<String>,
    /// How busy its machine is; null: not known.
    pub cpu_percent: Option<f64>,
    pub memory_percent: Option<f64>,
    /// Used, of the file system that its data are on.
    pub disk_percent: Option<f64>,
    /// Who says so: `database` or `node_exporter`.
    pub load_source: Option<String>,
    /// Why it is not known.
    pub load_trouble: Option<String>,
    /// An operator wants no new reads there.
    pub drained: bool,
    /// Why it does not answer.
    pub fault: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    pub at_unix_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    pub text: String,
}

/// The body of an order; it may be left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchoverQuestion {
    /// The server's name; whoever has most of the log unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The body of an order for a failover.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverQuestion {
    /// The server's name.
    pub to: String,
    /// Even if the primary answers, or replicas still receive from it.
    #[serde(default)]
    pub force: bool,
}

/// The body of an order about one server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerQuestion {
    pub server: String,
}

impl From<&Topology> for ClusterReport {
    fn from(topology: &Topology) -> Self {
        let in_force = topology.members.iter().find(|member| member.is_in_force);
        let event = |event: &crate::view::ClusterEvent| EventReport {
            at_unix_ms: unix_ms(event.at),
            level: event.level.as_str().to_ascii_lowercase(),
            text: event.text.to_string(),
        };
        Self {
            state: topology.state.to_owned(),
            mode: topology.mode.to_owned(),
            primary: in_force.map(|member| member.name.to_string()).unwrap_or_default(),
            held: topology.is_held,
            servers: topology.members.iter().map(ServerReport::from).collect(),
            events: topology.events.iter().map(event).collect(),
            losses: topology.losses.as_deref().map(LossesReport::from),
        }
    }
}

impl From<&LossReport> for LossesReport {
    fn from(report: &LossReport) -> Self {
        let commit = |commit: &LostCommit| LostCommitReport {
            acknowledged_unix_ms: unix_ms(commit.acknowledged_at),
            user: commit.user.to_string(),
            database: commit.database.to_string(),
            application: commit.application.to_string(),
            verb: commit.verb.to_owned(),
            certain: commit.is_certain,
        };
        Self {
            at_unix_ms: unix_ms(report.at),
            before: report.before.to_string(),
            after: report.after.to_string(),
            fork: report.fork.to_string(),
            safe_until_unix_ms: report.safe_until.map(unix_ms),
            lost: report.lost,
            uncertain: report.uncertain,
            cut: report.is_cut,
            commits: report.commits.iter().map(commit).collect(),
        }
    }
}

impl From<&MemberView> for ServerReport {
    fn from(member: &MemberView) -> Self {
        let role = |is_primary: bool| if is_primary { "primary" } else { "replica" }.to_owned();
        Self {
            name: member.name.to_string(),
            address: member.address.to_string(),
            role: member.is_primary.map(role),
            timeline: member.timeline,
            position: member.position.map(|position| position.to_string()),
            lag_ms: member.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            serves_reads: member.serves_reads,
            ejected: member.ejected.map(str::to_owned),
            cpu_percent: member.load.load.cpu_percent.map(rounded),
            memory_percent: member.load.load.memory_percent.map(rounded),
            disk_percent: member.load.load.disk_percent.map(rounded),
            load_source: member.load.source.map(str::to_owned),
            load_trouble: member.load.trouble.as_deref().map(str::to_owned),
            drained: member.is_drained,
            fault: member.fault.map(str::to_owned),
        }
    }
}

/// To a tenth: the rest is noise.
fn rounded(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn get(control: &dyn Control) -> Result<Reply, Problem> {
    match control.cluster() {
        Some(report) => Ok(json(StatusCode::OK, &report)),
        None => Err(Problem::new(StatusCode::NOT_FOUND)
            .detail("no replica is configured, or nothing has been heard of the servers yet")),
    }
}

/// What may be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterVerb {
    Switchover,
    Failover,
    Drain,
    Undrain,
    Resync,
}

impl ClusterVerb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Resync => "resync",
        }
    }

    fn read(self, body: &[u8]) -> Result<Ordered, serde_json::Error> {
        Ok(match self {
            Self::Switchover => {
                let SwitchoverQuestion { to } = match body.trim_ascii() {
                    b"" => SwitchoverQuestion::default(),
                    body => serde_json::from_slice(body)?,
                };
                Ordered::Switchover { to }
            }
            Self::Failover => {
                let FailoverQuestion { to, force } = serde_json::from_slice(body)?;
                let force = if force { Force::Yes } else { Force::No };
                Ordered::Failover { to, force }
            }
            Self::Drain => {
                let ServerQuestion { server } = serde_json::from_slice(body)?;
                Ordered::Drain { server }
            }
            Self::Undrain => {
                let ServerQuestion { server } = serde_json::from_slice(body)?;
                Ordered::Undrain { server }
            }
            Self::Resync => {
                let ServerQuestion { server } = serde_json::from_slice(body)?;
                Ordered::Resync { server }
            }
        })
    }

    fn example(self) -> &'static str {
        match self {
            Self::Switchover => r#"{"to": "replica-1"}"#,
            Self::Failover => r#"{"to": "replica-1", "force": false}"#,
            Self::Drain | Self::Undrain | Self::Resync => r#"{"server": "replica-1"}"#,
        }
    }
}

/// 202: it has begun, and the events say how it ends; 200: it is done.
pub(super) async fn order(
    control: &dyn Control,
    verb: ClusterVerb,
    body: &[u8],
    who: Who,
) -> Result<Reply, Problem> {
    let what = verb.read(body).map_err(|error| {
        let words = format!("the body is no order such as {}: {error}", verb.example());
        Problem::new(StatusCode::BAD_REQUEST).detail(words)
    })?;
    let status = match verb {
        ClusterVerb::Switchover | ClusterVerb::Failover | ClusterVerb::Resync => {
            StatusCode::ACCEPTED
        }
        ClusterVerb::Drain | ClusterVerb::Undrain => StatusCode::OK,
    };
    match control.order_cluster(what, who).await {
        Ok(told) => Ok(json(status, &serde_json::json!({ "begun": true, "told": told }))),
        Err(words) => Err(Problem::new(StatusCode::CONFLICT).detail(words)),
    }
}
