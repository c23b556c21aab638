//! Clients that wait for a server connection: in order, critical before normal, and free to leave.

use super::Priority;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Instant;
use tidegate_core::ids::ClientId;

/// One waiting client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub client: ClientId,
    pub priority: Priority,
    pub since: Instant,
}

/// Two queues and an index. Joining, leaving and serving are O(1) amortised.
///
/// A client that leaves from the middle leaves a hole; holes never outnumber the waiters by more
/// than `HOLES_SLACK`, since the queue is packed then.
#[derive(Debug, Default)]
pub struct Waiters {
    critical: Lane,
    normal: Lane,
    /// Which lane, and the position counted from the start of the lane's life.
    places: FxHashMap<ClientId, (Priority, u64)>,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Option<Waiter>>,
    /// Position of the queue's first element.
    base: u64,
    holes: usize,
}

const HOLES_SLACK: usize = 64;

impl Waiters {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn contains(&self, client: ClientId) -> bool {
        self.places.contains_key(&client)
    }

    /// Joins at the end of its priority's queue. A client that already waits keeps its place.
    pub fn push(&mut self, waiter: Waiter) {
        if self.contains(waiter.client) {
            return;
        }
        let lane = self.lane(waiter.priority);
        let place = lane.base + lane.queue.len() as u64;
        lane.queue.push_back(Some(waiter));
        self.places.insert(waiter.client, (waiter.priority, place));
    }

    /// Who is served next.
    pub fn first(&self) -> Option<Waiter> {
        self.critical.first().or_else(|| self.normal.first())
    }

    pub fn pop(&mut self) -> Option<Waiter> {
        let waiter = self.first()?;
        self.remove(waiter.client);
        Some(waiter)
    }

    /// The one who has waited longest, of either priority.
    pub fn oldest(&self) -> Option<Waiter> {
        match (self.critical.first(), self.normal.first()) {
            (Some(critical), Some(normal)) if normal.since < critical.since => Some(normal),
            (Some(critical), _) => Some(critical),
            (None, normal) => normal,
        }
    }

    /// Leaves the queue; false when the client did not wait.
    pub fn remove(&mut self, client: ClientId) -> bool {
        let Some((priority, place)) = self.places.remove(&client) else { return false };
        let lane = self.lane(priority);
        lane.clear((place - lane.base) as usize);
        if lane.holes > lane.queue.len() / 2 + HOLES_SLACK {
            self.pack(priority);
        }
        true
    }

    fn lane(&mut self, priority: Priority) -> &mut Lane {
        match priority {
            Priority::Critical => &mut self.critical,
            Priority::Normal => &mut self.normal,
        }
    }

    fn pack(&mut self, priority: Priority) {
        let places = &mut self.places;
        let lane = match priority {
            Priority::Critical => &mut self.critical,
            Priority::Normal => &mut self.normal,
        };
        lane.queue.retain(Option::is_some);
        lane.holes = 0;
        for (offset, waiter) in lane.queue.iter().flatten().enumerate() {
            places.insert(waiter.client, (priority, lane.base + offset as u64));
        }
    }
}

impl Lane {
    /// The head is never a hole (see `clear`).
    fn first(&self) -> Option<Waiter> {
        self.queue.front().copied().flatten()
    }

    fn clear(&mut self, index: usize) {
        if let Some(entry) = self.queue.get_mut(index) {
            *entry = None;
            self.holes += 1;
        }
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.base += 1;
            self.holes -= 1;
        }
        while let Some(None) = self.queue.back() {
            self.queue.pop_back();
            self.holes -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn waiter(id: u64, priority: Priority, since: Instant) -> Waiter {
        Waiter { client: ClientId(id), priority, since }
    }

    #[test]
    fn holes_in_the_middle_are_packed_and_the_order_stays() {
        let start = Instant::now();
        let mut waiters = Waiters::default();
        for id in 0..1_000 {
            let since = start + Duration::from_millis(id);
            waiters.push(waiter(id, Priority::Normal, since));
        }
        for id in (1..999).filter(|id| id % 5 != 0) {
            assert!(waiters.remove(ClientId(id)));
            assert!(!waiters.remove(ClientId(id)));
            assert!(waiters.normal.holes <= waiters.normal.queue.len() / 2 + HOLES_SLACK);
        }
        let mut served = Vec::new();
        while let Some(waiter) = waiters.pop() {
            served.push(waiter.client.0);
        }
        let mut expected: Vec<u64> = (0..1_000).filter(|id| id % 5 == 0 || *id == 999).collect();
        expected.sort_unstable();
        assert_eq!(served, expected);
        assert!(waiters.is_empty() && waiters.normal.queue.is_empty());
    }

    #[test]
    fn critical_is_served_first_and_the_oldest_is_known() {
        let start = Instant::now();
        let mut waiters = Waiters::default();
        waiters.push(waiter(1, Priority::Normal, start));
        waiters.push(waiter(2, Priority::Critical, start + Duration::from_secs(1)));
        waiters.push(waiter(1, Priority::Critical, start)); // already waits: keeps its place
        assert_eq!(waiters.len(), 2);
        assert_eq!(waiters.oldest().map(|w| w.client), Some(ClientId(1)));
        assert_eq!(waiters.pop().map(|w| w.client), Some(ClientId(2)));
        assert_eq!(waiters.pop().map(|w| w.client), Some(ClientId(1)));
        assert_eq!(waiters.pop(), None);
    }
}
