//! One thing that is told, in the words of each kind of receiver.

use super::finding::{Finding, Severity};
use super::ledger::Occasion;
use super::time::rfc_3339;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// PagerDuty takes a summary of so many characters at most.
const SUMMARY_CHARS_MAX: usize = 1_024;

/// What happened, since when, what was done about it, and what there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub occasion: Occasion,
    pub finding: Finding,
    pub since: SystemTime,
    pub lasted: Duration,
    /// What Tidegate has done and decided since, oldest first.
    pub done: Vec<String>,
    /// The servers as they are now, in a sentence.
    pub cluster: String,
    /// The machine that tells.
    pub source: String,
}

impl Letter {
    /// The same for all letters about one trouble, and for no other trouble of the same source.
    pub fn key(&self) -> String {
        format!("tidegate:{}:{}", self.source, self.finding.key())
    }

    /// In a line.
    pub fn summary(&self) -> String {
        let (label, what) = (self.finding.condition.label(), &self.finding.what);
        match self.occasion {
            Occasion::Fired => format!("{label}: {what}"),
            Occasion::Repeated => format!("{label}, for {}: {what}", span(self.lasted)),
            Occasion::Cleared => {
                format!("{label}: over after {}; it was: {what}", span(self.lasted))
            }
        }
    }

    /// For people, in lines.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.summary());
        let _ = writeln!(text, "Since: {} ({})", rfc_3339(self.since), span(self.lasted));
        if !self.done.is_empty() {
            let _ = writeln!(text, "Tidegate:");
            for done in &self.done {
                let _ = writeln!(text, "- {done}");
            }
        }
        if self.occasion != Occasion::Cleared {
            let _ = writeln!(text, "To do: {}", self.finding.condition.advice());
        }
        if !self.cluster.is_empty() {
            let _ = writeln!(text, "The cluster: {}", self.cluster);
        }
        let _ = writeln!(text, "From: Tidegate on {}", self.source);
        text
    }

    /// The JSON of a webhook.
    pub fn webhook(&self) -> Value {
        let Finding { condition, server, what, .. } = &self.finding;
        let is_over = self.occasion == Occasion::Cleared;
        json!({
            "event": self.occasion.label(),
            "key": self.key(),
            "alert": condition.label(),
            "server": server,
            "severity": condition.severity().label(),
            "what": what,
            "since": rfc_3339(self.since),
            "lasted_s": self.lasted.as_secs(),
            "done": self.done,
            "advice": (!is_over).then(|| condition.advice()),
            "cluster": self.cluster,
            "source": self.source,
        })
    }

    /// The JSON of a Slack incoming webhook.
    pub fn slack(&self) -> Value {
        let mark = match (self.occasion, self.finding.condition.severity()) {
            (Occasion::Cleared, _) => ":large_green_circle:",
            (_, Severity::Critical) => ":red_circle:",
            (_, Severity::Warning) => ":large_yellow_circle:",
            (_, Severity::Info) => ":white_circle:",
        };
        // Slack's three control characters.
        let text = self.text().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("{mark} {text}") })
    }

    /// The JSON of PagerDuty's Events API v2: what fires or lasts triggers, what is over resolves.
    pub fn pagerduty(&self, routing_key: &str) -> Value {
        let event_action = match self.occasion {
            Occasion::Fired | Occasion::Repeated => "trigger",
            Occasion::Cleared => "resolve",
        };
        let summary: String = self.summary().chars().take(SUMMARY_CHARS_MAX).collect();
        json!({
            "routing_key": routing_key,
            "event_action": event_action,
            "dedup_key": self.key(),
            "client": "Tidegate",
            "payload": {
                "summary": summary,
                "source": self.source,
                "severity": self.finding.condition.severity().label(),
                "timestamp": rfc_3339(self.since),
                "component": "postgresql",
                "class": self.finding.condition.label(),
                "custom_details": self.webhook(),
            },
        })
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}
