//! What a client sends, written shortly.

use tidegate_wire::frame::write;
use tidegate_wire::frontend::{self, Named};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse(&'static str, String),
    Bind(&'static str, &'static str, Option<String>),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, i32),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Sync,
    Flush,
    FunctionCall,
    CopyData(&'static str),
    CopyDone,
    CopyFail,
    Terminate,
}

pub(super) use Message::*;

impl Message {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Query(sql) => frontend::query(out, sql.as_bytes()),
            Parse(name, sql) => frontend::parse(out, name.as_bytes(), sql.as_bytes(), &[0, 0]),
            Bind(portal, statement, parameter) => {
                let parameters: Vec<_> =
                    parameter.iter().map(|value| Some(value.as_bytes())).collect();
                frontend::bind_text(out, portal.as_bytes(), statement.as_bytes(), &parameters);
            }
            DescribeStatement(name) => {
                frontend::describe(out, Named::Statement(name.as_bytes()));
            }
            DescribePortal(name) => frontend::describe(out, Named::Portal(name.as_bytes())),
            Execute(portal, rows_max) => frontend::execute(out, portal.as_bytes(), *rows_max),
            CloseStatement(name) => frontend::close(out, Named::Statement(name.as_bytes())),
            ClosePortal(name) => frontend::close(out, Named::Portal(name.as_bytes())),
            Sync => frontend::sync(out),
            Flush => frontend::flush(out),
            FunctionCall => write(out, b'F', |out| out.extend([0, 0, 0, 9, 0, 0, 0, 0, 0, 0])),
            CopyData(data) => write(out, b'd', |out| out.extend(data.as_bytes())),
            CopyDone => write(out, b'c', |_| {}),
            CopyFail => frontend::copy_fail(out, b"no"),
            Terminate => frontend::terminate(out),
        }
    }
}

pub(super) fn bytes(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.write(&mut out));
    out
}

pub(super) fn q(sql: &str) -> Message {
    Query(sql.to_owned())
}

pub(super) fn query(sql: &str) -> Vec<u8> {
    bytes(&[Query(sql.to_owned())])
}

pub(super) fn parse(name: &'static str, sql: &str) -> Message {
    Parse(name, sql.to_owned())
}

pub(super) fn bind(portal: &'static str, statement: &'static str) -> Message {
    Bind(portal, statement, None)
}

/// Parse, Bind, Execute without a Sync.
pub(super) fn run(sql: &str) -> Vec<Message> {
    vec![parse("", sql), bind("", ""), Execute("", 0)]
}
