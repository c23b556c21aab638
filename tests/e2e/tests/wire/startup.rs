//! Before the first ReadyForQuery.

use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::differential::{differential_url, front_is_tidegate, front_url};
use tidegate_test_support::pipeline::{startup, untyped};
use tidegate_test_support::{Client, Url, test_database};

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const PROTOCOL_3_0: u32 = 0x0003_0000;

fn front() -> Url {
    Url::parse(&front_url(ROLE, &test_database("startup")))
}

#[test]
fn trap_2_encryption_is_declined_and_the_connection_goes_on() {
    for first in [SSL_REQUEST, GSSENC_REQUEST] {
        let url = front();
        let mut client = Client::open(&url.address());
        for request in [first, SSL_REQUEST + GSSENC_REQUEST - first] {
            if request == GSSENC_REQUEST && !front_is_tidegate() {
                continue; // PostgreSQL accepts it wherever it was built with GSSAPI
            }
            client.send(untyped(&request.to_be_bytes()));
            assert_eq!(client.read_byte(), b'N');
        }
        client.send(startup(PROTOCOL_3_0, &[("user", &url.user), ("database", &url.database)]));
        client.log_in(&url.user, &url.password).unwrap();
        assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    }
}

#[test]
fn trap_6_a_start_up_packet_of_a_wrong_length_ends_the_connection() {
    let address = front().address();
    for length in [0u32, 4, 7, 10_005, 1 << 20, u32::MAX] {
        let mut client = Client::open(&address);
        client.send(length.to_be_bytes());
        let end = client.read_message_or_end();
        assert!(end.is_none_or(|message| message.tag == b'E'), "length {length}");
    }
}

#[test]
fn trap_7_unknown_options_and_newer_versions_are_negotiated() {
    let url = front();
    for protocol in [PROTOCOL_3_0, 0x0003_0002, 0x0003_270f] {
        let mut client = Client::open(&url.address());
        let parameters = [
            ("user", url.user.as_str()),
            ("_pq_.test_protocol_negotiation", ""),
            ("database", &url.database),
            ("_pq_.another", "x"),
        ];
        client.send(startup(protocol, &parameters));
        let first = client.read_message();
        assert_eq!(first.tag, b'v', "{first:?}");
        let names = b"\0\0\0\x02_pq_.test_protocol_negotiation\0_pq_.another\0";
        assert_eq!(first.body[4..], names[..]);
        client.log_in(&url.user, &url.password).unwrap();
        assert_eq!(client.transcript().iter().filter(|line| line.starts_with('v')).count(), 1);
    }
}

#[test]
fn trap_8_another_major_version_is_refused() {
    let mut client = Client::open(&front().address());
    client.send(startup(0x0004_0000, &[("user", ROLE)]));
    let error = &client.expect("E:0A000 (end)")[0];
    assert_eq!(error.field(b'V').as_deref(), Some("FATAL"));
}

#[test]
fn trap_11_a_user_is_needed_and_a_database_is_not() {
    let url = front();
    let mut client = Client::open(&url.address());
    client.send(startup(PROTOCOL_3_0, &[("database", &url.database)]));
    client.expect("E:28000 (end)");
    let mut client = Client::open(&url.address());
    client.send(startup(PROTOCOL_3_0, &[("user", &url.user)]));
    let refusal = client.log_in(&url.user, &url.password).unwrap_err();
    assert_eq!(refusal.sqlstate(), "3D000"); // the database is named like the user, and there is none
}

#[test]
fn trap_13_bad_start_up_settings_are_refused() {
    differential_url("", |url| {
        let refused = [
            [("options", "-c no_such_setting=1")],
            [("work_mem", "much")],
            [("options", "-c work_mem=much")],
        ];
        refused
            .iter()
            .map(|parameters| Client::try_connect(url, parameters).unwrap_err().describe())
            .collect()
    });
}

#[test]
fn trap_12_options_are_taken_apart_like_postgresql_does() {
    differential_url("", |url| {
        let options = "-c work_mem=5MB --statement_timeout=7s -cmy.spaced=a\\ b -c work_mem=6MB";
        let mut client = Client::connect_with(url, &[("options", options)]);
        for name in ["work_mem", "statement_timeout", "my.spaced"] {
            client.query(&format!("SHOW {name}"));
        }
        client.transcript().to_vec()
    });
}

#[test]
fn trap_14_16_17_the_reported_parameters_are_the_servers() {
    differential_url("", |url| {
        let mut reported = Vec::new();
        for parameters in [
            &[][..],
            &[("application_name", "")],
            &[
                ("application_name", "app"),
                ("TimeZone", "asia/tokyo"),
                ("client_encoding", "latin1"),
            ],
            &[("DateStyle", "german"), ("options", "-c intervalstyle=iso_8601")],
        ] {
            let client = Client::connect_with(url, parameters);
            reported
                .extend(client.parameters.iter().map(|(name, value)| format!("{name}={value}")));
            reported.push(format!("key of {} bytes", client.backend_key.len()));
        }
        reported
    });
}

#[test]
fn trap_18_a_wrong_password_and_an_unknown_user_look_alike() {
    differential_url("", |url| {
        let wrong = url.replace("app-password", "wrong");
        let unknown = url.replace("app:app-password", "nobody:wrong");
        [wrong, unknown]
            .iter()
            .map(|url| Client::try_connect(url, &[]).unwrap_err().describe())
            .collect()
    });
}

#[test]
fn trap_72_a_cancel_with_an_unknown_key_is_ignored() {
    let mut client = Client::open(&front().address());
    let body = [&CANCEL_REQUEST.to_be_bytes()[..], &[0, 0, 0, 1], &[0, 0, 0, 2]].concat();
    client.send(untyped(&body));
    client.expect("(end)");
}
