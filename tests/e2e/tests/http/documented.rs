//! The examples of docs/http.md, run: what the page says is what happens.

use super::Endpoint;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tidegate_test_support::clusters::ROLE;

/// Each command of the page, with the JSON that follows it.
fn examples() -> Vec<(String, Value)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/http.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut examples = Vec::new();
    let mut rest = page.as_str();
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let (command, after) = after.split_once("```").unwrap();
        let (_, json) = after.split_once("```json\n").unwrap();
        let (json, _) = json.split_once("```").unwrap();
        examples.push((command.to_owned(), serde_json::from_str(json).unwrap()));
        rest = after;
    }
    examples
}

#[test]
fn the_page_shows_what_is_answered() {
    let endpoint = Endpoint::start("http_page", "");
    let examples = examples();
    assert_eq!(examples.len(), 4);
    for (command, wanted) in examples {
        let command = command
            .replace("127.0.0.1:6434", &endpoint.at.to_string())
            .replace("postgres://app:secret@localhost/shop", &endpoint.url(ROLE))
            .replace(
                "postgres://localhost/shop",
                &format!("postgres://localhost/{}", endpoint.database),
            )
            .replace("app:secret", "app:app-password");
        let output = Command::new("sh").args(["-e", "-c", &command]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let read: Value = serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{error}: {said} {output:?} of\n{command}"));
        assert!(contains(&read, &wanted), "{read} for {wanted} of\n{command}");
    }
}

/// Is everything there that is wanted? What more there is does not matter.
fn contains(read: &Value, wanted: &Value) -> bool {
    match (read, wanted) {
        (Value::Object(read), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| read.get(key).is_some_and(|read| contains(read, wanted))),
        (Value::Array(read), Value::Array(wanted)) => {
            read.len() == wanted.len() && read.iter().zip(wanted).all(|(r, w)| contains(r, w))
        }
        (read, wanted) => read == wanted,
    }
}
