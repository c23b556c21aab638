//! How a process comes to take part, and how it is lost: what it sends for that, and what it does with the answers.

use super::setup::{Mutant, Setup};
use super::{Joining, Order, World};
use std::time::Duration;

impl World {
    pub(super) fn connect(&mut self, who: usize) {
        self.processes[who].is_asking = true;
        let session = self.processes[who].membership.session() + 1;
        self.send(who, session, Order::Hello);
    }

    pub(super) fn beat(&mut self, who: usize) {
        let (now, tick) = (self.now(), self.tick);
        let process = &mut self.processes[who];
        (process.is_beating, process.beat_at) = (true, tick);
        let (heard, session) = (process.membership.begin_beat(now), process.membership.session());
        self.send(who, session, Order::Beat(heard));
    }

    pub(super) fn join(&mut self, who: usize) {
        let now = self.now();
        let membership = &mut self.processes[who].membership;
        let (heard, session) = (membership.begin_beat(now), membership.session());
        self.send(who, session, Order::Join(heard));
    }

    pub(super) fn lose(&mut self, who: usize) {
        let process = &mut self.processes[who];
        process.membership.handle_lost();
        process.connection += 1;
        (process.is_asking, process.is_beating, process.is_cut) = (false, false, false);
        (process.marks_left, process.joins, process.usable_at) = (0, None, None);
    }

    /// What of the two is spoken to, in the place of the one.
    pub(super) fn at<T>(&mut self, is_new: bool, act: impl FnOnce(&mut Self) -> T) -> T {
        let swap = |world: &mut Self| {
            if is_new && let Some(new) = &mut world.new {
                std::mem::swap(&mut world.redis, new);
            }
        };
        swap(self);
        let result = act(self);
        swap(self);
        result
    }

    pub(super) fn found(&mut self, who: usize, setup: &Setup) {
        let (life, number, run) = (self.redis.life, self.redis.number, self.run());
        let (start, tick) = (self.start, self.tick);
        let process = &mut self.processes[who];
        process.life = life;
        process.membership.handle_number(number);
        let usable_at = process.membership.usable_at(&run).map_or(tick, |at| {
            u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
        });
        let is_at_once = usable_at <= tick || setup.mutant == Mutant::MovesAtOnce;
        process.usable_at = Some(usable_at);
        if is_at_once {
            self.greeted(who);
        }
    }

    /// As Redis says it.
    pub(super) fn run(&self) -> String {
        self.redis.run.to_string()
    }

    /// What was found may be used.
    pub(super) fn greeted(&mut self, who: usize) {
        let run = self.run();
        let process = &mut self.processes[who];
        if process.usable_at.take().is_none() {
            return;
        }
        let flights = process.membership.handle_connected(&run);
        process.marks_left = flights.len();
        let session = process.membership.session();
        for (token, _) in &flights {
            self.send(who, session, Order::Mark(*token));
        }
        if flights.is_empty() {
            self.join(who);
        }
    }

    /// The wait after a join is over.
    pub(super) fn joined(&mut self, who: usize) {
        let now = self.now();
        let process = &mut self.processes[who];
        let Some((_, heard)) = process.joins.take() else { return };
        process.membership.handle_joined(now);
        (process.is_asking, process.is_beating) = (false, false);
        self.heard(who, heard);
    }

    pub(super) fn heard(&mut self, who: usize, (made_at, number, told): Joining) {
        let (now, made_at) = (self.now(), self.start + Duration::from_millis(made_at));
        let told: Vec<(u8, u64)> =
            (0..2_u8).filter_map(|id| Some((id, told[usize::from(id)]?))).collect();
        self.processes[who].membership.handle_beat(made_at, number, &told, now);
    }
}
