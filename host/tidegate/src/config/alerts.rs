//! `[[alerts]]`: who is told when something is wrong with the cluster.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

use super::check::Checker;
use super::checked::{RootCertificates, Secret};
use super::error::Problem;
use super::raw::{At, RawAlerts};
use super::value::{Context, FromText, choice};
use crate::tls::trusting;

/// What lasts is told again after this unless the configuration says otherwise.
const REPEAT: Duration = Duration::from_secs(3600);
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Receivers, each with letters that wait.
const RECEIVERS_MAX: usize = 32;

/// One receiver of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertReceiver {
    pub channel: AlertChannel,
    /// What lasts is told again after this.
    pub repeat: Duration,
    /// Whose certificates are believed.
    pub roots: RootCertificates,
}

/// How it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertChannel {
    Webhook { url: WebUrl, token: Option<Secret> },
    Slack { url: WebUrl },
    PagerDuty { url: WebUrl, routing_key: Secret },
    Email { server: MailServer, from: String, to: Vec<String>, login: Option<(String, Secret)> },
}

/// Where a POST goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Path and query: in Slack's URLs they are the secret.
    pub path: Secret,
}

/// A mail server, which passes messages on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
}

/// How mail is kept from others on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// From the first byte.
    Implicit,
    /// After STARTTLS, without which nothing is sent.
    StartTls,
    /// To this machine only.
    Off,
}

/// `alerts.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    Webhook,
    Slack,
    PagerDuty,
    Email,
}

impl AlertKind {
    pub const ALL: [Self; 4] = [Self::Webhook, Self::Slack, Self::PagerDuty, Self::Email];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::PagerDuty => "pagerduty",
            Self::Email => "email",
        }
    }
}

impl FromText for AlertKind {
    const EXPECTED: &'static str = "webhook, slack, pagerduty or email";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        choice(text, &Self::ALL, Self::as_str)
    }
}

impl AlertChannel {
    pub fn kind(&self) -> AlertKind {
        match self {
            Self::Webhook { .. } => AlertKind::Webhook,
            Self::Slack { .. } => AlertKind::Slack,
            Self::PagerDuty { .. } => AlertKind::PagerDuty,
            Self::Email { .. } => AlertKind::Email,
        }
    }

    /// The machine that is told, without what is secret.
    pub fn host(&self) -> &str {
        match self {
            Self::Webhook { url, .. } | Self::Slack { url } | Self::PagerDuty { url, .. } => {
                &url.host
            }
            Self::Email { server, .. } => &server.host,
        }
    }
}

/// For logs: kind and machine.
impl fmt::Display for AlertReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.channel.kind().as_str(), self.channel.host())
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Scheme, host and port; the errors do not repeat the URL.
pub(super) fn place(text: &str) -> Result<(Uri, String), String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let authority = uri.authority().ok_or("is not a URL with scheme and host")?;
    if authority.as_str().contains('@') {
        return Err("holds a user: it has a key of its own".to_owned());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() { Err("has no host".to_owned()) } else { Ok((uri, host)) }
}

fn web_url(text: &str, kind: AlertKind) -> Result<WebUrl, String> {
    let (uri, host) = place(text)?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if kind == AlertKind::Webhook || is_local(&host) => false,
        Some("http") => return Err("must begin with https://".to_owned()),
        _ => return Err("must begin with https:// or http://".to_owned()),
    };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(WebUrl { tls, host, port, path: Secret::new(path) })
}

fn mail_server(text: &str) -> Result<MailServer, String> {
    let (uri, host) = place(text)?;
    let (tls, port) = match uri.scheme_str() {
        Some("smtps") => (MailTls::Implicit, 465),
        Some("smtp+plain") if is_local(&host) => (MailTls::Off, 25),
        Some("smtp+plain") => {
            return Err("smtp+plain:// is for this machine only; use smtp:// (STARTTLS)".to_owned());
        }
        Some("smtp") => (MailTls::StartTls, 587),
        _ => return Err("must begin with smtp:// (STARTTLS) or smtps://".to_owned()),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("has something after the port".to_owned());
    }
    Ok(MailServer { host, port: uri.port_u16().unwrap_or(port), tls })
}

fn is_mail_address(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
    text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    }) && text.chars().all(plain)
        && text.len() <= 254
}

impl Checker {
    pub(super) fn alerts(&mut self, written: Vec<RawAlerts>) -> Vec<AlertReceiver> {
        if let Some(RawAlerts { origin, .. }) = written.get(RECEIVERS_MAX) {
            let message = format!("more than {RECEIVERS_MAX} receivers");
            self.bad_value(&origin.clone(), "alerts", message);
        }
        written.into_iter().filter_map(|written| self.alert_receiver(written)).collect()
    }

    fn alert_receiver(&mut self, written: RawAlerts) -> Option<AlertReceiver> {
        let Some(At { value: kind, .. }) = written.kind else {
            let message = "needs kind: webhook, slack, pagerduty or email".to_owned();
            self.fail(Some(&written.origin), "alerts", Problem::Missing(message));
            return None;
        };
        self.no_other_keys(kind, &written);
        let roots = match &written.root_ca {
            Some(At { value, origin }) => {
                let roots = RootCertificates::File(value.clone());
                if let Err(error) = trusting(&roots) {
                    let problem = Problem::Unreadable(error.to_string());
                    self.fail(Some(origin), "alerts.root_ca", problem);
                }
                roots
            }
            None => RootCertificates::System,
        };
        let repeat = written.repeat.as_ref().map_or(REPEAT, |repeat| repeat.value);
        let channel = match kind {
            AlertKind::Email => self.email(&written)?,
            AlertKind::PagerDuty => {
                let routing_key = self.needed(written.token.as_ref(), "token", kind, &written)?;
                let url = match &written.url {
                    Some(_) => self.web(kind, &written)?,
                    None => web_url(PAGERDUTY_URL, kind).ok()?,
                };
                AlertChannel::PagerDuty { url, routing_key }
            }
            AlertKind::Slack => AlertChannel::Slack { url: self.web(kind, &written)? },
            AlertKind::Webhook => AlertChannel::Webhook {
                url: self.web(kind, &written)?,
                token: written.token.as_ref().map(|token| token.value.clone()),
            },
        };
        Some(AlertReceiver { channel, repeat, roots })
    }

    fn needed<T: Clone>(
        &mut self,
        value: Option<&At<T>>,
        name: &str,
        kind: AlertKind,
        written: &RawAlerts,
    ) -> Option<T> {
        if value.is_none() {
            let message = format!("kind = \"{}\" needs {name}", kind.as_str());
            self.fail(Some(&written.origin), "alerts", Problem::Missing(message));
        }
        value.map(|at| at.value.clone())
    }

    fn web(&mut self, kind: AlertKind, written: &RawAlerts) -> Option<WebUrl> {
        let url = self.needed(written.url.as_ref(), "url", kind, written)?;
        self.good_url(written, web_url(url.reveal(), kind))
    }

    fn good_url<T>(&mut self, written: &RawAlerts, read: Result<T, String>) -> Option<T> {
        let origin = written.url.as_ref().map_or(&written.origin, |url| &url.origin);
        read.map_err(|words| self.bad_value(origin, "alerts.url", words)).ok()
    }

    fn email(&mut self, written: &RawAlerts) -> Option<AlertChannel> {
        let kind = AlertKind::Email;
        let url = self.needed(written.url.as_ref(), "url", kind, written);
        let from = self.needed(written.from.as_ref(), "from", kind, written);
        self.needed(written.to.first(), "to", kind, written);
        for At { value, origin } in written.from.iter().chain(&written.to) {
            if !is_mail_address(value) {
                let message = format!("`{value}` is not an address such as \"dba@example.com\"");
                self.bad_value(origin, "alerts.from", message);
            }
        }
        let login = match (&written.user, &written.password) {
            (Some(user), Some(password)) => Some((user.value.clone(), password.value.clone())),
            (None, None) => None,
            (Some(At { origin, .. }), None) | (None, Some(At { origin, .. })) => {
                self.contradiction(origin, "alerts.user", "user and password go together");
                None
            }
        };
        let server = self.good_url(written, mail_server(url?.reveal()))?;
        let to = written.to.iter().map(|to| to.value.clone()).collect();
        Some(AlertChannel::Email { server, from: from?, to, login })
    }

    /// Keys that this kind has no use for are a mistake.
    fn no_other_keys(&mut self, kind: AlertKind, written: &RawAlerts) {
        let origin = |at: Option<&At<String>>| at.map(|at| at.origin.clone());
        let secret = |at: Option<&At<Secret>>| at.map(|at| at.origin.clone());
        let is_email = kind == AlertKind::Email;
        let has_token = matches!(kind, AlertKind::Webhook | AlertKind::PagerDuty);
        let keys = [
            ("alerts.token", has_token, secret(written.token.as_ref())),
            ("alerts.from", is_email, origin(written.from.as_ref())),
            ("alerts.to", is_email, origin(written.to.first())),
            ("alerts.user", is_email, origin(written.user.as_ref())),
            ("alerts.password", is_email, secret(written.password.as_ref())),
        ];
        for (key, fits, origin) in keys {
            if let (false, Some(origin)) = (fits, origin) {
                let message = format!("is not for kind = \"{}\"", kind.as_str());
                self.contradiction(&origin, key, message);
            }
        }
    }
}
