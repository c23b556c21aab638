//! How many clients each database and each user has, and whether there is room for one more.

use rustc_hash::FxHashMap;
use std::sync::Arc;

use crate::refusal::Refusal;

/// Bounds for one client's database and user; none: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub database: Option<usize>,
    pub user: Option<usize>,
}

/// Clients that are logged in. As many entries as there are databases and users with a client.
#[derive(Debug, Default)]
pub struct Headcount {
    databases: FxHashMap<Arc<str>, usize>,
    users: FxHashMap<Arc<str>, usize>,
}

impl Headcount {
    /// Counts a client in; `leave` counts it out.
    ///
    /// # Errors
    /// What the client is told, in PostgreSQL's words where it has any. Nothing was counted.
    pub fn enter(
        &mut self,
        database: &Arc<str>,
        user: &Arc<str>,
        room: Room,
    ) -> Result<(), Refusal> {
        let count = |of: &FxHashMap<Arc<str>, usize>, name| of.get(name).copied().unwrap_or(0);
        let (in_database, of_user) = (count(&self.databases, database), count(&self.users, user));
        let full = |there: usize, most: Option<usize>| most.filter(|most| there >= *most);
        if let Some(most) = full(of_user, room.user) {
            return Err(too_many("role", user, of_user, most));
        }
        if let Some(most) = full(in_database, room.database) {
            return Err(too_many("database", database, in_database, most));
        }
        self.databases.insert(database.clone(), in_database + 1);
        self.users.insert(user.clone(), of_user + 1);
        Ok(())
    }

    pub fn leave(&mut self, database: &str, user: &str) {
        one_less(&mut self.databases, database);
        one_less(&mut self.users, user);
    }
}

fn one_less(counts: &mut FxHashMap<Arc<str>, usize>, name: &str) {
    match counts.get_mut(name) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(name);
        }
    }
}

fn too_many(what: &str, name: &str, there: usize, most: usize) -> Refusal {
    Refusal::fatal("53300", format!("too many connections for {what} \"{name}\""))
        .detail(format!("{there} clients are connected, and quotas.clients_max allows {most}."))
        .hint("Close connections that are not needed, or raise the quota.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_databases_are_counted_apart() {
        let mut heads = Headcount::default();
        let [shop, reports, ann, bob] = ["shop", "reports", "ann", "bob"].map(Arc::<str>::from);
        let room = Room { database: Some(2), user: Some(2) };
        heads.enter(&shop, &ann, room).unwrap();
        heads.enter(&shop, &bob, room).unwrap();
        let told = heads.enter(&shop, &ann, room).unwrap_err();
        assert_eq!(
            (told.sqlstate, &*told.message),
            ("53300", "too many connections for database \"shop\"")
        );
        heads.enter(&reports, &ann, room).unwrap();
        let told = heads.enter(&reports, &ann, room).unwrap_err();
        assert_eq!(&*told.message, "too many connections for role \"ann\"");
        heads.enter(&reports, &ann, Room::default()).unwrap();
        heads.leave("shop", "bob");
        heads.enter(&shop, &bob, room).unwrap();
        assert_eq!((heads.databases.len(), heads.users.len()), (2, 2));
    }

    #[test]
    fn nothing_is_kept_of_those_that_left() {
        let mut heads = Headcount::default();
        let name = Arc::<str>::from("a");
        heads.enter(&name, &name, Room::default()).unwrap();
        heads.leave("a", "a");
        heads.leave("a", "a");
        assert!(heads.databases.is_empty() && heads.users.is_empty());
    }
}
