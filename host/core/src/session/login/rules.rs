//! Rules on who may come in how, in place of one method for all.

use super::policy::PeerName;
use super::{CloseReason, Encryption, Login, LoginRequest, Method, Replication, TrustScope};
use crate::refusal::Refusal;
use crate::roles::Roles;
use core::net::IpAddr;
use std::sync::Arc;
use tidegate_hba::{Arrival, Hba, HbaMethod, HbaVerdict, Network, Tls, Wanted};

/// Who may come in how, and what of the client that depends on.
#[derive(Debug)]
pub struct Rules {
    pub hba: Arc<Hba>,
    /// `None`: by a Unix socket.
    pub address: Option<IpAddr>,
    /// This machine's own networks.
    pub own: Arc<[Network]>,
    /// Whom the system names at the other end of a Unix socket.
    pub peer: Option<String>,
    /// `None`: not known yet.
    pub roles: Option<Arc<Roles>>,
}

impl Login {
    /// Has the rules, where there are any, say how this client logs in.
    pub(super) fn heed_rules(
        &mut self,
        request: &LoginRequest,
        encryption: &Encryption,
    ) -> Result<(), (CloseReason, Refusal)> {
        if let Some(rules) = &self.params.rules {
            self.params.policy.method = rules.judge(request, encryption)?;
            // A rule that trusts says whom.
            self.params.policy.trust = TrustScope::Everywhere;
        }
        Ok(())
    }
}

impl Rules {
    /// How a client has to log in, or why it may not.
    fn judge(
        &self,
        request: &LoginRequest,
        encryption: &Encryption,
    ) -> Result<Method, (CloseReason, Refusal)> {
        let is_member = |role: &str| {
            self.roles.as_ref().is_some_and(|roles| roles.is_member(&request.user, role))
        };
        let arrival = Arrival {
            user: &request.user,
            wanted: match request.replication {
                Replication::Physical => Wanted::Log,
                Replication::None | Replication::Logical => Wanted::Database(&request.database),
            },
            address: self.address.map(|address| address.to_canonical()),
            tls: if *encryption == Encryption::None { Tls::No } else { Tls::Yes },
            is_member: self.roles.as_ref().map(|_| &is_member as &dyn Fn(&str) -> bool),
            own: &self.own,
        };
        match self.hba.judge(&arrival) {
            HbaVerdict::Ask(method) => Ok(match method {
                HbaMethod::Trust => Method::Trust,
                HbaMethod::ScramSha256 => Method::Scram,
                HbaMethod::Md5 => Method::Md5,
                HbaMethod::Password => Method::Password,
                HbaMethod::Certificate => Method::Certificate,
                HbaMethod::Peer => Method::Peer(match &self.peer {
                    Some(peer) if *peer == request.user => PeerName::Same,
                    _ => PeerName::Another,
                }),
                HbaMethod::Reject => return Err(rejected(&arrival)),
            }),
            HbaVerdict::Rejected => Err(rejected(&arrival)),
            HbaVerdict::NoEntry => {
                let message = format!("no pg_hba.conf entry for {}", arrival.describe());
                Err((CloseReason::HbaNoEntry, Refusal::fatal("28000", message)))
            }
            HbaVerdict::RolesUnknown => {
                let message = "who is a member of which role is not known yet";
                let refusal = Refusal::fatal("57P03", message)
                    .hint("Try again in a moment. Rules with +role or samerole need the primary.");
                Err((CloseReason::HbaRolesUnknown, refusal))
            }
        }
    }
}

fn rejected(arrival: &Arrival<'_>) -> (CloseReason, Refusal) {
    let connection = arrival.describe();
    let connection = match connection.strip_prefix("replication connection from ") {
        Some(rest) => format!("pg_hba.conf rejects replication connection for {rest}"),
        None => format!("pg_hba.conf rejects connection for {connection}"),
    };
    (CloseReason::HbaRejected, Refusal::fatal("28000", connection))
}
