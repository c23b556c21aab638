//! What a request asks for: statements, and how to run and to answer them.

use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_core::limits::{HTTP_PARAMETERS_MAX, HTTP_STATEMENTS_MAX};

use super::answer::Failure;
use super::parameters;

/// Names of headers, as `HeaderMap` has them.
pub(super) mod header {
    pub(in crate::http) const CONNECTION: &str = "neon-connection-string";
    pub(in crate::http) const RAW_TEXT: &str = "neon-raw-text-output";
    pub(in crate::http) const ARRAYS: &str = "neon-array-mode";
    pub(in crate::http) const ISOLATION: &str = "neon-batch-isolation-level";
    pub(in crate::http) const READ_ONLY: &str = "neon-batch-read-only";
    pub(in crate::http) const DEFERRABLE: &str = "neon-batch-deferrable";
    /// Whom of the application's users the statements count for.
    pub(in crate::http) const USER_ID: &str = "tidegate-user-id";
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Numbers, booleans, arrays and JSON as such, the rest as text.
    Typed,
    /// As PostgreSQL writes them, all as text.
    Text,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Objects,
    Arrays,
}

/// What the headers say of the statements.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) values: Values,
    pub(super) rows: Rows,
    /// What begins a batch's transaction.
    pub(super) begin: String,
    /// A comment behind each statement; empty for none.
    comment: String,
}

impl Options {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let is_true = |name| headers.get(name).is_some_and(|value| value == "true");
        Ok(Self {
            values: if is_true(header::RAW_TEXT) { Values::Text } else { Values::Typed },
            rows: if is_true(header::ARRAYS) { Rows::Arrays } else { Rows::Objects },
            begin: begin(headers)?,
            comment: comment(headers)?,
        })
    }
}

fn begin(headers: &HeaderMap) -> Result<String, Failure> {
    let mut begin = "BEGIN".to_owned();
    if let Some(level) = headers.get(header::ISOLATION) {
        begin.push_str(match level.as_bytes() {
            b"ReadUncommitted" => " ISOLATION LEVEL READ UNCOMMITTED",
            b"ReadCommitted" => " ISOLATION LEVEL READ COMMITTED",
            b"RepeatableRead" => " ISOLATION LEVEL REPEATABLE READ",
            b"Serializable" => " ISOLATION LEVEL SERIALIZABLE",
            _ => {
                let message = "Neon-Batch-Isolation-Level is none of ReadUncommitted, ReadCommitted, RepeatableRead, \
                               Serializable";
                return Err(Failure::bad_request(message));
            }
        });
    }
    for (name, yes, no) in [
        (header::READ_ONLY, " READ ONLY", " READ WRITE"),
        (header::DEFERRABLE, " DEFERRABLE", " NOT DEFERRABLE"),
    ] {
        match headers.get(name).map(hyper::header::HeaderValue::as_bytes) {
            None => {}
            Some(b"true") => begin.push_str(yes),
            Some(b"false") => begin.push_str(no),
            Some(_) => {
                return Err(Failure::bad_request(format!("{name} is neither true nor false")));
            }
        }
    }
    Ok(begin)
}

/// The header's user as sqlcommenter's tag, which needs no server. On a line of its own, for a text that ends with a comment.
fn comment(headers: &HeaderMap) -> Result<String, Failure> {
    let Some(user) = headers.get(header::USER_ID) else { return Ok(String::new()) };
    let user = user.to_str().ok().filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| {
        Failure::bad_request("Tidegate-User-Id is empty, or holds what is not ASCII")
    })?;
    let mut comment = "\n/*user_id='".to_owned();
    for byte in user.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                comment.push(char::from(byte));
            }
            _ => comment.push_str(&format!("%{byte:02X}")),
        }
    }
    comment.push_str("'*/");
    Ok(comment)
}

/// One statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) parameters: Vec<Option<String>>,
    pub(super) rows: Rows,
}

/// What the body asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Single(Statement),
    /// In one transaction.
    Batch(Vec<Statement>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    query: Option<String>,
    #[serde(borrow, default)]
    params: Vec<&'a RawValue>,
    array_mode: Option<bool>,
    #[serde(borrow)]
    queries: Option<Vec<WrittenOne<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenOne<'a> {
    query: String,
    #[serde(borrow, default)]
    params: Vec<&'a RawValue>,
    array_mode: Option<bool>,
}

impl Asked {
    /// Reads a body.
    ///
    /// # Errors
    /// It is not as it should be.
    pub(super) fn read(body: &[u8], options: &Options) -> Result<Self, Failure> {
        let written: Written<'_> = serde_json::from_slice(body).map_err(|error| {
            Failure::bad_request(format!("the body is not what it should be: {error}"))
                .hint("{\"query\": \"SELECT $1\", \"params\": [1]}, or {\"queries\": [{…}, …]}.")
        })?;
        match (written.query, written.queries) {
            (Some(query), None) => {
                let Written { params, array_mode, .. } = written;
                let one = WrittenOne { query, params, array_mode };
                one.read(options).map(Self::Single)
            }
            (None, Some(queries)) if queries.len() <= HTTP_STATEMENTS_MAX => {
                let queries = queries.into_iter().map(|one| one.read(options));
                queries.collect::<Result<_, _>>().map(Self::Batch)
            }
            (None, Some(_)) => {
                let message = format!("more than {HTTP_STATEMENTS_MAX} queries in one request");
                Err(Failure::bad_request(message))
            }
            _ => Err(Failure::bad_request("the body needs \"query\" or \"queries\", and not both")),
        }
    }
}

impl WrittenOne<'_> {
    fn read(self, options: &Options) -> Result<Statement, Failure> {
        if self.params.len() > HTTP_PARAMETERS_MAX {
            let message = format!("a query has more than {HTTP_PARAMETERS_MAX} parameters");
            return Err(Failure::bad_request(message));
        }
        if self.query.contains('\0') {
            // It would end the text on the wire.
            return Err(Failure::bad_request("a query holds a zero byte"));
        }
        let parameters = self.params.into_iter().map(parameters::text).collect::<Result<_, _>>()?;
        let rows = match self.array_mode {
            None => options.rows,
            Some(true) => Rows::Arrays,
            Some(false) => Rows::Objects,
        };
        let mut sql = self.query;
        sql.push_str(&options.comment);
        Ok(Statement { sql, parameters, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(headers: &[(&'static str, &str)]) -> Result<Options, Failure> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Options::read(&map)
    }

    #[test]
    fn headers_say_how_a_batch_begins() {
        assert_eq!(options(&[]).unwrap().begin, "BEGIN");
        let all = [
            (header::ISOLATION, "RepeatableRead"),
            (header::READ_ONLY, "true"),
            (header::DEFERRABLE, "false"),
        ];
        let wanted = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE";
        assert_eq!(options(&all).unwrap().begin, wanted);
        assert!(options(&[(header::ISOLATION, "serializable; DROP TABLE a")]).is_err());
        assert!(options(&[(header::READ_ONLY, "yes")]).is_err());
    }

    #[test]
    fn a_user_is_a_tag_that_nobody_can_leave() {
        let options = options(&[(header::USER_ID, "7'*/; DROP TABLE a --")]).unwrap();
        let Asked::Single(one) = Asked::read(br#"{"query": "SELECT 1 -- one"}"#, &options).unwrap()
        else {
            panic!("one")
        };
        let wanted = "SELECT 1 -- one\n/*user_id='7%27%2A%2F%3B%20DROP%20TABLE%20a%20--'*/";
        assert_eq!(one.sql, wanted);
    }

    #[test]
    fn bodies_are_one_query_or_several() {
        let options = options(&[(header::ARRAYS, "true")]).unwrap();
        let read = |body: &str| Asked::read(body.as_bytes(), &options);
        let one = |sql: &str, rows| Statement { sql: sql.into(), parameters: Vec::new(), rows };
        let single = read(r#"{"query": "a", "arrayMode": false, "more": 1}"#).unwrap();
        assert_eq!(single, Asked::Single(one("a", Rows::Objects)));
        let batch = read(r#"{"queries": [{"query": "a"}, {"query": "b", "params": []}]}"#).unwrap();
        assert_eq!(batch, Asked::Batch(vec![one("a", Rows::Arrays), one("b", Rows::Arrays)]));
        for broken in [
            "",
            "[]",
            "{}",
            "{\"query\": 1}",
            "{\"query\": \"a\", \"params\": 1}",
            "{\"query\": \"a\", \"queries\": []}",
            "{\"query\": \"a\\u0000b\"}",
            "{\"query\": \"a\", \"params\": [}",
            "\u{1}",
        ] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
        assert!(
            read(&format!("{{\"queries\": [{}{{}}]}}", "{\"query\": \"a\"},".repeat(1000)))
                .is_err()
        );
    }
}
