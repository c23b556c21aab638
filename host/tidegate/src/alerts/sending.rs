//! One letter to one receiver, bounded in time.

use std::time::Duration;

use tidegate_alerts::{Failure, Letter};
use tokio::time::timeout;

use super::{mail, web};
use crate::config::{AlertChannel, AlertReceiver};
use crate::tls::trusting;

/// Connecting, sending, and the answer.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// Why it was not taken; the words hold no secret.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) failure: Failure,
    pub(super) words: String,
}

impl Refused {
    pub(super) fn passing(words: impl ToString) -> Self {
        Self { failure: Failure::Passing, words: words.to_string() }
    }

    pub(super) fn finally(words: impl ToString) -> Self {
        Self { failure: Failure::Final, words: words.to_string() }
    }
}

pub(super) async fn send(receiver: &AlertReceiver, letter: &Letter) -> Result<(), Refused> {
    let late = |_| Refused::passing(format!("no answer within {} s", SEND_TIME_MAX.as_secs()));
    timeout(SEND_TIME_MAX, send_now(receiver, letter)).await.map_err(late)?
}

async fn send_now(receiver: &AlertReceiver, letter: &Letter) -> Result<(), Refused> {
    // The file may be another one by now, and letters are few.
    let tls = || trusting(&receiver.roots).map_err(Refused::passing);
    let (url, token, body) = match &receiver.channel {
        AlertChannel::Webhook { url, token } => (url, token.as_ref(), letter.webhook()),
        AlertChannel::Slack { url } => (url, None, letter.slack()),
        AlertChannel::PagerDuty { url, routing_key } => {
            (url, None, letter.pagerduty(routing_key.reveal()))
        }
        AlertChannel::Email { server, from, to, login } => {
            return mail::send(server, tls()?, login.as_ref(), (from, to), letter).await;
        }
    };
    let tls = if url.tls { Some(tls()?) } else { None };
    web::post(url, tls, token, body.to_string()).await
}
