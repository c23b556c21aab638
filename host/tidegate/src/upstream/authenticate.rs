//! Answers a server's questions after the StartupMessage, up to its first ReadyForQuery.

use super::credentials::Credentials;
use super::error::{ConnectError, ServerError};
use super::known::{KeyName, KnownKeys};
use super::login::BackendKey;
use super::messages::Messages;
use super::passwords::nonce;
use super::socket::{Line, send};
use crate::config::ProtocolVersion;
use crate::stream::Stream;
use crate::tls::ChannelBinding;
use tidegate_wire::auth::{
    self, Channel, ClientFinal, ClientFirst, EndPoint, Request, SCRAM_SHA_256, SCRAM_SHA_256_PLUS,
    ScramError,
};
use tidegate_wire::backend::{self, TransactionStatus, tag};
use tidegate_wire::startup;

/// Who we say we are, with what to prove it, and over what line.
pub(super) struct Applicant<'a> {
    pub(super) user: &'a str,
    pub(super) credentials: &'a Credentials,
    pub(super) line: Line,
    pub(super) channel_binding: ChannelBinding,
    /// Nothing without TLS.
    pub(super) end_point: Option<EndPoint>,
    pub(super) protocol: ProtocolVersion,
    /// Where keys of passwords may be found, and are put.
    pub(super) known: Option<&'a KnownKeys>,
}

/// Whether the server has said how it wants us to authenticate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    /// The StartupMessage is sent: an error now comes from the server's rules on who may connect
    /// how.
    Asking,
    Authenticating,
}

impl Applicant<'_> {
    /// Answers the server's questions until it says AuthenticationOk.
    pub(super) async fn authenticate(
        &self,
        messages: &mut Messages<'_, Stream>,
        stage: &mut Stage,
    ) -> Result<(), ConnectError> {
        let (mut scram, mut bound) = (Scram::NotBegun, Bound::No);
        loop {
            let (message_tag, body) = messages.next().await?;
            let request = match message_tag {
                tag::AUTHENTICATION => {
                    auth::read_request(body).map_err(|_| malformed("Authentication"))?
                }
                tag::ERROR_RESPONSE => return Err(refused(body)),
                tag::NEGOTIATE_PROTOCOL_VERSION => {
                    check_negotiation(body, self.protocol)?;
                    continue;
                }
                tag::NOTICE_RESPONSE => continue,
                other => return Err(unexpected(other)),
            };
            let mut out = Vec::new();
            if request != Request::Ok {
                *stage = Stage::Authenticating;
            }
            self.check_bound(&request, bound)?;
            match (request, scram) {
                (Request::Ok, Scram::NotBegun | Scram::Proven) => return Ok(()),
                (Request::CleartextPassword, Scram::NotBegun) => {
                    auth::write_password(&mut out, self.cleartext()?.as_bytes());
                    scram = Scram::NotBegun;
                }
                (Request::Md5Password { salt }, Scram::NotBegun) => {
                    let hash =
                        self.credentials.for_md5(self.user).ok_or_else(|| self.lacking("md5"))?;
                    let answer = auth::md5::answer(hash.reveal(), salt);
                    auth::write_password(&mut out, answer.as_bytes());
                    scram = Scram::NotBegun;
                }
                (request @ Request::Sasl { .. }, Scram::NotBegun) => {
                    let (mechanism, channel) = self.choose(&request)?;
                    if mechanism == SCRAM_SHA_256_PLUS {
                        bound = Bound::Yes;
                    }
                    let secret =
                        self.credentials.for_scram().ok_or_else(|| self.lacking("SCRAM"))?;
                    let (state, data) = ClientFirst::start(secret, &nonce()?, &channel);
                    auth::write_sasl_initial(&mut out, mechanism, data.as_bytes());
                    scram = Scram::First(state);
                }
                (Request::SaslContinue(data), Scram::First(state)) => {
                    let (state, answer, learning) = self.prove(state, data).await?;
                    auth::write_sasl_response(&mut out, answer.as_bytes());
                    scram = Scram::Final(state, learning);
                }
                (Request::SaslFinal(data), Scram::Final(state, learning)) => {
                    finish_scram(state, learning, data)?;
                    scram = Scram::Proven;
                }
                (request, _) => return Err(not_answered(&request)),
            }
            if !out.is_empty() {
                send(messages.stream(), &out).await?;
            }
            zeroize::Zeroize::zeroize(&mut out);
        }
    }

    /// Proves that we know the password, hashed again only if its keys are not known.
    async fn prove(
        &self,
        state: ClientFirst,
        server_first: &[u8],
    ) -> Result<(ClientFinal, String, Learning<'_>), ConnectError> {
        let learning = self.look_up(server_first);
        let keys = learning.as_ref().and_then(|(known, name)| known.get(name));
        let (state, answer) = match keys {
            Some(keys) => state.with_keys(keys).answer(server_first).map_err(scram_failed)?,
            None => answer_scram(state, server_first.to_vec()).await?,
        };
        Ok((state, answer, learning))
    }

    /// Where the keys of our password under this salt are known, or will be.
    fn look_up(&self, server_first: &[u8]) -> Learning<'_> {
        let (Some(known), Credentials::Password(password)) = (self.known, self.credentials) else {
            return None;
        };
        let (salt, iterations) = ClientFirst::hashed_with(server_first).ok()?;
        Some((known, known.name(password, &salt, iterations)))
    }

    /// Which mechanism of those on offer, and what it is bound to.
    fn choose(&self, request: &Request<'_>) -> Result<(&'static str, Channel), ConnectError> {
        let failed = |reason: &str| Err(ConnectError::Policy(reason.to_owned()));
        let can_bind =
            self.end_point.clone().filter(|_| self.channel_binding != ChannelBinding::Disable);
        match &can_bind {
            Some(end_point) if request.offers(SCRAM_SHA_256_PLUS) => {
                return Ok((SCRAM_SHA_256_PLUS, Channel::Bound(end_point.clone())));
            }
            _ if self.channel_binding == ChannelBinding::Require => {
                return failed(match can_bind {
                    Some(_) => "channel binding is required, and the server does not offer it",
                    None => "channel binding is required, and there is no TLS to bind to",
                });
            }
            _ => {}
        }
        match can_bind {
            _ if !request.offers(SCRAM_SHA_256) => {
                failed("the server offers no SASL mechanism that we know")
            }
            Some(_) => Ok((SCRAM_SHA_256, Channel::Unused)),
            None => Ok((SCRAM_SHA_256, Channel::None)),
        }
    }

    /// Where binding is required, nothing is shown to a server that goes about it otherwise.
    fn check_bound(&self, request: &Request<'_>, bound: Bound) -> Result<(), ConnectError> {
        let unbound = matches!(
            request,
            Request::Ok | Request::CleartextPassword | Request::Md5Password { .. }
        );
        if self.channel_binding == ChannelBinding::Require && bound == Bound::No && unbound {
            let reason = "channel binding is required, and the server authenticates without it";
            return Err(ConnectError::Policy(reason.to_owned()));
        }
        Ok(())
    }

    fn cleartext(&self) -> Result<&str, ConnectError> {
        match (self.credentials, self.line) {
            (Credentials::Password(password), Line::Private) => Ok(password.reveal()),
            (Credentials::Password(_), Line::Open) => Err(ConnectError::Policy(
                "the server wants the password in clear over an unencrypted line".to_owned(),
            )),
            _ => Err(self.lacking("a password")),
        }
    }

    fn lacking(&self, wanted: &str) -> ConnectError {
        let have = match self.credentials {
            Credentials::None => "nothing",
            Credentials::Password(_) => "a password",
            Credentials::Md5Hash(_) => "an md5 hash",
            Credentials::ScramKeys(_) => "SCRAM keys",
        };
        let user = self.user;
        ConnectError::Policy(format!(
            "the server wants {wanted} from user \"{user}\", and we have {have}"
        ))
    }
}

/// Whether the exchange that has begun is bound to the line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    No,
    Yes,
}

enum Scram<'a> {
    NotBegun,
    First(ClientFirst),
    /// With where to put the keys when they are proven right.
    Final(ClientFinal, Learning<'a>),
    Proven,
}

/// Where keys go when they are proven right, if anywhere.
type Learning<'a> = Option<(&'a KnownKeys, KeyName)>;

fn finish_scram(
    state: ClientFinal,
    learning: Learning<'_>,
    server_final: &[u8],
) -> Result<(), ConnectError> {
    let keys = state.finish_with_keys(server_final).map_err(scram_failed)?;
    if let Some((known, name)) = learning {
        known.put(name, keys);
    }
    Ok(())
}

/// Thousands of hashes: not on a thread that serves clients.
async fn answer_scram(
    state: ClientFirst,
    server_first: Vec<u8>,
) -> Result<(ClientFinal, String), ConnectError> {
    tokio::task::spawn_blocking(move || state.answer(&server_first))
        .await
        .map_err(|_| ConnectError::Protocol("SCRAM was interrupted".to_owned()))?
        .map_err(scram_failed)
}

fn scram_failed(error: ScramError) -> ConnectError {
    match error {
        ScramError::WrongServer => ConnectError::Policy(
            "the server could not prove that it knows the password: it may be an impostor"
                .to_owned(),
        ),
        ScramError::Iterations => {
            ConnectError::Policy("the server wants too many SCRAM iterations".to_owned())
        }
        error => ConnectError::Protocol(format!("SCRAM failed: {error:?}")),
    }
}

/// Reads what follows AuthenticationOk, up to the first ReadyForQuery and whatever came along with
/// it.
pub(super) async fn await_ready(
    messages: &mut Messages<'_, Stream>,
    asked: ProtocolVersion,
) -> Result<(Option<BackendKey>, Vec<(String, String)>), ConnectError> {
    let mut backend_key = None;
    let mut parameters = Vec::new();
    let mut ready = false;
    while !ready || !messages.is_drained() {
        match messages.next().await? {
            (tag::PARAMETER_STATUS, body) => {
                let (name, value) = backend::read_parameter_status(body)
                    .map_err(|_| malformed("ParameterStatus"))?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                parameters.push((text(name), text(value)));
            }
            (tag::BACKEND_KEY_DATA, body) => {
                let (pid, secret) = backend::read_backend_key_data(body)
                    .map_err(|_| malformed("BackendKeyData"))?;
                if !(startup::SECRET_BYTES_MIN..=startup::SECRET_BYTES_MAX).contains(&secret.len())
                {
                    return Err(malformed("BackendKeyData"));
                }
                backend_key = Some(BackendKey { pid, secret: secret.to_vec() });
            }
            (tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE, _) => {}
            (tag::READY_FOR_QUERY, body) if !ready => {
                let status = body.first().copied().and_then(TransactionStatus::from_byte);
                if status != Some(TransactionStatus::Idle) {
                    return Err(malformed("ReadyForQuery"));
                }
                ready = true;
            }
            (tag::ERROR_RESPONSE, body) => return Err(refused(body)),
            (tag::NEGOTIATE_PROTOCOL_VERSION, body) if !ready => {
                check_negotiation(body, asked)?;
            }
            (other, _) => return Err(unexpected(other)),
        }
    }
    Ok((backend_key, parameters))
}

/// A server may offer an older version than we ask for, of protocol 3; we ask for no options.
fn check_negotiation(body: &[u8], asked: ProtocolVersion) -> Result<(), ConnectError> {
    let version = body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    let newest = u32::from(asked.minor());
    // The documentation says "minor version", PostgreSQL sends major and minor.
    match version {
        Some(version) if version <= newest || (3 << 16..=3 << 16 | newest).contains(&version) => {
            Ok(())
        }
        _ => Err(malformed("NegotiateProtocolVersion")),
    }
}

/// A request that we have no answer to, or not now.
fn not_answered(request: &Request<'_>) -> ConnectError {
    match request {
        Request::Other(code) => ConnectError::Policy(format!(
            "the server wants authentication method {code}, which we do not have"
        )),
        request => {
            ConnectError::Protocol(format!("the server sent {} out of turn", request_name(request)))
        }
    }
}

fn request_name(request: &Request<'_>) -> &'static str {
    match request {
        Request::Ok => "AuthenticationOk",
        Request::CleartextPassword => "AuthenticationCleartextPassword",
        Request::Md5Password { .. } => "AuthenticationMD5Password",
        Request::Sasl { .. } => "AuthenticationSASL",
        Request::SaslContinue(_) => "AuthenticationSASLContinue",
        Request::SaslFinal(_) => "AuthenticationSASLFinal",
        Request::Other(_) => "an unknown Authentication message",
    }
}

fn refused(body: &[u8]) -> ConnectError {
    ConnectError::Refused(Box::new(ServerError::read(body)))
}

pub(super) fn malformed(message: &str) -> ConnectError {
    ConnectError::Protocol(format!("the server sent a {message} that cannot be right"))
}

fn unexpected(message_tag: u8) -> ConnectError {
    let message_tag = char::from(message_tag);
    ConnectError::Protocol(format!("the server sent a message of type {message_tag:?} out of turn"))
}
