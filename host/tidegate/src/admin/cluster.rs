//! `GET /api/v1/cluster`, `POST /api/v1/cluster/switchover`: the servers, and another primary.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::Control;
use super::reply::{Problem, Reply, json};
use crate::plugins::Who;
use crate::view::{MemberView, Topology};

/// The servers as they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
            fault: member.fault.map(str::to_owned),
        }
    }
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

/// 202: it has begun; the events say how it ends.
pub(super) async fn switchover(
    control: &dyn Control,
    body: &[u8],
    who: Who,
) -> Result<Reply, Problem> {
    let question: SwitchoverQuestion = match body.trim_ascii() {
        b"" => SwitchoverQuestion::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            let words = format!(r#"the body is no order such as {{"to": "replica-1"}}: {error}"#);
            Problem::new(StatusCode::BAD_REQUEST).detail(words)
        })?,
    };
    match control.switchover(question.to, who).await {
        Ok(()) => Ok(json(StatusCode::ACCEPTED, &serde_json::json!({ "begun": true }))),
        Err(words) => Err(Problem::new(StatusCode::CONFLICT).detail(words)),
    }
}
