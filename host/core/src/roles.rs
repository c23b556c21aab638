//! Which roles a user is a member of, as limiting policies are told.

use crate::limits::POLICY_ROLES_MAX;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// The memberships of a whole server (`pg_auth_members`), as they were read last.
///
/// getters: `of`, `told`, `is_any_of`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Member -> what it was granted itself.
    granted: FxHashMap<Box<str>, Vec<Box<str>>>,
}

impl<'a> FromIterator<(&'a str, &'a str)> for Roles {
    /// From pairs of a member and the role it was granted.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut roles = Self::default();
        for (member, role) in pairs {
            roles.granted.entry(member.into()).or_default().push(role.into());
        }
        for granted in roles.granted.values_mut() {
            granted.sort_unstable();
            granted.dedup();
        }
        roles
    }
}

impl Roles {
    /// The roles that `user` is a member of, itself or through others, in the order of their names: the first
    /// `POLICY_ROLES_MAX` that are found, nearest first.
    pub fn of<'a>(&'a self, user: &str) -> Vec<&'a str> {
        let mut found = BTreeSet::new();
        let mut nearest_first: Vec<&'a str> = Vec::new();
        let mut next = 0;
        let mut member = user;
        loop {
            for role in self.granted.get(member).into_iter().flatten() {
                if nearest_first.len() < POLICY_ROLES_MAX
                    && **role != *user
                    && found.insert(&**role)
                {
                    nearest_first.push(role);
                }
            }
            match nearest_first.get(next) {
                Some(role) => member = role,
                None => return found.into_iter().collect(),
            }
            next += 1;
        }
    }

    /// The same, as policies are told.
    pub fn told(&self, user: &str) -> Vec<String> {
        self.of(user).into_iter().map(str::to_owned).collect()
    }

    /// Is `user` a member of `role`, itself or through others, however many?
    pub fn is_member(&self, user: &str, role: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![user];
        while let Some(member) = next.pop() {
            for granted in self.granted.get(member).into_iter().flatten() {
                if **granted == *role {
                    return true;
                }
                if seen.insert(&**granted) {
                    next.push(granted);
                }
            }
        }
        false
    }

    /// Is the user, or one of its roles, in the list?
    pub fn is_any_of(&self, user: &str, names: &[String]) -> bool {
        let listed = |name: &str| names.iter().any(|known| known == name);
        !names.is_empty() && (listed(user) || self.of(user).into_iter().any(listed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memberships_go_through_other_roles_and_in_circles() {
        let roles: Roles = [
            ("ann", "staff"),
            ("staff", "readers"),
            ("readers", "staff"),
            ("bob", "readers"),
            ("ann", "staff"),
        ]
        .into_iter()
        .collect();
        assert_eq!(roles.of("ann"), ["readers", "staff"]);
        assert_eq!(roles.of("bob"), ["readers", "staff"]);
        assert_eq!(roles.of("readers"), ["staff"], "nobody is a member of itself");
        assert!(roles.of("eve").is_empty());
        let admins = ["readers".to_owned()];
        assert!(roles.is_any_of("ann", &admins) && !roles.is_any_of("eve", &admins));
        assert!(roles.is_any_of("eve", &["eve".to_owned()]) && !roles.is_any_of("ann", &[]));
    }

    #[test]
    fn more_roles_than_a_policy_is_told_of_are_cut() {
        let names: Vec<String> = (0..2 * POLICY_ROLES_MAX).map(|n| format!("r{n}")).collect();
        let roles: Roles = names.iter().map(|name| ("ann", name.as_str())).collect();
        assert_eq!(roles.of("ann").len(), POLICY_ROLES_MAX);
    }

    proptest! {
        #[test]
        fn as_the_closure_of_the_grants(
            grants in proptest::collection::vec((0_usize..8, 0_usize..8), 0..24),
        ) {
            let names: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
            let pair = |&(member, role): &(usize, usize)| (&*names[member], &*names[role]);
            let roles: Roles = grants.iter().map(pair).collect();
            // Warshall's, as a model.
            let mut reach = [[false; 8]; 8];
            grants.iter().for_each(|&(member, role)| reach[member][role] = true);
            for via in 0..8 {
                for member in 0..8 {
                    for role in 0..8 {
                        reach[member][role] |= reach[member][via] && reach[via][role];
                    }
                }
            }
            for member in 0..8 {
                let others = (0..8).filter(|role| *role != member && reach[member][*role]);
                let wanted: Vec<&str> = others.map(|role| &*names[role]).collect();
                for role in 0..8 {
                    let is_member = roles.is_member(&names[member], &names[role]);
                    prop_assert_eq!(is_member, reach[member][role]);
                }
                prop_assert_eq!(roles.of(&names[member]), wanted);
            }
        }
    }
}
