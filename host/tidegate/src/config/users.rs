//! PgBouncer's `userlist.txt`: one `"user" "secret"` a line.
//!
//! Inside the quotes, `""` is a quote. Lines that are empty or begin with `;` or `#` say nothing;
//! text after the second string is ignored, as PgBouncer does.

use std::collections::BTreeMap;

use tidegate_wire::auth::{Secret, Verifier, md5};

/// The users of a file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, UserSecret>);

/// How a user's password is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSecret {
    Plain(Secret),
    /// `md5` and 32 hexadecimal digits: md5 of password then user, as PostgreSQL stores it.
    Md5(Secret),
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as PostgreSQL stores it.
    Scram(Verifier),
}

/// What is wrong with a users file, and where. Lines and columns count from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl Users {
    /// Reads a whole file.
    ///
    /// # Errors
    /// Every line that can't be read.
    pub fn parse(text: &str) -> Result<Self, Vec<UsersError>> {
        let mut users = BTreeMap::new();
        let mut lines_of = BTreeMap::new();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let fail = |column, message| UsersError { line: number, column, message };
            match parse_line(line) {
                Ok(None) => {}
                Err((column, message)) => errors.push(fail(column, message)),
                Ok(Some((user, secret))) => match lines_of.insert(user.clone(), number) {
                    Some(first) => {
                        errors.push(fail(1, format!("user {user:?} is on line {first} already")));
                    }
                    None => {
                        users.insert(user, secret);
                    }
                },
            }
        }
        if errors.is_empty() { Ok(Self(users)) } else { Err(errors) }
    }

    pub fn get(&self, user: &str) -> Option<&UserSecret> {
        self.0.get(user)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &UserSecret)> {
        self.0.iter().map(|(user, secret)| (user.as_str(), secret))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

type LineError = (usize, String);

fn parse_line(line: &str) -> Result<Option<(String, UserSecret)>, LineError> {
    let mut at = line.len() - line.trim_start().len();
    if line[at..].is_empty() || line[at..].starts_with([';', '#']) {
        return Ok(None);
    }
    let user = quoted(line, &mut at, "the user")?;
    if user.is_empty() {
        return Err((1, "the user is empty".to_owned()));
    }
    at += line[at..].len() - line[at..].trim_start().len();
    let column = line[..at].chars().count() + 1;
    let secret = quoted(line, &mut at, "the secret")?;
    let secret = classify(secret).map_err(|message| (column, message))?;
    Ok(Some((user, secret)))
}

/// Reads a quoted string at `at` and moves past it.
fn quoted(line: &str, at: &mut usize, what: &str) -> Result<String, LineError> {
    let column = line[..*at].chars().count() + 1;
    let mut rest = line[*at..]
        .strip_prefix('"')
        .ok_or_else(|| (column, format!("{what} is not in double quotes")))?;
    let mut text = String::new();
    loop {
        let end = rest.find('"').ok_or_else(|| (column, format!("{what} has no closing quote")))?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                text.push('"');
                rest = after;
            }
            None => break,
        }
    }
    *at = line.len() - rest.len();
    if text.contains('\0') {
        return Err((column, format!("{what} has a zero byte")));
    }
    Ok(text)
}

/// Tells the three kinds apart as PostgreSQL's get_password_type does: what only resembles a hash
/// is a password.
fn classify(secret: String) -> Result<UserSecret, String> {
    if md5::is_stored_hash(&secret) {
        return Ok(UserSecret::Md5(Secret::new(secret)));
    }
    if secret.starts_with("SCRAM-SHA-256$") {
        // Nobody has a password that begins so: a damaged verifier is worth an error.
        let shape = "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey";
        let verifier = Verifier::parse(&secret)
            .map_err(|_| format!("the secret is a damaged SCRAM verifier, not {shape}"))?;
        return Ok(UserSecret::Scram(verifier));
    }
    Ok(UserSecret::Plain(Secret::new(secret)))
}
