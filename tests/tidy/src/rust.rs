//! Just enough reading of Rust: comments and literals blanked, test modules found, functions measured.

/// Blanks comments and the insides of string and character literals; keeps length and line breaks.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' | b'b' | b'c' if !continues_word(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match character_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn continues_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`, `b"…"`, `b'…'`; `None` when no literal begins here.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut quote = at;
    while matches!(bytes.get(quote), Some(b'b' | b'c')) {
        quote += 1;
    }
    if bytes.get(quote) == Some(&b'"') {
        return Some(string_end(bytes, quote));
    }
    if bytes.get(quote) == Some(&b'\'') && quote > at {
        return character_end(bytes, quote);
    }
    if bytes.get(quote) != Some(&b'r') {
        return None;
    }
    let hashes = bytes[quote + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = quote + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let inner = &bytes[open + 1..];
    let length = inner.windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let rest = bytes.get(at + 3..)?;
        return rest.iter().position(|&b| b == b'\'').map(|length| at + 3 + length + 1);
    }
    // One character of up to four bytes.
    (at + 2..=at + 5)
        .find(|&end| bytes.get(end) == Some(&b'\''))
        .filter(|&end| {
            std::str::from_utf8(&bytes[at + 1..end]).is_ok_and(|inner| inner.chars().count() == 1)
        })
        .map(|end| end + 1)
}

/// The position behind the brace that closes the one at `open`.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The line of an offset, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Blanks every item under `#[cfg(test)]`, and functions under `#[test]`. Takes masked code.
pub fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for attribute in ["#[cfg(test)]", "#[test]", "#[cfg(any(test"] {
        for (start, _) in code.match_indices(attribute) {
            let rest = &code[start..];
            let open = rest.find('{');
            let semicolon = rest.find(';');
            let end = match (open, semicolon) {
                (Some(open), Some(end)) if end < open => start + end + 1,
                (Some(open), _) => closing(code, start + open),
                (None, Some(end)) => start + end + 1,
                (None, None) => code.len(),
            };
            for byte in &mut out[start..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Names of modules in files of their own that only tests compile. Takes masked code.
pub fn test_modules(code: &str) -> Vec<String> {
    code.match_indices("#[cfg(test)]")
        .filter_map(|(start, attribute)| {
            let rest = code[start + attribute.len()..].trim_start();
            let rest = rest.strip_prefix("pub ").unwrap_or(rest);
            let name = rest.strip_prefix("mod ")?;
            let end = name.find([';', '{'])?;
            name[end..].starts_with(';').then(|| name[..end].trim().to_owned())
        })
        .collect()
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// Its first line, from 1.
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
}

/// Every function with a body. Takes masked code.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        if continues_word(code.as_bytes(), start) {
            continue;
        }
        let rest = &code[start + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = rest.find(['{', ';']).filter(|&open| rest[open..].starts_with('{')) else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        let end = closing(code, start + 3 + open);
        let lines = code[start..end].matches('\n').count() + 1;
        found.push(Function { name, line: line_of(code, start), lines });
    }
    found
}

/// The top-level modules of a crate that a file's masked code names by `crate::` or by enough `super::`.
///
/// `module` is the file's own path in its crate, such as `["data", "relay"]`.
pub fn imports(code: &str, module: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        if !continues_word(code.as_bytes(), start) {
            named(code, start + "crate::".len(), &mut found);
        }
    }
    let climb = "super::".repeat(module.len());
    if module.is_empty() {
        return found;
    }
    for (start, _) in code.match_indices(&climb) {
        let before = &code[..start];
        let after = start + climb.len();
        if !before.ends_with("super::") && !code[after..].starts_with("super::") {
            named(code, after, &mut found);
        }
    }
    found
}

/// The first names at `at`: one, or those of a group in braces.
fn named(code: &str, at: usize, found: &mut Vec<(String, usize)>) {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let line = line_of(code, at);
    if !code[at..].starts_with('{') {
        found.push((word(&code[at..]), line));
        return;
    }
    let group = &code[at + 1..closing(code, at) - 1];
    let mut depth = 0;
    let mut fresh = true;
    for (offset, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (c.is_alphanumeric() || c == '_') => {
                found.push((word(&group[offset..]), line));
                fresh = false;
            }
            _ => {}
        }
    }
}
