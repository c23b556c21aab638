//! Parameters of a statement: JSON as the text that PostgreSQL reads.

use serde_json::value::RawValue;
use tidegate_core::limits::HTTP_ARRAY_DEPTH_MAX;

use super::answer::Failure;

/// A parameter's text; `None` for null. Numbers, and JSON within, stay as they were written.
///
/// # Errors
/// An array deeper than PostgreSQL's may be.
pub(super) fn text(value: &RawValue) -> Result<Option<String>, Failure> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => Ok(Some(string(json)?)),
        Some(b'[') => {
            let mut out = String::with_capacity(json.len());
            array(json, 1, &mut out)?;
            Ok(Some(out))
        }
        _ => Ok(Some(json.to_owned())),
    }
}

fn string(json: &str) -> Result<String, Failure> {
    serde_json::from_str(json).map_err(malformed)
}

/// As `{1,"a",NULL}`, with all strings in quotes.
fn array(json: &str, depth: usize, out: &mut String) -> Result<(), Failure> {
    if depth > HTTP_ARRAY_DEPTH_MAX {
        let message = format!("an array is deeper than {HTTP_ARRAY_DEPTH_MAX}");
        return Err(Failure::bad_request(message).hint("JSON is sent as a string or an object."));
    }
    let elements: Vec<&RawValue> = serde_json::from_str(json).map_err(malformed)?;
    out.push('{');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let json = element.get();
        match json.as_bytes().first() {
            Some(b'n') => out.push_str("NULL"),
            Some(b'[') => array(json, depth + 1, out)?,
            Some(b'"') => quote(&string(json)?, out),
            Some(b'{') => quote(json, out),
            _ => out.push_str(json),
        }
    }
    out.push('}');
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn malformed(error: serde_json::Error) -> Failure {
    Failure::bad_request(format!("a parameter cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Option<String> {
        text(serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn parameters_keep_what_was_written() {
        assert_eq!(of("null"), None);
        assert_eq!(of(r#""a\"b☃""#).as_deref(), Some("a\"b☃"));
        assert_eq!(of("12345678901234567890.50").as_deref(), Some("12345678901234567890.50"));
        assert_eq!(of("true").as_deref(), Some("true"));
        assert_eq!(of(r#"{"b": 1,  "a": [null]}"#).as_deref(), Some(r#"{"b": 1,  "a": [null]}"#));
    }

    #[test]
    fn arrays_are_what_postgresql_reads() {
        let array = r#"[1, null, "a\\\"b", "NULL", "", [true], {"a": "b"}]"#;
        let wanted = r#"{1,NULL,"a\\\"b","NULL","",{true},"{\"a\": \"b\"}"}"#;
        assert_eq!(of(array).as_deref(), Some(wanted));
        assert_eq!(of("[]").as_deref(), Some("{}"));
        let deep = format!("{}{}", "[".repeat(7), "]".repeat(7));
        assert!(text(serde_json::from_str(&deep).unwrap()).is_err());
    }
}
