//! Channels by name, as the server spells them.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The name of a channel, at most 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Arc<str>);

impl Channel {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Appends `LISTEN`, with the name quoted, and a semicolon.
    pub fn write_listen(&self, sql: &mut String) {
        self.write("LISTEN ", sql);
    }

    /// Appends `UNLISTEN`, likewise.
    pub fn write_unlisten(&self, sql: &mut String) {
        self.write("UNLISTEN ", sql);
    }

    fn write(&self, command: &str, sql: &mut String) {
        sql.push_str(command);
        sql.push('"');
        for character in self.0.chars() {
            if character == '"' {
                sql.push('"');
            }
            sql.push(character);
        }
        sql.push_str("\";");
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The channels that one session listens to. Cheap to clone; a set of none takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels(Option<Arc<BTreeSet<Channel>>>);

impl Channels {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |channels| channels.len())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|channels| channels.contains(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.0.iter().flat_map(|channels| channels.iter())
    }

    /// What brings a session that listens to `self` to listen to `wanted`; `None` when it does.
    pub fn switch_sql(&self, wanted: &Self) -> Option<String> {
        if self == wanted {
            return None;
        }
        let mut sql = String::new();
        if wanted.is_empty() {
            sql.push_str("UNLISTEN *");
            return Some(sql);
        }
        let missing = |from: &Self| {
            let from = from.clone();
            move |channel: &&Channel| !from.contains(channel.name())
        };
        self.iter().filter(missing(wanted)).for_each(|channel| channel.write_unlisten(&mut sql));
        wanted.iter().filter(missing(self)).for_each(|channel| channel.write_listen(&mut sql));
        Some(sql)
    }
}

impl<'a> FromIterator<&'a str> for Channels {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        names.into_iter().map(Channel::new).collect()
    }
}

impl FromIterator<Channel> for Channels {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        let channels: BTreeSet<Channel> = channels.into_iter().collect();
        Self((!channels.is_empty()).then(|| Arc::new(channels)))
    }
}
