//! A throw-away Redis, and the trouble that one makes.

use crate::tidegate::{leash, new_directory};
use crate::{free_port, wait_until};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// A running `redis-server`. Dropping it, or the end of the test program, kills it.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
    running: Option<(Child, Child)>,
}

impl Redis {
    /// Waits until it answers; `arguments` as on its command line.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Redis {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (port, directory) = (free_port().unwrap(), new_directory());
        let mut redis = Redis { port, directory, arguments, running: None };
        redis.start_again();
        redis
    }

    /// After `kill`, at the same port: with what it had saved.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        std::fs::create_dir_all(&self.directory).unwrap();
        let log = File::create(self.directory.join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(&self.arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let leash = leash(&child, &self.directory);
        self.running = Some((child, leash));
        wait_until(START_TIME_MAX, "Redis answers", || self.try_command("PING").is_some());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As nobody in particular.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection for commands of any words.
    #[track_caller]
    pub fn client(&self) -> RedisClient {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        RedisClient { stream: BufReader::new(stream) }
    }

    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// Runs a command of plain words; the first line of what it answers.
    #[track_caller]
    pub fn command(&self, words: &str) -> String {
        let answer = self.try_command(words);
        answer.unwrap_or_else(|| panic!("Redis does not answer {words}"))
    }

    fn try_command(&self, words: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(format!("{words}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let Some((mut child, leash)) = self.running.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        // Its folder stays for the next.
        let_go(leash);
    }

    /// SIGSTOP: connections stay open, and nobody answers.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let Some((child, _)) = &self.running else { return };
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        // SAFETY: kill touches no memory; the child is not reaped while we hold it, so the pid is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    List(Vec<Reply>),
    Nil,
    Error(String),
}

/// A connection to a Redis.
#[derive(Debug)]
pub struct RedisClient {
    stream: BufReader<TcpStream>,
}

impl RedisClient {
    #[track_caller]
    pub fn call<W: AsRef<str>>(&mut self, words: &[W]) -> Reply {
        let mut command = format!("*{}\r\n", words.len());
        for word in words.iter().map(AsRef::as_ref) {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(command.as_bytes()).unwrap();
        self.read()
    }

    fn read(&mut self) -> Reply {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().unwrap();
        match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(number()),
            "*" => Reply::List((0..number()).map(|_| self.read()).collect()),
            _ if number() < 0 => Reply::Nil,
            _ => {
                let mut text = vec![0; number() as usize + 2];
                self.stream.read_exact(&mut text).unwrap();
                text.truncate(text.len() - 2);
                Reply::Text(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }
}

fn let_go(mut leash: Child) {
    let _ = leash.kill();
    let _ = leash.wait();
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
