//! LISTEN for many clients over one connection of ours: who wants which channel, and who is told what, in which order.
//!
//! One [`Hub`] serves the clients of one database and user on one worker. What it decides is carried out by the shell, which
//! owns the connection:
//!
//! ```text
//!            handle_connected            poll_query            handle_ready
//!   Down ───────────────────────▶ Idle ─────────────▶ Asked ─────────────────▶ Idle
//!     ▲                             │                   │
//!     └──────── handle_lost ────────┴───────────────────┘
//! ```
//!
//! PostgreSQL keeps all notifications of a database in one queue, in the order of the commits, and a session is sent what is
//! there for it before the ReadyForQuery of whatever it has asked. So a *mark*, a query of ours that has been answered, says:
//! all that was committed before it was asked has been told. On marks rest
//!
//! - LISTEN: the client is told that it listens when the mark after ours has passed, and nothing from before that mark.
//! - a client's own notifications: the answer to its COMMIT waits for a mark, and so comes after them.
//! - whose they are: a server's process belongs to a client from a mark after it was lent, to a mark before it is given back.
//!
//! Verbs: `want`, `lend`, `give_back`, `leave` by clients; `handle_*` and `poll_query` by the connection; `take_woken` says whom
//! to look at again, and then `is_settled`, `is_told_apart`, `has_notifications` and `standing` say why.

mod subscriber; // one client's queue
#[cfg(test)]
mod tests;

pub use subscriber::Standing;

use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use subscriber::{Notification, Subscriber};
use tidegate_core::channels::{Channel, Channels};
use tidegate_core::ids::ClientId;

/// A point in the notifications of a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The connection that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Idle,
    /// A query of ours is under way, and whoever waits for this mark or one before waits for it.
    Asked(Mark),
}

/// A channel that somebody wants, or that the connection still listens to.
#[derive(Debug, Default)]
struct Interest {
    clients: FxHashSet<ClientId>,
    listened: Listened,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listened {
    #[default]
    No,
    Yes,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    clients: FxHashMap<ClientId, Subscriber>,
    channels: BTreeMap<Channel, Interest>,
    /// Whose transactions a server's process runs, from which mark on.
    senders: FxHashMap<i32, (ClientId, Mark)>,
    link: Link,
    /// The last mark that somebody waits for.
    wanted: Mark,
    passed: Mark,
    /// Who waits for which, oldest first.
    waiters: VecDeque<(Mark, ClientId)>,
    /// Times the connection was lost while somebody listened.
    losses: u64,
    woken: Vec<ClientId>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            clients: FxHashMap::default(),
            channels: BTreeMap::new(),
            senders: FxHashMap::default(),
            link: Link::Down,
            wanted: Mark(0),
            passed: Mark(0),
            waiters: VecDeque::new(),
            losses: 0,
            woken: Vec::new(),
        }
    }
}

impl Hub {
    /// Does anybody listen, or want to?
    pub fn is_wanted(&self) -> bool {
        !self.clients.is_empty()
    }

    pub fn is_connected(&self) -> bool {
        self.link != Link::Down
    }

    /// Clients that listen, and channels that are listened to.
    pub fn counts(&self) -> (usize, usize) {
        (self.clients.len(), self.channels.len())
    }

    // --- clients ----------------------------------------------------------------------------------------------

    /// From now on the client, which was told `told` for its process, listens to these channels and to no others. It is to be
    /// told so when the mark has passed.
    pub fn want(&mut self, client: ClientId, told: i32, channels: &Channels) -> Mark {
        let mark = self.mark();
        let subscriber = self.clients.entry(client).or_insert_with(|| Subscriber::new(told));
        for channel in subscriber.change(channels, mark) {
            if let Some(interest) = self.channels.get_mut(&channel) {
                interest.clients.remove(&client);
            }
        }
        for channel in channels.iter() {
            self.channels.entry(channel.clone()).or_default().clients.insert(client);
        }
        if channels.is_empty() {
            self.clients.remove(&client);
        }
        self.forget_unwanted();
        if !self.is_settled(client, mark) {
            self.waiters.push_back((mark, client));
        }
        mark
    }

    /// The server's process runs this client's transactions from now on. None may be sent before it is told apart: what comes
    /// from there earlier was sent by others.
    pub fn lend(&mut self, client: ClientId, process: i32) {
        // What nobody hears needs no sender.
        let mut mark = self.passed;
        if self.link != Link::Down {
            mark = self.mark();
            self.waiters.push_back((mark, client));
        }
        self.senders.insert(process, (client, mark));
    }

    /// The server goes to others.
    pub fn give_back(&mut self, client: ClientId, process: i32) {
        if self.senders.get(&process).is_some_and(|(sender, _)| *sender == client) {
            self.senders.remove(&process);
        }
    }

    /// The client is gone.
    pub fn leave(&mut self, client: ClientId) {
        self.senders.retain(|_, (sender, _)| *sender != client);
        self.waiters.retain(|(_, waiter)| *waiter != client);
        let Some(subscriber) = self.clients.remove(&client) else { return };
        for channel in subscriber.channels() {
            if let Some(interest) = self.channels.get_mut(channel) {
                interest.clients.remove(&client);
            }
        }
        self.forget_unwanted();
    }

    /// Is the server's process known to be the client's, so that it may run something?
    pub fn is_told_apart(&self, client: ClientId, process: i32) -> bool {
        let known = self.senders.get(&process);
        known.is_none_or(|(sender, mark)| *sender != client || self.passed >= *mark)
    }

    /// Does the client listen to what it wanted, and has it been told what was committed before? While the connection is down
    /// nothing is told; then it is enough that nothing is new.
    pub fn is_settled(&self, client: ClientId, mark: Mark) -> bool {
        let old = || self.clients.get(&client).is_none_or(|one| one.has_nothing_new(self.passed));
        self.passed >= mark || self.link == Link::Down && old()
    }

    /// Appends what the client is to be told to `out`, oldest first, up to about `bytes_max`.
    pub fn take_notifications(&mut self, client: ClientId, bytes_max: usize, out: &mut Vec<u8>) {
        if let Some(subscriber) = self.clients.get_mut(&client) {
            subscriber.take(bytes_max, out);
        }
    }

    pub fn has_notifications(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(Subscriber::has_notifications)
    }

    /// Whether all that the client was to be told has been, or will be.
    pub fn standing(&self, client: ClientId) -> Standing {
        self.clients.get(&client).map_or(Standing::Whole, |subscriber| subscriber.standing)
    }

    /// The client has been told that notifications may have been lost.
    pub fn forgive(&mut self, client: ClientId) {
        if let Some(subscriber) = self.clients.get_mut(&client) {
            subscriber.standing = Standing::Whole;
        }
    }

    /// Clients whose mark has passed, who have notifications waiting, or who have lost some.
    pub fn take_woken(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.woken)
    }

    fn mark(&mut self) -> Mark {
        self.wanted.0 += 1;
        self.wanted
    }

    /// Has the connection asked something, so that it is known whether it lives.
    pub fn check(&mut self) {
        self.mark();
    }

    /// How often those who listened had to be told of a loss.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// A channel that nobody wants is kept until the connection has been told.
    fn forget_unwanted(&mut self) {
        let is_down = self.link == Link::Down;
        self.channels.retain(|_, interest| {
            !interest.clients.is_empty() || (interest.listened == Listened::Yes && !is_down)
        });
    }

    // --- the connection ---------------------------------------------------------------------------------------

    /// A fresh connection, which listens to nothing yet.
    pub fn handle_connected(&mut self) {
        self.link = Link::Idle;
        self.mark();
    }

    /// The connection is gone. What was committed since it last told is lost, until the next has been told what to listen to.
    pub fn handle_lost(&mut self) {
        self.link = Link::Down;
        for interest in self.channels.values_mut() {
            interest.listened = Listened::No;
        }
        self.forget_unwanted();
        let next = Mark(self.wanted.0 + 1);
        let mut lost = false;
        for (client, subscriber) in &mut self.clients {
            if subscriber.lose(next, self.passed) {
                lost = true;
                self.waiters.push_back((next, *client));
            }
            self.woken.push(*client);
        }
        self.losses += u64::from(lost);
        // There is nothing to tell apart any more.
        for (client, mark) in self.senders.values_mut() {
            *mark = self.passed;
            self.woken.push(*client);
        }
    }

    /// What to ask the connection next; an empty text is a query as well.
    pub fn poll_query(&mut self) -> Option<String> {
        if self.link != Link::Idle || self.wanted <= self.passed && !self.has_changes() {
            return None;
        }
        let mut sql = String::new();
        for (channel, interest) in &mut self.channels {
            let wanted = !interest.clients.is_empty();
            match (wanted, interest.listened) {
                (true, Listened::No) => channel.write_listen(&mut sql),
                (false, Listened::Yes) => channel.write_unlisten(&mut sql),
                _ => continue,
            }
            interest.listened = if wanted { Listened::Yes } else { Listened::No };
        }
        self.link = Link::Asked(self.wanted);
        Some(sql)
    }

    fn has_changes(&self) -> bool {
        self.channels
            .values()
            .any(|interest| interest.clients.is_empty() == (interest.listened == Listened::Yes))
    }

    /// What was asked has been answered.
    pub fn handle_ready(&mut self) {
        let Link::Asked(mark) = self.link else { return };
        (self.link, self.passed) = (Link::Idle, mark);
        while let Some((_, client)) = self.waiters.pop_front_if(|(waits, _)| *waits <= mark) {
            self.woken.push(client);
        }
        self.forget_unwanted();
    }

    /// `process` has notified `channel`.
    pub fn handle_notification(&mut self, process: i32, channel: &str, payload: &[u8]) {
        let Some((channel, interest)) = self.channels.get_key_value(channel) else { return };
        let sender = match self.senders.get(&process) {
            Some((client, mark)) if self.passed >= *mark => Some(*client),
            _ => None,
        };
        let sender = sender.and_then(|client| self.clients.get(&client)).map(|one| one.told);
        let payload: Arc<[u8]> = payload.into();
        for client in &interest.clients {
            let Some(subscriber) = self.clients.get_mut(client) else { continue };
            let told = match sender {
                Some(told) => told,
                // It would take it for its own.
                None if process == subscriber.told => 0,
                None => process,
            };
            let (channel, payload) = (channel.clone(), payload.clone());
            if subscriber.push(Notification { process: told, channel, payload }, self.passed) {
                self.woken.push(*client);
            }
        }
    }
}
