//! `/api/v1/cache`: what is kept of answers and how often it helped, entries that applications put, and what takes either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tidegate_cache::{Entry, Glob};
use tidegate_core::limits::{
    CACHE_ENTRY_TTL_DEFAULT, CACHE_NAME_BYTES_MAX, CACHE_TAGS_MAX, POLICY_TTL_MAX,
    WARM_STATEMENTS_MAX,
};

use super::reply::{Problem, Reply, json, reply};
use super::{Answer, Control};
use crate::config::decode_percent;
use crate::plugins::Who;

/// An entry that was there ends after this.
const TTL_LEFT: HeaderName = HeaderName::from_static("tidegate-ttl-ms");
const TAGS: HeaderName = HeaderName::from_static("tidegate-tags");
const BYTES: &str = "application/octet-stream";

/// What the API may ask about what is kept.
pub trait CacheControl {
    fn cache(&self) -> CacheReport;

    /// Takes what is named, and says how much that was.
    ///
    /// # Errors
    /// Why not all of it was taken.
    fn invalidate(&self, what: Invalidation, who: Who) -> Answer<Result<Invalidated, NotDone>>;

    /// Has the answers of statements be there.
    ///
    /// # Errors
    /// Why nothing was asked, as a sentence.
    fn warm(&self, question: WarmQuestion, who: Who) -> Answer<Result<WarmReport, String>>;

    /// # Errors
    /// It is not known whether it is there.
    fn entry(&self, name: Arc<str>) -> Answer<Result<Option<Entry>, NotDone>>;

    /// Keeps an entry for so long. False: it is larger than all the room there is.
    ///
    /// # Errors
    /// It is not kept, or nobody knows.
    fn put_entry(
        &self,
        name: Arc<str>,
        entry: Entry,
        ttl: Duration,
    ) -> Answer<Result<bool, NotDone>>;

    /// Was it there?
    ///
    /// # Errors
    /// It may be there still.
    fn remove_entry(&self, name: Arc<str>) -> Answer<Result<bool, NotDone>>;
}

/// Why something was not done, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// What is named is not known.
    Unknown(String),
    /// Those who share cannot be told now.
    Unshared(String),
}

impl From<NotDone> for Problem {
    fn from(why: NotDone) -> Self {
        match why {
            NotDone::Unknown(why) => Problem::new(StatusCode::NOT_FOUND).detail(why),
            NotDone::Unshared(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(why),
        }
    }
}

/// What is kept, and what became of those who looked for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheReport {
    /// Is anything kept at all? Not before a policy wants it, nor where another process could write past this one.
    pub keeping: bool,
    pub answers: AnswersReport,
    /// Of the answers that were given, those that were read once more on the primary.
    #[serde(default)]
    pub inspected: InspectedReport,
    /// By what the policy's rules are about: the tables of statements.
    pub rules: Vec<RuleReport>,
    /// Statements whose answers a policy wanted kept, and that may not be.
    pub denied: Vec<DeniedReport>,
    /// What applications put.
    pub entries: EntriesReport,
    /// Databases whose log is followed for writes that do not pass (`cache.follow_wal`).
    #[serde(default)]
    pub logs: Vec<LogReport>,
}

/// How it stands with the log of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    pub database: String,
    /// `starting`, `following` or `lost`: but for `following`, nothing is kept of it.
    pub state: String,
    /// Since the moment up to which everything is known to have been heeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// Why it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswersReport {
    pub entries: usize,
    pub bytes: usize,
    pub hits: u64,
    pub misses: u64,
    /// Of the misses: an answer was there and stood no more.
    pub stale: u64,
    /// Of the misses: they were asked for once, and there was no room.
    #[serde(default)]
    pub unseen: u64,
    pub puts: u64,
    /// Of these, those of statements that an operator has named.
    #[serde(default)]
    pub warmed: u64,
    /// Of the answers kept, those kept compressed; and what that has saved, all in all.
    #[serde(default)]
    pub compressed: u64,
    #[serde(default)]
    pub compression_saved_bytes: u64,
    pub evictions: u64,
    pub invalidations: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InspectedReport {
    pub answers: u64,
    /// They were not what the primary has, and nothing had been written through Tidegate.
    pub different: u64,
    /// So many nines of what is given are known to be true: 3 when of 999 none differed.
    pub nines: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    pub database: String,
    /// As statements name them, in alphabetical order.
    pub tables: Vec<String>,
    pub ttl_ms: u64,
    pub hits: u64,
    pub misses: u64,
    /// Statements that the rule is about and whose answers may not be kept.
    pub denied: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedReport {
    /// Of docs/cache.md: `R4`.
    pub rule: String,
    pub reason: String,
    pub statements: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesReport {
    pub entries: usize,
    pub bytes: usize,
    pub hits: u64,
    pub misses: u64,
    pub puts: u64,
    pub evictions: u64,
    pub invalidations: u64,
}

/// What is to be taken: one of the first five.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Invalidation {
    /// The entry of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Entries with this tag, and answers read from what a policy has named so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Answers that were read from the tables of this name, which may have a schema before it and be a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Entries whose names match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// All entries and answers; with a database, all answers of that.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    /// Where `table` and `tag` are; the primary URL's unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Which answers are to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmQuestion {
    /// The primary URL's unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// As whom, by one of the connections that Tidegate can open: the primary URL's user unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// As the clients have them that are to find the answers, by their start-up parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    pub statements: Vec<String>,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmReport {
    /// No: it goes on, and the log says so when it is done.
    pub done: bool,
    pub statements: usize,
    pub kept: usize,
    /// They were there already.
    pub there: usize,
    pub not_kept: Vec<NotWarmed>,
}

/// A statement that was asked in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotWarmed {
    /// Its number among those that were given, from 1.
    pub statement: usize,
    pub reason: String,
}

/// What was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidated {
    pub entries: usize,
    /// Tables, tags, databases: whatever answers were read from them.
    pub versions: usize,
}

pub(super) fn get(control: &dyn Control) -> Reply {
    json(StatusCode::OK, &control.cache())
}

pub(super) async fn invalidate(
    control: &dyn Control,
    body: &[u8],
    who: Who,
) -> Result<Reply, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST).detail(detail);
    let what: Invalidation = serde_json::from_slice(body).map_err(|error| {
        let example = r#"{"table": "public.products", "database": "shop"}"#;
        bad(format!("the body is nothing such as {example}: {error}"))
    })?;
    let Invalidation { key, tag, table, pattern, all, .. } = &what;
    let named = [key, tag, table, pattern].into_iter().flatten().count() + usize::from(*all);
    if named != 1 {
        return Err(bad("name one of key, tag, table, pattern and all".to_owned()));
    }
    for text in [table, pattern].into_iter().flatten() {
        Glob::new(text).map_err(|error| bad(error.to_string()))?;
    }
    Ok(json(StatusCode::OK, &control.invalidate(what, who).await?))
}

pub(super) async fn warm(control: &dyn Control, body: &[u8], who: Who) -> Result<Reply, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST).detail(detail);
    let question: WarmQuestion = serde_json::from_slice(body).map_err(|error| {
        let example = r#"{"database": "shop", "statements": ["SELECT * FROM products"]}"#;
        bad(format!("the body is nothing such as {example}: {error}"))
    })?;
    let count = question.statements.len();
    if count == 0 || count > WARM_STATEMENTS_MAX {
        return Err(bad(format!("name 1 to {WARM_STATEMENTS_MAX} statements")));
    }
    let WarmQuestion { database, user, settings, statements } = &question;
    let settings = settings.iter().flat_map(|(name, value)| [name, value]);
    if [database, user]
        .into_iter()
        .flatten()
        .chain(settings)
        .chain(statements)
        .any(|text| text.contains('\0'))
    {
        return Err(bad("a text holds a zero byte".to_owned()));
    }
    match control.warm(question, who).await {
        Ok(report) => {
            let status = if report.done { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok(json(status, &report))
        }
        Err(why) => Err(Problem::new(StatusCode::CONFLICT).detail(why)),
    }
}

pub(super) async fn entry(control: &dyn Control, key: &str) -> Result<Reply, Problem> {
    let entry = control.entry(name_of(key)?).await?.ok_or_else(none_there)?;
    let mut reply = reply(StatusCode::OK, BYTES, entry.value.to_vec());
    let headers = reply.headers_mut();
    let mut insert = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    insert(CONTENT_TYPE, &entry.content_type);
    let left = entry.until.saturating_duration_since(Instant::now());
    insert(TTL_LEFT, &left.as_millis().to_string());
    if !entry.tags.is_empty() {
        insert(TAGS, &entry.tags.join(","));
    }
    Ok(reply)
}

pub(super) async fn put(
    control: &dyn Control,
    key: &str,
    (headers, query): (&HeaderMap, &str),
    body: &[u8],
) -> Result<Reply, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST).detail(detail);
    let mut ttl = CACHE_ENTRY_TTL_DEFAULT;
    let mut tags: Vec<Box<str>> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode_percent(&value.replace('+', "%20"), name).map_err(bad)?;
        match name {
            "ttl_ms" => {
                let ms = value.parse().map(Duration::from_millis).ok();
                ttl =
                    ms.filter(|ttl| !ttl.is_zero() && *ttl <= POLICY_TTL_MAX).ok_or_else(|| {
                        bad(format!("ttl_ms is from 1 to {}", POLICY_TTL_MAX.as_millis()))
                    })?;
            }
            "tag" => tags.push(check_name(value, "a tag")?.into()),
            _ => return Err(bad("only ttl_ms and tag are understood here".to_owned())),
        }
    }
    tags.sort();
    tags.dedup();
    if tags.len() > CACHE_TAGS_MAX {
        return Err(bad(format!("an entry has at most {CACHE_TAGS_MAX} tags")));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let entry = Entry {
        value: body.into(),
        content_type: content_type.unwrap_or(BYTES).into(),
        tags: tags.into(),
        until: Instant::now(),
    };
    match control.put_entry(name_of(key)?, entry, ttl).await? {
        true => Ok(no_content()),
        false => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
            .detail("the value is larger than all the room for entries")),
    }
}

pub(super) async fn remove(control: &dyn Control, key: &str) -> Result<Reply, Problem> {
    match control.remove_entry(name_of(key)?).await? {
        true => Ok(no_content()),
        false => Err(none_there()),
    }
}

fn no_content() -> Reply {
    let mut reply = reply(StatusCode::NO_CONTENT, BYTES, Vec::new());
    reply.headers_mut().remove(CONTENT_TYPE);
    reply
}

fn none_there() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail("there is no entry of this name, or none any more")
}

/// The name in a path.
fn name_of(key: &str) -> Result<Arc<str>, Problem> {
    let name = decode_percent(key, "the key")
        .map_err(|why| Problem::new(StatusCode::BAD_REQUEST).detail(why))?;
    check_name(name, "a key").map(Into::into)
}

/// Names go into headers and logs.
fn check_name(name: String, what: &str) -> Result<String, Problem> {
    let good = !name.is_empty()
        && name.len() <= CACHE_NAME_BYTES_MAX
        && !name.chars().any(|c| c.is_control() || c == ',');
    if good {
        return Ok(name);
    }
    let detail = format!(
        "{what} has 1 to {CACHE_NAME_BYTES_MAX} bytes, and neither commas nor control characters"
    );
    Err(Problem::new(StatusCode::BAD_REQUEST).detail(detail))
}
