//! Quotas: how many clients and server connections one database or one user may have.

use tidegate_core::limits::{CLIENTS_CONFIG_MAX, POOL_SIZE_CONFIG_MAX, QUOTAS_MAX};

use super::check::Checker;
use super::error::Problem;
use super::raw::{At, RawQuota};

/// Stands for each database, or user, that has no table of its own.
const EACH: &str = "*";

/// What a quota is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    Database(String),
    User(String),
    EachDatabase,
    EachUser,
}

/// Bounds of one database or user; none: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Clients that are logged in.
    pub clients_max: Option<usize>,
    /// Connections to one server, over all pools.
    pub servers_max: Option<usize>,
}

/// `[[quotas]]`, in the order written; nobody is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas(pub Vec<(Whose, Quota)>);

impl Quotas {
    pub fn of_database(&self, name: &str) -> Quota {
        self.find(|whose| matches!(whose, Whose::Database(known) if known == name))
            .or_else(|| self.find(|whose| *whose == Whose::EachDatabase))
            .unwrap_or_default()
    }

    pub fn of_user(&self, name: &str) -> Quota {
        self.find(|whose| matches!(whose, Whose::User(known) if known == name))
            .or_else(|| self.find(|whose| *whose == Whose::EachUser))
            .unwrap_or_default()
    }

    fn find(&self, is_it: impl Fn(&Whose) -> bool) -> Option<Quota> {
        self.0.iter().find(|(whose, _)| is_it(whose)).map(|(_, quota)| *quota)
    }
}

impl Checker {
    pub(super) fn quotas(&mut self, written: Vec<RawQuota>) -> Quotas {
        let mut quotas: Vec<(Whose, Quota)> = Vec::new();
        for written in written {
            let RawQuota { origin, database, user, clients_max, servers_max } = written;
            let whose = match (database, user) {
                (Some(At { value, .. }), None) if value == EACH => Whose::EachDatabase,
                (Some(At { value, .. }), None) => Whose::Database(value),
                (None, Some(At { value, .. })) if value == EACH => Whose::EachUser,
                (None, Some(At { value, .. })) => Whose::User(value),
                (Some(_), Some(_)) => {
                    let message = "database and user are both there; a quota is about one of them";
                    self.contradiction(&origin, "quotas", message);
                    continue;
                }
                (None, None) => {
                    let message = "names neither database nor user; \"*\" is each of them";
                    self.fail(Some(&origin), "quotas", Problem::Missing(message.to_owned()));
                    continue;
                }
            };
            if quotas.iter().any(|(known, _)| *known == whose) {
                self.contradiction(&origin, "quotas", "is about the same as a table before it");
            }
            let mut bound = |key: &str, written: Option<At<usize>>, most| {
                written.map(|written| self.bounded(key, Some(written), 1..=most, 1))
            };
            let quota = Quota {
                clients_max: bound("quotas.clients_max", clients_max, CLIENTS_CONFIG_MAX),
                servers_max: bound("quotas.servers_max", servers_max, POOL_SIZE_CONFIG_MAX),
            };
            if quotas.len() == QUOTAS_MAX {
                self.bad_value(&origin, "quotas", format!("more than {QUOTAS_MAX} tables"));
                break;
            }
            quotas.push((whose, quota));
        }
        Quotas(quotas)
    }
}
