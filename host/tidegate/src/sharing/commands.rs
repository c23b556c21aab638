//! The connection to Redis, and its commands with what they answer.

use std::sync::Arc;

use redis::{Cmd, Value};

use super::scripts::Script;
pub(super) use crate::redis_connection::{Lost, Redis};
use crate::redis_connection::{RedisConnection, told};

/// Of each of the two numbers that tell runs apart: 80 random bits.
const RUN_PART_BYTES: usize = 20;

/// An open connection, with the scripts in place. Dropping it closes it.
pub(super) struct Connection {
    redis: RedisConnection,
    prefix: Arc<str>,
    /// By `Script::ALL`.
    digests: Arc<[String]>,
    /// Which run of Redis this is: another after each start, and when a replica has become the primary.
    pub(super) run: String,
}

impl Connection {
    /// `prefix` stands before all keys, and has the hash tag that all have in common.
    pub(super) async fn open(redis: &mut Redis, prefix: &str) -> Result<Self, Lost> {
        let mut connection = Self {
            redis: redis.open(prefix).await?,
            prefix: prefix.into(),
            digests: Arc::default(),
            run: String::new(),
        };
        connection.run = connection.read_run().await?;
        let mut digests = Vec::with_capacity(Script::ALL.len());
        for script in Script::ALL {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.text());
            match connection.ask(&load).await? {
                Value::BulkString(digest) => {
                    digests.push(String::from_utf8_lossy(&digest).into_owned());
                }
                _ => return Err("it does not take scripts".to_owned()),
            }
        }
        connection.digests = digests.into();
        Ok(connection)
    }

    /// Only a primary may be written.
    async fn read_run(&mut self) -> Result<String, Lost> {
        let mut all = String::new();
        for section in ["server", "replication"] {
            match self.ask(redis::cmd("INFO").arg(section)).await? {
                Value::BulkString(text) => all.push_str(&String::from_utf8_lossy(&text)),
                Value::VerbatimString { text, .. } => all.push_str(&text),
                _ => return Err("INFO says nothing".to_owned()),
            }
        }
        let value = |name: &str| all.lines().find_map(|line| line.strip_prefix(name));
        if value("role:").is_some_and(|role| role != "master") {
            return Err("it is a replica".to_owned());
        }
        let run = value("run_id:").ok_or_else(|| "INFO names no run_id".to_owned())?;
        let replication = value("master_replid:").unwrap_or_default();
        Ok([run, replication].map(|id| id.get(..RUN_PART_BYTES).unwrap_or(id)).concat())
    }

    async fn ask(&mut self, command: &Cmd) -> Result<Value, Lost> {
        self.redis.ask(command).await.map_err(|error| told(&error))
    }

    /// A call of a script.
    pub(super) fn call(&self, script: Script) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        let place = Script::ALL.iter().position(|known| *known == script);
        let digest = place.and_then(|place| self.digests.get(place));
        call.arg(digest.map_or("", String::as_str)).arg(1).arg(&*self.prefix);
        call
    }

    /// Sends a call; the future needs nothing of this.
    pub(super) fn send(
        &self,
        call: Cmd,
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, Lost>> + Send + use<> {
        let mut pipeline = self.redis.pipeline.clone();
        async move { strings(answer(pipeline.send_packed_command(&call).await)?) }
    }
}

fn answer(answer: Result<Value, redis::RedisError>) -> Result<Value, Lost> {
    answer.and_then(Value::extract_error).map_err(|error| told(&error))
}

/// What scripts answer: strings, of which the first says what it is.
fn strings(value: Value) -> Result<Vec<Vec<u8>>, Lost> {
    let Value::Array(items) = value else { return Err("a script answers no list".to_owned()) };
    let bytes = |item| match item {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    };
    let strings: Option<Vec<_>> = items.into_iter().map(bytes).collect();
    match strings {
        Some(strings) if strings.first().is_some_and(|first| first == b"gone") => {
            Err("what was shared is there no more, or another process has this one's number"
                .to_owned())
        }
        Some(strings) if !strings.is_empty() => Ok(strings),
        _ => Err("a script answers something else".to_owned()),
    }
}
