//! `tidegate plugin test --cases`: statements in SQL and what the plugin is to plan for them, read with PostgreSQL's own
//! grammar and asked in the sandbox.

use std::fmt::Write;

use serde::Deserialize;
use tidegate_core::policy::Slot;
use tidegate_policy::bindings::since_v0_1::types::{Identity, Tag};
use tidegate_policy::{Generation, Plan, Question, Subject, samples};

use super::sandbox::{Reader, Statement};

/// The file, as TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// The plugin's, unless `--settings` are given.
    #[serde(default)]
    pub(super) settings: Option<toml::Table>,
    /// Names of the replicas; two unless it says so.
    #[serde(default)]
    replicas: Option<Vec<String>>,
    #[serde(default, rename = "case")]
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    sql: String,
    /// The first word of the plan: `replicas`, `store`, `buckets`, …
    expect: String,
    /// What else the plan says, in the words of a failure or of `tidegate plugin replay`.
    #[serde(default)]
    says: Option<String>,
    /// Who asks.
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    database: Option<String>,
    #[serde(default)]
    application: Option<String>,
    #[serde(default)]
    end_user: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

impl Cases {
    /// Reads a file for a slot.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub(super) fn read(text: &str, slot: Slot) -> Result<Self, String> {
        let read: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let words = Plan::words(slot);
        if read.cases.is_empty() {
            return Err("there is no [[case]] in it".to_owned());
        }
        match read.cases.iter().find(|case| !words.contains(&case.expect.as_str())) {
            None => Ok(read),
            Some(case) => Err(format!(
                "{:?} is no plan of {}; there are {}",
                case.expect,
                slot.name(),
                if words.is_empty() { "none".to_owned() } else { words.join(", ") }
            )),
        }
    }

    /// The settings in the file as JSON, empty for none.
    ///
    /// # Errors
    /// JSON has no such value.
    pub(super) fn settings(&self) -> Result<String, String> {
        match &self.settings {
            None => Ok(String::new()),
            Some(table) => serde_json::to_string(table).map_err(|error| error.to_string()),
        }
    }

    /// Asks about each.
    ///
    /// # Errors
    /// What was planned otherwise, each with its statement.
    pub(super) fn run(&self, generation: &Generation) -> Result<String, String> {
        let replicas = match &self.replicas {
            None => samples::REPLICAS.to_vec(),
            Some(names) => names.iter().map(String::as_str).collect(),
        };
        let mut reader = Reader::new();
        let (mut failed, mut failures) = (0, String::new());
        for case in &self.cases {
            let statement = reader.read(&case.sql);
            if let Err(words) = case.check(&statement, generation, &replicas) {
                failed += 1;
                let _ = write!(failures, "\n{}\n  {words}\n", case.sql.trim());
            }
        }
        let count = self.cases.len();
        match failed {
            0 => Ok(format!("{count} cases: all as expected\n")),
            _ => Err(format!("{failed} of {count} cases are not as expected\n{failures}")),
        }
    }
}

impl Case {
    fn check(
        &self,
        statement: &Statement,
        generation: &Generation,
        replicas: &[&str],
    ) -> Result<(), String> {
        let tags = statement.told();
        let subject = Subject {
            question: Question { shape: &statement.shape, tags: &tags },
            identity: &self.identity(&tags),
            replicas,
        };
        let plan = generation.plan(subject).map_err(|fault| fault.to_string())?;
        let told = plan.to_string();
        if plan.word() != self.expect {
            let unread = statement.shape.incomplete;
            let why = unread.map(|why| format!(" (the text is {})", why.label()));
            return Err(format!("expected {}, got {told}{}", self.expect, why.unwrap_or_default()));
        }
        match &self.says {
            Some(words) if !told.contains(words.as_str()) => {
                Err(format!("expected it to say {words:?}, got {told}"))
            }
            _ => Ok(()),
        }
    }

    fn identity(&self, tags: &[(&str, &str)]) -> Identity {
        let or = |own: &Option<String>, other: String| own.clone().unwrap_or(other);
        let somebody = samples::somebody();
        let tag = |(key, value): &(&str, &str)| Tag {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        Identity {
            user: or(&self.user, somebody.user),
            database: or(&self.database, somebody.database),
            application: or(&self.application, somebody.application),
            end_user: self.end_user.clone(),
            roles: self.roles.clone(),
            tags: tags.iter().map(tag).collect(),
        }
    }
}
