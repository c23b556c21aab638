//! `GET /api/v1/config`: the configuration in force, without its secrets.

use hyper::StatusCode;

use super::Control;
use super::reply::{Reply, json};
use crate::config::redact::redacted;

pub(super) fn get(control: &dyn Control) -> Reply {
    json(StatusCode::OK, &redacted(&control.config()))
}
