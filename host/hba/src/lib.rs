//! Host-based authentication: PostgreSQL's `pg_hba.conf`, as far as it makes sense in front of a server.
//!
//! The first rule that fits a connection says how it logs in; who fits none is refused. Nothing here reads a file:
//! the caller hands over texts, and those that `@file` names.
//!
//! Source: `hba.c` and "The pg_hba.conf File" in PostgreSQL's documentation.

mod lines; // lines, fields and tokens
mod networks; // addresses, masks and prefixes
mod rules; // what a line says
#[cfg(test)]
mod tests;

pub use networks::{Network, NetworkError};
pub use rules::HbaMethod;

use core::net::IpAddr;
use lines::Line;
use rules::Rule;

/// A whole file, read.
#[derive(Clone, Debug)]
pub struct Hba {
    rules: Vec<Rule>,
}

/// What is wrong with a file, and where. Lines count from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaError {
    pub line: usize,
    pub message: String,
}

/// A connection that wants to log in.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    pub user: &'a str,
    pub wanted: Wanted<'a>,
    /// `None`: by a Unix socket.
    pub address: Option<IpAddr>,
    pub tls: Tls,
    /// Whether the user is a member of a role, itself or through others. `None`: not known yet, so that a rule
    /// about roles cannot be judged.
    pub is_member: Option<&'a dyn Fn(&str) -> bool>,
    /// This machine's own networks: what `samehost` and `samenet` mean.
    pub own: &'a [Network],
}

/// What it wants to be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    Database(&'a str),
    /// The log as a whole: physical replication.
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    No,
    Yes,
}

/// What the rules say to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaVerdict {
    Ask(HbaMethod),
    /// A rule refuses it in as many words.
    Rejected,
    NoEntry,
    /// It depends on memberships that are not known.
    RolesUnknown,
}

impl Hba {
    /// Reads a file. `included` yields the text of a file that `@` names.
    ///
    /// # Errors
    /// Every line that cannot be read.
    pub fn parse(
        text: &str,
        included: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, Vec<HbaError>> {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for line in lines::read(text, included) {
            let number = line.number;
            match line.fields.and_then(|fields| Rule::read(&Line { number, fields })) {
                Ok(rule) => rules.push(rule),
                Err(message) => errors.push(HbaError { line: number, message }),
            }
        }
        if rules.is_empty() && errors.is_empty() {
            let message = "no rule is in it: nobody could log in".to_owned();
            errors.push(HbaError { line: 1, message });
        }
        if errors.is_empty() { Ok(Self { rules }) } else { Err(errors) }
    }

    /// Whether some rule asks for memberships.
    pub fn needs_roles(&self) -> bool {
        self.rules.iter().any(Rule::needs_roles)
    }

    /// Whether some rule is about this machine's own networks.
    pub fn needs_networks(&self) -> bool {
        self.rules.iter().any(Rule::needs_networks)
    }

    /// Whether some rule asks for a certificate.
    pub fn needs_certificates(&self) -> bool {
        self.rules.iter().any(|rule| rule.method == HbaMethod::Certificate)
    }

    /// Whether some rule asks the system who is at the other end of a Unix socket.
    pub fn needs_peers(&self) -> bool {
        self.rules.iter().any(|rule| rule.method == HbaMethod::Peer)
    }

    pub fn judge(&self, arrival: &Arrival<'_>) -> HbaVerdict {
        for rule in &self.rules {
            match rule.fits(arrival) {
                Some(true) if rule.method == HbaMethod::Reject => return HbaVerdict::Rejected,
                Some(true) => return HbaVerdict::Ask(rule.method),
                Some(false) => {}
                None => return HbaVerdict::RolesUnknown,
            }
        }
        HbaVerdict::NoEntry
    }
}

impl Arrival<'_> {
    /// The connection in PostgreSQL's words, after "pg_hba.conf entry for" and the like.
    pub fn describe(&self) -> String {
        let host = self.address.map_or_else(|| "[local]".to_owned(), |address| address.to_string());
        let user = self.user;
        let encryption = match self.tls {
            Tls::Yes => "SSL encryption",
            Tls::No => "no encryption",
        };
        match self.wanted {
            Wanted::Log => {
                format!(
                    "replication connection from host \"{host}\", user \"{user}\", {encryption}"
                )
            }
            Wanted::Database(database) => {
                format!("host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
            }
        }
    }
}
