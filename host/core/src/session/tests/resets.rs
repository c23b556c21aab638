//! RESET and DISCARD ALL go back to the start-up packet's values, wherever they stand.

use super::program::*;
use super::world::{World, map};

#[test]
fn trap_83_reset_goes_back_to_the_start_up_value() {
    let startup = map(&[("timezone", "S")]);
    for sql in ["RESET timezone", "RESET ALL", "DISCARD ALL"] {
        let mut world = World::new(std::slice::from_ref(&startup));
        let got = world.ask(0, &bytes(&[q("SET timezone = 'A'"), q(sql), q("SHOW timezone")]));
        assert!(got.contains(&"D S".to_owned()), "{sql}: {got:?}");
        let told_last = got.iter().rfind(|word| word.starts_with("S ")).unwrap();
        assert_eq!(told_last, "S TimeZone=S", "{sql}: {got:?}");
    }
    let mut world = World::new(&[startup]);
    let got = world
        .ask(0, &bytes(&[q("SET timezone = 'A'"), q("BEGIN"), q("RESET ALL"), q("SHOW timezone")]));
    assert!(got.contains(&"D S".to_owned()), "{got:?}");
    assert!(world.ask(0, &bytes(&[q("ROLLBACK"), q("SHOW timezone")])).contains(&"D A".to_owned()));
    let got =
        world.ask(0, &bytes(&[q("BEGIN"), q("DISCARD ALL"), q("ROLLBACK"), q("SHOW timezone")]));
    assert!(got.contains(&"D A".to_owned()), "it failed: {got:?}");
}

#[test]
fn trap_83_a_reset_behind_what_fails_goes_back_to_the_start_up_value_too() {
    for before in [
        &[q("ROLLBACK")][..],
        &[q("SELECT 1/0")],
        &[q("BEGIN"), q("ROLLBACK")],
        &[q("BEGIN"), q("SAVEPOINT a"), q("SELECT 1/0"), q("ROLLBACK TO a")],
    ] {
        for sql in ["RESET timezone", "RESET ALL"] {
            let mut world = World::new(&[map(&[("timezone", "S")])]);
            let sent = [before, &[q(sql), q("SHOW timezone")]].concat();
            let got = world.ask(0, &bytes(&sent));
            assert!(got.contains(&"D S".to_owned()), "{sent:?}: {got:?}");
        }
    }
}
