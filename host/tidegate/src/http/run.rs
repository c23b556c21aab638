//! Statements run over a connection to ourselves, and their results written as they come.

use hyper::StatusCode;
use tidegate_wire::backend::tag;
use tidegate_wire::frontend::{self, Named};

use super::answer::Failure;
use super::columns::Columns;
use super::line::Line;
use super::output::{Output, string};
use super::request::{Asked, Options, Rows, Statement};

/// No parameter's type is named: the server finds them.
const NO_TYPES: &[u8] = &[0, 0];

/// Runs what is asked and writes the answer.
///
/// # Errors
/// A statement failed, or the answer cannot be written; what has been written is then no answer.
pub(super) async fn run(
    mut line: Line,
    asked: Asked,
    options: &Options,
    output: &mut Output,
) -> Result<(), Failure> {
    let ended = match asked {
        Asked::Single(statement) => single(&mut line, &statement, options, output).await,
        Asked::Batch(statements) => batch(&mut line, &statements, options, output).await,
    };
    if ended.is_ok() {
        line.leave().await;
    }
    ended
}

async fn single(
    line: &mut Line,
    statement: &Statement,
    options: &Options,
    output: &mut Output,
) -> Result<(), Failure> {
    send(line.out(), statement);
    frontend::sync(line.out());
    match result(line, statement.rows, options, output).await {
        Ok(()) => ready(line).await,
        Err(failure) => Err(failure),
    }
}

/// All of it in one transaction, which the failure of any of them undoes. They are sent together: three round trips,
/// however many they are.
async fn batch(
    line: &mut Line,
    statements: &[Statement],
    options: &Options,
    output: &mut Output,
) -> Result<(), Failure> {
    command(line, &options.begin).await?;
    statements.iter().for_each(|statement| send(line.out(), statement));
    frontend::sync(line.out());
    output.text().extend_from_slice(b"{\"results\":[");
    for (index, statement) in statements.iter().enumerate() {
        if index > 0 {
            output.text().push(b',');
        }
        // The transaction ends with the connection.
        result(line, statement.rows, options, output).await?;
    }
    ready(line).await?;
    command(line, "COMMIT").await?;
    output.text().extend_from_slice(b"]}");
    Ok(())
}

/// One statement as a batch of the protocol, but for its Sync: the form in which an answer may be kept.
fn send(out: &mut Vec<u8>, statement: &Statement) {
    let parameters: Vec<Option<&[u8]>> =
        statement.parameters.iter().map(|text| text.as_deref().map(str::as_bytes)).collect();
    frontend::parse(out, b"", statement.sql.as_bytes(), NO_TYPES);
    frontend::bind_text(out, b"", b"", &parameters);
    frontend::describe(out, Named::Portal(b""));
    frontend::execute(out, b"", 0);
}

/// A statement without rows.
async fn command(line: &mut Line, sql: &str) -> Result<(), Failure> {
    frontend::query(line.out(), sql.as_bytes());
    loop {
        match line.next().await? {
            (tag::ERROR_RESPONSE, body) => return Err(Failure::of_statement(body)),
            (tag::READY_FOR_QUERY, _) => return Ok(()),
            _ => {}
        }
    }
}

async fn ready(line: &mut Line) -> Result<(), Failure> {
    loop {
        match line.next().await? {
            // At a Sync: of constraints that are checked there.
            (tag::ERROR_RESPONSE, body) => return Err(Failure::of_statement(body)),
            (tag::READY_FOR_QUERY, _) => return Ok(()),
            _ => {}
        }
    }
}

/// Writes one statement's result.
async fn result(
    line: &mut Line,
    rows: Rows,
    options: &Options,
    output: &mut Output,
) -> Result<(), Failure> {
    let malformed = |_| Failure::unavailable("a result cannot be read");
    let mut columns = Columns::none(rows);
    let mut is_first = true;
    output.text().extend_from_slice(b"{\"fields\":");
    loop {
        let out = output.text();
        match line.next().await? {
            (tag::ROW_DESCRIPTION, body) => {
                columns =
                    Columns::describe(body, (rows, options.values), out).map_err(malformed)?;
                out.extend_from_slice(b",\"rows\":[");
            }
            (tag::NO_DATA, _) => out.extend_from_slice(b"[],\"rows\":["),
            (tag::DATA_ROW, body) => {
                if !std::mem::take(&mut is_first) {
                    out.push(b',');
                }
                columns.row(body, out).map_err(malformed)?;
                output.advance().await?;
            }
            (tag::COMMAND_COMPLETE, body) => {
                finish(body.strip_suffix(&[0]).unwrap_or(body), rows, out);
                return output.advance().await;
            }
            (tag::EMPTY_QUERY_RESPONSE, _) => {
                finish(b"", rows, out);
                return Ok(());
            }
            (tag::ERROR_RESPONSE, body) => return Err(Failure::of_statement(body)),
            (tag::COPY_IN_RESPONSE | tag::COPY_OUT_RESPONSE | tag::COPY_BOTH_RESPONSE, _) => {
                let message = "COPY with the client is not spoken over HTTP";
                return Err(Failure::new(StatusCode::BAD_REQUEST, "0A000", message));
            }
            _ => {}
        }
    }
}

/// `INSERT 0 5`: the command, and how many rows where it says so.
fn finish(command_tag: &[u8], rows: Rows, out: &mut Vec<u8>) {
    let mut words = command_tag.split(|byte| *byte == b' ');
    let command = words.next().unwrap_or_default();
    let count = words.next_back().filter(|word| !word.is_empty());
    let count = count.filter(|word| word.iter().all(u8::is_ascii_digit)).unwrap_or(b"null");
    out.extend_from_slice(b"],\"command\":");
    string(out, command);
    out.extend_from_slice(b",\"rowCount\":");
    out.extend_from_slice(count);
    out.extend_from_slice(match rows {
        Rows::Arrays => b",\"rowAsArray\":true}",
        Rows::Objects => b",\"rowAsArray\":false}",
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_was_done_and_to_how_many() {
        let of = |tag: &str| {
            let mut out = b"{\"rows\":[".to_vec();
            finish(tag.as_bytes(), Rows::Objects, &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            (value["command"].as_str().unwrap().to_owned(), value["rowCount"].as_u64())
        };
        assert_eq!(of("INSERT 0 5"), ("INSERT".into(), Some(5)));
        assert_eq!(of("SELECT 12"), ("SELECT".into(), Some(12)));
        assert_eq!(of("CREATE TABLE"), ("CREATE".into(), None));
        assert_eq!(of("BEGIN"), ("BEGIN".into(), None));
        assert_eq!(of(""), (String::new(), None));
    }
}
