//! Core's enums as words of JSON. Each mirror is checked by the compiler against what it mirrors.

use serde::{Deserialize, Serialize};
use tidegate_core::statement;

#[derive(Serialize, Deserialize)]
#[serde(remote = "statement::ShapeKind", rename_all = "snake_case")]
pub(super) enum Kind {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    Ddl,
    Transaction,
    Session,
    Utility,
    Multiple,
    Empty,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "statement::Access", rename_all = "snake_case")]
pub(super) enum Access {
    Reads,
    Writes,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "statement::Comparison", rename_all = "snake_case")]
pub(super) enum Comparison {
    Equal,
    Range,
    In,
    Like,
    Null,
    Join,
    Order,
    Group,
    Assigned,
    Other,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "statement::By", rename_all = "snake_case")]
pub(super) enum By {
    Parameter(u16),
    Parameters(u16, u16),
    Literal,
    Column,
    Expression,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "statement::FunctionForm", rename_all = "snake_case")]
pub(super) enum Form {
    Call,
    Operator,
    Cast,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "statement::Incomplete", rename_all = "kebab-case")]
enum Incomplete {
    TooLarge,
    TooManyTokens,
    TooManyNames,
    Unparseable,
    Encoding,
    Multiple,
    Unsupported,
}

/// Why a shape is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Why(#[serde(with = "Incomplete")] pub(super) statement::Incomplete);
