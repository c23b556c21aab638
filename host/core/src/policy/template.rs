//! Texts with placeholders: `{user}`, `{end-user}`, `{tag:NAME}` for who asks, `{1}` for a parameter.

use crate::limits::{POLICY_KEY_BYTES_MAX, POLICY_TEMPLATE_PARTS_MAX};

/// A text that is made anew for each execution.
///
/// Values are written so that different ones never make the same text: `%` and `:` in them are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
    Database,
    Application,
    EndUser,
    Tag(Box<str>),
    /// From 1.
    Parameter(u16),
}

/// What may stand in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Who asks.
    Identity,
    /// Parameters `$1` to `$n`.
    Parameters(u16),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    TooLong,
    Empty,
    ControlCharacter,
    /// A `{` without its `}`, or the other way round.
    Unbalanced,
    /// What stands between braces means nothing here.
    UnknownHole(Box<str>),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::TooLong => write!(f, "a template is too long"),
            Problem::Empty => write!(f, "a template is empty"),
            Problem::ControlCharacter => write!(f, "a template holds control characters"),
            Problem::Unbalanced => write!(f, "a template has a brace without its partner"),
            Problem::UnknownHole(name) => write!(f, "{{{name}}} means nothing here"),
        }
    }
}

/// Who asks, for [`Template::render`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub application: &'a str,
    pub end_user: &'a str,
    /// Statement tags.
    pub tags: &'a [(&'a str, &'a str)],
    /// Parameters in their text form; `None` for NULL.
    pub parameters: &'a [Option<&'a str>],
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str, holes: Holes) -> Result<Template, Problem> {
        if text.is_empty() {
            return Err(Problem::Empty);
        }
        if text.len() > POLICY_KEY_BYTES_MAX {
            return Err(Problem::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(Problem::ControlCharacter);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if parts.len() >= POLICY_TEMPLATE_PARTS_MAX {
                return Err(Problem::TooLong);
            }
            let (before, hole, after) = split(rest)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            if let Some(hole) = hole {
                parts.push(part(hole, holes)?);
            }
            rest = after;
        }
        Ok(Template { parts })
    }

    /// The text for one execution. A parameter that is missing is an empty value; NULL is none that a text can be.
    pub fn render(&self, values: &Values<'_>, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::User => escape(values.user, out),
                Part::Database => escape(values.database, out),
                Part::Application => escape(values.application, out),
                Part::EndUser => escape(values.end_user, out),
                Part::Tag(name) => {
                    let tag = values.tags.iter().find(|(key, _)| **key == **name);
                    escape(tag.map_or("", |(_, value)| value), out);
                }
                Part::Parameter(number) => {
                    let index = usize::from(*number).wrapping_sub(1);
                    match values.parameters.get(index) {
                        Some(Some(value)) => escape(value, out),
                        Some(None) => out.push_str("%N"),
                        None => {}
                    }
                }
            }
        }
    }

    /// The same text for every execution.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }
}

/// As it was written.
impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::User => f.write_str("{user}"),
            Part::Database => f.write_str("{database}"),
            Part::Application => f.write_str("{application}"),
            Part::EndUser => f.write_str("{end-user}"),
            Part::Tag(name) => write!(f, "{{tag:{name}}}"),
            Part::Parameter(number) => write!(f, "{{{number}}}"),
        })
    }
}

/// Text up to the first hole, the hole's name, and what follows.
fn split(text: &str) -> Result<(&str, Option<&str>, &str), Problem> {
    let Some(at) = text.find(['{', '}']) else { return Ok((text, None, "")) };
    let (before, hole) = text.split_at(at);
    let hole = hole.strip_prefix('{').ok_or(Problem::Unbalanced)?;
    let (name, after) = hole.split_once('}').ok_or(Problem::Unbalanced)?;
    if name.contains('{') {
        return Err(Problem::Unbalanced);
    }
    Ok((before, Some(name), after))
}

fn part(name: &str, holes: Holes) -> Result<Part, Problem> {
    let known = match holes {
        Holes::Identity => match name {
            "user" => Some(Part::User),
            "database" => Some(Part::Database),
            "application" => Some(Part::Application),
            "end-user" => Some(Part::EndUser),
            _ => name
                .strip_prefix("tag:")
                .filter(|tag| !tag.is_empty())
                .map(|tag| Part::Tag(tag.into())),
        },
        Holes::Parameters(most) => {
            let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
            let number = name.parse::<u16>().ok().filter(|number| (1..=most).contains(number));
            number.filter(|_| digits).map(Part::Parameter)
        }
    };
    known.ok_or_else(|| Problem::UnknownHole(name.into()))
}

fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '%' => out.push_str("%25"),
            ':' => out.push_str("%3A"),
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendered(text: &str, holes: Holes, values: &Values<'_>) -> String {
        let mut out = String::new();
        Template::parse(text, holes).unwrap().render(values, &mut out);
        out
    }

    #[test]
    fn holes_are_filled_by_who_asks() {
        let tags = [("tenant", "t:1")];
        let values = Values { user: "app", end_user: "42%", tags: &tags, ..Values::default() };
        let text =
            rendered("u:{user}:{end-user}:{tag:tenant}:{tag:other}", Holes::Identity, &values);
        assert_eq!(text, "u:app:42%25:t%3A1:");
    }

    #[test]
    fn a_template_is_told_as_it_was_written() {
        for (text, holes) in [
            ("u:{user}:{database}:{application}:{end-user}:{tag:tenant}", Holes::Identity),
            ("row:{1}:{23}", Holes::Parameters(23)),
        ] {
            assert_eq!(Template::parse(text, holes).unwrap().to_string(), text);
        }
    }

    #[test]
    fn holes_are_filled_by_parameters_and_null_is_no_text() {
        let parameters = [Some("7"), None, Some("%N")];
        let values = Values { parameters: &parameters, ..Values::default() };
        assert_eq!(rendered("row:{1}:{2}:{3}", Holes::Parameters(3), &values), "row:7:%N:%25N");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let parse = |text: &str| Template::parse(text, Holes::Parameters(2)).unwrap_err();
        assert_eq!(parse("{3}"), Problem::UnknownHole("3".into()));
        assert_eq!(parse("{0}"), Problem::UnknownHole("0".into()));
        assert_eq!(parse("{+1}"), Problem::UnknownHole("+1".into()));
        assert_eq!(parse("{user}"), Problem::UnknownHole("user".into()));
        assert_eq!(parse("a{1"), Problem::Unbalanced);
        assert_eq!(parse("a}1"), Problem::Unbalanced);
        assert_eq!(parse("{{1}"), Problem::Unbalanced);
        assert_eq!(parse(""), Problem::Empty);
        assert_eq!(parse("a\nb"), Problem::ControlCharacter);
        assert_eq!(parse(&"a".repeat(POLICY_KEY_BYTES_MAX + 1)), Problem::TooLong);
        assert_eq!(parse(&"{1}".repeat(POLICY_TEMPLATE_PARTS_MAX + 1)), Problem::TooLong);
        let identity = Template::parse("{tag:}", Holes::Identity).unwrap_err();
        assert_eq!(identity, Problem::UnknownHole("tag:".into()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn different_values_never_make_the_same_text(
            one in prop::collection::vec("[a:%N{}]{0,3}", 2),
            other in prop::collection::vec("[a:%N{}]{0,3}", 2),
        ) {
            let make = |values: &[String]| {
                let parameters = [Some(values[0].as_str()), Some(values[1].as_str())];
                let values = Values { parameters: &parameters, ..Values::default() };
                rendered("{1}:{2}", Holes::Parameters(2), &values)
            };
            prop_assert_eq!(make(&one) == make(&other), one == other);
        }

        #[test]
        fn any_text_is_a_template_or_a_problem(text in "\\PC{0,40}") {
            for holes in [Holes::Identity, Holes::Parameters(3)] {
                if let Ok(template) = Template::parse(&text, holes) {
                    let mut out = String::new();
                    template.render(&Values::default(), &mut out);
                    prop_assert_eq!(template.is_constant(), !text.contains('{'));
                }
            }
        }
    }
}
