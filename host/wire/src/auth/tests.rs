//! The vectors of RFC 7677, verifiers made by PostgreSQL, and exchanges between our own two sides.

use super::*;
use proptest::prelude::*;

/// `CREATE ROLE … PASSWORD 'pencil'` on PostgreSQL 15.
const POSTGRES_VERIFIER: &str = "SCRAM-SHA-256$4096:WVrsfSLRPwQw/LgxeB/15Q==$\
    MMsQDJ9lk7mhwRMRnPq2wbWc48c4UKmMIwbHPgrocks=:3VtPkeOr8ALNaTGvRfxbtzkiTg/0LJ+IreiX5JwuYPQ=";

fn password(text: &str) -> ScramSecret {
    ScramSecret::Password(Secret::new(text))
}

/// Runs the whole exchange; yields the keys that the server side learnt.
fn exchange(secret: ScramSecret, verifier: &Verifier) -> Result<Keys, ScramError> {
    let (client, message) = ClientFirst::start(secret, "clientnonce", &Channel::None);
    let (server, message) =
        ServerFirst::start(message.as_bytes(), verifier.clone(), "servernonce", &Channel::None)?;
    let (client, message) = client.answer(message.as_bytes())?;
    let done = server.verify(message.as_bytes())?;
    client.finish(done.message.as_bytes())?;
    Ok(done.keys)
}

#[test]
fn the_exchange_of_rfc_7677_is_reproduced() {
    // RFC 7677 names a user in the first message; libpq and we do not, so only the server side can
    // replay it.
    let salt = verifier::decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = Verifier::from_password("pencil", &salt, 4096);
    let (server, first) = ServerFirst::start(
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        verifier,
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        &Channel::None,
    )
    .unwrap();
    assert_eq!(
        first,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let done = server
        .verify(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(done.message, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn verifiers_of_postgresql_are_read_and_printed_alike() {
    let verifier = Verifier::parse(POSTGRES_VERIFIER).unwrap();
    assert_eq!(verifier.to_string(), POSTGRES_VERIFIER);
    assert!(verifier.fits("pencil"));
    assert!(!verifier.fits("Pencil"));
    assert_eq!(Verifier::from_password("pencil", &verifier.salt, 4096), verifier);
}

#[test]
fn false_verifiers_are_refused() {
    let fields = |iterations: &str, salt: &str, stored: &str| {
        let server = POSTGRES_VERIFIER.rsplit_once(':').unwrap().1;
        Verifier::parse(&format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"))
    };
    let stored = POSTGRES_VERIFIER.rsplit(['$', ':']).nth(1).unwrap();
    assert!(fields("4096", "c2FsdA==", stored).is_ok());
    assert_eq!(fields("0", "c2FsdA==", stored), Err(BadVerifier));
    assert_eq!(fields("1000001", "c2FsdA==", stored), Err(BadVerifier));
    assert_eq!(fields("-1", "c2FsdA==", stored), Err(BadVerifier));
    assert_eq!(fields("4096", "", stored), Err(BadVerifier));
    assert_eq!(fields("4096", "c2F%", stored), Err(BadVerifier));
    assert_eq!(fields("4096", "c2FsdA==", "c2hvcnQ="), Err(BadVerifier));
    for text in ["", "md5", "SCRAM-SHA-256", "SCRAM-SHA-256$1:2", "SCRAM-SHA-512$4096:a$b:c"] {
        assert_eq!(Verifier::parse(text), Err(BadVerifier), "{text}");
    }
}

#[test]
fn trap_18_the_client_key_learnt_from_a_login_logs_in_elsewhere() {
    let verifier = Verifier::parse(POSTGRES_VERIFIER).unwrap();
    let keys = exchange(password("pencil"), &verifier).unwrap();
    let again = exchange(ScramSecret::Keys(keys.clone()), &verifier).unwrap();
    assert_eq!(keys, again);
    let other_salt = Verifier::from_password("pencil", b"another salt", 4096);
    assert_eq!(exchange(ScramSecret::Keys(keys), &other_salt), Err(ScramError::WrongPassword));
}

#[test]
fn a_wrong_password_and_a_fake_verifier_fail_alike() {
    let verifier = Verifier::parse(POSTGRES_VERIFIER).unwrap();
    assert_eq!(exchange(password("ink"), &verifier), Err(ScramError::WrongPassword));
    let fake = Verifier::fake(&[7; 32], "nobody");
    assert_eq!(exchange(password("ink"), &fake), Err(ScramError::WrongPassword));
    assert_eq!(fake, Verifier::fake(&[7; 32], "nobody"), "the salt of a user never changes");
    assert_ne!(fake.salt, Verifier::fake(&[7; 32], "somebody").salt);
    assert_ne!(fake.salt, Verifier::fake(&[8; 32], "nobody").salt);
    assert_eq!(
        (fake.salt.len(), fake.iterations),
        (verifier.salt.len(), verifier.iterations),
        "a fake looks like a true one"
    );
}

#[test]
fn trap_18_headers_say_what_channel_binding_the_client_wants() {
    let verifier = Verifier::fake(&[0; 32], "u");
    let start = |first: &str| {
        ServerFirst::start(first.as_bytes(), verifier.clone(), "s", &Channel::None).map(|(_, m)| m)
    };
    assert!(start("n,,n=,r=abc").unwrap().starts_with("r=abcs,s="));
    assert!(start("y,,n=,r=abc").is_ok());
    assert_eq!(start("p=tls-server-end-point,,n=,r=abc"), Err(ScramError::ChannelBinding));
    assert_eq!(start("x,,n=,r=abc"), Err(ScramError::Malformed("channel binding flag")));
    assert!(matches!(start("n,a=root,n=,r=abc"), Err(ScramError::Unsupported(_))));
    assert!(matches!(start("n,,m=x,n=,r=abc"), Err(ScramError::Unsupported(_))));
    for bad in ["", "n", "n,", "n,,", "n,,r=abc", "n,,n=", "n,,n=,r=", "n,,n=,r=a b", "n,,n=,r=é"]
    {
        assert!(matches!(start(bad), Err(ScramError::Malformed(_))), "{bad:?}");
    }
}

fn bound_to(certificate: &str) -> Channel {
    Channel::Bound(EndPoint::new(certificate.as_bytes(), EndPointHash::Sha256))
}

/// Runs an exchange in which each side sees the channel so.
fn over(client: &Channel, server: &Channel) -> Result<(), ScramError> {
    let verifier = Verifier::from_password("pencil", b"salt", 2);
    let (client, message) = ClientFirst::start(password("pencil"), "c", client);
    let (server, message) = ServerFirst::start(message.as_bytes(), verifier, "s", server)?;
    let (client, message) = client.answer(message.as_bytes())?;
    client.finish(server.verify(message.as_bytes())?.message.as_bytes())
}

#[test]
fn trap_18_a_bound_exchange_fails_over_another_channel_and_a_downgrade_is_noticed() {
    let (ours, other) = (bound_to("ours"), bound_to("somebody's between"));
    assert_eq!(over(&ours, &ours), Ok(()));
    assert_eq!(over(&ours, &other), Err(ScramError::ChannelBinding));
    // The mechanism without binding, as far as the client knows the only one.
    assert_eq!(over(&Channel::Unused, &Channel::None), Ok(()));
    assert_eq!(over(&Channel::Unused, &Channel::Unused), Err(ScramError::Downgrade));
    // A client that cannot bind may say so.
    assert_eq!(over(&Channel::None, &Channel::Unused), Ok(()));
    // A header that does not fit the mechanism.
    assert_eq!(over(&ours, &Channel::Unused), Err(ScramError::ChannelBinding));
    assert_eq!(over(&Channel::None, &ours), Err(ScramError::ChannelBinding));
    assert_eq!(over(&Channel::Unused, &ours), Err(ScramError::ChannelBinding));
    let verifier = Verifier::from_password("pencil", b"salt", 2);
    let unique = ServerFirst::start(b"p=tls-unique,,n=,r=c", verifier, "s", &ours);
    assert!(matches!(unique, Err(ScramError::Unsupported(_))));
}

#[test]
fn the_final_message_must_repeat_header_and_nonce() {
    let verifier = Verifier::from_password("pencil", b"salt", 2);
    let finish = |change: fn(&str) -> String| {
        let (client, message) = ClientFirst::start(password("pencil"), "c", &Channel::None);
        let (server, message) =
            ServerFirst::start(message.as_bytes(), verifier.clone(), "s", &Channel::None).unwrap();
        let (_, message) = client.answer(message.as_bytes()).unwrap();
        server.verify(change(&message).as_bytes()).map(|_| ())
    };
    assert_eq!(finish(str::to_owned), Ok(()));
    assert_eq!(finish(|m| m.replace("c=biws", "c=eSws")), Err(ScramError::ChannelBinding));
    assert_eq!(finish(|m| m.replace("r=cs", "r=cx")), Err(ScramError::Nonce));
    assert_eq!(finish(|m| m.replace("r=cs", "r=cs,x=y")), Err(ScramError::WrongPassword));
    assert!(matches!(finish(|m| m.replace(",p=", ",q=")), Err(ScramError::Malformed(_))));
    assert!(matches!(finish(|m| m[..m.len() - 4].to_owned()), Err(ScramError::Malformed(_))));
}

#[test]
fn a_client_distrusts_its_server() {
    let answer = |first: &str| {
        let (client, _) = ClientFirst::start(password("pencil"), "abc", &Channel::None);
        client.answer(first.as_bytes()).map(|_| ())
    };
    assert_eq!(answer("r=abcd,s=c2FsdA==,i=1"), Ok(()));
    assert_eq!(answer("r=abc,s=c2FsdA==,i=1"), Err(ScramError::Nonce));
    assert_eq!(answer("r=xyzd,s=c2FsdA==,i=1"), Err(ScramError::Nonce));
    assert_eq!(answer("r=abcd,s=c2FsdA==,i=0"), Err(ScramError::Iterations));
    assert_eq!(answer("r=abcd,s=c2FsdA==,i=4000000000"), Err(ScramError::Iterations));
    assert_eq!(answer("r=abcd,s=,i=1"), Err(ScramError::Malformed("salt")));
    assert_eq!(answer("e=other-error"), Err(ScramError::ServerError));

    let (client, _) = ClientFirst::start(password("pencil"), "abc", &Channel::None);
    let (client, _) = client.answer(b"r=abcd,s=c2FsdA==,i=1").unwrap();
    let false_signature = format!("v={}", verifier::encode(&[0; 32]));
    assert_eq!(client.finish(false_signature.as_bytes()), Err(ScramError::WrongServer));
}

#[test]
fn passwords_are_prepared_like_postgresql_does() {
    assert_eq!(saslprep("I\u{ad}X"), "IX");
    assert_eq!(saslprep("\u{2168}"), "IX");
    assert_eq!(saslprep("user\u{7}"), "user\u{7}", "a forbidden character: as it is");
    assert_eq!(saslprep("\u{ad}"), "\u{ad}", "nothing would be left: as it is");
    let verifier = Verifier::from_password("\u{2168}", b"salt", 2);
    assert!(exchange(password("IX"), &verifier).is_ok());
}

#[test]
fn md5_hashes_are_those_of_postgresql() {
    // SELECT rolpassword for user "alice" with password "pencil" on PostgreSQL 15
    let stored = md5::stored_hash("alice", "pencil");
    assert_eq!(stored.reveal(), "md5ee69efad287c7423caf0b3229d71f567");
    assert!(md5::is_stored_hash(stored.reveal()));
    assert!(!md5::is_stored_hash("md5"));
    assert!(!md5::is_stored_hash("md5zz9fa5b0a8a3b1d5e2b5f1a1f3d8b9e0a"));
    let answer = md5::answer(stored.reveal(), [1, 2, 3, 4]);
    assert!(md5::verify(stored.reveal(), [1, 2, 3, 4], answer.as_bytes()));
    assert!(!md5::verify(stored.reveal(), [1, 2, 3, 5], answer.as_bytes()));
}

#[test]
fn trap_121_secrets_are_never_printed() {
    let verifier = Verifier::from_password("pencil", b"salt", 1);
    let keys = Keys::from_password("pencil", b"salt", 1);
    let printed = format!("{:?}{verifier:?}{keys:?}", password("pencil"));
    assert_eq!(printed, "Password(Secret(…))Verifier(…)Keys(…)");
}

#[test]
fn requests_are_read_as_written() {
    let requests = [
        Request::Ok,
        Request::CleartextPassword,
        Request::Md5Password { salt: [1, 2, 3, 4] },
        Request::Sasl { mechanisms: b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0" },
        Request::SaslContinue(b"r="),
        Request::SaslFinal(b"v="),
        Request::Other(7),
    ];
    for request in &requests {
        let mut out = Vec::new();
        write_request(&mut out, request);
        assert_eq!(read_request(&out[5..]).as_ref(), Ok(request));
    }
    assert!(requests[3].offers(SCRAM_SHA_256));
    assert!(!Request::Sasl { mechanisms: b"SCRAM-SHA-256-PLUS\0\0" }.offers(SCRAM_SHA_256));
    assert!(read_request(b"\0\0\0\x05ab").is_err());
    assert!(read_request(b"\0\0").is_err());
    let mut out = Vec::new();
    write_sasl_initial(&mut out, SCRAM_SHA_256, b"n,,");
    assert_eq!(read_sasl_initial(&out[5..]), Ok((&b"SCRAM-SHA-256"[..], &b"n,,"[..])));
    assert!(read_sasl_initial(b"X\0\xff\xff\xff\xff").is_err());
    assert!(read_sasl_initial(b"X\0\0\0\0\x09abc").is_err());
    assert_eq!(read_password(b"abc\0"), Ok(&b"abc"[..]));
    assert!(read_password(b"abc\0d").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn the_right_password_passes_and_another_does_not(
        right in "\\PC{0,12}",
        wrong in "\\PC{0,12}",
        salt in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let verifier = Verifier::from_password(&right, &salt, 2);
        prop_assert_eq!(Verifier::parse(&verifier.to_string()), Ok(verifier.clone()));
        prop_assert!(exchange(password(&right), &verifier).is_ok());
        if saslprep(&right) != saslprep(&wrong) {
            prop_assert_eq!(exchange(password(&wrong), &verifier), Err(ScramError::WrongPassword));
        }
    }

    #[test]
    fn no_message_makes_either_side_panic(
        message in proptest::collection::vec(any::<u8>(), 0..60),
        text in "[nyprsicv=,a-zA-Z0-9/+]{0,60}",
    ) {
        for message in [message.as_slice(), text.as_bytes()] {
            let verifier = Verifier::fake(&[0; 32], "u");
            if let Ok((_, reply)) = ServerFirst::start(message, verifier.clone(), "s", &Channel::None) {
                prop_assert!(reply.len() < 300);
            }
            let (server, _) = ServerFirst::start(b"n,,n=,r=c", verifier, "s", &Channel::None).unwrap();
            prop_assert!(server.verify(message).is_err());
            let (client, _) = ClientFirst::start(password("p"), "c", &Channel::None);
            let _ = client.answer(message);
        }
    }
}
