use super::*;

#[test]
fn names_are_quoted() {
    let channels: Channels = ["a", "Ü \"x\""].into_iter().collect();
    let sql = Channels::default().switch_sql(&channels).unwrap();
    assert_eq!(sql, "LISTEN \"a\";LISTEN \"Ü \"\"x\"\"\";");
}
