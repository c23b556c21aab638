//! What runs in Redis, and its calls: a library of functions, or scripts where Redis knows none (before 7.0).
//!
//! Functions are kept with the data and go to replicas, so a failover finds them. A call that finds none loads them and is made
//! again: they may have been flushed, or never been there.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tidegate_limiter::{FUNCTIONS, Order, Taken};

use crate::redis_connection::{Lost, Redis, RedisConnection, told};

/// The form of what is in Redis. Another form has another number, so that both may be in use at a time.
const FORMAT: u32 = 1;

/// By which kind of call it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Function,
    Script,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Take,
    Members,
}

impl Call {
    fn lua(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Members => "members",
        }
    }

    /// What the functions of our library are called: names are those of all libraries.
    fn name(self) -> String {
        format!("tidegate_limits_{}_{FORMAT}", self.lua())
    }

    /// As a script of its own.
    fn script(self) -> String {
        format!("{FUNCTIONS}\nreturn {}(KEYS, ARGV)\n", self.lua())
    }

    /// By what it is called.
    fn handle(self, kind: Kind) -> String {
        match kind {
            Kind::Function => self.name(),
            Kind::Script => {
                let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.script().as_bytes());
                hexadecimal(sum.as_ref())
            }
        }
    }
}

/// The library.
fn library() -> String {
    let register =
        |call: Call| format!("redis.register_function('{}', {})\n", call.name(), call.lua());
    let registered = [Call::Take, Call::Members].map(register).concat();
    format!("#!lua name=tidegate_limits_{FORMAT}\n{FUNCTIONS}\n{registered}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn command(kind: Kind, handle: &str, key: &[u8]) -> Cmd {
    let mut command = match kind {
        Kind::Function => redis::cmd("FCALL"),
        Kind::Script => redis::cmd("EVALSHA"),
    };
    command.arg(handle).arg(1).arg(key);
    command
}

/// A connection that makes these calls.
pub(super) struct Calls {
    redis: RedisConnection,
    prefix: String,
    kind: Kind,
    take: String,
    members: String,
}

impl Calls {
    /// Connects, and finds out which kind of call Redis knows.
    pub(super) async fn open(redis: &mut Redis, prefix: &str) -> Result<Self, Lost> {
        // One hash tag: a cluster has all buckets in one slot, so that one node counts them.
        let prefix = format!("{{{prefix}:limits:{FORMAT}}}:");
        let mut redis = redis.open(&prefix).await?;
        let empty = command(Kind::Function, &Call::Members.name(), prefix.as_bytes());
        // Without arguments it fails in any case; how it does, tells.
        let kind = match redis.ask(&empty).await {
            Err(error) if is_unknown_command(&error) => Kind::Script,
            _ => Kind::Function,
        };
        let (take, members) = (Call::Take.handle(kind), Call::Members.handle(kind));
        Ok(Self { redis, prefix, kind, take, members })
    }

    /// Says that a process takes part, and asks how many do.
    pub(super) fn members(
        &self,
        process: &str,
        time_ms: u64,
    ) -> impl Future<Output = Result<u32, Lost>> + Send + use<> {
        let key = format!("{}members", self.prefix);
        let mut call = command(self.kind, &self.members, key.as_bytes());
        call.arg(process).arg(time_ms);
        let (pipeline, kind) = (self.redis.pipeline.clone(), self.kind);
        async move {
            match run(pipeline, kind, Call::Members, call).await? {
                Value::Int(count) => u32::try_from(count).map_err(|_| unexpected()),
                _ => Err(unexpected()),
            }
        }
    }

    /// Takes units from a bucket, and tells what was used.
    pub(super) fn take(
        &self,
        order: &Order,
    ) -> impl Future<Output = Result<Taken, Lost>> + Send + use<> {
        let mut key = self.prefix.as_bytes().to_vec();
        key.extend_from_slice(hexadecimal(&order.name.0).as_bytes());
        let mut call = command(self.kind, &self.take, &key);
        let taking = &order.taking;
        call.arg(taking.span.micros).arg(taking.span.slots).arg(taking.limit);
        call.arg(taking.need).arg(taking.also).arg(taking.extra).arg(taking.parts);
        let (tick, units) = taking.back.unwrap_or_default();
        call.arg(taking.life).arg(tick).arg(units);
        for (age, units) in &taking.told {
            call.arg(*age).arg(*units);
        }
        let (pipeline, kind) = (self.redis.pipeline.clone(), self.kind);
        async move { taken(run(pipeline, kind, Call::Take, call).await?).ok_or_else(unexpected) }
    }
}

/// Makes a call; where what it calls is not there, puts it there and makes it again.
async fn run(
    mut pipeline: MultiplexedConnection,
    kind: Kind,
    what: Call,
    call: Cmd,
) -> Result<Value, Lost> {
    let words = |error: RedisError| told(&error);
    match ask(&mut pipeline, &call).await {
        Err(error) if is_missing(&error) => {}
        answer => return answer.map_err(words),
    }
    let mut load = match kind {
        Kind::Function => redis::cmd("FUNCTION"),
        Kind::Script => redis::cmd("SCRIPT"),
    };
    load.arg("LOAD");
    match kind {
        Kind::Function => load.arg("REPLACE").arg(library()),
        Kind::Script => load.arg(what.script()),
    };
    ask(&mut pipeline, &load).await.map_err(words)?;
    ask(&mut pipeline, &call).await.map_err(words)
}

async fn ask(pipeline: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    pipeline.send_packed_command(command).await.and_then(Value::extract_error)
}

fn is_missing(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
        || error.detail().is_some_and(|detail| detail.contains("Function not found"))
}

fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("unknown command"))
}

fn unexpected() -> Lost {
    "a function answers something else".to_owned()
}

fn taken(value: Value) -> Option<Taken> {
    let Value::Array(parts) = value else { return None };
    let [granted, left, retry, tick, Value::BulkString(life)] = &parts[..] else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    let positive = |value| u64::try_from(number(value)?).ok();
    Some(Taken {
        granted: u32::try_from(positive(granted)?).ok()?,
        left: number(left)?,
        retry: std::time::Duration::from_micros(positive(retry)?),
        tick: positive(tick)?,
        life: std::str::from_utf8(life).ok()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_and_the_scripts_are_of_one_text() {
        assert!(library().starts_with("#!lua name=tidegate_limits_1\n"));
        assert!(library().ends_with(
            "redis.register_function('tidegate_limits_take_1', take)\n\
             redis.register_function('tidegate_limits_members_1', members)\n"
        ));
        assert!(Call::Take.script().ends_with("return take(KEYS, ARGV)\n"));
    }

    #[test]
    fn an_answer_is_what_the_function_returns() {
        let parts = |life: Value| {
            let numbers = [3, -4, 0, 1_700_000_000].map(Value::Int);
            Value::Array(numbers.into_iter().chain([life]).collect())
        };
        let life = Value::BulkString(b"1700000000000000".to_vec());
        let read = taken(parts(life)).unwrap();
        assert_eq!((read.granted, read.left, read.tick), (3, -4, 1_700_000_000));
        assert_eq!(read.life, 1_700_000_000_000_000);
        assert_eq!(taken(parts(Value::Nil)), None);
        assert_eq!(taken(Value::Okay), None);
    }
}
