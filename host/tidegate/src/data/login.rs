//! Drives one client's login over its socket, from the first byte to what it is told at the end.
//!
//! All decisions are `tidegate_core::session::login`'s; here are the socket, the clock, the random
//! numbers, TLS, and the questions about users.

use super::peers;
pub use super::peers::Peer;
use super::users::Users;
use crate::stream::{Socket, Stream};
use crate::tls::{Acceptor, common_name};
use crate::upstream::Credentials;
use crate::upstream::directory::Found;
use crate::view::Views;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_core::limits::{
    CONNECT_TIME_MAX, LINGER_BYTES_MAX, LINGER_TIME_MAX, LOGIN_ROOM_PAUSES,
};
use tidegate_core::refusal::Refusal;
pub use tidegate_core::session::login::{
    Admission, CloseReason, Destination, LoginPolicy, Method, PeerKind, Replication, Throttle,
    TrustScope,
};
use tidegate_core::session::login::{
    Encryption, Login, LoginAction, LoginDone, LoginParams, PasswordCheck, PasswordOutcome, Rules,
    TlsPolicy, User, Verdict,
};
use tidegate_hba::Hba;
use tidegate_wire::auth::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

/// The first byte of a TLS ClientHello, which no start-up packet has.
const TLS_HANDSHAKE: u8 = 0x16;
/// A read before authentication takes at most this much; a login is a few hundred bytes.
const READ_BYTES: usize = 1_024;

/// What every login on a listener shares.
#[derive(Clone, Debug)]
pub struct LoginContext {
    pub policy: LoginPolicy,
    /// From the connection to the end of the login: `LOGIN_TIME_MAX` unless the operator says
    /// otherwise.
    pub time_max: Duration,
    /// Required unless the policy's `tls` is `Unavailable`.
    pub tls: Option<Arc<Acceptor>>,
    pub users: Users,
    /// Drawn once per process: see [`draw_secret`].
    pub fake_secret: [u8; 32],
    /// The primary's user as configured: what it logs in with when its login here (trust, certificate) proved nothing
    /// that the server takes.
    pub own_user: Option<(Arc<str>, Credentials)>,
    /// In place of the policy's method.
    pub hba: Option<Arc<Hba>>,
}

/// What logins ask of the process as a whole.
pub struct Door<'a, A, R> {
    /// Where memberships of roles are known, for rules about them.
    pub views: &'a Views,
    /// Whether there is room for one more client; asked when it has said what it wants.
    pub admission: A,
    /// Failed logins of all workers; locked for a moment when one is judged.
    pub throttle: &'a Mutex<Throttle>,
    /// Gives up an idle connection to the primary, which has no room for a look-up or a trial of a password.
    pub make_room: R,
}

/// How a login ended.
#[derive(Debug)]
pub enum LoginOutcome {
    Done(Box<LoggedIn>),
    /// A CancelRequest: nothing is answered. Close the stream when it has been seen to.
    Cancel {
        stream: Stream,
        pid: i32,
        secret: Vec<u8>,
    },
    /// The client has been told, and the socket is closed.
    Closed(CloseReason),
}

/// A client that is who it says.
#[derive(Debug)]
pub struct LoggedIn {
    pub stream: Stream,
    pub user: String,
    pub database: String,
    /// Settings from `options`, then the packet's own, in order: the last one with a name counts.
    pub parameters: Vec<(String, String)>,
    pub replication: Replication,
    /// The minor version of protocol 3 agreed on.
    pub minor: u16,
    /// With what to open server connections for this user.
    pub credentials: Credentials,
    /// Bytes read past the last login message.
    pub pending: Vec<u8>,
    /// AuthenticationOk, and what goes before it: the client has not been told yet.
    pub unsent: Vec<u8>,
}

/// 256 random bits, drawn once per process, from which the salts of users who do not exist are
/// made.
pub fn draw_secret<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut secret = [0; BYTES];
    getrandom::fill(&mut secret)?;
    Ok(secret)
}

/// Logs one client in, or answers why not. Over within `time_max` (and a moment to say
/// goodbye).
pub async fn login(
    socket: Socket,
    peer: Peer,
    context: &LoginContext,
    door: Door<'_, impl Fn() -> Admission, impl Fn()>,
) -> LoginOutcome {
    let rules = rules(&socket, peer, context, door.views).await;
    let mut login = match LoginParams::draw(peer, context, rules) {
        Ok(params) => Login::new(params),
        Err(_) => return LoginOutcome::Closed(CloseReason::Io),
    };
    login.handle_carried(peer.encryption());
    let deadline = Instant::from_std(login.deadline());
    let mut driver = Driver {
        login,
        line: Some(Stream::Plain(socket)),
        input: Zeroizing::default(),
        peer,
        credentials: None,
        context,
        door,
    };
    match timeout_at(deadline, driver.run()).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            LoginOutcome::Closed(CloseReason::Disconnected)
        }
        Ok(Err(_)) => LoginOutcome::Closed(CloseReason::Io),
        Err(_) => {
            driver.login.handle_timeout(driver.login.deadline());
            // Only what the client is told is left to do; it has no second deadline's worth of time
            // to take it.
            let _ = timeout(LINGER_TIME_MAX, driver.exchange()).await;
            LoginOutcome::Closed(CloseReason::TimedOut)
        }
    }
}

/// What the rules are held against, as far as they ask for it.
async fn rules(
    socket: &Socket,
    peer: Peer,
    context: &LoginContext,
    views: &Views,
) -> Option<Rules> {
    let hba = context.hba.clone()?;
    let roles = if hba.needs_roles() {
        // At once, but for the first logins after a start.
        let view = views.with_roles(Instant::now() + CONNECT_TIME_MAX).await;
        view.roles.as_ref().map(|known| known.roles.clone())
    } else {
        None
    };
    let name = match socket {
        // A pair within this process would name its own user.
        Socket::Unix(unix) if peer == Peer::Unix && hba.needs_peers() => peers::user_of(unix),
        _ => None,
    };
    let own = if hba.needs_networks() { peers::own_networks() } else { Arc::default() };
    let address = match peer {
        Peer::Tcp(address) | Peer::Http(address, _) => Some(address.ip()),
        Peer::Unix => None,
    };
    Some(Rules { hba, address, own, peer: name, roles })
}

trait Draw: Sized {
    fn draw(peer: Peer, context: &LoginContext, rules: Option<Rules>) -> io::Result<Self>;
}

impl Draw for LoginParams {
    fn draw(peer: Peer, context: &LoginContext, rules: Option<Rules>) -> io::Result<Self> {
        let mut md5_salt = [0; 4];
        getrandom::fill(&mut md5_salt)?;
        let mut policy = context.policy;
        if context.tls.is_none() && policy.tls == TlsPolicy::Optional {
            policy.tls = TlsPolicy::Unavailable;
        }
        Ok(Self {
            now: std::time::Instant::now(),
            time_max: context.time_max,
            peer: peer.kind(),
            policy,
            rules,
            nonce: crate::upstream::nonce()?,
            md5_salt,
            fake_secret: context.fake_secret,
        })
    }
}

struct Driver<'a, A, R> {
    login: Login,
    /// Absent only while TLS takes it over, and after the end.
    line: Option<Stream>,
    /// Read and not yet taken. Holds passwords, hence overwritten.
    input: Zeroizing<Vec<u8>>,
    peer: Peer,
    credentials: Option<Credentials>,
    context: &'a LoginContext,
    door: Door<'a, A, R>,
}

/// Has the server itself no connection to give?
fn is_full(reason: CloseReason, refusal: &Refusal) -> bool {
    reason == CloseReason::ServerRefused && refusal.sqlstate == "53300"
}

impl<A: Fn() -> Admission, R: Fn()> Driver<'_, A, R> {
    async fn run(&mut self) -> io::Result<LoginOutcome> {
        self.accept_direct_tls().await?;
        self.exchange().await
    }

    async fn exchange(&mut self) -> io::Result<LoginOutcome> {
        loop {
            while let Some(action) = self.login.poll_action() {
                if let Some(outcome) = self.perform(action).await? {
                    return Ok(outcome);
                }
            }
            let taken = self.login.handle_input(&self.input);
            self.forget_input(taken);
            if taken == 0 {
                self.read().await?;
            }
        }
    }

    async fn perform(&mut self, action: LoginAction) -> io::Result<Option<LoginOutcome>> {
        match action {
            LoginAction::Send(bytes) => {
                let line = self.line()?;
                line.write_all(&bytes).await?;
                line.flush().await?;
            }
            LoginAction::UpgradeTls => {
                if let Some(tls) = self.accept_tls().await? {
                    self.login.handle_tls(tls.encryption);
                }
            }
            LoginAction::Admit => self.login.handle_admission((self.door.admission)()),
            LoginAction::Judged { user, verdict } => self.wait_for(&user, verdict).await,
            LoginAction::LookUpUser { user, destination } => {
                let found = self.look_up(&user, &destination).await;
                self.credentials = found.credentials;
                self.login.handle_user(found.user);
            }
            LoginAction::ForgetUser { user } => self.context.users.forget(&user),
            LoginAction::VerifyPassword { user, destination, password, against } => {
                let outcome = self.check_password(&user, &destination, password, against).await;
                self.login.handle_password(outcome);
            }
            LoginAction::Cancel { pid, secret } => {
                return Ok(self.line.take().map(|stream| LoginOutcome::Cancel {
                    stream,
                    pid,
                    secret,
                }));
            }
            LoginAction::Done(done) => return Ok(self.finish(*done)),
            LoginAction::Close(reason) => {
                if let Some(line) = self.line.take() {
                    say_goodbye(line).await;
                }
                return Ok(Some(LoginOutcome::Closed(reason)));
            }
        }
        Ok(None)
    }

    /// Where rules say how to log in, the server's trust in this machine lets nobody in.
    fn asking(&self) -> PeerKind {
        if self.context.hba.is_some() { PeerKind::Remote } else { self.peer.kind() }
    }

    async fn look_up(&self, user: &str, destination: &Destination) -> Found {
        let mut pauses = LOGIN_ROOM_PAUSES.into_iter();
        loop {
            let found = self.context.users.look_up(user, destination, self.asking()).await;
            let full = matches!(&found.user, User::Refused(why, refusal) if is_full(*why, refusal));
            if !full || !self.make_room(pauses.next()).await {
                return found;
            }
        }
    }

    async fn check_password(
        &self,
        user: &str,
        destination: &Destination,
        password: Secret,
        against: PasswordCheck,
    ) -> PasswordOutcome {
        let users = &self.context.users;
        let mut pauses = LOGIN_ROOM_PAUSES.into_iter();
        loop {
            let (password, against) = (password.clone(), against.clone());
            let outcome = users.check_password(user, destination, password, against).await;
            let full = matches!(&outcome, PasswordOutcome::Refused(why, refusal) if is_full(*why, refusal));
            if !full || !self.make_room(pauses.next()).await {
                return outcome;
            }
        }
    }

    /// Has an idle connection given up, and waits for the room that it leaves. False: that was tried often enough.
    async fn make_room(&self, pause: Option<Duration>) -> bool {
        let Some(pause) = pause else { return false };
        (self.door.make_room)();
        tokio::time::sleep(pause).await;
        true
    }

    /// Holds the answer back after many failures; whoever else logs in does not notice.
    async fn wait_for(&self, user: &str, verdict: Verdict) {
        let wait = {
            let mut throttle = self.door.throttle.lock().unwrap_or_else(PoisonError::into_inner);
            throttle.handle_verdict(self.peer.address(), user, verdict, std::time::Instant::now())
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn finish(&mut self, done: LoginDone) -> Option<LoginOutcome> {
        let LoginDone { request, proven, message } = done;
        let stream = self.line.take()?;
        let credentials = self.credentials.take().unwrap_or_else(|| proven.into());
        let credentials = match (credentials, &self.context.own_user) {
            (Credentials::None, Some((user, own))) if **user == *request.user => own.clone(),
            (credentials, _) => credentials,
        };
        Some(LoginOutcome::Done(Box::new(LoggedIn {
            stream,
            user: request.user,
            database: request.database,
            parameters: request.parameters,
            replication: request.replication,
            minor: request.minor,
            credentials,
            pending: std::mem::take(&mut *self.input),
            unsent: message,
        })))
    }

    fn line(&mut self) -> io::Result<&mut Stream> {
        self.line.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut chunk = Zeroizing::new([0; READ_BYTES]);
        // The machine refuses longer messages from their header, so that this is never what stops
        // one.
        let room = Login::INPUT_BYTES_MAX.saturating_sub(self.input.len()).min(READ_BYTES);
        let bytes = self.line()?.read(&mut chunk[..room]).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&chunk[..bytes]);
        Ok(())
    }

    fn forget_input(&mut self, taken: usize) {
        zeroize::Zeroize::zeroize(&mut self.input[..taken]);
        self.input.drain(..taken);
    }

    /// Looks at the first byte without taking it: a ClientHello goes to TLS as a whole.
    async fn accept_direct_tls(&mut self) -> io::Result<()> {
        let Some(Stream::Plain(Socket::Tcp(tcp))) = &self.line else { return Ok(()) };
        if self.context.tls.is_none() || !self.input.is_empty() {
            return Ok(());
        }
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first == [TLS_HANDSHAKE]
            && let Some(tls) = self.accept_tls().await?
        {
            self.login.handle_direct_tls(tls.encryption, tls.alpn.as_deref());
        }
        Ok(())
    }

    /// The handshake; `None` when it failed and the login with it.
    async fn accept_tls(&mut self) -> io::Result<Option<Tls>> {
        let (Some(Stream::Plain(socket)), Some(acceptor)) = (self.line.take(), &self.context.tls)
        else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (acceptor, end_point) = acceptor.acceptor();
        match acceptor.accept(socket).await {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let certificate_name = session
                    .peer_certificates()
                    .and_then(|chain| chain.first())
                    .and_then(common_name);
                let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
                self.line = Some(Stream::TlsAccepted(Box::new(stream)));
                let encryption = Encryption::Tls { certificate_name, end_point };
                Ok(Some(Tls { encryption, alpn }))
            }
            Err(error) => {
                tracing::debug!(%error, "TLS handshake with a client failed");
                self.login.fail(CloseReason::TlsFailed);
                Ok(None)
            }
        }
    }
}

struct Tls {
    encryption: Encryption,
    alpn: Option<Vec<u8>>,
}

/// Ends our direction and lets the client read: a socket closed with bytes unread is reset, and our
/// message is lost.
async fn say_goodbye(mut line: Stream) {
    let linger = async {
        line.shutdown().await?;
        let mut chunk = [0; READ_BYTES];
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES_MAX {
            match line.read(&mut chunk).await? {
                0 => break,
                bytes => thrown_away += bytes,
            }
        }
        io::Result::Ok(())
    };
    // It is the client that gains by it; when it does not, the socket is closed all the same.
    let _ = timeout(LINGER_TIME_MAX, linger).await;
}
