//! The admin API's answers about plugins, for people.

use std::fmt::Write;

use serde_json::Value;

/// A line for each version in each slot.
pub(super) fn slots(answer: &[u8]) -> Result<String, String> {
    let answer: Value = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    let mut out = String::new();
    for slot in answer["slots"].as_array().into_iter().flatten() {
        let name = slot["slot"].as_str().unwrap_or_default();
        let pinned = if slot["pinned"] == true { ", pinned" } else { "" };
        match slot["active"].is_null() {
            true => line(&mut out, name, "active", &format!("Tidegate itself{pinned}")),
            false => version(&mut out, name, "active", &slot["active"], pinned),
        }
        let candidate = &slot["candidate"];
        if let Some(mode) = candidate["mode"].as_str() {
            let seen = format!(
                ", {}% of sessions, {} compared, {} different",
                candidate["share_percent"], candidate["compared"], candidate["different"]
            );
            version(&mut out, name, mode, candidate, &seen);
        }
        if !slot["previous"].is_null() {
            version(&mut out, name, "previous", &slot["previous"], "");
        }
    }
    Ok(out)
}

/// Everything, indented.
pub(super) fn pretty(answer: &[u8]) -> Result<String, String> {
    let answer: Value = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    serde_json::to_string_pretty(&answer).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn version(out: &mut String, slot: &str, state: &str, version: &Value, more: &str) {
    let text = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
    let faults = version["faults"].as_object().into_iter().flatten();
    let faults: u64 = faults.filter_map(|(_, count)| count.as_u64()).sum();
    let hash: String = text("sha256").chars().take(12).collect();
    let words = format!(
        "{} {} ({}, {hash}), {} calls, {faults} faults{more}",
        text("name"),
        text("version"),
        text("source"),
        version["calls"]
    );
    line(out, slot, state, &words);
}

fn line(out: &mut String, slot: &str, state: &str, words: &str) {
    let _ = writeln!(out, "{slot:<9} {state:<9} {words}");
}
