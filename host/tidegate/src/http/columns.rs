//! Columns of a result, and their values' text as JSON.
//!
//! Source: RowDescription and DataRow in PostgreSQL's protocol documentation; `pg_type.dat` for the numbers of types;
//! "Array Input and Output Syntax" in its documentation of arrays.

use tidegate_wire::frame::{Reader, Truncated};

use super::output::string;
use super::request::{Rows, Values};

/// How a type's text becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As it is, in quotes. What JSON's numbers cannot hold (int8, numeric) too.
    Text,
    /// `t` and `f`.
    Boolean,
    /// What is a number for JSON too, but for `NaN` and the infinities.
    Number,
    /// Text that is JSON.
    Json,
}

/// A type's own values, or arrays of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Single(Kind),
    Array(Kind),
}

/// Types whose values are no plain text, with the types of their arrays.
const KINDS: [(u32, u32, Kind); 7] = [
    (16, 1_000, Kind::Boolean),
    (21, 1_005, Kind::Number),
    (23, 1_007, Kind::Number),
    (700, 1_021, Kind::Number),
    (701, 1_022, Kind::Number),
    (114, 199, Kind::Json),
    (3_802, 3_807, Kind::Json),
];

/// Built-in arrays of what is plain text. That of `box` is not here: a semicolon is between its elements.
const TEXT_ARRAYS: [u32; 40] = [
    143, 651, 719, 775, 791, 1_001, 1_002, 1_003, 1_006, 1_008, 1_009, 1_010, 1_011, 1_012, 1_013,
    1_014, 1_015, 1_016, 1_017, 1_018, 1_019, 1_027, 1_028, 1_034, 1_040, 1_041, 1_115, 1_182,
    1_183, 1_185, 1_187, 1_231, 1_270, 1_561, 1_563, 2_951, 3_643, 3_905, 3_907, 3_927,
];

impl Shape {
    fn of(type_id: u32) -> Self {
        let known = KINDS.iter().find_map(|(single, array, kind)| match type_id {
            id if id == *single => Some(Self::Single(*kind)),
            id if id == *array => Some(Self::Array(*kind)),
            _ => None,
        });
        known.unwrap_or(match TEXT_ARRAYS.contains(&type_id) {
            true => Self::Array(Kind::Text),
            false => Self::Single(Kind::Text),
        })
    }
}

/// A result's columns.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    rows: Rows,
}

#[derive(Debug)]
struct Column {
    /// Its name as a key: `"name":`.
    key: Vec<u8>,
    shape: Shape,
}

impl Columns {
    /// Of a result that has none.
    pub(super) fn none(rows: Rows) -> Self {
        Self { columns: Vec::new(), rows }
    }

    /// Reads a RowDescription, and writes it as the answer's `fields`: a list.
    pub(super) fn describe(
        body: &[u8],
        (rows, values): (Rows, Values),
        out: &mut Vec<u8>,
    ) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        let mut columns = Vec::new();
        out.push(b'[');
        for index in 0..reader.u16()? {
            let name = reader.cstr()?;
            let (table, column) = (reader.i32()? as u32, reader.i16()?);
            let (type_id, size) = (reader.i32()? as u32, reader.i16()?);
            let (modifier, _format) = (reader.i32()?, reader.i16()?);
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"name\":");
            string(out, name);
            let rest = format!(
                ",\"dataTypeID\":{type_id},\"tableID\":{table},\"columnID\":{column},\"dataTypeSize\":{size},\
                 \"dataTypeModifier\":{modifier},\"format\":\"text\"}}"
            );
            out.extend_from_slice(rest.as_bytes());
            let shape = match values {
                Values::Typed => Shape::of(type_id),
                Values::Text => Shape::Single(Kind::Text),
            };
            let mut key = Vec::new();
            string(&mut key, name);
            key.push(b':');
            columns.push(Column { key, shape });
        }
        out.push(b']');
        Ok(Self { columns, rows })
    }

    /// Writes a DataRow as an array or an object.
    pub(super) fn row(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Truncated> {
        let mut reader = Reader::new(body);
        let (open, close) = match self.rows {
            Rows::Arrays => (b'[', b']'),
            Rows::Objects => (b'{', b'}'),
        };
        if usize::from(reader.u16()?) != self.columns.len() {
            return Err(Truncated);
        }
        out.push(open);
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if self.rows == Rows::Objects {
                out.extend_from_slice(&column.key);
            }
            match usize::try_from(reader.i32()?) {
                Err(_) => out.extend_from_slice(b"null"),
                Ok(bytes) => value(reader.bytes(bytes)?, column.shape, out),
            }
        }
        out.push(close);
        Ok(())
    }
}

fn value(text: &[u8], shape: Shape, out: &mut Vec<u8>) {
    match shape {
        Shape::Single(kind) => single(text, kind, out),
        Shape::Array(kind) => {
            let begin = out.len();
            if array(text, kind, out).is_none() {
                // No array that we can read: its text tells all the same.
                out.truncate(begin);
                string(out, text);
            }
        }
    }
}

fn single(text: &[u8], kind: Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Boolean if text == b"t" => out.extend_from_slice(b"true"),
        Kind::Boolean if text == b"f" => out.extend_from_slice(b"false"),
        Kind::Number if is_number(text) => out.extend_from_slice(text),
        // The server has checked it.
        Kind::Json if std::str::from_utf8(text).is_ok() => out.extend_from_slice(text),
        _ => string(out, text),
    }
}

/// Is it a number to JSON? What PostgreSQL writes for one is, but for `NaN` and the infinities.
fn is_number(text: &[u8]) -> bool {
    text.strip_prefix(b"-").unwrap_or(text).first().is_some_and(u8::is_ascii_digit)
}

/// Writes an array with what is in it, however deep; `None` if it is none.
fn array(text: &[u8], kind: Kind, out: &mut Vec<u8>) -> Option<()> {
    // Bounds that do not begin at 1, `[0:1]={…}`, have no place in JSON.
    let mut rest = match text.first()? {
        b'[' => text.get(text.iter().position(|byte| *byte == b'=')? + 1..)?,
        _ => text,
    };
    let mut depth = 0_usize;
    let mut element = Vec::new();
    loop {
        let (&first, after) = rest.split_first()?;
        match first {
            b'{' => {
                depth += 1;
                out.push(b'[');
                rest = after;
                continue;
            }
            b',' if depth > 0 => {
                out.push(b',');
                rest = after;
                continue;
            }
            b'}' if depth > 0 => {
                depth -= 1;
                out.push(b']');
                if depth == 0 {
                    return after.is_empty().then_some(());
                }
                rest = after;
                continue;
            }
            _ if depth == 0 => return None,
            b'"' => {
                rest = quoted(after, &mut element)?;
                single(&element, kind, out);
            }
            _ => {
                let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'))?;
                let (plain, after) = rest.split_at(end);
                match plain {
                    b"NULL" => out.extend_from_slice(b"null"),
                    plain => single(plain, kind, out),
                }
                rest = after;
            }
        }
    }
}

/// What is in the quotes, without its backslashes; yields what follows them.
fn quoted<'a>(text: &'a [u8], element: &mut Vec<u8>) -> Option<&'a [u8]> {
    element.clear();
    let mut rest = text;
    loop {
        let (&first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some(rest),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                element.push(escaped);
                rest = after;
            }
            byte => element.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn json_of(text: &str, type_id: u32) -> Value {
        let mut out = Vec::new();
        value(text.as_bytes(), Shape::of(type_id), &mut out);
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn values_are_what_their_types_say() {
        let (int4, int8, float8, boolean, jsonb) = (23, 20, 701, 16, 3802);
        assert_eq!(json_of("-7", int4), json!(-7));
        assert_eq!(json_of("9223372036854775807", int8), json!("9223372036854775807"));
        assert_eq!(json_of("1.5e+300", float8), json!(1.5e300));
        for word in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(json_of(word, float8), json!(word));
        }
        assert_eq!((json_of("t", boolean), json_of("f", boolean)), (json!(true), json!(false)));
        assert_eq!(json_of(r#"{"a": [1, null]}"#, jsonb), json!({"a": [1, null]}));
        assert_eq!(json_of("{1,2}", 25), json!("{1,2}"), "text");
    }

    #[test]
    fn arrays_are_arrays() {
        let (int4s, texts, jsons) = (1007, 1009, 3807);
        assert_eq!(json_of("{}", int4s), json!([]));
        assert_eq!(json_of("{1,NULL,3}", int4s), json!([1, null, 3]));
        assert_eq!(json_of("[0:1]={1,2}", int4s), json!([1, 2]));
        assert_eq!(json_of("{{1,2},{3,4}}", int4s), json!([[1, 2], [3, 4]]));
        let quoted = r#"{a,"b,c","NULL","d\"e\\f",""}"#;
        assert_eq!(json_of(quoted, texts), json!(["a", "b,c", "NULL", "d\"e\\f", ""]));
        assert_eq!(json_of(r#"{"{\"a\": 1}"}"#, jsons), json!([{"a": 1}]));
        // What is none is told as it is.
        for broken in ["{1", "1}", "{1}}", "", "{\"a}", "[0:1]"] {
            assert_eq!(json_of(broken, texts), json!(broken));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever texts are in it, an array that PostgreSQL would write is read as just those.
        #[test]
        fn arrays_of_any_texts(texts in prop::collection::vec(prop::option::of(".{0,8}"), 0..6)) {
            let escaped = |text: &String| {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            };
            let parts: Vec<String> = texts
                .iter()
                .map(|text| text.as_ref().map_or("NULL".to_owned(), escaped))
                .collect();
            let array = format!("{{{}}}", parts.join(","));
            prop_assert_eq!(json_of(&array, 1009), json!(texts));
        }

        /// No text makes anything but JSON.
        #[test]
        fn any_text_becomes_json(text in ".{0,24}", id in prop::sample::select(vec![16, 23, 25, 701, 1000, 1007, 1009])) {
            // Of a number's text that does not come from PostgreSQL, the rest is not looked at.
            prop_assume!(!(id == 23 || id == 701 || id == 1007) || !text.contains(|c: char| c.is_ascii_digit()));
            json_of(&text, id);
        }
    }
}
