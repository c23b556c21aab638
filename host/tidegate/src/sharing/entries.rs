//! Entries that applications put, for all who share: in Redis alone, so that what one puts or takes all find so.
//!
//! Each call is one step in Redis. What is there is told only while this process hears all others when it asks and when it is
//! answered, as with answers: whoever takes an entry elsewhere has not been heard by then ([`tidegate_cache::Membership`]). What cannot be done now
//! is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_cache::{Entry, Glob};
use tokio::sync::oneshot;

use super::inbox::Order;
use super::scripts::Script;
use super::{Sharing, tags};
use crate::redis_connection::Lost;

/// Entries that are there at a time: of more, those that end first make room.
const ENTRIES_MAX: usize = 10_000;
/// Between tags, which hold none.
const SEPARATOR: char = '\0';

/// A call that somebody waits for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) script: Script,
    /// Behind life, member and session.
    pub(super) arguments: Vec<Vec<u8>>,
    pub(super) answer: oneshot::Sender<Vec<Vec<u8>>>,
}

/// What became of entries, as far as this process has asked.
#[derive(Debug, Default)]
pub struct SharedEntryCounts {
    /// There at the last call.
    pub entries: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub puts: AtomicU64,
    pub evictions: AtomicU64,
    pub invalidations: AtomicU64,
}

impl Sharing {
    /// The entry of this name.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn entry(&self, name: &str) -> Result<Option<Entry>, Lost> {
        let mut answer = self.call(Script::EntryGet, vec![name.into()]).await?.into_iter().skip(1);
        let found = match (answer.next(), answer.next(), answer.next(), answer.next()) {
            (Some(value), Some(content_type), Some(tags), Some(left)) => {
                read(value, &content_type, &tags, &left)
            }
            _ => None,
        };
        let count = &self.counts.entries;
        super::count(if found.is_some() { &count.hits } else { &count.misses });
        Ok(found)
    }

    /// Keeps an entry for so long.
    ///
    /// # Errors
    /// Why it is not kept, as far as that is known.
    pub async fn put_entry(&self, name: &str, entry: &Entry, ttl: Duration) -> Result<(), Lost> {
        let ttl = tags::milliseconds(ttl).to_string();
        let arguments = vec![
            name.into(),
            ttl.into(),
            ENTRIES_MAX.to_string().into(),
            entry.value.to_vec(),
            entry.content_type.as_bytes().to_vec(),
            entry.tags.join(&SEPARATOR.to_string()).into_bytes(),
        ];
        let answer = self.call(Script::EntryPut, arguments).await?;
        let count = &self.counts.entries;
        super::count(&count.puts);
        count.evictions.fetch_add(number(answer.get(2)), Ordering::Relaxed);
        Ok(())
    }

    /// Takes the entries of these names; how many were there.
    ///
    /// # Errors
    /// Why they are there still, as far as that is known.
    pub async fn take_entries(&self, names: &[&str]) -> Result<usize, Lost> {
        let names = names.iter().map(|name| (*name).into()).collect();
        self.take(Script::EntryTake, names).await
    }

    /// Takes all entries that have this tag.
    ///
    /// # Errors
    /// As for `take_entries`.
    pub async fn take_tagged(&self, tag: &str) -> Result<usize, Lost> {
        self.take(Script::EntryTakeTagged, vec![tag.into()]).await
    }

    /// Takes all entries whose names match that were there when it began.
    ///
    /// # Errors
    /// As for `take_entries`.
    pub async fn take_matching(&self, pattern: &Glob) -> Result<usize, Lost> {
        let names = self.call(Script::EntryNames, Vec::new()).await?;
        let names = names.into_iter().skip(2);
        let matches =
            |name: &Vec<u8>| std::str::from_utf8(name).is_ok_and(|name| pattern.matches(name));
        self.take(Script::EntryTake, names.filter(matches).collect()).await
    }

    /// Takes all entries.
    ///
    /// # Errors
    /// As for `take_entries`.
    pub async fn clear_entries(&self) -> Result<usize, Lost> {
        self.take(Script::EntryClear, Vec::new()).await
    }

    async fn take(&self, script: Script, arguments: Vec<Vec<u8>>) -> Result<usize, Lost> {
        let answer = self.call(script, arguments).await?;
        let taken = number(answer.get(2));
        self.counts.entries.invalidations.fetch_add(taken, Ordering::Relaxed);
        Ok(usize::try_from(taken).unwrap_or(usize::MAX))
    }

    /// Answers begin with a word, and most with how many entries there are.
    async fn call(&self, script: Script, arguments: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Lost> {
        let (sender, answer) = oneshot::channel();
        {
            let mut core = self.core();
            if !core.membership.may_serve(Instant::now()) {
                return Err(why(core.trouble.as_deref()));
            }
            let order = Order::Entries(Asked { script, arguments, answer: sender });
            self.send(&mut core, order).ok_or_else(|| why(None))?;
        }
        let answer = tokio::time::timeout(self.patience(), answer).await;
        let answer = answer.map_err(|_| why(Some("it does not answer in time")))?;
        let answer = answer.map_err(|_| why(None))?;
        // Somebody else may have done otherwise, elsewhere.
        if !self.may_serve(Instant::now()) {
            return Err(why(None));
        }
        if script != Script::EntryGet {
            self.counts.entries.entries.store(number(answer.get(1)), Ordering::Relaxed);
        }
        Ok(answer)
    }
}

fn why(trouble: Option<&str>) -> Lost {
    format!("entries are shared in Redis, and that is lost now: {}", trouble.unwrap_or("try again"))
}

fn number(digits: Option<&Vec<u8>>) -> u64 {
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or_default()
}

fn read(value: Vec<u8>, content_type: &[u8], tags: &[u8], left: &[u8]) -> Option<Entry> {
    let left: u64 = std::str::from_utf8(left).ok()?.parse().ok()?;
    let tags = std::str::from_utf8(tags).ok()?;
    let tags: Vec<Box<str>> =
        tags.split(SEPARATOR).filter(|tag| !tag.is_empty()).map(Into::into).collect();
    Some(Entry {
        value: value.into(),
        content_type: std::str::from_utf8(content_type).ok()?.into(),
        tags: Arc::from(tags),
        until: Instant::now() + Duration::from_millis(left),
    })
}
