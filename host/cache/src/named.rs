//! What a policy names: tags of answers besides what they were read from, and what a write takes of them besides its tables.
//!
//! A tag may hold the value of a parameter. Where that is not known, for an answer or for a write, more is taken than was named:
//! never less. Nobody's tags begin as ours do: a policy's hold no control characters.

use crate::store::Tag;
use std::sync::Arc;
use tidegate_core::policy::Template;
use tidegate_core::policy::template::Values;

/// Of every answer with a tag that holds a parameter.
const OF_PARAMETERS: &str = "\0parameters";
/// Of every answer with a tag that holds a parameter whose value was not known.
const UNKNOWN: &str = "\0unknown";

fn named(database: &Arc<str>, name: &str) -> Tag {
    Tag::Named(database.clone(), name.into())
}

/// The tags of an answer, besides those of what it was read from. `parameters` in their text form, if that is known.
pub fn named_tags(
    templates: &[Template],
    parameters: Option<&[Option<&str>]>,
    database: &Arc<str>,
) -> Vec<Tag> {
    if templates.is_empty() {
        return Vec::new();
    }
    let mut tags = vec![Tag::AnyNamed(database.clone())];
    let has_parameters = templates.iter().any(|template| !template.is_constant());
    tags.extend(has_parameters.then(|| named(database, OF_PARAMETERS)));
    let mut is_unknown = false;
    for template in templates {
        let values = match parameters {
            Some(parameters) => Values { parameters, ..Values::default() },
            None if template.is_constant() => Values::default(),
            None => {
                is_unknown = true;
                continue;
            }
        };
        let mut name = String::new();
        template.render(&values, &mut name);
        tags.push(named(database, &name));
    }
    tags.extend(is_unknown.then(|| named(database, UNKNOWN)));
    tags
}

/// What is taken by somebody who names a tag.
pub fn taken_by_name(name: &str, database: &Arc<str>) -> Vec<Tag> {
    vec![named(database, name), named(database, UNKNOWN)]
}

/// What a write takes besides its tables, by what the policy says of its shape. `None`: the policy did not answer.
pub fn taken_by_write(templates: Option<&[Template]>, database: &Arc<str>) -> Vec<Tag> {
    let Some(templates) = templates else { return vec![Tag::AnyNamed(database.clone())] };
    // Values of parameters are not looked at when something is written.
    let has_parameters = templates.iter().any(|template| !template.is_constant());
    let mut tags: Vec<Tag> =
        has_parameters.then(|| named(database, OF_PARAMETERS)).into_iter().collect();
    for template in templates.iter().filter(|template| template.is_constant()) {
        let mut name = String::new();
        template.render(&Values::default(), &mut name);
        tags.push(named(database, &name));
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_core::policy::template::Holes;

    fn template(text: &str) -> Template {
        Template::parse(text, Holes::Parameters(9)).unwrap()
    }

    fn meet(some: &[Tag], others: &[Tag]) -> bool {
        some.iter().any(|tag| others.contains(tag))
    }

    #[test]
    fn nothing_is_named_where_a_policy_names_nothing() {
        assert_eq!(named_tags(&[], None, &"d".into()), []);
        assert_eq!(taken_by_write(Some(&[]), &"d".into()), []);
    }

    #[test]
    fn a_tag_of_one_database_takes_nothing_of_another() {
        let tags = named_tags(&[template("a"), template("b:{1}")], None, &"d".into());
        assert!(!meet(&tags, &taken_by_name("a", &"e".into())));
        assert!(!meet(&tags, &taken_by_write(None, &"e".into())));
    }

    #[test]
    fn tags_with_other_values_are_left() {
        let tags = named_tags(&[template("user:{1}")], Some(&[Some("7")]), &"d".into());
        assert!(meet(&tags, &taken_by_name("user:7", &"d".into())));
        assert!(!meet(&tags, &taken_by_name("user:8", &"d".into())));
        assert!(!meet(&tags, &taken_by_write(Some(&[template("order")]), &"d".into())));
    }

    proptest! {
        // Property 19: whoever takes what has a tag leaves no answer that has it, whatever is known of parameters.
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whoever_takes_a_tag_takes_all_that_have_it(
            kinds in proptest::collection::vec(("[a-c]{1,2}", any::<bool>()), 1..4),
            value in "[0-9a-z:%]{0,3}",
            chosen in any::<proptest::sample::Index>(),
            known in any::<bool>(),
        ) {
            let templates: Vec<Template> = kinds
                .iter()
                .map(|(name, holds)| template(&if *holds { format!("{name}:{{1}}") } else { name.clone() }))
                .collect();
            let (database, parameters) = (Arc::from("d"), [Some(value.as_str())]);
            let tags = named_tags(&templates, known.then_some(&parameters[..]), &database);
            let one = &templates[chosen.index(templates.len())];
            let mut name = String::new();
            one.render(&Values { parameters: &parameters, ..Values::default() }, &mut name);
            prop_assert!(meet(&tags, &taken_by_name(&name, &database)));
            prop_assert!(meet(&tags, &taken_by_write(Some(std::slice::from_ref(one)), &database)));
            prop_assert!(meet(&tags, &taken_by_write(None, &database)));
        }
    }
}
