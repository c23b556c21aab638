//! `primary_conninfo` of a replica, made to name another primary.

use std::fmt;

/// The text is no list of `keyword = value` as libpq reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConninfoError;

impl fmt::Display for ConninfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("primary_conninfo is not a list of keyword = value")
    }
}

impl std::error::Error for ConninfoError {}

/// Keywords that say where a server is.
const PLACE: [&str; 3] = ["host", "hostaddr", "port"];

/// The same connection (user, password, application name, TLS, …) to another place.
///
/// Source: "Keyword/Value Connection Strings" in libpq's documentation, and `conninfo_parse`: the last of several wins.
///
/// # Errors
/// The text cannot be read.
pub fn point_to(conninfo: &str, host: &str, port: u16) -> Result<String, ConninfoError> {
    let pairs = read(conninfo)?;
    let mut out = format!("host={} port={port}", quote(host));
    for (keyword, value) in pairs {
        if !PLACE.contains(&keyword.as_str()) {
            out.push_str(&format!(" {keyword}={}", quote(&value)));
        }
    }
    Ok(out)
}

fn quote(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@%+".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut quoted = String::from("'");
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

fn read(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).ok_or(ConninfoError)?;
        let (keyword, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').ok_or(ConninfoError)?;
        let (value, after) = read_value(value.trim_start())?;
        if keyword.is_empty() {
            return Err(ConninfoError);
        }
        pairs.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// One value, and what follows it.
fn read_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, &text[at + 1..])),
            c if !is_quoted && c.is_ascii_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if is_quoted { Err(ConninfoError) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_place_changes_and_the_rest_stays() {
        let before = "user=postgres passfile='/var/p q/pgpass' channel_binding=prefer host=10.0.0.1 hostaddr=10.0.0.1 port = 5432 \
                      application_name='it''s'";
        // Two quotes in a row end one value; what follows must be a keyword again.
        assert_eq!(point_to(before, "h", 1), Err(ConninfoError));
        let before = before.replace("it''s", r"it\'s");
        assert_eq!(
            point_to(&before, "/tmp/a b", 5433).as_deref(),
            Ok(
                r"host='/tmp/a b' port=5433 user=postgres passfile='/var/p q/pgpass' channel_binding=prefer application_name='it\'s'"
            )
        );
        assert_eq!(point_to("", "h", 1).as_deref(), Ok("host=h port=1"));
        for bad in ["host", "=x", "a='x", "a b=c"] {
            assert_eq!(point_to(bad, "h", 1), Err(ConninfoError), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn values_survive(values in proptest::collection::vec("[ -~]{0,12}", 0..5)) {
            let pairs: Vec<(String, String)> =
                values.iter().enumerate().map(|(n, value)| (format!("k{n}"), value.clone())).collect();
            let text: Vec<String> =
                pairs.iter().map(|(keyword, value)| format!("{keyword}={}", quote(value))).collect();
            prop_assert_eq!(read(&text.join(" ")), Ok(pairs.clone()));
            let moved = point_to(&text.join(" "), "h", 5).unwrap();
            prop_assert_eq!(&read(&moved).unwrap()[2..], pairs.as_slice());
        }
    }
}
