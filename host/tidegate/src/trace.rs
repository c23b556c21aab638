//! A record of which statements ran, as lines of JSON: what they are, who ran them, where and how they went.
//!
//! The first line is a [`Head`], the last a [`Tail`], each between is a [`Line`] that stands for all executions that
//! have the same in common. A text is there only in its normalized form, so no literal and no parameter is in it.

mod words; // core's enums as words

use serde::{Deserialize, Serialize};
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, Family, Fingerprint, FunctionForm, FunctionUse, Shape,
    ShapeKind, TableUse,
};
use words::Why;

/// Of this format. A reader takes no other.
pub const FORMAT: u32 = 1;

/// What was recorded, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub tidegate_record: u32,
    /// Of the program.
    pub version: String,
    /// Milliseconds since 1970.
    pub began_ms: u64,
    /// Names of the replicas, in the order of the configuration.
    pub replicas: Vec<String>,
}

/// What is not in the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// How long it was recorded, in milliseconds.
    pub lasted_ms: u64,
    pub lines: usize,
    /// Executions that the lines stand for.
    pub executions: u64,
    /// Executions left out: no room was left for one more kind.
    pub dropped: u64,
    /// Executions without a text that could be looked at: calls of functions by number, texts that are too long, and
    /// what was prepared before the record began.
    pub unread: u64,
    /// Executions that were not answered when the record ended, or never.
    pub unanswered: u64,
}

/// Executions of one statement by one user in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    #[serde(flatten)]
    pub shape: ShapeLine,
    /// The tags of comments that policies are told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    pub user: String,
    pub database: String,
    pub application: String,
    /// A hash of the application's user, if there is one: the same for the same user within one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    /// The server that ran it: `primary`, or a replica's name.
    pub server: String,
    /// What the routing policy planned, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanLine>,
    /// What the caching policy plans, in words: asked when the record ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// The SQLSTATE that it failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(flatten)]
    pub counts: Counts,
}

/// A plan, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanLine {
    /// Its first word.
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The generation of the plugin; none for Tidegate itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// How often, when, and how long it took. Times since the beginning are in milliseconds, durations in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub count: u64,
    pub first_ms: u64,
    pub last_ms: u64,
    pub mean_us: u64,
    pub max_us: u64,
}

/// A shape, but for what it leaves behind in its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeLine {
    fingerprint: String,
    family: String,
    pub normalized: String,
    #[serde(with = "words::Kind")]
    kind: ShapeKind,
    #[serde(with = "words::Access")]
    access: Access,
    locks: bool,
    tables: Vec<TableLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    functions: Vec<FunctionLine>,
    parameters: u16,
    #[serde(default)]
    literal_dependent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incomplete: Option<Why>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TableLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema: Option<Box<str>>,
    name: Box<str>,
    #[serde(with = "words::Access")]
    access: Access,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ColumnLine {
    column: Box<str>,
    #[serde(with = "words::Comparison")]
    comparison: Comparison,
    #[serde(with = "words::By")]
    by: By,
    always: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FunctionLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema: Option<Box<str>>,
    name: Box<str>,
    arguments: u16,
    #[serde(with = "words::Form")]
    form: FunctionForm,
}

impl From<&Shape> for ShapeLine {
    fn from(shape: &Shape) -> Self {
        Self {
            fingerprint: format!("{:032x}", shape.fingerprint.0),
            family: format!("{:032x}", shape.family.0),
            normalized: shape.normalized.to_string(),
            kind: shape.kind,
            access: shape.access,
            locks: shape.locks,
            tables: shape.tables.iter().map(TableLine::from).collect(),
            columns: shape.columns.iter().map(ColumnLine::from).collect(),
            functions: shape.functions.iter().map(FunctionLine::from).collect(),
            parameters: shape.parameters,
            literal_dependent: shape.literal_dependent,
            incomplete: shape.incomplete.map(Why),
        }
    }
}

impl ShapeLine {
    /// The shape as it was.
    ///
    /// # Errors
    /// A fingerprint is no number in hexadecimal.
    pub fn shape(&self) -> Result<Shape, String> {
        let number = |text: &str| {
            u128::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no fingerprint"))
        };
        Ok(Shape {
            fingerprint: Fingerprint(number(&self.fingerprint)?),
            family: Family(number(&self.family)?),
            normalized: self.normalized.as_str().into(),
            kind: self.kind,
            access: self.access,
            locks: self.locks,
            tables: self.tables.iter().map(TableLine::used).collect(),
            columns: self.columns.iter().map(ColumnLine::used).collect(),
            functions: self.functions.iter().map(FunctionLine::used).collect(),
            parameters: self.parameters,
            literal_dependent: self.literal_dependent,
            incomplete: self.incomplete.map(|why| why.0),
        })
    }
}

impl From<&TableUse> for TableLine {
    fn from(used: &TableUse) -> Self {
        let columns = used.columns.iter().map(ColumnLine::from).collect();
        Self { schema: used.schema.clone(), name: used.name.clone(), access: used.access, columns }
    }
}

impl TableLine {
    fn used(&self) -> TableUse {
        TableUse {
            schema: self.schema.clone(),
            name: self.name.clone(),
            access: self.access,
            columns: self.columns.iter().map(ColumnLine::used).collect(),
        }
    }
}

impl From<&ColumnUse> for ColumnLine {
    fn from(used: &ColumnUse) -> Self {
        let ColumnUse { column, comparison, by, always } = used.clone();
        Self { column, comparison, by, always }
    }
}

impl ColumnLine {
    fn used(&self) -> ColumnUse {
        let Self { column, comparison, by, always } = self.clone();
        ColumnUse { column, comparison, by, always }
    }
}

impl From<&FunctionUse> for FunctionLine {
    fn from(used: &FunctionUse) -> Self {
        let FunctionUse { schema, name, arguments, form } = used.clone();
        Self { schema, name, arguments, form }
    }
}

impl FunctionLine {
    fn used(&self) -> FunctionUse {
        let Self { schema, name, arguments, form } = self.clone();
        FunctionUse { schema, name, arguments, form }
    }
}

/// A whole record, read.
#[derive(Clone, Debug)]
pub struct Trace {
    pub head: Head,
    pub lines: Vec<Line>,
    /// Missing when the file was cut off.
    pub tail: Option<Tail>,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    /// The line that is none, and why.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let wrong =
            |number: usize, error: &dyn std::fmt::Display| format!("line {}: {error}", number + 1);
        let (number, first) = lines.next().ok_or("the file is empty")?;
        let head: Head = serde_json::from_str(first)
            .map_err(|error| wrong(number, &format!("no head of a record: {error}")))?;
        if head.tidegate_record != FORMAT {
            return Err(format!("format {}; this reads {FORMAT}", head.tidegate_record));
        }
        let mut trace = Self { head, lines: Vec::new(), tail: None };
        for (number, line) in lines {
            if let Ok(End { end }) = serde_json::from_str(line) {
                trace.tail = Some(end);
                continue;
            }
            let line: Line = serde_json::from_str(line).map_err(|error| wrong(number, &error))?;
            line.shape.shape().map_err(|error| wrong(number, &error))?;
            trace.lines.push(line);
        }
        Ok(trace)
    }
}

/// How the tail is written, so that it is told from a line.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    end: Tail,
}

/// Writes a record, up to a bound.
#[derive(Debug)]
pub struct Writer {
    text: Vec<u8>,
    bytes_max: usize,
    tail: Tail,
}

impl Writer {
    /// `bytes_max` is for the lines between head and tail.
    pub fn new(head: &Head, bytes_max: usize) -> Self {
        let mut text = serde_json::to_vec(head).unwrap_or_default();
        text.push(b'\n');
        let bytes_max = text.len().saturating_add(bytes_max);
        Self { text, bytes_max, tail: Tail::default() }
    }

    /// One more line; what there is no room for is counted as dropped.
    pub fn put(&mut self, line: &Line) {
        let bytes = serde_json::to_vec(line).unwrap_or_default();
        if self.text.len() + bytes.len() > self.bytes_max {
            self.tail.dropped += line.counts.count;
            return;
        }
        self.text.extend_from_slice(&bytes);
        self.text.push(b'\n');
        self.tail.lines += 1;
        self.tail.executions += line.counts.count;
    }

    /// The whole text; `rest` is what is known besides the lines.
    pub fn end(mut self, rest: Tail) -> Vec<u8> {
        let Tail { lasted_ms, dropped, unread, unanswered, .. } = rest;
        let dropped = self.tail.dropped + dropped;
        let end = Tail { lasted_ms, dropped, unread, unanswered, ..self.tail };
        self.text.extend(serde_json::to_vec(&End { end }).unwrap_or_default());
        self.text.push(b'\n');
        self.text
    }
}

#[cfg(test)]
mod tests;
