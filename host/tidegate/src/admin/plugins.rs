//! `/api/v1/plugins`: who answers in each slot, and orders to change that.

use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::json;
use tidegate_core::policy::Slot;
use tidegate_core::policy::canary::Share;
use tidegate_core::policy::seat::Mode;

use super::Control;
use super::reply::{Problem, Reply, json};
use crate::config::Signature;
use crate::plugins::{Intake, Order, Refusal, RefusalKind, Who};

/// The settings of an upload: JSON on one line, empty for `{}`.
const SETTINGS_HEADER: &str = "tidegate-config";
/// The Ed25519 signature of an upload, in base64.
const SIGNATURE_HEADER: &str = "tidegate-signature";
/// Of sessions, unless `share=` says otherwise.
const CANARY_SHARE_DEFAULT: u8 = 10;

/// An order that needs nothing but a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Promote,
    Withdraw,
    RollBack,
    Disable,
}

pub(super) fn list(control: &dyn Control) -> Reply {
    json(StatusCode::OK, &json!({ "slots": control.plugins() }))
}

pub(super) fn get(control: &dyn Control, slot: &str) -> Result<Reply, Problem> {
    Ok(json(StatusCode::OK, &control.plugin(named(slot)?)))
}

/// The order that an upload is.
pub(super) fn upload(
    slot: &str,
    query: &str,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Order, Problem> {
    let (slot, intake) = (named(slot)?, intake(query)?);
    let settings = match headers.get(SETTINGS_HEADER) {
        None => String::new(),
        Some(value) => settings(value.as_bytes())?,
    };
    let signature = match headers.get(SIGNATURE_HEADER) {
        None => None,
        Some(value) => {
            let signature = value.to_str().ok().and_then(Signature::from_base64);
            Some(signature.ok_or_else(|| {
                unprocessable("signature", "Tidegate-Signature is no Ed25519 signature in base64")
            })?)
        }
    };
    Ok(Order::Upload { slot, bytes, settings, signature, intake })
}

/// The order that new settings are.
pub(super) fn configure(slot: &str, query: &str, body: &[u8]) -> Result<Order, Problem> {
    Ok(Order::Configure { slot: named(slot)?, settings: settings(body)?, intake: intake(query)? })
}

pub(super) fn plain(slot: &str, plain: Plain) -> Result<Order, Problem> {
    let slot = named(slot)?;
    Ok(match plain {
        Plain::Promote => Order::Promote(vec![slot]),
        Plain::Withdraw => Order::Withdraw(slot),
        Plain::RollBack => Order::RollBack(slot),
        Plain::Disable => Order::Disable(slot),
    })
}

/// The candidates of several slots at once: `slots=routing,caching`.
pub(super) fn promote(query: &str) -> Result<Order, Problem> {
    let Some(("slots", names)) = query.split_once('=') else {
        return Err(bad_request("say which: slots=routing,caching"));
    };
    let mut slots = names.split(',').map(named).collect::<Result<Vec<Slot>, Problem>>()?;
    slots.sort();
    slots.dedup();
    Ok(Order::Promote(slots))
}

pub(super) async fn order(control: &dyn Control, order: Order, who: Who) -> Result<Reply, Problem> {
    match control.order_plugin(order, who).await {
        Ok(slots) => Ok(json(StatusCode::OK, &json!({ "slots": slots }))),
        Err(refusal) => Err(problem(refusal)),
    }
}

fn problem(refusal: Refusal) -> Problem {
    let (status, check) = match refusal.kind {
        RefusalKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Some("size")),
        RefusalKind::Check(check) => (StatusCode::UNPROCESSABLE_ENTITY, Some(check)),
        RefusalKind::Conflict => (StatusCode::CONFLICT, None),
        RefusalKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, None),
        RefusalKind::Storage => (StatusCode::INSUFFICIENT_STORAGE, None),
    };
    let problem = Problem::new(status).detail(refusal.detail);
    match check {
        Some(check) => problem.check(check),
        None => problem,
    }
}

fn named(slot: &str) -> Result<Slot, Problem> {
    Slot::named(slot).ok_or_else(|| {
        let names = Slot::ALL.map(Slot::name).join(", ");
        Problem::new(StatusCode::NOT_FOUND).detail(format!("no such slot; there are {names}"))
    })
}

fn settings(bytes: &[u8]) -> Result<String, Problem> {
    let wrong = |words: String| unprocessable("settings", words);
    let text =
        std::str::from_utf8(bytes).map_err(|_| wrong("the settings are not UTF-8".into()))?;
    if !text.trim().is_empty() {
        let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
        parsed.map_err(|error| wrong(format!("the settings are not a JSON object: {error}")))?;
    }
    Ok(text.trim().to_owned())
}

/// `mode=activate`, `mode=shadow&share=100`, `mode=canary&share=10`.
fn intake(query: &str) -> Result<Intake, Problem> {
    let (mut mode, mut share) = ("activate", None);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("mode", value)) => mode = value,
            Some(("share", value)) => {
                let percent = value.parse().ok().filter(|percent| *percent > 0);
                share = Some(
                    percent
                        .and_then(Share::percent)
                        .ok_or_else(|| bad_request("share is a percentage from 1 to 100"))?,
                );
            }
            _ => {
                let words =
                    "only mode=activate, shadow or canary and share=1 to 100 are understood here";
                return Err(bad_request(words));
            }
        }
    }
    let or = |percent: u8| share.or(Share::percent(percent));
    match (mode, or(100), or(CANARY_SHARE_DEFAULT)) {
        ("activate", ..) if share.is_none() => Ok(Intake::Activate),
        ("activate", ..) => Err(bad_request("share belongs to mode=shadow or mode=canary")),
        ("shadow", Some(share), _) => Ok(Intake::TryOut(Mode::Shadow(share))),
        ("canary", _, Some(share)) => Ok(Intake::TryOut(Mode::Canary(share))),
        _ => Err(bad_request("mode is activate, shadow or canary")),
    }
}

fn bad_request(words: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(words)
}

fn unprocessable(check: &'static str, words: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(words).check(check)
}
