//! Patroni's REST API: who leads, and orders of operators.
//!
//! Source: "Patroni REST API" in its documentation, and `patroni/api.py`, `cluster_as_json` in `patroni/utils.py`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tidegate_cluster::{Leader, Managed, PatroniRole, Request, Word, leader_of};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::done::Done;
use super::etcd::client_tls;
use super::outside::Outside;
use crate::config::{PatroniSettings, ServerAddress, WebUrl};
use crate::upstream::Target;
use crate::web::{self, Answer, Question, Wanted, WebError};

/// How often it is asked, and while it is not certain who is primary.
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_URGENT: Duration = Duration::from_millis(200);
/// Patroni itself asks its store for the answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(1);
/// Less than the decisions wait: Patroni has answered by then, or does not know itself.
const ORDER_TIME_MAX: Duration = Duration::from_secs(80);
const WORDS_MAX: usize = 200;

/// What Patroni has said.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Before it was asked.
    pub(super) asked_at: Instant,
    pub(super) outcome: Result<Told, String>,
}

/// Its members, and whether it does anything by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) words: Vec<Word>,
    pub(super) is_paused: bool,
}

/// A client of one Patroni cluster.
#[derive(Debug)]
pub(super) struct Patroni {
    settings: PatroniSettings,
    tls: Option<ClientConfig>,
    targets: Vec<Arc<Target>>,
    /// Whose API is asked.
    at: usize,
    /// Which of our servers are where Patroni says that members are.
    places: HashMap<(String, u16), usize>,
}

impl Patroni {
    /// # Errors
    /// The certificates to trust cannot be read.
    pub(super) fn new(
        settings: PatroniSettings,
        targets: Vec<Arc<Target>>,
    ) -> Result<Self, String> {
        let tls = client_tls(&settings.urls, &settings.tls)?;
        Ok(Self { settings, tls, targets, at: 0, places: HashMap::new() })
    }

    /// Asks for ever. Ends when nobody listens.
    pub(super) async fn watch(
        mut self,
        mut urgent: watch::Receiver<bool>,
        heard: watch::Sender<Option<Heard>>,
    ) {
        while !heard.is_closed() {
            let asked_at = Instant::now();
            let outcome = self.cluster().await;
            heard.send_replace(Some(Heard { asked_at, outcome }));
            let pause = if *urgent.borrow_and_update() { INTERVAL_URGENT } else { INTERVAL };
            // All branches are cancel safe.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = urgent.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What the first that answers says of all.
    async fn cluster(&mut self) -> Result<Told, String> {
        let mut why = String::new();
        for _ in 0..self.settings.urls.len() {
            match self.ask(Method::GET, "/cluster", String::new(), ANSWER_TIME_MAX).await {
                Ok(answer) if answer.status.is_success() => {
                    match serde_json::from_slice(&answer.body) {
                        Ok(value) => return self.read(&value).await,
                        Err(_) => why = "an answer that is none of Patroni's".to_owned(),
                    }
                }
                Ok(answer) => why = format!("it answers {}", answer.status),
                Err(words) => why = words,
            }
            self.at = self.at.wrapping_add(1);
        }
        // Certificates are exchanged before they expire; what cannot be read now stays as it was.
        let tls = client_tls(&self.settings.urls, &self.settings.tls);
        self.tls = tls.unwrap_or_else(|_| self.tls.take());
        Err(why)
    }

    async fn read(&mut self, value: &Value) -> Result<Told, String> {
        let members = value["members"].as_array().ok_or("an answer that is none of Patroni's")?;
        let mut told = Told { is_paused: value["pause"] == true, ..Told::default() };
        for member in members {
            let place = member["host"].as_str().zip(member["port"].as_u64());
            let place = place.and_then(|(host, port)| Some((host, u16::try_from(port).ok()?)));
            let ours = match place {
                Some((host, port)) => self.member_at(host, port).await,
                None => None,
            };
            told.words.extend(word(member, ours));
        }
        Ok(told)
    }

    /// Which of our servers is there: by the same words, or the same address.
    async fn member_at(&mut self, host: &str, port: u16) -> Option<usize> {
        let place = (host.to_owned(), port);
        if let Some(known) = self.places.get(&place) {
            return Some(*known);
        }
        let candidates =
            self.targets.iter().enumerate().filter_map(|(member, target)| match &target.address {
                ServerAddress::Tcp { host, port: own } if *own == port => {
                    Some((member, host.clone()))
                }
                _ => None,
            });
        let candidates: Vec<(usize, String)> = candidates.collect();
        let mut found = candidates.iter().find(|(_, own)| own == host).map(|(member, _)| *member);
        if found.is_none() && !candidates.is_empty() {
            let wanted = addresses(host, port).await;
            for (member, own) in candidates {
                let own = addresses(&own, port).await;
                if own.iter().any(|address| wanted.contains(address)) {
                    found = Some(member);
                    break;
                }
            }
        }
        if let Some(member) = found {
            self.places.insert(place, member);
        }
        found
    }

    /// Has Patroni do it; what it says.
    pub(super) async fn request(
        mut self,
        request: Request,
        words: Vec<Word>,
    ) -> Result<String, String> {
        let name = |member: usize| {
            let word = words.iter().find(|word| word.member == Some(member));
            word.map(|word| word.name.clone()).ok_or("Patroni has no member that is this server")
        };
        let leader = words.iter().find(|word| word.role == PatroniRole::Leader);
        let leader = leader.map(|word| word.name.clone());
        let (path, body) = match request {
            Request::Switchover { to } => {
                let leader = leader.ok_or("Patroni has no leader now")?;
                let mut body = json!({ "leader": leader });
                if let Some(to) = to {
                    body["candidate"] = json!(name(to)?);
                }
                ("/switchover", body)
            }
            Request::Failover { to } => ("/failover", json!({ "candidate": name(to)? })),
        };
        let mut why = "Patroni does not answer".to_owned();
        let began = Instant::now();
        for _ in 0..self.settings.urls.len() {
            match self.ask(Method::POST, path, body.to_string(), ORDER_TIME_MAX).await {
                Ok(answer) => return judge(&answer),
                // It may be doing it: it is not told twice.
                Err(words) if began.elapsed() >= ANSWER_TIME_MAX => return Err(words),
                Err(words) => why = words,
            }
            self.at = self.at.wrapping_add(1);
        }
        Err(why)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
        time_max: Duration,
    ) -> Result<Answer, String> {
        let urls = &self.settings.urls;
        let url = urls.get(self.at % urls.len().max(1)).ok_or("there is no URL")?;
        // Who may not order is not named to whoever is only asked.
        let login = self.settings.login.as_ref().filter(|_| method == Method::POST);
        let authorization = login.map(|(user, password)| {
            format!("Basic {}", BASE64.encode(format!("{user}:{}", password.reveal())))
        });
        ask(url, self.tls.as_ref(), (method, path, body, authorization), time_max).await
    }
}

async fn ask(
    url: &WebUrl,
    tls: Option<&ClientConfig>,
    (method, path, body, authorization): (Method, &str, String, Option<String>),
    time_max: Duration,
) -> Result<Answer, String> {
    let answer = Wanted::Body { bytes_max: web::JSON_BYTES_MAX };
    let question = Question { method, url, path: Some(path), authorization, body, answer };
    match timeout(time_max, web::ask(question, tls)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(WebError::Passing(words) | WebError::Final(words))) => {
            Err(format!("{}:{}: {words}", url.host, url.port))
        }
        Err(_) => Err(format!("{}:{} does not answer in time", url.host, url.port)),
    }
}

/// Of which database system Patroni speaks there, if it is Patroni that does.
pub(super) async fn system_at(url: &WebUrl) -> Option<u64> {
    let question = (Method::GET, "/patroni", String::new(), None);
    let answer = ask(url, None, question, ANSWER_TIME_MAX).await.ok()?;
    let value: Value = serde_json::from_slice(&answer.body).ok()?;
    value["patroni"]["scope"].as_str()?;
    value["database_system_identifier"].as_str()?.parse().ok()
}

fn judge(answer: &Answer) -> Result<String, String> {
    let words = String::from_utf8_lossy(&answer.body);
    let words: String = words.trim().chars().take(WORDS_MAX).collect();
    match answer.status {
        status if status.is_success() => Ok(words),
        hyper::StatusCode::UNAUTHORIZED => Err(format!(
            "Patroni wants another user or password ({words}): failover.patroni.user and password are its \
             restapi.authentication"
        )),
        status => Err(format!("Patroni answers {}: {words}", status.as_u16())),
    }
}

async fn addresses(host: &str, port: u16) -> Vec<std::net::SocketAddr> {
    match timeout(LOOKUP_TIME_MAX, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        _ => Vec::new(),
    }
}

fn word(member: &Value, ours: Option<usize>) -> Option<Word> {
    Some(Word {
        name: member["name"].as_str()?.to_owned(),
        member: ours,
        role: match member["role"].as_str()? {
            // Versions differ in how they call it.
            "leader" | "master" | "primary" => PatroniRole::Leader,
            "standby_leader" => PatroniRole::StandbyLeader,
            _ => PatroniRole::Replica,
        },
        state: member["state"].as_str().unwrap_or_default().to_owned(),
        timeline: member["timeline"].as_u64().and_then(|timeline| u32::try_from(timeline).ok()),
        lag: member["lag"].as_u64(),
        is_balanced: !is_set(&member["tags"]["noloadbalance"]),
    })
}

/// As Patroni reads a truth value (`parse_bool`).
fn is_set(value: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.to_ascii_lowercase(),
        other => other.to_string(),
    };
    matches!(text.as_str(), "true" | "on" | "yes" | "1")
}

impl Cluster<'_> {
    /// What Patroni has said goes to the decisions.
    pub(super) fn look_at_patroni(&mut self, now: Instant) {
        let Outside::Patroni(heard) = &self.outside else { return };
        let Some(heard) = heard.borrow().clone() else { return };
        if self.patroni_asked_at == Some(heard.asked_at) {
            return;
        }
        self.patroni_asked_at = Some(heard.asked_at);
        let trouble = heard.outcome.as_ref().err().cloned();
        if trouble.is_some() != self.standing.trouble.manager.is_some() {
            match &trouble {
                Some(why) => tracing::warn!("Patroni is asked in vain: {why}"),
                None => tracing::info!("Patroni answers"),
            }
        }
        self.standing.trouble.manager = trouble;
        let Ok(told) = heard.outcome else { return };
        let leader = leader_of(&told.words);
        self.tell_what_is_new(&told, leader);
        self.told = told;
        self.machine.handle_managed(Managed { asked_at: heard.asked_at, leader }, now);
    }

    fn tell_what_is_new(&mut self, told: &Told, leader: Leader) {
        if told.is_paused && !self.told.is_paused {
            let text =
                "Patroni is paused: it replaces no primary that is gone (`patronictl resume`)";
            self.tell(tracing::Level::WARN, text.to_owned());
        }
        if leader == Leader::Stranger && leader_of(&self.told.words) != leader {
            let text = "Patroni's leader is none of the servers in [cluster]: name it there, by the host and port that Patroni \
                        has for it (`patronictl list`)";
            self.tell(tracing::Level::ERROR, text.to_owned());
        }
        for word in &told.words {
            let is_known = self.told.words.iter().any(|known| known == word);
            if !is_known {
                let Word { name, state, timeline, lag, role, is_balanced, .. } = word;
                tracing::debug!(name, ?role, state, timeline, lag, is_balanced, "Patroni's member");
            }
        }
    }

    /// Patroni does not want reads there.
    pub(super) fn is_kept_from_reads(&self, member: usize) -> bool {
        let word = self.told.words.iter().find(|word| word.member == Some(member));
        word.is_some_and(|word| !word.takes_reads())
    }

    pub(super) fn request(&mut self, request: Request) {
        let settings = self.watched.config.failover.patroni.clone();
        let (targets, words) = (self.watched.targets.clone(), self.told.words.clone());
        self.acts.spawn_local(async move {
            let patroni = settings.ok_or("failover.patroni.urls is missing".to_owned());
            let patroni = patroni.and_then(|settings| Patroni::new(settings, targets));
            Done::Requested(match patroni {
                Ok(patroni) => patroni.request(request, words).await,
                Err(why) => Err(why),
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_patroni_writes_them() {
        // As 3.0 and 4.0 answer.
        let value = json!({ "members": [
            { "name": "p1", "role": "leader", "state": "running", "host": "127.0.0.1", "port": 1, "timeline": 2 },
            { "name": "p2", "role": "replica", "state": "streaming", "timeline": 2, "lag": 16,
              "tags": { "noloadbalance": true } },
            { "name": "p3", "role": "sync_standby", "state": "stopped", "lag": "unknown", "tags": { "noloadbalance": "off" } },
        ] });
        let words: Vec<Word> =
            value["members"].as_array().unwrap().iter().filter_map(|one| word(one, None)).collect();
        assert_eq!(words.len(), 3);
        assert_eq!((words[0].role, words[0].timeline), (PatroniRole::Leader, Some(2)));
        assert_eq!((words[1].lag, words[1].takes_reads()), (Some(16), false));
        assert_eq!((words[2].lag, words[2].takes_reads()), (None, true));
        assert_eq!(word(&json!({ "role": "leader" }), None), None);
    }

    #[test]
    fn what_patroni_has_against_an_order_is_told_in_its_words() {
        let answer = |status: u16, body: &'static str| {
            let status = hyper::StatusCode::from_u16(status).unwrap();
            judge(&Answer { status, body: body.into() })
        };
        assert_eq!(answer(200, "Successfully"), Ok("Successfully".to_owned()));
        let told = answer(412, "leader name does not match").unwrap_err();
        assert_eq!(told, "Patroni answers 412: leader name does not match");
        assert!(answer(401, "no auth header received").unwrap_err().contains("restapi"));
    }
}
