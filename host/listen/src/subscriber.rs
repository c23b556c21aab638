//! One client that listens: its channels, and what it has not been told yet.

use super::Mark;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidegate_core::channels::{Channel, Channels};
use tidegate_core::limits::{NOTIFICATION_BYTES_OVERHEAD, NOTIFICATIONS_WAITING_BYTES_MAX};
use tidegate_wire::backend;

/// Whether a client has been told everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Whole,
    /// The connection was lost that listens for it; it listens again when this mark has passed.
    Lost(Mark),
    /// It did not take what it was told, until there was no more room.
    Overrun,
}

#[derive(Debug)]
pub(super) struct Notification {
    pub(super) process: i32,
    pub(super) channel: Channel,
    pub(super) payload: Arc<[u8]>,
}

impl Notification {
    fn bytes(&self) -> usize {
        self.payload.len() + self.channel.name().len() + NOTIFICATION_BYTES_OVERHEAD
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    /// The process that it was told is its own.
    pub(super) told: i32,
    /// From which mark on it listens to each.
    channels: BTreeMap<Channel, Mark>,
    waiting: VecDeque<Notification>,
    waiting_bytes: usize,
    pub(super) standing: Standing,
}

impl Subscriber {
    pub(super) fn new(told: i32) -> Self {
        Self {
            told,
            channels: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            standing: Standing::Whole,
        }
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.keys()
    }

    /// Listens to these from now on, to new ones from `mark` on. Returns those that it had, and has no more.
    pub(super) fn change(&mut self, channels: &Channels, mark: Mark) -> Vec<Channel> {
        let had = self.channels.keys().filter(|channel| !channels.contains(channel.name()));
        let removed: Vec<Channel> = had.cloned().collect();
        for channel in &removed {
            self.channels.remove(channel);
        }
        for channel in channels.iter() {
            self.channels.entry(channel.clone()).or_insert(mark);
        }
        if !removed.is_empty() {
            // As PostgreSQL, which looks when it is about to tell.
            self.waiting.retain(|one| self.channels.contains_key(&one.channel));
            self.waiting_bytes = self.waiting.iter().map(Notification::bytes).sum();
        }
        removed
    }

    pub(super) fn has_nothing_new(&self, passed: Mark) -> bool {
        self.channels.values().all(|since| *since <= passed)
    }

    /// The connection is lost, and the next that is asked will be asked for this mark. Is it anything to this client?
    pub(super) fn lose(&mut self, next: Mark, passed: Mark) -> bool {
        let listened = self.channels.values().any(|since| *since <= passed);
        if listened && self.standing != Standing::Overrun {
            self.standing = Standing::Lost(next);
        }
        listened
    }

    /// Is it for this client, and is there reason to look?
    pub(super) fn push(&mut self, notification: Notification, passed: Mark) -> bool {
        let listens = self.channels.get(&notification.channel).is_some_and(|s| *s <= passed);
        if !listens || self.standing == Standing::Overrun {
            return false;
        }
        self.waiting_bytes += notification.bytes();
        self.waiting.push_back(notification);
        if self.waiting_bytes > NOTIFICATIONS_WAITING_BYTES_MAX {
            self.standing = Standing::Overrun;
            self.waiting = VecDeque::new();
            self.waiting_bytes = 0;
        }
        true
    }

    pub(super) fn has_notifications(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn take(&mut self, bytes_max: usize, out: &mut Vec<u8>) {
        while out.len() < bytes_max
            && let Some(one) = self.waiting.pop_front()
        {
            self.waiting_bytes -= one.bytes();
            let name = one.channel.name().as_bytes();
            backend::notification_response(out, one.process, name, &one.payload);
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}
