//! `GET /openapi.json`: the description of this API, kept by hand; a test holds it to the table of
//! routes.

use hyper::StatusCode;

use super::reply::{Reply, reply};

pub(super) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn get() -> Reply {
    reply(StatusCode::OK, "application/json", DOCUMENT)
}
