//! Who asks: a connection string in a header, or the user and password of HTTP's Basic authentication.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use tidegate_wire::auth::Secret;
use zeroize::Zeroizing;

use super::answer::Failure;
use super::request::header;
use crate::config::decode_percent;

/// With what to log in.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) database: String,
    /// As in a start-up packet.
    pub(super) parameters: Vec<(&'static str, String)>,
}

impl Login {
    /// Reads the headers. The password may come by either; of the string's parameters, `options` and `application_name`
    /// count, and those that only say how to reach a server (`sslmode`, …) do not.
    ///
    /// # Errors
    /// Nobody is named, or something is malformed.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut found = Found::default();
        if let Some(value) = headers.get(header::CONNECTION) {
            found.connection_string(value)?;
        }
        if let Some(value) = headers.get(AUTHORIZATION) {
            found.authorization(value)?;
        }
        let wanted = "Send a Neon-Connection-String, or Authorization: Basic.";
        let missing =
            |what: &str| Failure::unauthorized(format!("no {what} is given")).hint(wanted);
        let user = found.user.ok_or_else(|| missing("user"))?;
        let password = found.password.ok_or_else(|| missing("password"))?;
        let database = found.database.unwrap_or_else(|| user.clone());
        // The packet has names and values that end with a zero.
        let values = found.parameters.iter().map(|(_, value)| value);
        if [&user, &database].into_iter().chain(values).any(|text| text.contains('\0')) {
            return Err(Failure::bad_request("a name holds a zero byte"));
        }
        Ok(Self { user, password, database, parameters: found.parameters })
    }
}

#[derive(Default)]
struct Found {
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    parameters: Vec<(&'static str, String)>,
}

impl Found {
    fn connection_string(&mut self, value: &HeaderValue) -> Result<(), Failure> {
        let malformed = |why: &str| {
            let message = format!("Neon-Connection-String cannot be read: {why}");
            Failure::bad_request(message).hint("postgres://USER:PASSWORD@HOST/DATABASE")
        };
        let text = value.to_str().map_err(|_| malformed("it holds what is not ASCII"))?;
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| malformed("it begins with no postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let decode = |text: &str, what| decode_percent(text, what).map_err(|why| malformed(&why));
        if let Some((user, _host)) = authority.rsplit_once('@') {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            self.set_user(decode(user, "the user")?)?;
            self.set_password(decode(password, "the password")?);
        }
        self.set_database(decode(database, "the database")?);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // As browsers and their like write a space.
            let value = decode(&value.replace('+', "%20"), "a parameter")?;
            match name {
                "user" => self.set_user(value)?,
                "password" => self.set_password(value),
                "dbname" => self.set_database(value),
                "application_name" => self.parameters.push(("application_name", value)),
                "options" => self.parameters.push(("options", value)),
                "replication" => return Err(malformed("replication is not spoken over HTTP")),
                _ => {}
            }
        }
        Ok(())
    }

    fn authorization(&mut self, value: &HeaderValue) -> Result<(), Failure> {
        let (scheme, data) = value.as_bytes().split_at_checked("Basic ".len()).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            let message = "of HTTP's ways to authenticate, Basic alone is understood";
            return Err(Failure::unauthorized(message));
        }
        let decoded = STANDARD.decode(data.trim_ascii()).map(Zeroizing::new);
        let decoded = decoded.ok().and_then(|bytes| {
            let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
            Some((user.to_owned(), password.to_owned()))
        });
        let Some((user, password)) = decoded else {
            return Err(Failure::unauthorized(
                "Authorization: Basic is followed by no user:password",
            ));
        };
        self.set_user(user)?;
        self.set_password(password);
        Ok(())
    }

    fn set_user(&mut self, user: String) -> Result<(), Failure> {
        if user.is_empty() {
            return Ok(());
        }
        match &self.user {
            Some(known) if *known != user => {
                Err(Failure::bad_request("the request names two users"))
            }
            _ => {
                self.user = Some(user);
                Ok(())
            }
        }
    }

    fn set_password(&mut self, password: String) {
        if !password.is_empty() {
            self.password = Some(Secret::new(password));
        }
    }

    fn set_database(&mut self, database: String) {
        if !database.is_empty() {
            self.database = Some(database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(headers: &[(&'static str, &str)]) -> Result<Login, Failure> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Login::read(&map)
    }

    #[test]
    fn a_connection_string_or_basic_says_who_asks() {
        let url = "postgresql://a%40b:p%2Fw@ep-1.example.com:5432/shop?sslmode=require&options=-c+x.y%3D1&application_name=app";
        let whole = login(&[(header::CONNECTION, url)]).unwrap();
        let Login { user, database, password, parameters } = &whole;
        assert_eq!((user.as_str(), password.reveal(), database.as_str()), ("a@b", "p/w", "shop"));
        let wanted = [("options", "-c x.y=1"), ("application_name", "app")];
        assert_eq!(*parameters, wanted.map(|(name, value)| (name, value.to_owned())));
        // "app:pa:ss"
        let basic = login(&[("authorization", "basic YXBwOnBhOnNz")]).unwrap();
        assert_eq!((basic.user, basic.database), ("app".into(), "app".into()));
        assert_eq!(basic.password.reveal(), "pa:ss");
        let both =
            [(header::CONNECTION, "postgres://host/shop"), ("authorization", "Basic YXBwOnBhOnNz")];
        let both = login(&both).unwrap();
        assert_eq!((both.user, both.database), ("app".into(), "shop".into()));
    }

    #[test]
    fn who_is_not_named_is_not_let_in() {
        let status = |headers: &[(&'static str, &str)]| {
            login(headers).unwrap_err().into_response().status().as_u16()
        };
        assert_eq!(status(&[]), 401);
        assert_eq!(status(&[("authorization", "Bearer x")]), 401);
        assert_eq!(status(&[("authorization", "Basic !")]), 401);
        assert_eq!(status(&[(header::CONNECTION, "postgres://app@host/shop")]), 401);
        assert_eq!(status(&[(header::CONNECTION, "mysql://app:x@host/shop")]), 400);
        assert_eq!(status(&[(header::CONNECTION, "postgres://app:%zz@host/shop")]), 400);
        assert_eq!(status(&[(header::CONNECTION, "postgres://a:b@h/d?replication=true")]), 400);
        let two = [
            (header::CONNECTION, "postgres://other:x@h/d"),
            ("authorization", "Basic YXBwOnBhOnNz"),
        ];
        assert_eq!(status(&two), 400);
    }
}
