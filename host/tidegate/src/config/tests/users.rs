//! Tests of the users file.

use proptest::prelude::*;

use tidegate_wire::auth::{Secret, Verifier};

use super::super::users::{UserSecret, Users};

const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                        wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const MD5: &str = "md5aca706c93ecf11cad94fdc7bc4f1ea6b";

#[test]
fn the_three_kinds_of_secrets_are_told_apart() {
    let text = format!(
        "\"ann\" \"pass\"\n; a comment\n# another\n\n  \"bob\"\t\"{MD5}\"\r\n\"c\"\"d\" \"{VERIFIER}\" more"
    );
    let users = Users::parse(&text).unwrap();
    assert_eq!(users.len(), 3);
    assert_eq!(users.get("ann"), Some(&UserSecret::Plain(Secret::new("pass"))));
    assert_eq!(users.get("bob"), Some(&UserSecret::Md5(Secret::new(MD5))));
    assert_eq!(users.get("c\"d"), Some(&UserSecret::Scram(Verifier::parse(VERIFIER).unwrap())));
    assert_eq!(users.get("eve"), None);
}

#[test]
fn what_only_resembles_an_md5_hash_is_a_password() {
    let users = Users::parse("\"ann\" \"md5ish\"\n\"bob\" \"\"").unwrap();
    assert_eq!(users.get("ann"), Some(&UserSecret::Plain(Secret::new("md5ish"))));
    assert_eq!(users.get("bob"), Some(&UserSecret::Plain(Secret::new(""))));
}

#[test]
fn each_bad_line_is_an_error_with_its_place() {
    let text = "\"ann\" \"x\"\nbob \"x\"\n\"eve\" x\n  \"eve\" \"x\n\"ann\" \"y\"\n\"\" \"z\"\n\"dan\" \"SCRAM-SHA-256$1:2$3:4\"";
    let errors = Users::parse(text).unwrap_err();
    let told: Vec<_> = errors.iter().map(|e| (e.line, e.column, e.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (2, 1, "the user is not in double quotes"),
            (3, 7, "the secret is not in double quotes"),
            (4, 9, "the secret has no closing quote"),
            (5, 1, "user \"ann\" is on line 1 already"),
            (6, 1, "the user is empty"),
            (
                7,
                7,
                "the secret is a damaged SCRAM verifier, not SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"
            ),
        ]
    );
}

proptest! {
    #[test]
    fn what_is_quoted_is_read_back(user in "[^\\x00\r\n]{1,20}", secret in "[^\\x00\r\n]{0,20}") {
        prop_assume!(!secret.starts_with("SCRAM-SHA-256$"));
        let quote = |text: &str| text.replace('"', "\"\"");
        let users = Users::parse(&format!("\"{}\" \"{}\"", quote(&user), quote(&secret))).unwrap();
        let Some(UserSecret::Plain(read) | UserSecret::Md5(read)) = users.get(&user) else {
            return Err(TestCaseError::fail("no such user, or a verifier"));
        };
        prop_assert_eq!(read.reveal(), secret);
    }

    #[test]
    fn any_text_is_read_or_explained(text in "[\\PC\n\"]{0,120}") {
        if let Err(errors) = Users::parse(&text) {
            prop_assert!(!errors.is_empty());
        }
    }
}
