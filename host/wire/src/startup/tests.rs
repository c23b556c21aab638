//! First packets, well-formed and not.

use super::*;
use proptest::prelude::*;

fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    startup_message(&mut out, minor, parameters.iter().copied());
    out
}

fn read_startup_of(input: &[u8]) -> Startup {
    match read(input) {
        Ok(Some((Packet::Startup(startup), bytes))) => {
            assert_eq!(bytes, input.len());
            startup
        }
        other => panic!("not a StartupMessage: {other:?}"),
    }
}

#[test]
fn requests_are_read_as_written() {
    let mut out = Vec::new();
    ssl_request(&mut out);
    assert_eq!(out, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
    assert_eq!(read(&out), Ok(Some((Packet::SslRequest, 8))));
    out.clear();
    gssenc_request(&mut out);
    assert_eq!(read(&out), Ok(Some((Packet::GssEncRequest, 8))));
    out.push(1);
    assert_eq!(
        read(&out),
        Ok(Some((Packet::GssEncRequest, 8))),
        "what follows is not its business"
    );
}

#[test]
fn trap_06_a_length_is_judged_before_anything_else_arrives() {
    for length in [0_u32, 4, 7, 10_001, 0x4745_5420, u32::MAX] {
        assert_eq!(read(&length.to_be_bytes()), Err(StartupError::Length(length)));
    }
    assert_eq!(read(&10_000_u32.to_be_bytes()), Ok(None));
    assert_eq!(read(&8_u32.to_be_bytes()), Ok(None));
    assert_eq!(read(&[0, 0, 0]), Ok(None));
}

#[test]
fn trap_78_any_pid_and_any_secret_of_4_to_256_bytes_can_be_cancelled() {
    for (pid, secret) in [(-1, vec![0; 4]), (i32::MIN, vec![7; 256]), (42, vec![0xff; 32])] {
        let mut out = Vec::new();
        cancel_request(&mut out, pid, &secret);
        let expected = Packet::Cancel(CancelRequest { pid, secret });
        assert_eq!(read(&out), Ok(Some((expected, out.len()))));
    }
    for bytes in [0, 3, 257] {
        let mut out = Vec::new();
        cancel_request(&mut out, 1, &vec![0; bytes]);
        assert_eq!(read(&out), Err(StartupError::CancelKeyLength(bytes)));
    }
}

#[test]
fn a_startup_message_keeps_order_and_its_last_value_counts() {
    let input = startup(0, &[("user", "a"), ("application_name", ""), ("user", "b")]);
    let startup = read_startup_of(&input);
    assert_eq!((startup.major, startup.minor), (3, 0));
    assert_eq!(startup.parameter("user"), Some("b"));
    assert_eq!(startup.parameter("application_name"), Some(""));
    assert_eq!(startup.parameter("database"), None);
    assert_eq!(startup.parameters.len(), 3);
    assert!(!startup.wants_more_than_we_speak());
}

#[test]
fn trap_07_minors_and_options_we_do_not_speak_are_negotiated() {
    let agreed = |minor: u16| {
        let startup = read_startup_of(&startup(minor, &[("user", "a")]));
        (startup.minor_agreed(), startup.wants_more_than_we_speak())
    };
    assert_eq!(agreed(0), (0, false));
    assert_eq!(agreed(1), (0, true));
    assert_eq!(agreed(2), (2, false));
    assert_eq!(agreed(9999), (2, true));

    let grease =
        startup(2, &[("user", "a"), ("_pq_.test_protocol_negotiation", "x"), ("_pq_.b", "")]);
    let startup = read_startup_of(&grease);
    assert!(startup.wants_more_than_we_speak());
    assert_eq!(startup.parameters.len(), 1);
    let mut out = Vec::new();
    negotiate_protocol_version(&mut out, startup.minor_agreed(), &startup.unknown_options);
    assert_eq!(out, b"v\0\0\0\x32\0\x03\0\x02\0\0\0\x02_pq_.test_protocol_negotiation\0_pq_.b\0");
}

#[test]
fn malformed_startup_messages_say_what_is_wrong() {
    let whole = startup(0, &[("user", "a")]);
    let with_body = |body: &[u8]| {
        let mut packet = ((body.len() + 8) as u32).to_be_bytes().to_vec();
        packet.extend_from_slice(&[0, 3, 0, 0]);
        packet.extend_from_slice(body);
        read(&packet)
    };
    assert_eq!(with_body(b"user\0a\0"), Err(StartupError::Terminator));
    assert_eq!(with_body(b"user\0a"), Err(StartupError::Terminator));
    assert_eq!(with_body(b""), Err(StartupError::Terminator));
    assert_eq!(with_body(b"user\0a\0\0x"), Err(StartupError::TrailingBytes));
    assert_eq!(with_body(b"user\0\xff\0\0"), Err(StartupError::Encoding));
    assert!(with_body(b"application_name\0\xff\0\0").is_ok());
    assert!(read(&whole[..whole.len() - 1]).unwrap().is_none());
    // SSLRequest with a body
    assert_eq!(read(&[0, 0, 0, 9, 0x04, 0xd2, 0x16, 0x2f, 0]), Err(StartupError::TrailingBytes));
    // protocol 2 has another layout
    assert!(matches!(
        read(&[0, 0, 0, 9, 0, 2, 0, 0, 77]),
        Ok(Some((Packet::Startup(Startup { major: 2, .. }), 9)))
    ));
}

#[test]
fn trap_12_options_are_split_and_read_like_the_server_does() {
    let check = |options: &str, expected: &[(&str, &str)]| {
        let expected: Vec<_> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(parse_options(options), Ok(expected), "{options}");
    };
    check("", &[]);
    check("  ", &[]);
    check("-c geqo=off", &[("geqo", "off")]);
    check("-cgeqo=off --work-mem=4MB", &[("geqo", "off"), ("work_mem", "4MB")]);
    check(r"-c search_path=a,\ b\\c", &[("search_path", r"a, b\c")]);
    check("-c a=1\t-c a=2", &[("a", "1"), ("a", "2")]);
    check("-c my.x=a=b", &[("my.x", "a=b")]);
    check("-c a=", &[("a", "")]);
    check(r"-c a=\", &[("a", "")]);
    check("-e", &[("datestyle", "euro")]);
    let missing = |word: &str| Err(OptionsError::ValueMissing(word.to_owned()));
    assert_eq!(parse_options("-c"), missing("-c"));
    assert_eq!(parse_options("-c geqo"), missing("-c"));
    assert_eq!(parse_options("--geqo"), missing("--geqo"));
    assert_eq!(parse_options("--=x"), missing("--=x"));
    assert_eq!(parse_options("-D /tmp"), Err(OptionsError::UnknownSwitch("-D".to_owned())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_bytes_are_read_or_refused(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((_, bytes))) = read(&input) {
            prop_assert!(bytes <= input.len() && bytes >= PACKET_BYTES_MIN);
        }
    }

    #[test]
    fn any_bytes_with_a_true_length_are_read_or_refused(
        code in prop_oneof![Just(CANCEL_CODE), Just(SSL_CODE), Just(3 << 16), any::<u32>()],
        body in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..300),
    ) {
        let mut input = ((body.len() + 8) as u32).to_be_bytes().to_vec();
        input.extend_from_slice(&code.to_be_bytes());
        input.extend_from_slice(&body);
        if let Ok(read) = read(&input) {
            prop_assert_eq!(read.map(|(_, bytes)| bytes), Some(input.len()));
        }
    }

    #[test]
    fn startup_parameters_round_trip(
        parameters in proptest::collection::vec(("[a-z]{1,9}", "[^\0]{0,9}"), 0..9),
    ) {
        let list: Vec<_> = parameters.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let startup = read_startup_of(&startup(0, &list));
        prop_assert_eq!(startup.parameters, parameters);
    }

    #[test]
    fn escaped_values_in_options_come_back(value in "[^\0]{0,20}") {
        let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
        let settings = parse_options(&format!("-c a.b={escaped}")).unwrap();
        prop_assert_eq!(&settings[0].1, &value);
    }
}
