//! Notices that sessions begin with other settings from now on: connections that were opened before have the old ones;
//! and that roles are others now, or have other passwords.

use crate::limits;
use crate::statement::{RoleNamed, StartDefaults};

/// What ALTER ROLE, ALTER DATABASE … SET, CREATE ROLE and DROP ROLE did.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    /// Of texts that went to the server since it was last idle.
    sent: Vec<StartDefaults>,
    /// The server has said that one of them succeeded.
    altered: Option<()>,
    /// In force, and not yet told.
    changed: Vec<StartDefaults>,
    roles: Roles,
}

/// What is known of changes to roles.
#[derive(Debug, Default, PartialEq, Eq)]
enum Roles {
    #[default]
    AsBefore,
    /// In a transaction that has not ended.
    Touched,
    /// In force, and not yet told.
    Changed,
}

impl Defaults {
    /// A text goes to the server. `role` is whom the client is now, if it is not its user.
    pub(super) fn handle_text(&mut self, all: &[StartDefaults], role: Option<&str>) {
        for defaults in all {
            let own = role.filter(|_| defaults.role == RoleNamed::Own);
            let role = own.map_or(defaults.role.clone(), |role| RoleNamed::Name(role.to_owned()));
            self.sent.push(StartDefaults { role, ..defaults.clone() });
        }
        if self.sent.len() > limits::START_DEFAULTS_MAX {
            self.sent = vec![StartDefaults { role: RoleNamed::Any, database: None }];
        }
    }

    pub(super) fn handle_tag(&mut self, tag: &[u8]) {
        if matches!(tag, b"ALTER ROLE\0" | b"CREATE ROLE\0" | b"DROP ROLE\0") {
            self.roles = Roles::Touched;
        }
        if matches!(tag, b"ALTER ROLE\0" | b"ALTER DATABASE\0") && !self.sent.is_empty() {
            self.altered = Some(());
        }
    }

    /// The transaction has ended. It may have been rolled back, which does no harm.
    pub(super) fn handle_idle(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        if self.altered.take().is_some() {
            self.changed = sent;
        }
    }

    /// A transaction has ended, though others may follow it: likewise.
    pub(super) fn handle_end(&mut self) {
        if self.roles == Roles::Touched {
            self.roles = Roles::Changed;
        }
    }

    pub(super) fn take_changed(&mut self) -> Vec<StartDefaults> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn take_changed_roles(&mut self) -> bool {
        if self.roles != Roles::Changed {
            return false;
        }
        self.roles = Roles::AsBefore;
        true
    }
}
