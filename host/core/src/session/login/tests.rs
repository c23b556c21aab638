//! Logins message by message, without a socket.

use super::*;
use crate::limits::{IDENTIFIER_BYTES_MAX, LOGIN_TIME_MAX};
use proptest::prelude::*;
use tidegate_wire::auth::{
    Channel, ClientFirst, EndPointHash, Keys, Request, ScramSecret, Verifier, md5, read_request,
};
use tidegate_wire::error_fields::{field, find};

const SALT: [u8; 4] = [1, 2, 3, 4];

fn policy(method: Method) -> LoginPolicy {
    LoginPolicy { method, tls: TlsPolicy::Optional, trust: TrustScope::Local }
}

fn begin(policy: LoginPolicy, peer: PeerKind) -> Login {
    Login::new(LoginParams {
        now: Instant::now(),
        time_max: LOGIN_TIME_MAX,
        peer,
        policy,
        rules: None,
        nonce: "servernonce".to_owned(),
        md5_salt: SALT,
        fake_secret: [9; 32],
    })
}

fn startup_packet(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    startup::startup_message(&mut out, 0, parameters.iter().copied());
    out
}

fn ssl_packet() -> Vec<u8> {
    let mut out = Vec::new();
    startup::ssl_request(&mut out);
    out
}

fn gssenc_packet() -> Vec<u8> {
    let mut out = Vec::new();
    startup::gssenc_request(&mut out);
    out
}

fn give(login: &mut Login, input: &[u8]) {
    assert_eq!(login.handle_input(input), input.len());
}

/// All that is to be done now, short enough to compare. There is room for everybody, and no delay.
fn actions(login: &mut Login) -> Vec<String> {
    let mut list = Vec::new();
    while let Some(action) = login.poll_action() {
        match action {
            LoginAction::Admit => login.handle_admission(Admission::Granted),
            LoginAction::Judged { .. } => {}
            action => {
                if let LoginAction::Done(done) = &action {
                    list.push(format!("send {}", messages(&done.message).join(" ")));
                }
                list.push(describe(&action));
            }
        }
    }
    list
}

fn describe(action: &LoginAction) -> String {
    match action {
        LoginAction::Send(bytes) if bytes == b"S" || bytes == b"N" => {
            format!("send {}", char::from(bytes[0]))
        }
        LoginAction::Send(bytes) => format!("send {}", messages(bytes).join(" ")),
        LoginAction::UpgradeTls => "upgrade".to_owned(),
        LoginAction::Admit => "admit".to_owned(),
        LoginAction::Judged { user, verdict } => format!("judge {user} {verdict:?}"),
        LoginAction::LookUpUser { user, destination } => {
            let Destination { database, replication } = destination;
            let how = replication.parameter().map(|how| format!(" replication={how}"));
            format!("look up {user} {database}{}", how.unwrap_or_default())
        }
        LoginAction::ForgetUser { user } => format!("forget {user}"),
        LoginAction::VerifyPassword { password, .. } => format!("verify {}", password.reveal()),
        LoginAction::Cancel { pid, secret } => format!("cancel {pid} {secret:?}"),
        LoginAction::Done(done) => format!("done {} {:?}", done.request.user, done.proven),
        LoginAction::Close(reason) => format!("close {}", reason.label()),
    }
}

fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut list = Vec::new();
    while let Some(header) = Header::peek(bytes, 10_000).unwrap() {
        let body = &bytes[HEADER_BYTES..header.frame_bytes()];
        list.push(match header.tag {
            b'R' => match read_request(body).unwrap() {
                Request::SaslContinue(_) => "SaslContinue".to_owned(),
                Request::SaslFinal(_) => "SaslFinal".to_owned(),
                Request::Sasl { .. } => "Sasl".to_owned(),
                Request::Md5Password { .. } => "Md5".to_owned(),
                other => format!("{other:?}"),
            },
            b'E' => {
                let text = |letter| String::from_utf8_lossy(find(body, letter).unwrap_or_default());
                format!(
                    "{} {} {}",
                    text(field::SEVERITY),
                    text(field::SQLSTATE),
                    text(field::MESSAGE)
                )
            }
            tag => char::from(tag).to_string(),
        });
        bytes = &bytes[header.frame_bytes()..];
    }
    list
}

fn known(stored: Stored) -> User {
    User::Known { stored, standing: Standing::Valid }
}

fn scram(password: &str) -> Stored {
    Stored::Scram(Verifier::from_password(password, b"0123456789abcdef", 2))
}

fn password_message(password: &str) -> Vec<u8> {
    let mut out = Vec::new();
    auth::write_password(&mut out, password.as_bytes());
    out
}

/// A client that answers SCRAM with `password`; yields what was done after each message.
fn run_scram(user: User, password: &str) -> Vec<Vec<String>> {
    let mut login = begin(policy(Method::Passthrough), PeerKind::Remote);
    give(&mut login, &startup_packet(&[("user", "alice")]));
    actions(&mut login);
    login.handle_user(user);
    let mut steps = vec![actions(&mut login)];
    let secret = ScramSecret::Password(Secret::new(password));
    let (client, data) = ClientFirst::start(secret, "clientnonce", &Channel::None);
    let mut out = Vec::new();
    auth::write_sasl_initial(&mut out, auth::SCRAM_SHA_256, data.as_bytes());
    give(&mut login, &out);
    let Some(LoginAction::Send(reply)) = login.poll_action() else { panic!("no reply") };
    steps.push(vec![format!("send {}", messages(&reply).join(" "))]);
    let (_, data) = client.answer(&reply[HEADER_BYTES + 4..]).unwrap();
    out.clear();
    auth::write_sasl_response(&mut out, data.as_bytes());
    give(&mut login, &out);
    steps.push(actions(&mut login));
    steps
}

#[test]
fn trap_22_who_finds_no_room_is_told_before_it_proves_anything() {
    let refused = |admission| {
        let mut login = begin(policy(Method::Passthrough), PeerKind::Remote);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        assert!(matches!(login.poll_action(), Some(LoginAction::Admit)));
        assert!(login.poll_action().is_none(), "nothing is done before the answer");
        login.handle_admission(admission);
        actions(&mut login)
    };
    assert_eq!(
        refused(Admission::TooManyClients),
        ["send FATAL 53300 sorry, too many clients already", "close too_many_clients"]
    );
    assert_eq!(
        refused(Admission::ShuttingDown),
        ["send FATAL 57P03 the database system is shutting down", "close shutting_down"]
    );
    assert_eq!(refused(Admission::Granted), ["look up alice alice"]);
}

#[test]
fn a_proof_is_judged_before_the_client_is_told() {
    let judged = |user: User, password: &str| {
        let mut login = begin(policy(Method::Md5), PeerKind::Remote);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(user);
        actions(&mut login);
        let hash = md5::stored_hash("alice", password);
        give(&mut login, &password_message(&md5::answer(hash.reveal(), SALT)));
        describe(&login.poll_action().unwrap())
    };
    let user = || known(Stored::Md5(md5::stored_hash("alice", "pencil")));
    assert_eq!(judged(user(), "pencil"), "judge alice Right");
    assert_eq!(judged(user(), "pen"), "judge alice Wrong");
    assert_eq!(judged(User::Unknown, "pencil"), "judge alice Wrong");
}

#[test]
fn a_right_password_by_scram_yields_the_keys() {
    let steps = run_scram(known(scram("pencil")), "pencil");
    let expected = [
        vec!["send Sasl".to_owned()],
        vec!["send SaslContinue".to_owned()],
        vec!["send SaslFinal Ok".to_owned(), "done alice Keys(Keys(…))".to_owned()],
    ];
    assert_eq!(steps, expected);
}

#[test]
fn trap_18_an_unknown_user_is_answered_like_a_wrong_password() {
    let wrong = run_scram(known(scram("pencil")), "ink");
    let unknown = run_scram(User::Unknown, "ink");
    let said = |steps: &[Vec<String>]| {
        steps.iter().flatten().filter(|a| a.starts_with("send")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(said(&wrong), said(&unknown));
    let failed = "send FATAL 28P01 password authentication failed for user \"alice\"";
    assert_eq!(wrong[2], ["forget alice", failed, "close password_wrong"]);
    assert_eq!(unknown[2], ["forget alice", failed, "close user_unknown"]);
}

#[test]
fn standing_counts_after_the_password() {
    let with = |standing| User::Known { stored: scram("pencil"), standing };
    let expired = run_scram(with(Standing::Expired), "pencil");
    assert_eq!(expired[2][2], "close password_expired");
    assert!(expired[2][1].contains("28P01"));
    let not_permitted = run_scram(with(Standing::NotPermitted), "pencil");
    assert_eq!(
        not_permitted[2],
        [
            "forget alice",
            "send FATAL 28000 role \"alice\" is not permitted to log in",
            "close login_not_permitted"
        ]
    );
    let wrong = run_scram(with(Standing::NotPermitted), "ink");
    assert_eq!(wrong[2][2], "close password_wrong", "a stranger learns nothing of the role");
}

#[test]
fn md5_is_asked_of_users_who_have_nothing_else() {
    let hash = md5::stored_hash("alice", "pencil");
    let run = |method, user: User, answer: &str| {
        let mut login = begin(policy(method), PeerKind::Remote);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(user);
        let asked = actions(&mut login);
        give(&mut login, &password_message(answer));
        (asked, actions(&mut login))
    };
    let answer = md5::answer(hash.reveal(), SALT);
    let (asked, done) = run(Method::Passthrough, known(Stored::Md5(hash.clone())), &answer);
    assert_eq!(asked, ["send Md5"]);
    assert_eq!(done, ["send Ok", "done alice Md5Hash(Secret(…))"]);
    let (_, wrong) = run(Method::Md5, known(Stored::Md5(hash)), "md5nonsense");
    assert_eq!(wrong[2], "close password_wrong");
    let (asked, unknown) = run(Method::Md5, User::Unknown, &answer);
    assert_eq!(asked, ["send Md5"]);
    assert_eq!(unknown[1], wrong[1]);
}

#[test]
fn trap_21_a_password_in_clear_is_asked_only_where_nobody_listens() {
    let ask = |peer, encryption: Option<Encryption>| {
        let mut login = begin(policy(Method::Password), peer);
        if let Some(encryption) = encryption {
            give(&mut login, &ssl_packet());
            login.handle_tls(encryption);
        }
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(known(scram("pencil")));
        actions(&mut login).pop().unwrap()
    };
    let tls = Encryption::Tls { certificate_name: None, end_point: None };
    assert_eq!(ask(PeerKind::Remote, Some(tls)), "send CleartextPassword");
    assert_eq!(ask(PeerKind::Loopback, None), "send CleartextPassword");
    assert_eq!(ask(PeerKind::Unix, None), "send CleartextPassword");
    assert_eq!(ask(PeerKind::Remote, None), "close cleartext_forbidden");
}

#[test]
fn a_password_in_clear_is_checked_outside() {
    let run = |answer: &str, outcome: PasswordOutcome| {
        let mut login = begin(policy(Method::Passthrough), PeerKind::Loopback);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(User::OnlyServerKnows);
        actions(&mut login);
        give(&mut login, &password_message(answer));
        let mut list = actions(&mut login);
        login.handle_password(outcome);
        list.extend(actions(&mut login));
        list
    };
    assert_eq!(
        run("pencil", PasswordOutcome::Right),
        ["verify pencil", "send Ok", "done alice Password(Secret(…))"]
    );
    assert_eq!(run("ink", PasswordOutcome::Wrong)[3], "close password_wrong");
    assert_eq!(run("", PasswordOutcome::Right)[1], "close password_empty");
    let full = PasswordOutcome::Refused(
        CloseReason::ServerRefused,
        Refusal::fatal("53300", "sorry, too many clients already"),
    );
    assert_eq!(run("pencil", full)[2], "send FATAL 53300 sorry, too many clients already");
}

#[test]
fn certificates_are_made_out_to_the_user() {
    let run = |name: Option<&str>| {
        let mut login = begin(policy(Method::Certificate), PeerKind::Remote);
        give(&mut login, &ssl_packet());
        assert_eq!(actions(&mut login), ["send S", "upgrade"]);
        login.handle_tls(Encryption::Tls {
            certificate_name: name.map(str::to_owned),
            end_point: None,
        });
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(User::Unknown);
        actions(&mut login).pop().unwrap()
    };
    assert_eq!(run(Some("alice")), "done alice Nothing");
    assert_eq!(run(Some("Alice")), "close certificate_of_another");
    assert_eq!(run(None), "close certificate_missing");
}

#[test]
fn trust_stays_on_the_machine_unless_forced() {
    let run = |trust, peer| {
        let mut login = begin(LoginPolicy { trust, ..policy(Method::Trust) }, peer);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(User::Unknown);
        actions(&mut login).pop().unwrap()
    };
    assert_eq!(run(TrustScope::Local, PeerKind::Loopback), "done alice Nothing");
    assert_eq!(run(TrustScope::Local, PeerKind::Unix), "done alice Nothing");
    assert_eq!(run(TrustScope::Local, PeerKind::Remote), "close trust_forbidden");
    assert_eq!(run(TrustScope::Everywhere, PeerKind::Remote), "done alice Nothing");
}

#[test]
fn trap_01_bytes_behind_an_encryption_request_are_refused() {
    for request in [ssl_packet(), gssenc_packet()] {
        let mut login = begin(policy(Method::Scram), PeerKind::Remote);
        let mut input = request;
        input.extend_from_slice(&startup_packet(&[("user", "mallory")]));
        login.handle_input(&input);
        let list = actions(&mut login);
        assert!(list[0].contains("08P01 received unencrypted data after"), "{list:?}");
        assert_eq!(list[1], "close bytes_before_tls");
    }
}

#[test]
fn trap_02_and_03_each_request_is_answered_once_in_either_order() {
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    give(&mut login, &gssenc_packet());
    assert_eq!(actions(&mut login), ["send N"]);
    give(&mut login, &ssl_packet());
    assert_eq!(actions(&mut login), ["send S", "upgrade"]);
    login.handle_tls(Encryption::Tls { certificate_name: None, end_point: None });
    give(&mut login, &ssl_packet());
    assert_eq!(actions(&mut login)[1], "close negotiation_repeated");

    let unavailable = LoginPolicy { tls: TlsPolicy::Unavailable, ..policy(Method::Scram) };
    let mut login = begin(unavailable, PeerKind::Remote);
    for request in [ssl_packet(), gssenc_packet()] {
        give(&mut login, &request);
        assert_eq!(actions(&mut login), ["send N"]);
    }
    give(&mut login, &gssenc_packet());
    assert_eq!(actions(&mut login)[1], "close negotiation_repeated");
}

#[test]
fn trap_18_scram_is_bound_to_our_certificate_where_there_is_tls() {
    let end_point = |name: &str| EndPoint::new(name.as_bytes(), EndPointHash::Sha256);
    let after = |mechanism: &str, channel: &Channel| {
        let mut login = begin(policy(Method::Scram), PeerKind::Remote);
        let end_point = Some(end_point("ours"));
        let tls = Encryption::Tls { certificate_name: None, end_point };
        login.handle_direct_tls(tls, Some(b"postgresql"));
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(known(scram("pencil")));
        let Some(LoginAction::Send(offer)) = login.poll_action() else { panic!("no offer") };
        assert!(read_request(&offer[HEADER_BYTES..]).unwrap().offers(auth::SCRAM_SHA_256_PLUS));
        let secret = ScramSecret::Password(Secret::new("pencil"));
        let (client, data) = ClientFirst::start(secret, "clientnonce", channel);
        let mut out = Vec::new();
        auth::write_sasl_initial(&mut out, mechanism, data.as_bytes());
        give(&mut login, &out);
        let Some(LoginAction::Send(reply)) = login.poll_action() else { panic!("no reply") };
        let Ok((_, data)) = client.answer(&reply[HEADER_BYTES + 4..]) else {
            return messages(&reply);
        };
        out.clear();
        auth::write_sasl_response(&mut out, data.as_bytes());
        give(&mut login, &out);
        actions(&mut login)
    };
    let plus = auth::SCRAM_SHA_256_PLUS;
    assert!(after(plus, &Channel::Bound(end_point("ours")))[1].starts_with("done alice"));
    assert!(after(auth::SCRAM_SHA_256, &Channel::None)[1].starts_with("done alice"));
    let failed = "send FATAL 08P01 SCRAM channel binding check failed";
    assert_eq!(after(plus, &Channel::Bound(end_point("another's")))[0], failed);
    let downgrade = "FATAL 28000 SCRAM channel binding negotiation error";
    assert_eq!(after(auth::SCRAM_SHA_256, &Channel::Unused)[0], downgrade);
    // Nothing to bind to, nothing offered.
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    give(&mut login, &startup_packet(&[("user", "alice")]));
    actions(&mut login);
    login.handle_user(known(scram("pencil")));
    let Some(LoginAction::Send(offer)) = login.poll_action() else { panic!("no offer") };
    assert!(!read_request(&offer[HEADER_BYTES..]).unwrap().offers(auth::SCRAM_SHA_256_PLUS));
}

#[test]
fn trap_04_direct_tls_needs_the_name_of_the_protocol() {
    let tls = || Encryption::Tls { certificate_name: None, end_point: None };
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    login.handle_direct_tls(tls(), Some(b"postgresql"));
    give(&mut login, &startup_packet(&[("user", "alice")]));
    assert_eq!(actions(&mut login), ["look up alice alice"]);
    for alpn in [None, Some(&b"http/1.1"[..])] {
        let mut login = begin(policy(Method::Scram), PeerKind::Remote);
        login.handle_direct_tls(tls(), alpn);
        assert_eq!(actions(&mut login)[1], "close alpn_missing");
    }
}

#[test]
fn trap_05_a_client_without_tls_is_told_that_it_is_needed() {
    let required = LoginPolicy { tls: TlsPolicy::Required, ..policy(Method::Scram) };
    let mut login = begin(required, PeerKind::Remote);
    give(&mut login, &startup_packet(&[("user", "alice")]));
    let list = actions(&mut login);
    assert_eq!(list, ["send FATAL 28000 connection requires encryption", "close tls_required"]);
    let mut login = begin(required, PeerKind::Unix);
    give(&mut login, &startup_packet(&[("user", "alice")]));
    assert_eq!(actions(&mut login), ["look up alice alice"]);
}

#[test]
fn trap_06_a_false_length_ends_it_at_once() {
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    assert_eq!(login.handle_input(b"GET "), 4);
    assert_eq!(actions(&mut login), ["close startup_malformed"]);
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    give(&mut login, &startup_packet(&[("user", "alice")]));
    actions(&mut login);
    login.handle_user(known(scram("x")));
    actions(&mut login);
    assert_eq!(login.handle_input(b"p\x00\x01\x00\x04"), 5);
    assert_eq!(actions(&mut login)[1], "close message_length");
}

#[test]
fn trap_07_and_09_negotiation_comes_once_and_first() {
    let mut packet = Vec::new();
    let grease = [("user", "alice"), ("_pq_.test_protocol_negotiation", "")];
    startup::startup_message(&mut packet, 9999, grease);
    let mut login = begin(policy(Method::Trust), PeerKind::Unix);
    give(&mut login, &packet);
    assert_eq!(actions(&mut login), ["send v", "look up alice alice"]);
    login.handle_user(User::Unknown);
    let Some(LoginAction::Done(done)) = login.poll_action() else { panic!("not done") };
    assert_eq!(messages(&done.message), ["Ok"]);
    assert_eq!(done.request.minor, 2);
    assert!(done.request.parameters.is_empty());
}

#[test]
fn trap_08_and_11_other_protocols_and_nameless_users_are_told() {
    let refusal = |packet: &[u8]| {
        let mut login = begin(policy(Method::Scram), PeerKind::Remote);
        give(&mut login, packet);
        actions(&mut login).remove(0)
    };
    assert!(refusal(&[0, 0, 0, 9, 0, 2, 0, 0, 0]).starts_with("send FATAL 0A000 unsupported"));
    let nameless = startup_packet(&[("database", "x")]);
    assert!(refusal(&nameless).starts_with("send FATAL 28000 no PostgreSQL user name"));
    let switch = startup_packet(&[("user", "a"), ("options", "-D /tmp")]);
    assert!(refusal(&switch).starts_with("send FATAL 42601 invalid command-line argument"));
    let replica = startup_packet(&[("user", "a"), ("replication", "maybe")]);
    assert!(refusal(&replica).starts_with("send FATAL 22023 invalid value for parameter"));
}

#[test]
fn trap_11_12_15_what_is_asked_for_is_read_as_the_server_would() {
    let request = |parameters: &[(&str, &str)]| {
        let packet = startup_packet(parameters);
        let Ok(Some((Packet::Startup(packet), _))) = startup::read(&packet) else {
            panic!("not a startup packet")
        };
        LoginRequest::read(&packet).unwrap()
    };
    let long = "é".repeat(40);
    let read = request(&[
        ("user", long.as_str()),
        ("DateStyle", "ISO"),
        ("options", "-c geqo=off --work-mem=1MB"),
        ("replication", "database"),
    ]);
    assert_eq!(read.user.len(), IDENTIFIER_BYTES_MAX - 1, "cut at a character's edge");
    assert_eq!(read.database, read.user);
    let names: Vec<_> = read.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["geqo", "work_mem", "DateStyle"]);
    assert_eq!(read.replication, Replication::Logical);
    let replication = |value| request(&[("user", "a"), ("replication", value)]).replication;
    for value in ["true", "1", "on", "yes", "T"] {
        assert_eq!(replication(value), Replication::Physical, "{value}");
    }
    for value in ["false", "0", "off", "no"] {
        assert_eq!(replication(value), Replication::None, "{value}");
    }
}

#[test]
fn trap_76_a_cancel_request_comes_plain_or_encrypted() {
    let mut packet = Vec::new();
    startup::cancel_request(&mut packet, -5, &[0, 1, 0, 2]);
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    give(&mut login, &packet);
    assert_eq!(actions(&mut login), ["cancel -5 [0, 1, 0, 2]"]);
    let required = LoginPolicy { tls: TlsPolicy::Required, ..policy(Method::Scram) };
    let mut login = begin(required, PeerKind::Remote);
    give(&mut login, &ssl_packet());
    login.handle_tls(Encryption::Tls { certificate_name: None, end_point: None });
    give(&mut login, &packet);
    assert_eq!(actions(&mut login)[2], "cancel -5 [0, 1, 0, 2]");
}

#[test]
fn a_message_that_is_no_answer_ends_the_login() {
    let run = |message: &[u8]| {
        let mut login = begin(policy(Method::Scram), PeerKind::Remote);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(known(scram("x")));
        actions(&mut login);
        login.handle_input(message);
        actions(&mut login).pop().unwrap_or_default()
    };
    assert_eq!(run(b"Q\0\0\0\x05\0"), "close message_unexpected");
    assert_eq!(run(b"X\0\0\0\x04"), "close disconnected");
    assert_eq!(run(b"p\0\0\0\x0cSCRAM-1\0"), "close sasl_malformed");
    assert_eq!(run(b"p\0\0"), "", "it waits for the rest");
}

#[test]
fn the_deadline_is_told_once_the_protocol_is_spoken() {
    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    let deadline = login.deadline();
    login.handle_timeout(deadline - Duration::from_millis(1));
    assert_eq!(actions(&mut login), [""; 0]);
    login.handle_timeout(deadline);
    assert_eq!(actions(&mut login), ["close timed_out"]);

    let mut login = begin(policy(Method::Scram), PeerKind::Remote);
    give(&mut login, &startup_packet(&[("user", "alice")]));
    actions(&mut login);
    login.handle_timeout(deadline + Duration::from_secs(100));
    assert_eq!(
        actions(&mut login),
        ["send FATAL 57014 canceling authentication due to timeout", "close timed_out"]
    );
    login.handle_user(known(scram("x")));
    assert_eq!(actions(&mut login), [""; 0], "what comes too late does nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// However the bytes are cut, the same is done.
    #[test]
    fn packets_may_come_in_any_pieces(
        cuts in proptest::collection::vec(1_usize..9, 1..40),
        name in "[a-z]{1,20}",
        application in "[^\0]{0,30}",
    ) {
        let packet = startup_packet(&[("user", &name), ("application_name", &application)]);
        let mut login = begin(policy(Method::Scram), PeerKind::Remote);
        let mut arrived = 0;
        for cut in cuts.iter().cycle() {
            if arrived == packet.len() { break; }
            prop_assert_eq!(login.handle_input(&packet[..arrived]), 0);
            arrived = (arrived + cut).min(packet.len());
        }
        prop_assert_eq!(login.handle_input(&packet), packet.len());
        prop_assert_eq!(actions(&mut login), vec![format!("look up {name} {name}")]);
    }

    /// Nobody gets in with noise, whatever the method, and every end is said once.
    #[test]
    fn noise_never_logs_in(
        method in prop_oneof![
            Just(Method::Passthrough),
            Just(Method::Scram),
            Just(Method::Md5),
            Just(Method::Password),
        ],
        inputs in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)),
            1..8,
        ),
    ) {
        let mut login = begin(policy(method), PeerKind::Loopback);
        give(&mut login, &startup_packet(&[("user", "alice")]));
        actions(&mut login);
        login.handle_user(known(scram("a password that noise does not hit")));
        let mut closed = 0;
        for (framed, noise) in inputs {
            let mut input = noise;
            if framed {
                input.splice(..0, [b'p', 0, 0, 0, input.len() as u8 + 4]);
            }
            login.handle_input(&input);
            while let Some(action) = login.poll_action() {
                match action {
                    LoginAction::Done(_) => prop_assert!(false, "logged in"),
                    LoginAction::VerifyPassword { .. } => {
                        login.handle_password(PasswordOutcome::Wrong);
                    }
                    LoginAction::Close(_) => closed += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(closed <= 1);
    }

    /// The keys that pass-through learns are those of the password.
    #[test]
    fn keys_are_those_of_the_password(password in "[a-zA-Z0-9]{1,20}") {
        let verifier = Verifier::from_password(&password, b"0123456789abcdef", 2);
        let keys = Keys::from_password(&password, b"0123456789abcdef", 2);
        let steps = run_scram(known(Stored::Scram(verifier)), &password);
        prop_assert!(steps[2][1].starts_with("done alice Keys"));
        prop_assert_eq!(keys.client_key.len(), 32);
    }
}
