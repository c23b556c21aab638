//! Between AuthenticationOk and the first ReadyForQuery: start-up settings are checked by the server, and the client is
//! told the parameters it would be told there.
//!
//! What one client's start-up settings turned out to mean is remembered per database and user, so that the next client
//! with the same ones needs no server.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_core::refusal::Refusal;
use tidegate_core::session::hidden::{Findings, Hides, INSPECTION};
use tidegate_core::settings::{Settings, quote_literal, switch_sql};
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stream::Stream;
use crate::upstream::ServerError;
use crate::upstream::pool::Server;

/// Different sets of start-up settings remembered per database and user.
const KNOWN_MAX: usize = 256;
/// What a client is told at its login fits, as a rule.
const WELCOME_BYTES: usize = 512;
/// What a server may answer to the settings of one client, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is known of one database and user.
#[derive(Debug, Default)]
pub struct Welcome {
    /// ParameterStatus of a fresh connection.
    parameters: Vec<Parameter>,
    /// What sessions begin with, as far as the session machine must know: those parameters, and [`UNREPORTED`].
    server_settings: Arc<Settings>,
    known: FxHashMap<Parameters, Arc<Settings>>,
    /// `Shared::defaults` when they were learnt.
    defaults: u64,
}

/// One parameter that a server tells of.
#[derive(Debug)]
struct Parameter {
    name: String,
    /// Its name among [`Settings`].
    key: String,
    value: String,
}

/// Start-up settings as a client sent them.
pub type Parameters = Vec<(String, String)>;

impl Welcome {
    /// Forgets what it knows if sessions begin with other settings since.
    pub fn heed(&mut self, defaults: u64) {
        if std::mem::replace(&mut self.defaults, defaults) != defaults {
            self.forget();
        }
    }

    /// The canonical settings for these start-up settings, if no server has to be asked.
    pub fn recall(&self, wanted: &Parameters) -> Option<Arc<Settings>> {
        if self.parameters.is_empty() {
            return None;
        }
        if wanted.is_empty() {
            return Some(Arc::default());
        }
        self.known.get(wanted).cloned()
    }

    pub fn remember(
        &mut self,
        wanted: Parameters,
        settled: &Settled,
        parameters: &[(String, String)],
    ) {
        self.parameters = parameters
            .iter()
            .map(|(name, value)| Parameter {
                name: name.clone(),
                key: name.to_ascii_lowercase(),
                value: value.clone(),
            })
            .collect();
        let unreported = settled.unreported.iter().map(|(name, value)| (*name, value.as_str()));
        let reported = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.server_settings = Arc::new(Settings::from_pairs(reported.chain(unreported)));
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(wanted, settled.settings.clone());
    }

    pub fn server_settings(&self) -> &Arc<Settings> {
        &self.server_settings
    }

    /// Forgets everything: servers may have been reconfigured.
    pub fn forget(&mut self) {
        self.known.clear();
        self.parameters.clear();
    }

    /// ParameterStatus for each parameter, BackendKeyData, ReadyForQuery.
    pub fn write(&self, settings: &Settings, key: (i32, &[u8]), out: &mut Vec<u8>) {
        out.reserve(WELCOME_BYTES);
        for Parameter { name, key, value } in &self.parameters {
            let value = settings.get(key).unwrap_or(value);
            backend::parameter_status(out, name.as_bytes(), value.as_bytes());
        }
        backend::backend_key_data(out, key.0, key.1);
        backend::ready_for_query(out, TransactionStatus::Idle);
    }
}

/// Why start-up settings were not taken.
#[derive(Debug)]
pub enum Rejected {
    /// The server's own words, made FATAL as at a login. The server connection is as before.
    ByServer(Refusal),
    /// The server connection is of no more use.
    Lost(io::Error),
}

/// Settings that the server tells nobody of by itself, and by which a session's statements are judged.
const UNREPORTED: [&str; 2] = ["search_path", "default_transaction_isolation"];

/// What start-up settings mean at a server.
#[derive(Debug)]
pub struct Settled {
    /// In canonical form.
    pub settings: Arc<Settings>,
    /// What sessions begin with that do not ask for anything else.
    unreported: Vec<(&'static str, String)>,
}

/// Gives the server these settings and yields them in canonical form.
pub async fn settle(server: &mut Server, wanted: &Parameters) -> Result<Settled, Rejected> {
    let mut last: Vec<(&str, &str)> = Vec::new();
    for (name, value) in wanted {
        last.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        last.push((name, value));
    }
    let reset = switch_sql(server.state.settings(), &Settings::default()).unwrap_or_default();
    let set = |(name, value): &(&str, &str)| {
        format!("pg_catalog.set_config({},{},false)", quote_literal(name), quote_literal(value))
    };
    let begins_with = |name: &&str| {
        format!(
            "(SELECT reset_val FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) {})",
            quote_literal(name)
        )
    };
    let columns: Vec<String> =
        last.iter().map(set).chain(UNREPORTED.iter().map(begins_with)).collect();
    let sql = format!("{reset}SELECT {}", columns.join(","));
    let mut values = Vec::new();
    let asked = ask(&mut server.stream, &sql, |row| {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        values = row.iter().map(|value| value.map(text).unwrap_or_default()).collect();
    });
    if let Err(error) = asked.await.map_err(Rejected::Lost)? {
        return Err(Rejected::ByServer(error.to_refusal()));
    }
    let mut values = values.into_iter();
    let canonical = last.iter().map(|(name, _)| (*name, values.next().unwrap_or_default()));
    let settings = Arc::new(Settings::from_pairs(canonical));
    server.state.handle_settings(settings.clone());
    let unreported = UNREPORTED.into_iter().zip(values).collect();
    Ok(Settled { settings, unreported })
}

/// Asks the database what hides there.
pub async fn inspect(server: &mut Server) -> io::Result<Hides> {
    let mut findings = Findings::default();
    if ask(&mut server.stream, INSPECTION, |row| findings.row(row)).await?.is_err() {
        findings.fail();
    }
    Ok(findings.hides())
}

/// Runs one Query of ours up to ReadyForQuery, and shows its rows.
async fn ask(
    stream: &mut Stream,
    sql: &str,
    mut show: impl FnMut(&[Option<&[u8]>]),
) -> io::Result<Result<(), ServerError>> {
    let mut out = Vec::new();
    frontend::query(&mut out, sql.as_bytes());
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut answer = Ok(());
    let mut bytes = Vec::new();
    loop {
        let header = loop {
            match Header::peek(&bytes, ANSWER_BYTES_MAX) {
                Ok(Some(header)) if bytes.len() >= header.frame_bytes() => break header,
                Ok(_) => {}
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let body = &bytes[HEADER_BYTES..header.frame_bytes()];
        match header.tag {
            backend::tag::DATA_ROW => {
                let row = backend::read_data_row(body).map_err(|_| io::ErrorKind::InvalidData)?;
                show(&row);
            }
            backend::tag::ERROR_RESPONSE => answer = Err(ServerError::read(body)),
            backend::tag::READY_FOR_QUERY
                if body == b"I" && bytes.len() == header.frame_bytes() =>
            {
                return Ok(answer);
            }
            backend::tag::READY_FOR_QUERY => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
        bytes.drain(..header.frame_bytes());
    }
}

/// What all workers' clients of one database and user share on a worker.
pub type Welcomes = FxHashMap<(Arc<str>, Arc<str>), Rc<std::cell::RefCell<Welcome>>>;
