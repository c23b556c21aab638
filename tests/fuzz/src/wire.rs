//! Readers of the protocol: no panic, no reading past the end, and what is read can be written again.

use tidegate_wire::auth::{self, ClientFirst, ScramSecret, Secret, ServerFirst, Verifier};
use tidegate_wire::frame::Header;
use tidegate_wire::{backend, error_fields, frontend, startup as first};

/// Frames in these inputs are small; a longer length is as good as a false one.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Calls `read` with the type byte, the body and the whole of each complete frame.
fn frames(mut input: &[u8], mut read: impl FnMut(u8, &[u8], &[u8])) {
    while let Ok(Some(header)) = Header::peek(input, BODY_BYTES_MAX) {
        let Some(frame) = input.get(..header.frame_bytes()) else { return };
        read(header.tag, &frame[5..], frame);
        input = &input[header.frame_bytes()..];
    }
}

/// A stream of frontend frames.
pub fn wire_frontend(input: &[u8]) {
    use frontend::tag;
    frames(input, |tag, body, frame| {
        let mut out = Vec::new();
        match tag {
            tag::QUERY => match frontend::read_query(body) {
                Ok(sql) => frontend::query(&mut out, sql),
                Err(_) => return,
            },
            tag::PARSE => match frontend::read_parse(body) {
                Ok(parse) => frontend::parse(&mut out, parse.name, parse.sql, parse.types),
                Err(_) => return,
            },
            tag::CLOSE | tag::DESCRIBE => match frontend::read_named(body) {
                Ok(named) if tag == tag::CLOSE => frontend::close(&mut out, named),
                Ok(named) => frontend::describe(&mut out, named),
                Err(_) => return,
            },
            tag::BIND => {
                let Some(names) = frontend::read_bind_names(body) else { return };
                assert_eq!(names.names_bytes, names.portal.len() + names.statement.len() + 2);
                assert!(names.names_bytes <= body.len());
                return;
            }
            tag::PASSWORD => {
                if let Ok((mechanism, data)) = auth::read_sasl_initial(body) {
                    assert!(mechanism.len() + data.len() < body.len());
                }
                if let Ok(password) = auth::read_password(body) {
                    assert!(password.len() < body.len());
                }
                return;
            }
            _ => return,
        }
        assert_eq!(out, frame, "what was read is written differently");
    });
}

/// A stream of backend frames.
pub fn wire_backend(input: &[u8]) {
    use backend::tag;
    frames(input, |tag, body, frame| {
        let mut out = Vec::new();
        match tag {
            tag::PARAMETER_STATUS => match backend::read_parameter_status(body) {
                Ok((name, value)) if name.len() + value.len() + 2 == body.len() => {
                    backend::parameter_status(&mut out, name, value);
                }
                _ => return,
            },
            tag::BACKEND_KEY_DATA => match backend::read_backend_key_data(body) {
                Ok((pid, secret)) => backend::backend_key_data(&mut out, pid, secret),
                Err(_) => return,
            },
            tag::DATA_ROW => match backend::read_data_row(body) {
                Ok(values) => {
                    let bytes: usize = values.iter().map(|v| v.map_or(4, |v| v.len() + 4)).sum();
                    assert!(bytes + 2 <= body.len());
                    return;
                }
                Err(_) => return,
            },
            tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => {
                for letter in 0..=u8::MAX {
                    let value = error_fields::find(body, letter).unwrap_or_default();
                    assert!(value.len() <= body.len());
                }
                return;
            }
            tag::AUTHENTICATION => {
                if let Ok(request) = auth::read_request(body) {
                    request.offers("SCRAM-SHA-256");
                    auth::write_request(&mut out, &request);
                }
                return;
            }
            tag::READY_FOR_QUERY => match body {
                [status] => match backend::TransactionStatus::from_byte(*status) {
                    Some(status) => backend::ready_for_query(&mut out, status),
                    None => return,
                },
                _ => return,
            },
            _ => return,
        }
        assert_eq!(out, frame, "what was read is written differently");
    });
}

/// The untyped first packets.
pub fn startup(input: &[u8]) {
    match first::read(input) {
        Ok(Some((packet, bytes))) => {
            assert!(bytes <= input.len() && bytes <= first::PACKET_BYTES_MAX);
            // The same packet is read whatever follows it, and not before it is complete.
            assert_eq!(first::read(&input[..bytes]), Ok(Some((packet.clone(), bytes))));
            assert_eq!(first::read(&input[..bytes - 1]), Ok(None));
            if let first::Packet::Startup(startup) = packet {
                for (name, value) in &startup.parameters {
                    assert!(startup.parameter(name).is_some());
                    let _ = first::parse_options(value);
                }
                let mut out = Vec::new();
                let minor = startup.minor_agreed();
                first::negotiate_protocol_version(&mut out, minor, &startup.unknown_options);
            }
        }
        Ok(None) => assert!(input.len() < first::PACKET_BYTES_MAX),
        Err(_) => {}
    }
}

/// SCRAM from both sides: the input is split at its first line break into the peer's two messages.
pub fn scram(input: &[u8]) {
    let (one, two) = match input.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    // No password has this verifier, so nobody may pass.
    let verifier = Verifier::fake(&[7; 32], "user");
    let end_point = auth::EndPoint::new(b"certificate", auth::EndPointHash::Sha256);
    let channels = [auth::Channel::None, auth::Channel::Unused, auth::Channel::Bound(end_point)];
    for channel in &channels {
        if let Ok((server, _)) = ServerFirst::start(one, verifier.clone(), "servernonce", channel) {
            assert!(server.verify(two).is_err());
        }
    }
    // Ready keys, because deriving them from a password takes as long as the peer's iteration count asks.
    let verifier = Verifier::from_password("secret", b"salt", 1);
    let keys = auth::Keys { client_key: [9; 32], server_key: verifier.server_key };
    let (client, _) = ClientFirst::start(ScramSecret::Keys(keys), "clientnonce", &channels[1]);
    if let Ok((client, _)) = client.answer(one) {
        assert!(client.finish(two).is_err());
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Verifier::parse(text);
        let _ = auth::saslprep(text);
        let _ = Secret::new(text);
    }
}
