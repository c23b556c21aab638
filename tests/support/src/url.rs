//! The parts of `postgres://user:password@host:port/database`, without any percent-encoding.

/// A connection string taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub user: String,
    pub password: String,
    pub host: String,
    pub port: u16,
    pub database: String,
}

impl Url {
    #[track_caller]
    pub fn parse(text: &str) -> Url {
        let parts = || {
            let rest = text.strip_prefix("postgres://").or(text.strip_prefix("postgresql://"))?;
            let (login, place) = rest.rsplit_once('@')?;
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (address, database) = place.split_once('/')?;
            let (host, port) = address.rsplit_once(':')?;
            Some(Url {
                user: user.to_owned(),
                password: password.to_owned(),
                host: host.to_owned(),
                port: port.parse().ok()?,
                database: database.to_owned(),
            })
        };
        parts().unwrap_or_else(|| panic!("not postgres://user:password@host:port/database: {text}"))
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
