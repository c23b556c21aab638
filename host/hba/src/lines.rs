//! Lines, fields and tokens of a file of rules: white space parts fields, commas part the tokens of one.

/// Files within files, at most.
const DEPTH_MAX: usize = 10;
/// Tokens of one field, included ones and all.
const TOKENS_MAX: usize = 10_000;

/// A word, and whether it was quoted: then it means nothing but itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) quoted: bool,
}

impl Token {
    /// Whether it is this word, and not a name in quotes.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// What a line says, or what is wrong with it.
pub(super) struct Line<F> {
    /// Of its beginning: a backslash at the end of a line continues it.
    pub(super) number: usize,
    pub(super) fields: F,
}

pub(super) type Fields = Vec<Vec<Token>>;
pub(super) type Included<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// The lines that say something.
pub(super) fn read(text: &str, included: Included<'_>) -> Vec<Line<Result<Fields, String>>> {
    let mut lines = Vec::new();
    let mut physical = text.split('\n').enumerate();
    while let Some((index, first)) = physical.next() {
        let mut whole = first.trim_end_matches('\r').to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            match physical.next() {
                Some((_, more)) => whole.push_str(more.trim_end_matches('\r')),
                None => break,
            }
        }
        let fields = fields(&whole, included);
        if !matches!(&fields, Ok(fields) if fields.is_empty()) {
            lines.push(Line { number: index + 1, fields });
        }
    }
    lines
}

fn fields(line: &str, included: Included<'_>) -> Result<Fields, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let mut tokens = Vec::new();
        loop {
            let found = token(&mut rest)?;
            let Some((word, follows)) = found else { break };
            expand(word, included, &mut tokens, 0)?;
            if follows == Follows::Other {
                break;
            }
        }
        if tokens.is_empty() && rest.is_empty() {
            return Ok(fields);
        }
        fields.push(tokens);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    Comma,
    Other,
}

/// The next token: up to white space, a comma or a comment, which quotes take in.
fn token(rest: &mut &str) -> Result<Option<(Token, Follows)>, String> {
    let start = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
    if start.is_empty() || start.starts_with('#') {
        *rest = "";
        return Ok(None);
    }
    let mut text = String::new();
    let mut inside = false;
    let mut end = start.len();
    for (at, character) in start.char_indices() {
        match character {
            '"' => inside = !inside,
            _ if inside => text.push(character),
            '#' | ',' => {
                end = at;
                break;
            }
            _ if character.is_ascii_whitespace() => {
                end = at;
                break;
            }
            _ => text.push(character),
        }
    }
    if inside {
        return Err("a quote is not closed".to_owned());
    }
    if text.contains('\0') {
        return Err("a zero byte is in it".to_owned());
    }
    let quoted = start.starts_with('"');
    *rest = &start[end..];
    let follows = match rest.strip_prefix(',') {
        Some(after) => {
            *rest = after;
            Follows::Comma
        }
        None => Follows::Other,
    };
    Ok(Some((Token { text, quoted }, follows)))
}

/// A token, or all those of the file that it names.
fn expand(
    word: Token,
    included: Included<'_>,
    into: &mut Vec<Token>,
    depth: usize,
) -> Result<(), String> {
    if into.len() >= TOKENS_MAX {
        return Err(format!("more than {TOKENS_MAX} names are in one field"));
    }
    let Some(name) = word.text.strip_prefix('@').filter(|name| !word.quoted && !name.is_empty())
    else {
        into.push(word);
        return Ok(());
    };
    if depth >= DEPTH_MAX {
        return Err(format!("files include each other more than {DEPTH_MAX} deep"));
    }
    let text = included(name).map_err(|error| format!("@{name} can't be read: {error}"))?;
    for line in text.lines() {
        let mut rest = line;
        while let Some((word, _)) = token(&mut rest).map_err(|error| format!("@{name}: {error}"))? {
            expand(word, included, into, depth + 1)?;
        }
    }
    Ok(())
}
