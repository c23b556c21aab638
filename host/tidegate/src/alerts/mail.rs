//! One e-mail by SMTP.

use std::sync::Arc;
use std::time::SystemTime;

use mail_send::smtp::message::Message;
use mail_send::{Credentials, Error, SmtpClient, SmtpClientBuilder};
use rustls::ClientConfig;
use tidegate_alerts::{Letter, Mail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::sending::Refused;
use crate::config::{MailServer, MailTls, Secret};

/// Of a mail server's own words, so many are told.
const WORDS_CHARS_MAX: usize = 200;

pub(super) async fn send(
    server: &MailServer,
    tls: ClientConfig,
    login: Option<&(String, Secret)>,
    (from, to): (&str, &[String]),
    letter: &Letter,
) -> Result<(), Refused> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Refused::passing)?;
    let id = format!("{:032x}.tidegate", u128::from_ne_bytes(random));
    let text = Mail { from, to, at: SystemTime::now(), id: &id }.message(letter);
    let message = || Message::new(from, to.iter().map(String::as_str), text.trim_end().as_bytes());
    let MailServer { host, port, tls: how } = server;
    let connector = TlsConnector::from(Arc::new(tls));
    let mut builder = SmtpClientBuilder::new_with_tls_connector(host.clone(), *port, connector)
        .implicit_tls(*how == MailTls::Implicit);
    if host.contains(':') {
        builder.addr = format!("[{host}]:{port}");
    }
    if let Some((user, password)) = login {
        let (username, secret) = (user.clone(), password.reveal().to_owned());
        builder = builder.credentials(Credentials::Plain { username, secret });
    }
    match how {
        MailTls::Implicit | MailTls::StartTls => {
            deliver(builder.connect().await.map_err(told)?, message()).await
        }
        MailTls::Off => deliver(builder.connect_plain().await.map_err(told)?, message()).await,
    }
}

async fn deliver<S>(mut client: SmtpClient<S>, message: Message<'_>) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.send(message).await.map_err(told)?;
    // It has been taken, whatever becomes of the farewell.
    let _ = client.quit().await;
    Ok(())
}

/// 4xx is for now, 5xx for good (RFC 5321, 4.2.1).
fn told(error: Error) -> Refused {
    match error {
        Error::UnexpectedReply(reply) => {
            let words: String = reply.message.chars().take(WORDS_CHARS_MAX).collect();
            let words = format!("the mail server answers {} {words}", reply.code);
            if (500..600).contains(&reply.code) {
                Refused::finally(words)
            } else {
                Refused::passing(words)
            }
        }
        Error::AuthenticationFailed(reply) => {
            Refused::finally(format!("the mail server refuses user and password ({})", reply.code))
        }
        Error::MissingStartTls => {
            Refused::finally("the mail server has no STARTTLS; smtps:// may be what it wants")
        }
        error => Refused::passing(error),
    }
}
