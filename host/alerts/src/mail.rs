//! A letter as an e-mail: headers in ASCII, a text in base64 (RFC 5322, 2045, 2047).

use super::letter::Letter;
use super::time::rfc_5322;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::time::SystemTime;

/// A subject is cut after so many characters.
const SUBJECT_CHARS_MAX: usize = 160;
/// So many bytes are an encoded word of less than 75 characters.
const WORD_BYTES_MAX: usize = 42;
/// A line of base64.
const LINE_CHARS: usize = 76;

/// Who writes, to whom, and when.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    pub from: &'a str,
    pub to: &'a [String],
    pub at: SystemTime,
    /// Tells this message from all others.
    pub id: &'a str,
}

impl Mail<'_> {
    /// The whole message, with CRLF between lines; no line begins with a dot.
    pub fn message(&self, letter: &Letter) -> String {
        let Self { from, to, at, id } = *self;
        let mark = format!("[Tidegate] {}", letter.summary());
        let subject: String = mark.chars().take(SUBJECT_CHARS_MAX).collect();
        let domain = from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
        let mut message = String::new();
        let mut header = |name: &str, value: &str| {
            let _ = write!(message, "{name}: {value}\r\n");
        };
        header("From", &format!("Tidegate <{from}>"));
        header("To", &to.join(",\r\n "));
        header("Subject", &encoded(&subject));
        header("Date", &rfc_5322(at));
        header("Message-ID", &format!("<{id}@{domain}>"));
        header("Auto-Submitted", "auto-generated");
        header("MIME-Version", "1.0");
        header("Content-Type", "text/plain; charset=utf-8");
        header("Content-Transfer-Encoding", "base64");
        message.push_str("\r\n");
        let body = STANDARD.encode(letter.text().replace('\r', "").replace('\n', "\r\n"));
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
            message.push_str(line);
            message.push_str("\r\n");
            rest = after;
        }
        message
    }
}

/// As encoded words, whatever the text holds: no line break of it gets into the headers.
fn encoded(text: &str) -> String {
    let mut words = vec![String::new()];
    for character in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + character.len_utf8() <= WORD_BYTES_MAX => {
                word.push(character)
            }
            _ => words.push(character.to_string()),
        }
    }
    let words: Vec<String> =
        words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}
