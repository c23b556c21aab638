//! The rules on this repository, and on small inputs that break them.

use crate::tree::File;
use crate::{
    arrows, budgets, dependencies, habits, links, plugins, properties, rules, rust, traps, tree,
};
use std::collections::BTreeMap;

fn hold(complaints: Vec<String>) {
    assert!(
        complaints.is_empty(),
        "{} complaints:\n  {}",
        complaints.len(),
        complaints.join("\n  ")
    );
}

#[test]
fn imports_point_downwards() {
    hold(arrows::check(&tree::read()));
}

#[test]
fn budgets_are_kept() {
    hold(budgets::check(&tree::read()));
}

#[test]
fn pure_crates_have_pure_dependencies() {
    hold(dependencies::check_tree());
}

#[test]
fn pure_crates_use_no_clock_thread_or_lock() {
    hold(dependencies::check_std(&tree::read()));
}

#[test]
fn files_begin_with_their_purpose() {
    hold(habits::check_headers(&tree::read()));
}

#[test]
fn nothing_panics_outside_tests() {
    hold(habits::check_panics(&tree::read()));
}

#[test]
fn tests_neither_sleep_nor_hide() {
    hold(habits::check_waiting(&tree::read()));
}

#[test]
fn unsafe_says_why_it_is_sound() {
    hold(habits::check_unsafe(&tree::read()));
}

#[test]
fn each_trap_is_met_or_told() {
    hold(traps::check(&tree::read()));
}

#[test]
fn each_rule_of_the_cache_has_its_tests() {
    hold(rules::check(&tree::read()));
}

#[test]
fn no_path_of_one_machine() {
    hold(habits::check_paths(&tree::read()));
}

#[test]
fn default_policies_are_short_and_depend_on_the_sdk_alone() {
    hold(plugins::check(&tree::read()));
}

#[test]
fn claimed_properties_have_proptests() {
    hold(properties::check(&tree::read(), properties::CLAIMED));
}

#[test]
fn links_lead_somewhere() {
    hold(links::check(&tree::read()));
}

#[test]
fn masking_blanks_comments_and_literals_only() {
    let text = "a // x\nb /* /* y */ z */ c \"d\\\"e\" 'f' '\\'' '\\u{1}' 'é' &'g h r\"i\" r#\"j\"k\"# br\"l\" b'm' n\n";
    let mask = rust::mask(text);
    assert_eq!(mask.len(), text.len());
    let words: Vec<&str> = mask.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "c", "&'g", "h", "n"]);
}

#[test]
fn functions_are_measured_by_their_braces() {
    let code = rust::mask(
        "fn a() { \"}\" }\n\npub fn b(x: u8) -> u8\n{\n    if x > 1 { 1 } else { 2 }\n}\nfn c();\n",
    );
    let found: Vec<_> =
        rust::functions(&code).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("a".to_owned(), 1, 1), ("b".to_owned(), 3, 4)]);
}

#[test]
fn imports_are_found_through_groups_and_super() {
    let code = "use crate::a; use crate::{b::c, d::{e, f}, g}; crate::h::i(); super::super::j::k(); super::l();";
    let found: Vec<String> =
        rust::imports(code, &["x", "y"]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["a", "b", "d", "g", "h", "j"]);
}

#[test]
fn each_rule_complains_about_what_breaks_it() {
    let bad = "use crate::admin::Reply;\nfn f() { x.unwrap(); panic!(); unreachable!(); unsafe { g() } std::thread::sleep(d); }\n";
    let file = |path: &str| [File::new(path, bad)];
    assert_eq!(arrows::check(&file("host/tidegate/src/data/relay.rs")).len(), 1);
    assert_eq!(arrows::check(&file("host/tidegate/src/upstream/mod.rs")).len(), 1);
    assert_eq!(arrows::check(&file("host/tidegate/src/serve.rs")), Vec::<String>::new());
    assert_eq!(arrows::check(&file("host/tidegate/src/novelty.rs")).len(), 1);
    assert_eq!(habits::check_headers(&file("host/wire/src/a.rs")).len(), 1);
    assert_eq!(habits::check_panics(&file("host/wire/src/a.rs")).len(), 3);
    assert_eq!(habits::check_unsafe(&file("host/wire/src/a.rs")).len(), 1);
    assert_eq!(habits::check_waiting(&file("host/wire/src/a.rs")).len(), 1);
    assert_eq!(dependencies::check_std(&file("host/core/src/a.rs")).len(), 1);
    assert_eq!(properties::check(&file("host/core/src/a.rs"), &[1]).len(), 1);
}

#[test]
fn tests_are_exempt_where_they_may_be() {
    let text =
        "//! x\nfn f() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn g() { a.unwrap() }\n}\n";
    assert_eq!(
        habits::check_panics(&[File::new("host/core/src/a.rs", text)]),
        Vec::<String>::new()
    );
    assert_eq!(
        rust::test_modules(&rust::mask("#[cfg(test)]\nmod model;\n#[cfg(test)]\nmod x {}\n")),
        ["model"]
    );
}

#[test]
fn a_property_needs_a_tag_in_a_proptest_of_enough_cases() {
    let with = |body: &str| File::new("host/core/src/a.rs", body);
    let tagged = "proptest! {\n    // Property 7: x\n    #[test] fn f(a in 0..1) {}\n}\n";
    assert!(properties::check(&[with(tagged)], &[7]).is_empty());
    assert_eq!(properties::check(&[with(tagged)], &[8]).len(), 1);
    let few = tagged
        .replace("{\n    //", "{\n    #![proptest_config(ProptestConfig::with_cases(10))]\n    //");
    assert_eq!(properties::check(&[with(&few)], &[7]).len(), 1);
    assert_eq!(properties::check(&[with("// Property 7: x\n")], &[7]).len(), 1);
}

#[test]
fn the_ratchet_only_falls() {
    let excess = |lines| BTreeMap::from([("a.rs".to_owned(), (lines, 500))]);
    assert_eq!(budgets::compare(&excess(600), "a.rs 600\n"), Vec::<String>::new());
    assert_eq!(budgets::compare(&excess(601), "a.rs 600\n").len(), 1);
    assert_eq!(budgets::compare(&excess(501), "a.rs 600\n").len(), 1);
    assert_eq!(budgets::compare(&excess(501), "").len(), 1);
    assert_eq!(budgets::compare(&BTreeMap::new(), "a.rs 600\n").len(), 1);
}

#[test]
fn links_are_read_outside_code() {
    let text = "[a](b.md#c) `[d](e)` [f](https://g)\n```\n[h](i)\n```\n[j](#k)\n";
    let found: Vec<String> = links::targets(text).into_iter().map(|(target, _)| target).collect();
    assert_eq!(found, ["b.md#c", "#k"]);
}
