//! Reads which roles are members of which, on the primary, once a policy wants to know, and anew as catalogues are.

use std::time::{Duration, Instant};

use tidegate_core::limits::ROLE_GRANTS_MAX;
use tidegate_core::roles::Roles;

use super::Watched;
use tidegate_core::limits::SCHEMA_SEEN_TIME_MAX;

use super::catalogues::REREAD_INTERVAL_MIN;
use crate::upstream::Asker;
use crate::view::{KnownRoles, Views};

/// After a failure they are read again in this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

const GRANTS_SQL: &str = "SELECT m.rolname, r.rolname FROM pg_auth_members g \
     JOIN pg_roles m ON m.oid = g.member JOIN pg_roles r ON r.oid = g.roleid";

/// The memberships of the server's roles.
pub(super) struct Memberships {
    asker: Asker,
    known: Option<KnownRoles>,
    read_at: Option<Instant>,
    failed: bool,
    /// The count of schema changes before the last reading: GRANT and REVOKE are among them.
    schema: u64,
}

/// What became of a reading.
enum Reading {
    Read(Roles),
    TooMany,
    Failed,
}

impl Memberships {
    /// `known` is what was read under an earlier configuration.
    pub(super) fn new(watched: &Watched, known: Option<KnownRoles>) -> Self {
        let target = watched.targets[0].clone();
        let asker = Asker::new(&watched.config, 0, target, "tidegate: roles");
        Self { asker, known, read_at: None, failed: false, schema: 0 }
    }

    pub(super) fn known(&self) -> Option<KnownRoles> {
        self.known.clone()
    }

    /// Reads them when they are new, changed or old, and says whether they are others than before.
    pub(super) async fn refresh(&mut self, schema: u64, views: &Views) -> bool {
        let now = Instant::now();
        let due = self.read_at.is_none_or(|read_at| {
            let age = now.saturating_duration_since(read_at);
            let interval = if self.failed { RETRY_INTERVAL } else { SCHEMA_SEEN_TIME_MAX };
            age >= interval || (self.schema != schema && age >= REREAD_INTERVAL_MIN)
        });
        if !due {
            return false;
        }
        self.schema = schema;
        let reading = self.read().await;
        self.read_at = Some(Instant::now());
        // Seldom needed, so it does not hold a place on the server.
        self.asker.close();
        self.failed = matches!(reading, Reading::Failed);
        let known = self.known.as_ref();
        let roles = match (reading, known) {
            (Reading::Read(roles), _) => roles,
            // What was known goes on; who was never known has no roles.
            (Reading::Failed, Some(_)) => return false,
            (Reading::Failed, None) | (Reading::TooMany, _) => Roles::default(),
        };
        if known.is_some_and(|known| *known.roles == roles) {
            return false;
        }
        self.known = Some(views.number_roles(roles));
        true
    }

    async fn read(&mut self) -> Reading {
        let sql = format!("{GRANTS_SQL} LIMIT {}", ROLE_GRANTS_MAX + 1);
        match self.asker.ask(&sql).await {
            Ok(rows) if rows.len() > ROLE_GRANTS_MAX => {
                tracing::warn!(
                    grants_max = ROLE_GRANTS_MAX,
                    "too many roles are members of roles to keep them: policies are told of none"
                );
                Reading::TooMany
            }
            Ok(rows) => {
                let pairs = rows.iter().filter_map(|row| match row.as_slice() {
                    [Some(member), Some(role)] => Some((member.as_str(), role.as_str())),
                    _ => None,
                });
                Reading::Read(pairs.collect())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read which roles are members of which");
                Reading::Failed
            }
        }
    }
}
