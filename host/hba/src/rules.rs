//! What one line says, and whether a connection fits it.

use super::lines::{Fields, Line, Token};
use super::networks::Network;
use super::{Arrival, Tls, Wanted};
use core::net::IpAddr;
use regex::Regex;

/// How a connection that fits has to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaMethod {
    Trust,
    Reject,
    ScramSha256,
    /// By md5, or by SCRAM for users whose stored password allows only that.
    Md5,
    /// The password in clear.
    Password,
    /// A client certificate whose common name is the user's.
    Certificate,
    /// Whom the system names at the other end of the Unix socket.
    Peer,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    kind: Kind,
    databases: Vec<DatabaseName>,
    users: Vec<UserName>,
    addresses: Addresses,
    pub(super) method: HbaMethod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug)]
enum DatabaseName {
    All,
    SameUser,
    SameRole,
    Replication,
    Name(String),
    Pattern(Regex),
}

#[derive(Clone, Debug)]
enum UserName {
    All,
    /// Members of it, direct or not, and itself.
    MemberOf(String),
    Name(String),
    Pattern(Regex),
}

#[derive(Clone, Debug)]
enum Addresses {
    All,
    SameHost,
    SameNet,
    Network(Network),
}

/// Fields, one after the other.
struct Reading<'a> {
    fields: std::slice::Iter<'a, Vec<Token>>,
}

impl<'a> Reading<'a> {
    fn several(&mut self, what: &str) -> Result<&'a [Token], String> {
        let tokens = self.fields.next().map(Vec::as_slice).unwrap_or_default();
        if tokens.is_empty() { Err(format!("the line ends before {what}")) } else { Ok(tokens) }
    }

    fn one(&mut self, what: &str) -> Result<&'a Token, String> {
        match self.several(what)? {
            [token] => Ok(token),
            _ => Err(format!("several values for {what}")),
        }
    }
}

impl Rule {
    pub(super) fn read(line: &Line<Fields>) -> Result<Self, String> {
        let mut reading = Reading { fields: line.fields.iter() };
        let kind = kind(&reading.one("the connection type")?.text)?;
        let databases = reading.several("the database")?;
        let databases = databases.iter().map(DatabaseName::read).collect::<Result<_, _>>()?;
        let users = reading.several("the user")?;
        let users = users.iter().map(UserName::read).collect::<Result<_, _>>()?;
        let addresses = if kind == Kind::Local { Addresses::All } else { addresses(&mut reading)? };
        let method = method(&reading.one("the authentication method")?.text, kind)?;
        for options in reading.fields {
            for option in options {
                check_option(&option.text, method)?;
            }
        }
        Ok(Self { kind, databases, users, addresses, method })
    }

    pub(super) fn needs_roles(&self) -> bool {
        let same_role = |name: &DatabaseName| matches!(name, DatabaseName::SameRole);
        let member = |name: &UserName| matches!(name, UserName::MemberOf(_));
        self.databases.iter().any(same_role) || self.users.iter().any(member)
    }

    pub(super) fn needs_networks(&self) -> bool {
        matches!(self.addresses, Addresses::SameHost | Addresses::SameNet)
    }

    /// `None`: that depends on memberships which are not known.
    pub(super) fn fits(&self, arrival: &Arrival<'_>) -> Option<bool> {
        let by_kind = match (self.kind, arrival.address) {
            (Kind::Local, address) => address.is_none(),
            (_, None) => false,
            (Kind::Host, Some(_)) => true,
            (Kind::HostSsl, Some(_)) => arrival.tls == Tls::Yes,
            (Kind::HostNoSsl, Some(_)) => arrival.tls == Tls::No,
        };
        if !by_kind || !self.addresses.fit(arrival) {
            return Some(false);
        }
        let database = any(self.databases.iter().map(|name| name.fits(arrival)));
        let user = any(self.users.iter().map(|name| name.fits(arrival)));
        match (database, user) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }
    }
}

/// Whether one of them holds, as far as that is known.
fn any(fits: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(false);
    for fits in fits {
        match fits {
            Some(true) => return Some(true),
            Some(false) => {}
            None => known = None,
        }
    }
    known
}

fn kind(word: &str) -> Result<Kind, String> {
    match word {
        "local" => Ok(Kind::Local),
        // Nobody is encrypted by GSSAPI here.
        "host" | "hostnogssenc" => Ok(Kind::Host),
        "hostssl" => Ok(Kind::HostSsl),
        "hostnossl" => Ok(Kind::HostNoSsl),
        "hostgssenc" => Err("hostgssenc fits nobody: GSSAPI encryption is not offered".to_owned()),
        _ => Err(format!("invalid connection type \"{word}\"")),
    }
}

fn addresses(reading: &mut Reading<'_>) -> Result<Addresses, String> {
    let token = reading.one("the address")?;
    for (word, meaning) in [
        ("all", Addresses::All),
        ("samehost", Addresses::SameHost),
        ("samenet", Addresses::SameNet),
    ] {
        if token.is(word) {
            return Ok(meaning);
        }
    }
    let text = &token.text;
    let invalid = || format!("\"{text}\" is no address; names of hosts are not looked up");
    if let Some((address, bits)) = text.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let plain = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = bits.parse().ok().filter(|_| plain);
        let bits = bits.ok_or_else(|| format!("invalid CIDR mask in address \"{text}\""))?;
        let network = Network::with_prefix(address, bits);
        return network.map(Addresses::Network).map_err(|error| format!("\"{text}\": {error}"));
    }
    let address: IpAddr = text.parse().map_err(|_| invalid())?;
    let mask = &reading.one("the mask of the address")?.text;
    let mask: IpAddr = mask.parse().map_err(|_| format!("invalid IP mask \"{mask}\""))?;
    let network = Network::with_mask(address, mask);
    network.map(Addresses::Network).map_err(|error| format!("\"{text}\": {error}"))
}

fn method(word: &str, kind: Kind) -> Result<HbaMethod, String> {
    match word {
        "trust" => Ok(HbaMethod::Trust),
        "reject" => Ok(HbaMethod::Reject),
        "scram-sha-256" => Ok(HbaMethod::ScramSha256),
        "md5" => Ok(HbaMethod::Md5),
        "password" => Ok(HbaMethod::Password),
        "cert" if kind == Kind::HostSsl => Ok(HbaMethod::Certificate),
        "cert" => Err("cert authentication is only supported on hostssl connections".to_owned()),
        // As in PostgreSQL, ident on a local line is peer.
        "peer" | "ident" if kind == Kind::Local => Ok(HbaMethod::Peer),
        "peer" => Err("peer authentication is only supported on local sockets".to_owned()),
        "ident" | "gss" | "sspi" | "pam" | "bsd" | "ldap" | "radius" => {
            Err(format!("authentication method \"{word}\" is not supported by Tidegate"))
        }
        _ => Err(format!("invalid authentication method \"{word}\"")),
    }
}

/// What `cert` implies may be said; everything else would change who gets in.
fn check_option(option: &str, method: HbaMethod) -> Result<(), String> {
    let implied = ["clientcert=verify-full", "clientname=CN"];
    if method == HbaMethod::Certificate && implied.contains(&option) {
        return Ok(());
    }
    match option.split_once('=') {
        Some((name, _)) => Err(format!("option \"{name}\" is not supported by Tidegate")),
        None => Err(format!("authentication option not in name=value format: {option}")),
    }
}

/// A name that begins with a slash is a regular expression.
fn pattern(token: &Token) -> Option<Result<Regex, String>> {
    let text = token.text.strip_prefix('/').filter(|_| !token.quoted)?;
    Some(Regex::new(text).map_err(|_| format!("invalid regular expression \"{text}\"")))
}

impl DatabaseName {
    fn read(token: &Token) -> Result<Self, String> {
        if let Some(pattern) = pattern(token) {
            return pattern.map(Self::Pattern);
        }
        Ok(match token.text.as_str() {
            _ if token.quoted => Self::Name(token.text.clone()),
            "all" => Self::All,
            "sameuser" => Self::SameUser,
            "samerole" | "samegroup" => Self::SameRole,
            "replication" => Self::Replication,
            name => Self::Name(name.to_owned()),
        })
    }

    fn fits(&self, arrival: &Arrival<'_>) -> Option<bool> {
        // Physical replication is connected to no database: only its own word fits.
        let Wanted::Database(database) = arrival.wanted else {
            return Some(matches!(self, Self::Replication));
        };
        match self {
            Self::All => Some(true),
            Self::SameUser => Some(database == arrival.user),
            Self::SameRole => is_member(arrival, database),
            Self::Replication => Some(false),
            Self::Name(name) => Some(name == database),
            Self::Pattern(pattern) => Some(pattern.is_match(database)),
        }
    }
}

impl UserName {
    fn read(token: &Token) -> Result<Self, String> {
        if let Some(pattern) = pattern(token) {
            return pattern.map(Self::Pattern);
        }
        Ok(match token.text.strip_prefix('+') {
            _ if token.quoted => Self::Name(token.text.clone()),
            Some(role) if !role.is_empty() => Self::MemberOf(role.to_owned()),
            _ if token.text == "all" => Self::All,
            _ => Self::Name(token.text.clone()),
        })
    }

    fn fits(&self, arrival: &Arrival<'_>) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::MemberOf(role) => is_member(arrival, role),
            Self::Name(name) => Some(name == arrival.user),
            Self::Pattern(pattern) => Some(pattern.is_match(arrival.user)),
        }
    }
}

/// Every role is a member of itself.
fn is_member(arrival: &Arrival<'_>, role: &str) -> Option<bool> {
    if arrival.user == role {
        return Some(true);
    }
    arrival.is_member.map(|is_member| is_member(role))
}

impl Addresses {
    fn fit(&self, arrival: &Arrival<'_>) -> bool {
        let Some(address) = arrival.address else { return true };
        match self {
            Self::All => true,
            Self::SameHost => arrival.own.iter().any(|network| network.address() == address),
            Self::SameNet => arrival.own.iter().any(|network| network.contains(address)),
            Self::Network(network) => network.contains(address),
        }
    }
}
