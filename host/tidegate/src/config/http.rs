//! The HTTP query endpoint: where it listens, and what it takes.

use std::net::SocketAddr;

use tidegate_core::limits::{
    HTTP_BODY_BYTES_MAX, HTTP_CONNECTIONS_CONFIG_MAX, HTTP_CONNECTIONS_MAX, HTTP_ORIGINS_MAX,
    HTTP_REQUEST_TIME_MAX, HTTP_RESULT_BYTES_MAX,
};

use super::check::{Checker, or};
use super::checked::ClientTls;
use super::raw::{At, RawHttp};
use std::time::Duration;

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    pub address: SocketAddr,
    pub plain: PlainHttp,
    pub origins: Origins,
    /// Connections at once.
    pub connections_max: usize,
    /// Of one request.
    pub body_bytes_max: usize,
    /// Of one answer.
    pub result_bytes_max: u64,
    /// From the end of a request's head to the end of its answer.
    pub time_max: Duration,
}

/// From whom passwords are taken without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// From this machine; from others too where there is no certificate, which takes an address that only this machine
    /// reaches.
    FromHere,
    FromAnywhere,
}

/// Which web pages may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    These(Vec<String>),
    All,
}

impl Checker {
    /// `None` unless it is told where to listen.
    pub(super) fn http(&mut self, written: RawHttp, tls: &ClientTls) -> Option<HttpConfig> {
        let connections_max = self.bounded(
            "http.connections_max",
            written.connections_max,
            1..=HTTP_CONNECTIONS_CONFIG_MAX,
            HTTP_CONNECTIONS_MAX,
        );
        let body_mib = self.bounded(
            "http.body_mib_max",
            written.body_mib_max,
            1..=HTTP_BODY_BYTES_MAX >> 20,
            HTTP_BODY_BYTES_MAX >> 20,
        );
        let result_mib = self.bounded(
            "http.result_mib_max",
            written.result_mib_max,
            1..=usize::MAX >> 20,
            HTTP_RESULT_BYTES_MAX >> 20,
        );
        let time_max = or(&written.time_max, HTTP_REQUEST_TIME_MAX);
        let origins = self.origins(written.cors_origins);
        let allow_plain = or(&written.allow_plain, false);
        let At { value: address, origin } = written.listen?;
        let encrypts = tls.accept_files().is_some();
        if !address.ip().is_loopback() && !encrypts && !allow_plain {
            let message = format!(
                "{} is reachable from other machines, and passwords would come in clear; set tls.cert and tls.key, use \
                 127.0.0.1, or set http.allow_plain = true and put TLS in front",
                address.ip()
            );
            self.contradiction(&origin, "http.listen", message);
        }
        let plain = if allow_plain { PlainHttp::FromAnywhere } else { PlainHttp::FromHere };
        Some(HttpConfig {
            address,
            plain,
            origins,
            connections_max,
            body_bytes_max: body_mib << 20,
            result_bytes_max: (result_mib as u64) << 20,
            time_max,
        })
    }

    fn origins(&mut self, written: Vec<At<String>>) -> Origins {
        let key = "http.cors_origins";
        if let Some(At { origin, .. }) = written.get(HTTP_ORIGINS_MAX) {
            self.bad_value(origin, key, format!("more than {HTTP_ORIGINS_MAX} origins"));
        }
        if written.iter().any(|at| at.value == "*") {
            return Origins::All;
        }
        for At { value, origin } in &written {
            let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
            let is_origin = rest.is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
            });
            if !is_origin {
                let message =
                    format!("{value} is no origin, as in \"https://app.example.com\", nor \"*\"");
                self.bad_value(origin, key, message);
            }
        }
        // As browsers write them.
        Origins::These(written.into_iter().map(|at| at.value.to_ascii_lowercase()).collect())
    }
}
