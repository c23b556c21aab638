//! One raw connection over a blocking socket: sends bytes, reads messages, keeps a transcript.

use crate::message::Message;
use crate::pipeline::{pipeline, startup, untyped};
use crate::url::Url;
use postgres_protocol::authentication::{md5_hash, sasl};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A message comes within this, or the test fails.
const READ_TIME_MAX: Duration = Duration::from_secs(20);
const PROTOCOL_3_0: u32 = 0x0003_0000;
const CANCEL_REQUEST: u32 = 80_877_102;

/// A client of PostgreSQL or Tidegate. Panics name the messages read so far.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    address: String,
    transcript: Vec<String>,
    /// What the server reported by ParameterStatus, the last value of each.
    pub parameters: BTreeMap<String, String>,
    /// Body of BackendKeyData: process id and secret.
    pub backend_key: Vec<u8>,
}

impl Client {
    /// Connected and logged in.
    #[track_caller]
    pub fn connect(url: &str) -> Client {
        Client::connect_with(url, &[])
    }

    /// The same with more start-up parameters.
    #[track_caller]
    pub fn connect_with(url: &str, parameters: &[(&str, &str)]) -> Client {
        match Client::try_connect(url, parameters) {
            Ok(client) => client,
            Err(error) => panic!("login at {url} was refused: {}", error.describe()),
        }
    }

    /// Logs in; a refusal is the server's ErrorResponse.
    #[track_caller]
    pub fn try_connect(url: &str, parameters: &[(&str, &str)]) -> Result<Client, Message> {
        let url = Url::parse(url);
        let mut client = Client::open(&url.address());
        let mut pairs = vec![("user", url.user.as_str()), ("database", url.database.as_str())];
        pairs.extend(parameters);
        client.send(startup(PROTOCOL_3_0, &pairs));
        client.log_in(&url.user, &url.password)?;
        client.transcript.clear();
        Ok(client)
    }

    /// Only connected: nothing is sent yet.
    #[track_caller]
    pub fn open(address: &str) -> Client {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("could not connect to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(READ_TIME_MAX)).unwrap();
        stream.set_write_timeout(Some(READ_TIME_MAX)).unwrap();
        Client {
            stream,
            unread: Vec::new(),
            address: address.to_owned(),
            transcript: Vec::new(),
            parameters: BTreeMap::new(),
            backend_key: Vec::new(),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            self.fail(&format!("could not send: {error}"));
        }
    }

    /// The next message; panics at the end of the connection.
    #[track_caller]
    pub fn read_message(&mut self) -> Message {
        match self.read_message_or_end() {
            Some(message) => message,
            None => self.fail("the connection ended"),
        }
    }

    /// The next message, or nothing when the other side has closed the connection.
    #[track_caller]
    pub fn read_message_or_end(&mut self) -> Option<Message> {
        if !self.fill(5) {
            self.transcript.push("(end)".to_owned());
            return None;
        }
        let length: [u8; 4] = self.unread[1..5].try_into().unwrap();
        let total = 1 + usize::try_from(u32::from_be_bytes(length)).unwrap();
        if !self.fill(total) {
            self.fail("the connection ended inside a message");
        }
        let message = Message { tag: self.unread[0], body: self.unread[5..total].to_vec() };
        self.unread.drain(..total);
        self.note(&message);
        Some(message)
    }

    /// All messages up to ReadyForQuery, which is the last one.
    #[track_caller]
    pub fn read_until_ready(&mut self) -> Vec<Message> {
        self.read_until(b'Z')
    }

    /// All messages up to the first with this tag, which is the last one.
    #[track_caller]
    pub fn read_until(&mut self, tag: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.read_message());
            if messages.last().is_some_and(|message| message.tag == tag) {
                return messages;
            }
        }
    }

    /// Reads exactly these messages: tags by spaces, where `Z` may carry its status and `E` and `N` their SQLSTATE:
    /// `client.expect("1 2 D D C ZI")`, `client.expect("E:42P05 ZI")`. `(end)` is the end of the connection.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut seen = Vec::new();
        for wanted_one in wanted.split_whitespace() {
            let message = self.read_message_or_end();
            seen.push(
                message.as_ref().map_or("(end)".to_owned(), |message| short(message, wanted_one)),
            );
            if seen.last().is_some_and(|seen| seen != wanted_one) {
                self.fail(&format!("wanted {wanted}, saw {} …", seen.join(" ")));
            }
            messages.extend(message);
        }
        messages
    }

    /// Runs a simple query; its messages up to ReadyForQuery.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(pipeline().query(sql));
        self.read_until_ready()
    }

    /// The first column of the first row of a simple query that succeeds.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> Option<String> {
        let messages = self.query(sql);
        if let Some(error) = messages.iter().find(|message| message.tag == b'E') {
            self.fail(&format!("{sql} failed: {}", error.describe()));
        }
        messages.iter().find(|message| message.tag == b'D')?.row().swap_remove(0)
    }

    /// The process of the server that runs the client's statements: `pg_backend_pid()` alone is the client's own number.
    #[track_caller]
    pub fn server_pid(&mut self) -> String {
        self.value("SELECT pid FROM pg_backend_pid() AS pid").expect("a number")
    }

    /// The process that the client was told at login.
    pub fn told_pid(&self) -> i32 {
        i32::from_be_bytes(self.backend_key[..4].try_into().expect("a key"))
    }

    /// Whether nothing arrives within this time. A look at the wire, not a pause: keep it short.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let silent = self.unread.is_empty()
            && matches!(
                self.stream.peek(&mut [0]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
            );
        self.stream.set_read_timeout(Some(READ_TIME_MAX)).unwrap();
        silent
    }

    /// From now on the system keeps about so many bytes that have not been read, and makes the other side wait. Without
    /// this it keeps up to tens of MB for a reader that was once fast.
    #[track_caller]
    pub fn keep_unread_bytes(&self, bytes: usize) {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(bytes).unwrap();
    }

    /// Sends a CancelRequest for this session over a connection of its own and waits until that is closed.
    #[track_caller]
    pub fn cancel(&self) {
        self.canceller()();
    }

    /// What does that from another thread.
    pub fn canceller(&self) -> impl FnOnce() + Send + 'static {
        let (address, key) = (self.address.clone(), self.backend_key.clone());
        move || {
            let mut canceller = Client::open(&address);
            let mut body = CANCEL_REQUEST.to_be_bytes().to_vec();
            body.extend_from_slice(&key);
            canceller.send(untyped(&body));
            canceller.expect("(end)");
        }
    }

    /// Answers what the server asks after a StartupMessage, up to the first ReadyForQuery.
    #[track_caller]
    pub fn log_in(&mut self, user: &str, password: &str) -> Result<(), Message> {
        loop {
            let message = self.read_message();
            match message.tag {
                b'R' => self.authenticate(user, password, &message)?,
                b'K' => self.backend_key = message.body,
                b'E' => return Err(message),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// One byte that is no message: the answer to SSLRequest or GSSENCRequest.
    #[track_caller]
    pub fn read_byte(&mut self) -> u8 {
        if !self.fill(1) {
            self.fail("the connection ended");
        }
        self.unread.remove(0)
    }

    /// Everything read since the login, one line a message.
    pub fn transcript(&self) -> &[String] {
        &self.transcript
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn authenticate(
        &mut self,
        user: &str,
        password: &str,
        request: &Message,
    ) -> Result<(), Message> {
        let answer = |text: &str| pipeline().message(b'p', &[text.as_bytes(), b"\0"].concat());
        match u32::from_be_bytes(request.body[..4].try_into().unwrap()) {
            0 => {}
            3 => self.send(answer(password)),
            5 => {
                let salt = request.body[4..8].try_into().unwrap();
                self.send(answer(&md5_hash(user.as_bytes(), password.as_bytes(), salt)));
            }
            10 => self.authenticate_by_scram(password)?,
            other => self.fail(&format!("authentication request {other} is not known here")),
        }
        Ok(())
    }

    fn authenticate_by_scram(&mut self, password: &str) -> Result<(), Message> {
        let binding = sasl::ChannelBinding::unsupported();
        let mut scram = sasl::ScramSha256::new(password.as_bytes(), binding);
        let first = scram.message().to_vec();
        let mut body = [sasl::SCRAM_SHA_256.as_bytes(), b"\0"].concat();
        body.extend(u32::try_from(first.len()).unwrap().to_be_bytes());
        body.extend(first);
        self.send(pipeline().message(b'p', &body));
        scram.update(&self.sasl_data(11)?).expect("the server's first SCRAM message");
        self.send(pipeline().message(b'p', scram.message()));
        scram.finish(&self.sasl_data(12)?).expect("the server's proof that it knows the password");
        Ok(())
    }

    fn sasl_data(&mut self, kind: u32) -> Result<Vec<u8>, Message> {
        let message = self.read_message();
        if message.tag == b'E' {
            return Err(message);
        }
        assert_eq!(message.body[..4], kind.to_be_bytes(), "{message:?}");
        Ok(message.body[4..].to_vec())
    }

    /// Has at least `length` unread bytes; false when the connection ends before.
    #[track_caller]
    fn fill(&mut self, length: usize) -> bool {
        let mut chunk = [0; 16_384];
        while self.unread.len() < length {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => self.fail(&format!("could not read: {error}")),
            }
        }
        true
    }

    fn note(&mut self, message: &Message) {
        let line = message.describe();
        if let Some((name, value)) = line.strip_prefix("S ").and_then(|line| line.split_once('=')) {
            self.parameters.insert(name.to_owned(), value.to_owned());
        }
        self.transcript.push(line);
    }

    #[track_caller]
    fn fail(&self, problem: &str) -> ! {
        let last = self.transcript.len().saturating_sub(20);
        panic!(
            "{problem}\nread from {} so far:\n{}",
            self.address,
            self.transcript[last..].join("\n")
        )
    }
}

/// A message as shortly as `wanted` is written.
fn short(message: &Message, wanted: &str) -> String {
    let tag = char::from(message.tag);
    match message.tag {
        b'Z' if wanted.len() > 1 => format!("Z{}", message.status()),
        b'E' | b'N' => {
            if wanted.contains(':') || !wanted.starts_with(tag) {
                format!("{tag}:{}", message.sqlstate())
            } else {
                tag.to_string()
            }
        }
        _ => tag.to_string(),
    }
}
