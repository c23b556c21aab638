//! Which roles a user is a member of, as limiting policies are told.

use crate::limits::POLICY_ROLES_MAX;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// The memberships of a whole server (`pg_auth_members`), as they were read last.
///
/// getters: `of`, `told`, `is_any_of`, `len`, `is_empty`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Member -> what it was granted itself.
    granted: FxHashMap<Box<str>, Vec<Box<str>>>,
    grants: usize,
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
            roles.grants += granted.len();
        }
        roles
    }
}

impl Roles {
    /// How many grants there are.
    pub fn len(&self) -> usize {
        self.grants
    }

    pub fn is_empty(&self) -> bool {
        self.grants == 0
    }

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
        assert_eq!(roles.len(), 4);
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
        fn as_the_closure_of_the_grants(grants in proptest::collection::vec((0_u8..8, 0_u8..8), 0..24)) {
            let name = |n: u8| format!("r{n}");
            let pairs: Vec<(String, String)> = grants.iter().map(|(a, b)| (name(*a), name(*b))).collect();
            let roles: Roles = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            // Warshall's, as a model.
            let mut reach = [[false; 8]; 8];
            for (a, b) in &grants { reach[*a as usize][*b as usize] = true; }
            for via in 0..8 { for a in 0..8 { for b in 0..8 {
                reach[a][b] |= reach[a][via] && reach[via][b];
            } } }
            for a in 0..8_u8 {
                let wanted: Vec<String> =
                    (0..8_u8).filter(|b| *b != a && reach[a as usize][*b as usize]).map(name).collect();
                prop_assert_eq!(roles.of(&name(a)), wanted);
            }
        }
    }
}
