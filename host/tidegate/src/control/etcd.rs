//! etcd by its JSON gateway: leases, and transactions on the few keys that several Tidegates share.
//!
//! Source: "gRPC gateway" and `rpc.proto` in etcd's documentation: keys and values are base64, 64-bit numbers are strings, what is
//! zero or false is left out.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tidegate_cluster::{Look, Looked, Record};
use tokio::time::timeout;

use crate::config::{ApiTls, EtcdSettings, WebUrl};
use crate::web::{self, Answer, Question, Wanted};

/// One question is given this long.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
const LEASE_NOT_FOUND: &str = "requested lease not found";

/// Why etcd was asked in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EtcdError {
    /// The lease has ended.
    Gone,
    /// The token has, or was never there.
    NotLoggedIn,
    Failed(String),
}

impl std::fmt::Display for EtcdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("the lease has ended"),
            Self::NotLoggedIn => f.write_str("it wants failover.etcd.user and password"),
            Self::Failed(words) => f.write_str(words),
        }
    }
}

/// A client of one etcd cluster.
#[derive(Debug)]
pub(super) struct Etcd {
    settings: EtcdSettings,
    tls: Option<ClientConfig>,
    /// Which member is asked.
    at: usize,
    token: Option<String>,
    /// Who we are, for people.
    name: String,
}

impl Etcd {
    /// # Errors
    /// The certificates to trust cannot be read.
    pub(super) fn new(settings: EtcdSettings, name: String) -> Result<Self, String> {
        let tls = client_tls(&settings.urls, &settings.tls)?;
        Ok(Self { settings, tls, at: 0, token: None, name })
    }

    /// A lease and how long it is.
    pub(super) async fn grant(&mut self, ttl: Duration) -> Result<(i64, Duration), EtcdError> {
        let answer = self.ask("/v3/lease/grant", json!({ "TTL": ttl.as_secs() })).await?;
        let id = number(&answer["ID"]).filter(|id| *id != 0);
        match (id, seconds(&answer["TTL"])) {
            (Some(id), Some(ttl)) => Ok((id, ttl)),
            _ => Err(odd()),
        }
    }

    /// How long the lease is from now on; `None`: it has ended.
    pub(super) async fn renew(&mut self, lease: i64) -> Result<Option<Duration>, EtcdError> {
        let answer = self.ask("/v3/lease/keepalive", json!({ "ID": lease.to_string() })).await?;
        match number(&answer["result"]["ID"]) {
            Some(id) if id == lease => Ok(seconds(&answer["result"]["TTL"])),
            _ => Err(odd()),
        }
    }

    /// The lease ends now, with the keys on it.
    pub(super) async fn revoke(&mut self, lease: i64) -> Result<(), EtcdError> {
        self.ask("/v3/lease/revoke", json!({ "ID": lease.to_string() })).await.map(drop)
    }

    /// Everything that is shared, after writing what is to be written.
    pub(super) async fn look(&mut self, look: Look) -> Result<Looked, EtcdError> {
        let lease = look.lease.to_string();
        let put = |key: String, value: String| json!({ "request_put": { "key": key, "value": value, "lease": lease } });
        let presence = look.say.map(|lost| {
            let value = json!({ "name": self.name, "lost": lost }).to_string();
            put(self.presence(look.lease), BASE64.encode(value))
        });
        if let Some(epoch) = look.resigns {
            self.resign(epoch).await?;
        }
        let range =
            json!({ "request_range": { "key": self.key(""), "range_end": self.end_of("") } });
        let rest: Vec<Value> = presence.into_iter().chain([range]).collect();
        let question = if look.campaigns {
            let lead = put(self.key("leader"), BASE64.encode(&self.name));
            let first: Vec<Value> = std::iter::once(lead).chain(rest.clone()).collect();
            json!({ "compare": [self.leads(0)], "success": first, "failure": rest })
        } else {
            json!({ "success": rest })
        };
        let answer = self.ask("/v3/kv/txn", question).await?;
        self.looked(&answer, look.lease).ok_or_else(odd)
    }

    fn looked(&self, answer: &Value, own: i64) -> Option<Looked> {
        let revision = positive(&answer["header"]["revision"])?;
        let mut looked = Looked { revision, ..Looked::default() };
        let responses = answer["responses"].as_array()?;
        let range = responses.iter().find_map(|response| response.get("response_range"))?;
        let presences = format!("{}/tidegates/", self.settings.prefix);
        for pair in range["kvs"].as_array().into_iter().flatten() {
            let (key, value) =
                (decoded(&pair["key"])?, decoded(&pair["value"]).unwrap_or_default());
            let lease = number(&pair["lease"]).unwrap_or(0);
            if key == format!("{}/leader", self.settings.prefix) {
                looked.leader = Some((lease, positive(&pair["create_revision"])?));
            } else if key == format!("{}/promotion", self.settings.prefix) {
                looked.record = Some(read_record(&value)?);
            } else if key.starts_with(&presences) {
                let value: Value = serde_json::from_str(&value).unwrap_or_default();
                let lost = value["lost"].as_bool().unwrap_or(false);
                if lease == own {
                    looked.said_lost = Some(lost);
                } else if !lost {
                    looked.reached_by = Some(value["name"].as_str().unwrap_or("?").to_owned());
                }
            }
        }
        Some(looked)
    }

    /// Writes down whom we are about to promote: if we still lead, if nobody was written down in this epoch, and if none of the
    /// Tidegates has said anything else since `revision`.
    pub(super) async fn claim(
        &mut self,
        record: &Record,
        revision: u64,
    ) -> Result<bool, EtcdError> {
        let unused = json!({
            "key": self.key("promotion"), "target": "MOD", "result": "LESS",
            "mod_revision": record.epoch.to_string(),
        });
        let compare = json!([self.leads(record.epoch), unused, self.nobody_since(revision)]);
        self.write_record(record, compare).await
    }

    /// The same for a switchover that is about to begin: the others will say then that they have stopped.
    pub(super) async fn announce(&mut self, record: &Record) -> Result<bool, EtcdError> {
        let compare = json!([self.leads(record.epoch)]);
        self.write_record(record, compare).await
    }

    /// Does what was written down in this epoch stand, and has nobody said anything else since `revision`?
    pub(super) async fn confirm(&mut self, epoch: u64, revision: u64) -> Result<bool, EtcdError> {
        let ours = json!({
            "key": self.key("promotion"), "target": "MOD", "result": "GREATER",
            "mod_revision": epoch.to_string(),
        });
        let compare = json!([self.leads(epoch), ours, self.nobody_since(revision)]);
        let answer = self.ask("/v3/kv/txn", json!({ "compare": compare })).await?;
        Ok(answer["succeeded"].as_bool().unwrap_or(false))
    }

    /// Writes down who is the primary, and leads no more: whoever leads next has an epoch of its own.
    pub(super) async fn settle(&mut self, record: &Record) -> Result<bool, EtcdError> {
        let value = BASE64.encode(write_record(record));
        let put = json!({ "request_put": { "key": self.key("promotion"), "value": value } });
        let remove = json!({ "request_delete_range": { "key": self.key("leader") } });
        let compare = json!([self.leads(record.epoch)]);
        let question = json!({ "compare": compare, "success": [put, remove] });
        let answer = self.ask("/v3/kv/txn", question).await?;
        Ok(answer["succeeded"].as_bool().unwrap_or(false))
    }

    /// Leads no more, if it still does.
    pub(super) async fn resign(&mut self, epoch: u64) -> Result<(), EtcdError> {
        let remove = json!({ "request_delete_range": { "key": self.key("leader") } });
        let question = json!({ "compare": [self.leads(epoch)], "success": [remove] });
        self.ask("/v3/kv/txn", question).await.map(drop)
    }

    async fn write_record(&mut self, record: &Record, compare: Value) -> Result<bool, EtcdError> {
        let value = BASE64.encode(write_record(record));
        let put = json!({ "request_put": { "key": self.key("promotion"), "value": value } });
        let question = json!({ "compare": compare, "success": [put] });
        let answer = self.ask("/v3/kv/txn", question).await?;
        Ok(answer["succeeded"].as_bool().unwrap_or(false))
    }

    /// The leader's key was made at this revision; 0: there is none.
    fn leads(&self, epoch: u64) -> Value {
        json!({
            "key": self.key("leader"), "target": "CREATE", "result": "EQUAL",
            "create_revision": epoch.to_string(),
        })
    }

    /// No presence was written after this revision.
    fn nobody_since(&self, revision: u64) -> Value {
        json!({
            "key": self.key("tidegates/"), "range_end": self.end_of("tidegates/"),
            "target": "MOD", "result": "LESS", "mod_revision": (revision + 1).to_string(),
        })
    }

    fn key(&self, name: &str) -> String {
        BASE64.encode(format!("{}/{name}", self.settings.prefix))
    }

    /// Where keys end that begin so: `/` is followed by `0`.
    fn end_of(&self, folder: &str) -> String {
        let path = format!("{}/{folder}", self.settings.prefix);
        BASE64.encode(format!("{}0", path.trim_end_matches('/')))
    }

    fn presence(&self, lease: i64) -> String {
        self.key(&format!("tidegates/{lease}"))
    }

    /// Asks one member; the next time another, if it does not answer.
    async fn ask(&mut self, path: &str, question: Value) -> Result<Value, EtcdError> {
        if self.token.is_none() && self.settings.login.is_some() {
            self.log_in().await?;
        }
        let answer = self.ask_one(path, &question).await;
        if answer == Err(EtcdError::NotLoggedIn) {
            self.token = None;
        }
        answer
    }

    async fn log_in(&mut self) -> Result<(), EtcdError> {
        let Some((user, password)) = self.settings.login.clone() else { return Ok(()) };
        let question = json!({ "name": user, "password": password.reveal() });
        let answer = self.ask_one("/v3/auth/authenticate", &question).await?;
        self.token = Some(answer["token"].as_str().ok_or_else(odd)?.to_owned());
        Ok(())
    }

    async fn ask_one(&mut self, path: &str, body: &Value) -> Result<Value, EtcdError> {
        let urls = &self.settings.urls;
        let Some(url) = urls.get(self.at % urls.len().max(1)) else { return Err(odd()) };
        let question = Question {
            method: Method::POST,
            url,
            path: Some(path),
            authorization: self.token.clone(),
            body: body.to_string(),
            answer: Wanted::Body { bytes_max: web::JSON_BYTES_MAX },
        };
        let outcome = match timeout(ANSWER_TIME_MAX, web::ask(question, self.tls.as_ref())).await {
            Ok(Ok(answer)) => judge(&answer),
            Ok(Err(error)) => Err(EtcdError::Failed(format!("{}: {error}", url.host))),
            Err(_) => Err(EtcdError::Failed(format!("{} does not answer in time", url.host))),
        };
        if matches!(outcome, Err(EtcdError::Failed(_))) {
            self.at = self.at.wrapping_add(1);
            // Certificates are exchanged before they expire; what cannot be read now stays as it was.
            self.tls = client_tls(urls, &self.settings.tls).unwrap_or_else(|_| self.tls.take());
        }
        outcome
    }
}

/// For URLs with `https`.
pub(super) fn client_tls(urls: &[WebUrl], tls: &ApiTls) -> Result<Option<ClientConfig>, String> {
    match urls.iter().any(|url| url.tls) {
        true => tls.client().map(Some).map_err(|error| error.to_string()),
        false => Ok(None),
    }
}

fn judge(answer: &Answer) -> Result<Value, EtcdError> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status.is_success() && body.is_object() && body.get("error").is_none() {
        return Ok(body);
    }
    let words = body["error"].as_str().or_else(|| body["message"].as_str()).unwrap_or_default();
    if words.contains(LEASE_NOT_FOUND) {
        return Err(EtcdError::Gone);
    }
    // Source: `rpctypes/error.go`: what is wrong with a token has gRPC's code 16, or says so.
    let is_of_token = answer.status == StatusCode::UNAUTHORIZED
        || words.contains("invalid auth token")
        || words.contains("user name is empty")
        || words.contains("revision in auth store is old");
    match is_of_token {
        true => Err(EtcdError::NotLoggedIn),
        false => Err(EtcdError::Failed(format!("it answers {}: {words}", answer.status))),
    }
}

fn odd() -> EtcdError {
    EtcdError::Failed("an answer that is none of etcd's".to_owned())
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn positive(value: &Value) -> Option<u64> {
    number(value).and_then(|number| u64::try_from(number).ok())
}

/// Zero is none.
fn seconds(value: &Value) -> Option<Duration> {
    positive(value).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn decoded(value: &Value) -> Option<String> {
    let bytes = BASE64.decode(value.as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

fn write_record(record: &Record) -> String {
    json!({
        "system": record.system.to_string(), "server": record.server, "timeline": record.timeline,
        "done": record.is_done, "epoch": record.epoch,
    })
    .to_string()
}

fn read_record(text: &str) -> Option<Record> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(Record {
        system: value["system"].as_str()?.parse().ok()?,
        server: value["server"].as_str()?.to_owned(),
        timeline: u32::try_from(value["timeline"].as_u64()?).ok()?,
        is_done: value["done"].as_bool()?,
        epoch: value["epoch"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RootCertificates, Secret};

    fn etcd() -> Etcd {
        let url = WebUrl { tls: false, host: "h".to_owned(), port: 1, path: Secret::new("/") };
        let settings = EtcdSettings {
            urls: vec![url],
            tls: ApiTls { roots: RootCertificates::System, own: None },
            login: None,
            prefix: "/p".to_owned(),
            lease: Duration::from_secs(6),
        };
        Etcd::new(settings, "me".to_owned()).unwrap()
    }

    #[test]
    fn what_is_shared_is_read() {
        let encoded = |text: &str| BASE64.encode(text);
        let record = Record {
            system: u64::MAX,
            server: "10.0.0.1:5432".to_owned(),
            timeline: 3,
            is_done: true,
            epoch: 17,
        };
        let answer = json!({
            "header": { "revision": "21" }, "succeeded": true,
            "responses": [
                { "response_put": { "header": { "revision": "21" } } },
                { "response_range": { "kvs": [
                    { "key": encoded("/p/leader"), "create_revision": "20", "value": encoded("me"), "lease": "7" },
                    { "key": encoded("/p/promotion"), "value": encoded(&write_record(&record)) },
                    { "key": encoded("/p/tidegates/7"), "value": encoded(r#"{"name":"me","lost":true}"#), "lease": "7" },
                    { "key": encoded("/p/tidegates/8"), "value": encoded(r#"{"name":"b","lost":true}"#), "lease": "8" },
                    { "key": encoded("/p/tidegates/9"), "value": encoded(r#"{"name":"c","lost":false}"#), "lease": "9" },
                ] } },
            ],
        });
        let looked = etcd().looked(&answer, 7).unwrap();
        assert_eq!((looked.revision, looked.leader), (21, Some((7, 20))));
        assert_eq!((looked.said_lost, looked.reached_by.as_deref()), (Some(true), Some("c")));
        assert_eq!(looked.record, Some(record));
        // Nothing there yet, and something that is none of etcd's.
        let empty =
            json!({ "header": { "revision": "1" }, "responses": [{ "response_range": {} }] });
        let looked = etcd().looked(&empty, 7).unwrap();
        assert_eq!(looked, Looked { revision: 1, ..Looked::default() });
        assert_eq!(etcd().looked(&json!({}), 7), None);
    }

    #[test]
    fn keys_are_below_the_prefix() {
        let etcd = etcd();
        let text = |key: String| decoded(&Value::from(key)).unwrap();
        assert_eq!((text(etcd.key("")), text(etcd.end_of(""))), ("/p/".into(), "/p0".into()));
        let ends = (text(etcd.key("tidegates/")), text(etcd.end_of("tidegates/")));
        assert_eq!(ends, ("/p/tidegates/".into(), "/p/tidegates0".into()));
        assert_eq!(text(etcd.presence(7)), "/p/tidegates/7");
    }

    #[test]
    fn what_etcd_has_against_it_is_told_apart() {
        let answer = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            judge(&Answer { status, body: body.to_owned().into() })
        };
        assert_eq!(answer(200, r#"{"a":1}"#), Ok(json!({"a":1})));
        let gone = r#"{"error":"etcdserver: requested lease not found","code":5}"#;
        assert_eq!(answer(404, gone), Err(EtcdError::Gone));
        let login = r#"{"error":"etcdserver: user name is empty","code":3}"#;
        assert_eq!(answer(400, login), Err(EtcdError::NotLoggedIn));
        for (status, body) in [(200, "<html>"), (503, ""), (500, r#"{"error":"no leader"}"#)] {
            assert!(matches!(answer(status, body), Err(EtcdError::Failed(_))), "{status} {body}");
        }
    }
}
