//! Reads that wait: for whoever shares what is kept, or for another read of the same that brings the answer.

use std::task::{Context, Poll, ready};

use tidegate_cache::Found;
use tidegate_core::ids::Priority;
use tidegate_core::plan::{PRIORITY_SETTING, Recall, priority_from_setting};

use super::shared::Answered;
use super::{Caching, Wanted};
use crate::data::clients::Client;
use crate::data::routing::Routing;
use crate::results::{Followed, Following, Leading, Run};
use crate::sharing::Looking;

/// What a unit waits for before it is looked for again.
#[derive(Debug)]
pub struct Later {
    wait: Wait,
    /// It has followed already.
    followed: Option<Followed>,
}

#[derive(Debug)]
enum Wait {
    Shared(Looking),
    Flight(Following),
}

/// What has come of that.
#[derive(Debug, Default)]
pub struct Come {
    /// What those who share have answered.
    pub(super) looked: Option<Answered>,
    pub(super) followed: Option<Followed>,
}

impl Later {
    pub(super) fn shared(looking: Looking, followed: Option<Followed>) -> Self {
        Self { wait: Wait::Shared(looking), followed }
    }

    /// Ready when it can be looked for again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Come> {
        match &mut self.wait {
            Wait::Shared(looking) => {
                let looked = ready!(looking.poll(cx));
                let looked = Some((looking.entry.clone(), looked));
                Poll::Ready(Come { looked, followed: self.followed })
            }
            Wait::Flight(following) => {
                let followed = Some(ready!(following.poll(cx)));
                Poll::Ready(Come { looked: None, followed })
            }
        }
    }
}

impl Caching {
    pub fn take_later(&mut self) -> Option<Later> {
        self.later.take()
    }

    /// For the next step of one client alone.
    pub fn set_come(&mut self, come: Come) {
        self.come = come;
    }
}

impl Routing {
    /// What is not there is brought by one read of all that want it at the same time: this one leads, or runs for itself, or
    /// follows (`None`), and is looked for again.
    pub(super) fn follow_or_lead(
        &mut self,
        client: &Client,
        next: &Recall<'_>,
        wanted: &Wanted,
        found: Found,
        followed: Option<Followed>,
    ) -> Option<(Found, Option<Leading>)> {
        let fill = match found {
            Found::Fill(fill) => fill,
            Found::Hit(..) if followed.is_some() => {
                self.caching.results.note_served();
                return Some((found, None));
            }
            Found::Hit(..) | Found::Pass | Found::Unseen => return Some((found, None)),
        };
        // Whoever goes before others waits for none of them.
        if followed.is_some_and(Followed::is_over) || self.is_critical(client, next) {
            return Some((Found::Fill(fill), None));
        }
        match self.caching.results.join(&wanted.key, &fill, followed) {
            Run::Leads(leading) => Some((Found::Fill(fill), Some(leading))),
            Run::Alone => Some((Found::Fill(fill), None)),
            Run::Landed => Some((self.look(client, wanted), None)),
            Run::Follows(following) => {
                self.caching.later = Some(Later { wait: Wait::Flight(following), followed: None });
                None
            }
        }
    }

    fn is_critical(&mut self, client: &Client, next: &Recall<'_>) -> bool {
        let told = priority_from_setting(next.settings.own(PRIORITY_SETTING));
        told == Priority::Critical
            || self.planned_priority(next.sql, next.strings, client.id.0) == Priority::Critical
    }
}
