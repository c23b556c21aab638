//! What a client is asked to prove, and what its answers are worth.

use super::policy::{
    LoginPolicy, Method, PasswordCheck, PeerKind, PeerName, Proven, Standing, Stored, User,
};
use super::{CloseReason, Encryption, LoginParams, LoginRequest, PasswordOutcome, TrustScope};
use crate::refusal::Refusal;
use tidegate_wire::auth::{
    self, Channel, EndPoint, Request, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, Secret,
    ServerFirst, Verifier, md5,
};

/// The client has been asked something.
#[derive(Debug)]
pub(super) struct Challenge {
    question: Question,
    doom: Doom,
}

#[derive(Debug)]
enum Question {
    /// Which mechanism, and its first message. Binding was offered if there is something to bind to.
    SaslFirst(Verifier, Option<EndPoint>),
    /// The proof.
    SaslFinal(Box<ServerFirst>),
    Md5(Secret),
    Password(PasswordCheck),
}

/// What happens however right the answer is. Decided before the question, so that all are asked
/// alike.
#[derive(Clone, Copy, Debug)]
enum Doom {
    None,
    /// Fails like a wrong password.
    Wrong(CloseReason),
    /// Fails openly once the password is known to be right.
    NotPermitted,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send the message and await the answer.
    Ask(Vec<u8>, Challenge),
    /// Have the password checked.
    Check(Challenge, Secret, PasswordCheck),
    /// Let the client in: AuthenticationOk follows the message.
    Pass(Vec<u8>, Proven),
    Fail(CloseReason, Refusal),
}

/// Decides what the client must show.
pub(super) fn begin(
    params: &LoginParams,
    request: &LoginRequest,
    encryption: &Encryption,
    user: User,
) -> Step {
    match (params.policy.method, user) {
        (_, User::Refused(reason, refusal)) => Step::Fail(reason, refusal),
        (Method::Certificate, _) => by_certificate(&request.user, encryption),
        (Method::Trust, user) => by_trust(params.policy, params.peer, request, user),
        (Method::Peer(PeerName::Same), user) => Step::Pass(Vec::new(), known_secret(user)),
        (Method::Peer(PeerName::Another), _) => Step::Fail(
            CloseReason::PeerOfAnother,
            Refusal::fatal(
                "28000",
                format!("Peer authentication failed for user \"{}\"", request.user),
            ),
        ),
        (Method::Passthrough, User::LetIn) => Step::Pass(Vec::new(), Proven::Nothing),
        (Method::Passthrough | Method::Password, User::OnlyServerKnows) => {
            by_password(params.peer, encryption, PasswordCheck::Server, Doom::None)
        }
        (method, user) => {
            let (stored, doom) = match user {
                User::Known { stored, standing: Standing::Valid } => (Some(stored), Doom::None),
                User::Known { stored, standing: Standing::Expired } => {
                    (Some(stored), Doom::Wrong(CloseReason::PasswordExpired))
                }
                User::Known { stored, standing: Standing::NotPermitted } => {
                    (Some(stored), Doom::NotPermitted)
                }
                _ => (None, Doom::Wrong(CloseReason::UserUnknown)),
            };
            by_secret(params, request, encryption, method, stored, doom)
        }
    }
}

fn by_secret(
    params: &LoginParams,
    request: &LoginRequest,
    encryption: &Encryption,
    method: Method,
    stored: Option<Stored>,
    doom: Doom,
) -> Step {
    let fake = || Verifier::fake(&params.fake_secret, &request.user);
    match (method, stored) {
        (Method::Password, stored) => {
            let stored = stored.unwrap_or_else(|| Stored::Scram(fake()));
            by_password(params.peer, encryption, PasswordCheck::Stored(stored), doom)
        }
        (Method::Md5 | Method::Passthrough, Some(Stored::Md5(hash))) => ask_md5(params, hash, doom),
        (Method::Md5, Some(Stored::Plain(password, _))) => {
            ask_md5(params, md5::stored_hash(&request.user, password.reveal()), doom)
        }
        (Method::Md5, None) => {
            let hash = md5::stored_hash(&request.user, &fake().to_string());
            ask_md5(params, hash, doom)
        }
        (_, Some(Stored::Scram(verifier) | Stored::Plain(_, verifier))) => {
            ask_scram(verifier, encryption, doom)
        }
        // An md5 hash cannot answer SCRAM: PostgreSQL goes through the motions and fails.
        (_, Some(Stored::Md5(_))) => {
            ask_scram(fake(), encryption, Doom::Wrong(CloseReason::PasswordWrong))
        }
        (_, None) => ask_scram(fake(), encryption, doom),
    }
}

fn by_certificate(user: &str, encryption: &Encryption) -> Step {
    match encryption {
        Encryption::Tls { certificate_name: Some(name), .. } if name == user => {
            Step::Pass(Vec::new(), Proven::Nothing)
        }
        Encryption::Tls { certificate_name: Some(_), .. } => Step::Fail(
            CloseReason::CertificateOfAnother,
            Refusal::fatal(
                "28000",
                format!("certificate authentication failed for user \"{user}\""),
            ),
        ),
        _ => Step::Fail(
            CloseReason::CertificateMissing,
            Refusal::fatal("28000", "connection requires a valid client certificate")
                .hint("Connect over TLS with sslcert and sslkey."),
        ),
    }
}

fn by_trust(policy: LoginPolicy, peer: PeerKind, request: &LoginRequest, user: User) -> Step {
    if peer == PeerKind::Remote && policy.trust == TrustScope::Local {
        let message = format!("trust authentication is not allowed for user \"{}\"", request.user);
        let refusal = Refusal::fatal("28000", message)
            .detail("Only clients on the server's own machine are trusted without a password.")
            .hint("Ask the operator for another authentication method.");
        return Step::Fail(CloseReason::TrustForbidden, refusal);
    }
    Step::Pass(Vec::new(), known_secret(user))
}

/// What the server takes for this user, if that is known without its proof.
fn known_secret(user: User) -> Proven {
    match user {
        User::Known { stored: Stored::Plain(password, _), .. } => Proven::Password(password),
        User::Known { stored: Stored::Md5(hash), .. } => Proven::Md5Hash(hash),
        _ => Proven::Nothing,
    }
}

fn by_password(peer: PeerKind, encryption: &Encryption, check: PasswordCheck, doom: Doom) -> Step {
    if peer == PeerKind::Remote && *encryption == Encryption::None {
        let refusal = Refusal::fatal("28000", "the password would have to be sent unencrypted")
            .detail("Tidegate asks for passwords in clear only over TLS or on the same machine.")
            .hint("Connect with sslmode=require or stronger.");
        return Step::Fail(CloseReason::CleartextForbidden, refusal);
    }
    ask(&Request::CleartextPassword, Question::Password(check), doom)
}

fn ask_md5(params: &LoginParams, hash: Secret, doom: Doom) -> Step {
    ask(&Request::Md5Password { salt: params.md5_salt }, Question::Md5(hash), doom)
}

fn ask_scram(verifier: Verifier, encryption: &Encryption, doom: Doom) -> Step {
    let (mechanisms, end_point): (&[u8], _) = match encryption {
        Encryption::Tls { end_point: Some(end_point), .. } => {
            (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", Some(end_point.clone()))
        }
        _ => (b"SCRAM-SHA-256\0\0", None),
    };
    ask(&Request::Sasl { mechanisms }, Question::SaslFirst(verifier, end_point), doom)
}

fn ask(request: &Request<'_>, question: Question, doom: Doom) -> Step {
    let mut message = Vec::new();
    auth::write_request(&mut message, request);
    Step::Ask(message, Challenge { question, doom })
}

impl Challenge {
    /// Takes the body of the client's answer (a message of type `p`).
    pub(super) fn answer(self, params: &LoginParams, request: &LoginRequest, body: &[u8]) -> Step {
        let doom = self.doom;
        match self.question {
            Question::SaslFirst(verifier, end_point) => {
                sasl_first(params, body, verifier, end_point, doom)
            }
            Question::SaslFinal(exchange) => match exchange.verify(body) {
                Ok(done) => {
                    let mut message = Vec::new();
                    let data = Request::SaslFinal(done.message.as_bytes());
                    auth::write_request(&mut message, &data);
                    doom.pass(&request.user, message, Proven::Keys(done.keys))
                }
                Err(ScramError::WrongPassword) => doom.wrong(&request.user),
                Err(error) => refuse_scram(error),
            },
            Question::Md5(hash) => match auth::read_password(body) {
                Ok(answer) if md5::verify(hash.reveal(), params.md5_salt, answer) => {
                    doom.pass(&request.user, Vec::new(), Proven::Md5Hash(hash))
                }
                Ok(_) => doom.wrong(&request.user),
                Err(_) => malformed_password(),
            },
            Question::Password(check) => match auth::read_password(body).map(std::str::from_utf8) {
                Ok(Ok("")) => Step::Fail(
                    CloseReason::PasswordEmpty,
                    Refusal::fatal("28P01", "empty password returned by client"),
                ),
                Ok(Ok(password)) => {
                    let question = Question::Password(PasswordCheck::Server);
                    Step::Check(Self { question, doom }, Secret::new(password), check)
                }
                // No stored password is anything but UTF-8.
                Ok(Err(_)) => doom.wrong(&request.user),
                Err(_) => malformed_password(),
            },
        }
    }

    /// Takes the outcome of a check that [`Step::Check`] asked for.
    pub(super) fn settle_password(
        self,
        request: &LoginRequest,
        password: Secret,
        outcome: PasswordOutcome,
    ) -> Step {
        match outcome {
            PasswordOutcome::Right => {
                self.doom.pass(&request.user, Vec::new(), Proven::Password(password))
            }
            PasswordOutcome::Wrong => self.doom.wrong(&request.user),
            PasswordOutcome::Refused(reason, refusal) => Step::Fail(reason, refusal),
        }
    }
}

fn sasl_first(
    params: &LoginParams,
    body: &[u8],
    verifier: Verifier,
    end_point: Option<EndPoint>,
    doom: Doom,
) -> Step {
    let Ok((mechanism, data)) = auth::read_sasl_initial(body) else {
        return refuse_scram(ScramError::Malformed("SASLInitialResponse"));
    };
    let channel = match end_point {
        None if mechanism == SCRAM_SHA_256.as_bytes() => Channel::None,
        Some(_) if mechanism == SCRAM_SHA_256.as_bytes() => Channel::Unused,
        Some(end_point) if mechanism == SCRAM_SHA_256_PLUS.as_bytes() => Channel::Bound(end_point),
        _ => {
            let message = "client selected an invalid SASL authentication mechanism";
            return Step::Fail(CloseReason::SaslMalformed, Refusal::fatal("08P01", message));
        }
    };
    match ServerFirst::start(data, verifier, &params.nonce, &channel) {
        Ok((exchange, reply)) => {
            let question = Question::SaslFinal(Box::new(exchange));
            ask(&Request::SaslContinue(reply.as_bytes()), question, doom)
        }
        Err(error) => refuse_scram(error),
    }
}

impl Doom {
    fn pass(self, user: &str, message: Vec<u8>, proven: Proven) -> Step {
        match self {
            Self::None => Step::Pass(message, proven),
            Self::Wrong(_) => self.wrong(user),
            Self::NotPermitted => Step::Fail(
                CloseReason::LoginNotPermitted,
                Refusal::fatal("28000", format!("role \"{user}\" is not permitted to log in")),
            ),
        }
    }

    fn wrong(self, user: &str) -> Step {
        let reason = match self {
            Self::Wrong(reason) => reason,
            Self::None | Self::NotPermitted => CloseReason::PasswordWrong,
        };
        let message = format!("password authentication failed for user \"{user}\"");
        Step::Fail(reason, Refusal::fatal("28P01", message))
    }
}

fn malformed_password() -> Step {
    Step::Fail(
        CloseReason::MessageUnexpected,
        Refusal::fatal("08P01", "invalid password packet size"),
    )
}

fn refuse_scram(error: ScramError) -> Step {
    let (sqlstate, message, detail) = match error {
        ScramError::ChannelBinding => (
            "08P01",
            "SCRAM channel binding check failed",
            "The client is bound to another connection than this one, or says otherwise than it chose.",
        ),
        ScramError::Downgrade => (
            "28000",
            "SCRAM channel binding negotiation error",
            "The client supports SCRAM channel binding but thinks the server does not. However, this \
             server does support channel binding.",
        ),
        ScramError::Unsupported(_) => (
            "0A000",
            "client uses a SCRAM feature that is not supported",
            "Neither an authorization identity, a mandatory extension nor another channel binding than \
             tls-server-end-point is supported.",
        ),
        ScramError::Nonce => ("08P01", "invalid SCRAM response", "Nonce does not match."),
        _ => ("08P01", "malformed SCRAM message", "A part of the message is missing or not valid."),
    };
    Step::Fail(CloseReason::SaslMalformed, Refusal::fatal(sqlstate, message).detail(detail))
}
