//! One client's login as a state machine: bytes in, actions out, up to and including
//! AuthenticationOk.
//!
//! ```text
//!            SSLRequest                handle_tls
//! Startup ───────────────▶ Tls ───────────────────▶ Startup (encrypted; never a second time)
//!    │ CancelRequest ─▶ Finished
//!    │ StartupMessage
//!    ▼
//! Admission
//!    │ handle_admission
//!    ▼        handle_user              the client's answer           handle_password
//!   User ───────────────▶ Challenge ──────────────────▶ Checking ────────────────────▶ Finished
//! ```
//! SCRAM and md5 are checked here, so that they go from Challenge to Finished; so do users who need
//! no password.
//!
//! The caller performs each [`LoginAction`] in order, gives what it reads to
//! [`Login::handle_input`], and calls [`Login::handle_timeout`] at [`Login::deadline`]. Nothing
//! here reads a clock or draws a random number.

mod carried; // over a stream that another one protects
mod challenge;
mod policy;
mod request;
mod rules; // who may come in how
mod throttle; // failed logins slow down the next answers

pub use policy::{Admission, CloseReason, LoginPolicy, Method, PeerKind, TlsPolicy, TrustScope};
pub use policy::{PasswordCheck, PasswordOutcome, PeerName, Proven, Standing, Stored, User};
pub use request::{Destination, LoginRequest, Replication};
pub use rules::Rules;
pub use throttle::{Throttle, Verdict};

use crate::limits::{AUTH_MESSAGE_BYTES_MAX, STARTUP_PACKET_BYTES_MAX};
use crate::refusal::{Refusal, Severity};
use challenge::{Challenge, Step};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_wire::auth::{self, EndPoint, Secret};
use tidegate_wire::error_fields::{self, Fields};
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::startup::{self, Packet, StartupError};

/// What the caller must do, in order.
#[derive(Debug)]
pub enum LoginAction {
    /// Write these bytes and flush them.
    Send(Vec<u8>),
    /// Start TLS as the server, then call [`Login::handle_tls`].
    UpgradeTls,
    /// Say whether there is room for one more client, with [`Login::handle_admission`].
    Admit,
    /// Find out what is known of the user, then call [`Login::handle_user`].
    LookUpUser { user: String, destination: Destination },
    /// A login failed with what was known of this user: it may be out of date.
    ForgetUser { user: String },
    /// Check a password in clear (slow work, or a question to the server), then call
    /// [`Login::handle_password`].
    VerifyPassword {
        user: String,
        destination: Destination,
        password: Secret,
        against: PasswordCheck,
    },
    /// The client has proved who it is, or not: tell [`Throttle`], and wait as long as that says before
    /// anything else.
    Judged { user: String, verdict: Verdict },
    /// The client wants a query cancelled. There is no answer.
    Cancel { pid: i32, secret: Vec<u8> },
    /// The client is who it says, and is told so together with what comes next.
    Done(Box<LoginDone>),
    /// Close the connection. What there was to tell the client has been sent.
    Close(CloseReason),
}

/// A login that succeeded.
#[derive(Debug)]
pub struct LoginDone {
    pub request: LoginRequest,
    /// What the client showed us, and with what we can show the server who it is.
    pub proven: Proven,
    /// AuthenticationOk, and what goes before it, for the client: with what else it is told, so that it wakes once.
    pub message: Vec<u8>,
}

/// What the caller knows before the first byte.
#[derive(Debug)]
pub struct LoginParams {
    pub now: Instant,
    /// The whole login must be over this long after `now`.
    pub time_max: Duration,
    pub peer: PeerKind,
    pub policy: LoginPolicy,
    /// In place of the policy's method.
    pub rules: Option<Rules>,
    /// Fresh random printable text without commas, for SCRAM.
    pub nonce: String,
    /// Fresh random bytes, for md5.
    pub md5_salt: [u8; 4],
    /// Drawn once per process: makes the salts of users who do not exist.
    pub fake_secret: [u8; 32],
}

/// The state machine. See the module's diagram.
#[derive(Debug)]
pub struct Login {
    params: LoginParams,
    deadline: Instant,
    state: State,
    /// At most a handful: every input yields at most four.
    actions: VecDeque<LoginAction>,
}

#[derive(Debug)]
enum State {
    Startup(Negotiated),
    Tls(Negotiated),
    Admission(LoginRequest, Encryption),
    User(LoginRequest, Encryption),
    Challenge(LoginRequest, Challenge),
    Checking(LoginRequest, Challenge, Secret),
    Finished,
}

/// What has been asked for before the StartupMessage: each at most once.
#[derive(Clone, Debug)]
struct Negotiated {
    ssl: Asked,
    gssenc: Asked,
    encryption: Encryption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    NotYet,
    Already,
}

/// How the client's stream is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    None,
    /// TLS, with the common name of the client's certificate if it showed one that its authority
    /// signed.
    Tls {
        certificate_name: Option<String>,
        /// What SCRAM can be bound to; nothing where our certificate's signature has no hash.
        end_point: Option<EndPoint>,
    },
}

/// How TLS came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStart {
    /// After an SSLRequest.
    Requested,
    /// From the first byte, without asking.
    Direct,
}

impl Login {
    pub fn new(params: LoginParams) -> Self {
        let negotiated =
            Negotiated { ssl: Asked::NotYet, gssenc: Asked::NotYet, encryption: Encryption::None };
        Self {
            deadline: params.now + params.time_max,
            params,
            state: State::Startup(negotiated),
            actions: VecDeque::new(),
        }
    }

    /// When [`Login::handle_timeout`] wants to be called: the whole login must be over by then.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next thing to do; `None` when the machine waits for the client.
    pub fn poll_action(&mut self) -> Option<LoginAction> {
        self.actions.pop_front()
    }

    /// Bytes the caller may hold unread for this machine: a longer message is refused from its
    /// header.
    pub const INPUT_BYTES_MAX: usize = if AUTH_MESSAGE_BYTES_MAX > STARTUP_PACKET_BYTES_MAX {
        AUTH_MESSAGE_BYTES_MAX + HEADER_BYTES
    } else {
        STARTUP_PACKET_BYTES_MAX
    };

    /// Takes the next message from all that has been read and not yet taken; yields the bytes it
    /// took (0: read more).
    ///
    /// `input` must be everything that was read: what lies behind an SSLRequest is part of the
    /// judgement.
    pub fn handle_input(&mut self, input: &[u8]) -> usize {
        match &self.state {
            State::Startup(negotiated) => match startup::read(input) {
                Ok(None) => 0,
                Ok(Some((packet, bytes))) => {
                    let negotiated = negotiated.clone();
                    self.take_packet(packet, negotiated, input.len() > bytes);
                    bytes
                }
                Err(error) => {
                    self.refuse_packet(error);
                    input.len()
                }
            },
            State::Challenge(..) => self.take_answer(input),
            State::Tls(_)
            | State::Admission(..)
            | State::User(..)
            | State::Checking(..)
            | State::Finished => 0,
        }
    }

    /// The TLS handshake is done.
    pub fn handle_tls(&mut self, encryption: Encryption) {
        if let State::Tls(negotiated) = &self.state {
            self.state = State::Startup(Negotiated { encryption, ..negotiated.clone() });
        }
    }

    /// The client began with TLS, without asking, and the handshake is done.
    ///
    /// Without the ALPN name it could be a browser that was sent here by an attacker (the ALPACA
    /// attack).
    pub fn handle_direct_tls(&mut self, encryption: Encryption, alpn: Option<&[u8]>) {
        if alpn != Some(startup_alpn()) {
            let refusal = Refusal::fatal(
                "08P01",
                "received direct SSL connection request without ALPN protocol negotiation extension",
            );
            self.refuse(CloseReason::AlpnMissing, &refusal);
        } else if matches!(self.state, State::Startup(_)) {
            let ssl = Asked::Already;
            self.state = State::Startup(Negotiated { ssl, gssenc: Asked::Already, encryption });
        }
    }

    /// Whether there is room for this client. It is told before it has to prove anything, as
    /// PostgreSQL does.
    pub fn handle_admission(&mut self, admission: Admission) {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Admission(request, encryption) => match admission.refusal() {
                Some((reason, refusal)) => self.refuse(reason, &refusal),
                None => self.admit(request, encryption),
            },
            other => self.state = other,
        }
    }

    /// What is known of the user.
    pub fn handle_user(&mut self, user: User) {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::User(request, encryption) => {
                let step = challenge::begin(&self.params, &request, &encryption, user);
                self.perform(request, step);
            }
            other => self.state = other,
        }
    }

    /// What came of a password in clear.
    pub fn handle_password(&mut self, outcome: PasswordOutcome) {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Checking(request, challenge, password) => {
                let step = challenge.settle_password(&request, password, outcome);
                self.perform(request, step);
            }
            other => self.state = other,
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        match self.state {
            State::Finished => {}
            // Before a StartupMessage nobody is known to speak the protocol: PostgreSQL says
            // nothing either.
            State::Startup(_) | State::Tls(_) => self.close(CloseReason::TimedOut),
            _ => {
                let refusal = Refusal::fatal("57014", "canceling authentication due to timeout");
                self.refuse(CloseReason::TimedOut, &refusal);
            }
        }
    }

    /// Something outside failed and the client should know why: it is told, and the login is over.
    pub fn refuse(&mut self, reason: CloseReason, refusal: &Refusal) {
        let mut out = Vec::new();
        write_refusal(&mut out, refusal);
        self.actions.push_back(LoginAction::Send(out));
        self.close(reason);
    }

    /// Something outside failed and the client cannot be told: the login is over.
    pub fn fail(&mut self, reason: CloseReason) {
        self.close(reason);
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Finished;
        self.actions.push_back(LoginAction::Close(reason));
    }

    fn take_packet(&mut self, packet: Packet, negotiated: Negotiated, more_follows: bool) {
        match packet {
            Packet::Cancel(cancel) => {
                self.state = State::Finished;
                let (pid, secret) = (cancel.pid, cancel.secret);
                self.actions.push_back(LoginAction::Cancel { pid, secret });
            }
            Packet::SslRequest | Packet::GssEncRequest if more_follows => {
                let name = if packet == Packet::SslRequest { "SSL" } else { "GSSAPI encryption" };
                let refusal = Refusal::fatal(
                    "08P01",
                    format!("received unencrypted data after {name} request"),
                )
                .detail(
                    "This could be either a client-software bug or evidence of an attempted \
                     man-in-the-middle attack.",
                );
                self.refuse(CloseReason::BytesBeforeTls, &refusal);
            }
            Packet::SslRequest if negotiated.ssl == Asked::NotYet => self.take_ssl(negotiated),
            Packet::GssEncRequest if negotiated.gssenc == Asked::NotYet => {
                self.actions.push_back(LoginAction::Send(b"N".to_vec()));
                self.state = State::Startup(Negotiated { gssenc: Asked::Already, ..negotiated });
            }
            Packet::SslRequest | Packet::GssEncRequest => {
                let refusal = Refusal::fatal("08P01", "encryption was requested more than once");
                self.refuse(CloseReason::NegotiationRepeated, &refusal);
            }
            Packet::Startup(startup) => self.take_startup(&startup, negotiated),
        }
    }

    fn take_ssl(&mut self, negotiated: Negotiated) {
        let negotiated = Negotiated { ssl: Asked::Already, ..negotiated };
        // Unix sockets need no encryption; PostgreSQL does not offer it there.
        if self.params.policy.tls == TlsPolicy::Unavailable || self.params.peer == PeerKind::Unix {
            self.actions.push_back(LoginAction::Send(b"N".to_vec()));
            self.state = State::Startup(negotiated);
        } else {
            // GSSENCRequest inside TLS is an error, as it is for PostgreSQL.
            let negotiated = Negotiated { gssenc: Asked::Already, ..negotiated };
            self.actions.push_back(LoginAction::Send(b"S".to_vec()));
            self.actions.push_back(LoginAction::UpgradeTls);
            self.state = State::Tls(negotiated);
        }
    }

    fn take_startup(&mut self, packet: &startup::Startup, negotiated: Negotiated) {
        let encryption = negotiated.encryption;
        if packet.major == 3 && packet.wants_more_than_we_speak() {
            let mut out = Vec::new();
            let minor = packet.minor_agreed();
            startup::negotiate_protocol_version(&mut out, minor, &packet.unknown_options);
            self.actions.push_back(LoginAction::Send(out));
        }
        let request = match LoginRequest::read(packet) {
            Ok(request) => request,
            Err((reason, refusal)) => return self.refuse(reason, &refusal),
        };
        self.actions.push_back(LoginAction::Admit);
        self.state = State::Admission(request, encryption);
    }

    fn admit(&mut self, request: LoginRequest, encryption: Encryption) {
        let must_encrypt =
            self.params.policy.tls == TlsPolicy::Required && self.params.peer != PeerKind::Unix;
        if must_encrypt && encryption == Encryption::None {
            let refusal = Refusal::fatal("28000", "connection requires encryption")
                .detail("This server accepts TLS connections only.")
                .hint("Connect with sslmode=require or stronger.");
            return self.refuse(CloseReason::TlsRequired, &refusal);
        }
        if let Err((reason, refusal)) = self.heed_rules(&request, &encryption) {
            return self.refuse(reason, &refusal);
        }
        let (user, destination) = (request.user.clone(), request.destination());
        self.actions.push_back(LoginAction::LookUpUser { user, destination });
        self.state = State::User(request, encryption);
    }

    fn refuse_packet(&mut self, error: StartupError) {
        let message = match error {
            // Nothing is answered to what is not our protocol at all, as PostgreSQL does.
            StartupError::Length(_) => return self.close(CloseReason::StartupMalformed(error)),
            StartupError::Terminator | StartupError::TrailingBytes => {
                "invalid startup packet layout: expected terminator as last byte"
            }
            StartupError::CancelKeyLength(_) => {
                return self.close(CloseReason::StartupMalformed(error));
            }
            StartupError::Encoding => "invalid startup packet: a parameter is not valid UTF-8",
        };
        let refusal = Refusal::fatal("08P01", message);
        self.refuse(CloseReason::StartupMalformed(error), &refusal);
    }

    fn take_answer(&mut self, input: &[u8]) -> usize {
        let header = match Header::peek(input, AUTH_MESSAGE_BYTES_MAX) {
            Ok(None) => return 0,
            Ok(Some(header)) => header,
            Err(bad) => {
                let message =
                    format!("invalid message length {} during authentication", bad.length);
                self.refuse(CloseReason::MessageLength, &Refusal::fatal("08P01", message));
                return input.len();
            }
        };
        if header.tag != tidegate_wire::frontend::tag::PASSWORD {
            if header.tag == tidegate_wire::frontend::tag::TERMINATE {
                self.close(CloseReason::Disconnected);
            } else {
                let message =
                    format!("expected password response, got message type {}", header.tag);
                self.refuse(CloseReason::MessageUnexpected, &Refusal::fatal("08P01", message));
            }
            return input.len();
        }
        let Some(body) = input.get(HEADER_BYTES..header.frame_bytes()) else { return 0 };
        if let State::Challenge(request, challenge) =
            std::mem::replace(&mut self.state, State::Finished)
        {
            let step = challenge.answer(&self.params, &request, body);
            self.perform(request, step);
        }
        header.frame_bytes()
    }

    fn perform(&mut self, request: LoginRequest, step: Step) {
        match step {
            Step::Ask(message, challenge) => {
                self.actions.push_back(LoginAction::Send(message));
                self.state = State::Challenge(request, challenge);
            }
            Step::Check(challenge, password, against) => {
                self.actions.push_back(LoginAction::VerifyPassword {
                    user: request.user.clone(),
                    destination: request.destination(),
                    password: password.clone(),
                    against,
                });
                self.state = State::Checking(request, challenge, password);
            }
            Step::Pass(mut message, proven) => {
                auth::write_request(&mut message, &auth::Request::Ok);
                if !matches!(proven, Proven::Nothing) {
                    let (user, verdict) = (request.user.clone(), Verdict::Right);
                    self.actions.push_back(LoginAction::Judged { user, verdict });
                }
                let done = LoginDone { request, proven, message };
                self.actions.push_back(LoginAction::Done(Box::new(done)));
                self.state = State::Finished;
            }
            Step::Fail(reason, refusal) => {
                if reason.is_wrong_proof() {
                    let (user, verdict) = (request.user.clone(), Verdict::Wrong);
                    self.actions.push_back(LoginAction::Judged { user, verdict });
                }
                if reason.may_be_outdated() {
                    self.actions.push_back(LoginAction::ForgetUser { user: request.user });
                }
                self.refuse(reason, &refusal);
            }
        }
    }
}

fn startup_alpn() -> &'static [u8] {
    b"postgresql"
}

/// Appends a refusal as an ErrorResponse.
fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    let severity = match refusal.severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    let fields = Fields {
        severity,
        sqlstate: refusal.sqlstate,
        message: &refusal.message,
        detail: refusal.detail.as_deref().unwrap_or_default(),
        hint: refusal.hint.as_deref().unwrap_or_default(),
    };
    error_fields::error_response(out, fields);
}

#[cfg(test)]
mod tests;
