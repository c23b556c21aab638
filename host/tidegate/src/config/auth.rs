//! `[auth]`: who may log in, and how, checked together with the files it names.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_core::limits;
use tidegate_hba::Hba;

use super::check::{Checker, or};
use super::checked::{AuthConfig, AuthMethod, AuthQueryConfig, ClientTls, HbaFile, TrustRemote};
use super::error::Origin;
use super::raw::{At, RawAuth};
use super::source::read_bounded;
use super::users::Users;

impl Checker {
    pub(super) fn auth(&mut self, written: RawAuth, tls: &ClientTls) -> AuthConfig {
        let method = or(&written.method, AuthMethod::Passthrough);
        let needs_users =
            matches!(method, AuthMethod::ScramSha256 | AuthMethod::Md5 | AuthMethod::Password);
        if let Some(At { origin, .. }) = &written.method {
            let name = method.as_str();
            if needs_users && written.users_file.is_none() && written.query.is_none() {
                let message = format!("{name} needs auth.users_file or auth.query");
                self.contradiction(origin, "auth.method", message);
            }
            if method == AuthMethod::Certificate && tls.client_ca.is_none() {
                self.contradiction(origin, "auth.method", format!("{name} needs tls.client_ca"));
            }
        }
        let users = written.users_file.as_ref().map(|file| self.users(file)).unwrap_or_default();
        let query = self.auth_query(&written);
        let hba = written.hba_file.as_ref().and_then(|file| self.hba(file, tls));
        AuthConfig {
            method,
            users_file: written.users_file.map(|file| file.value),
            users,
            query,
            hba,
            trust_remote: or(&written.trust_remote, TrustRemote::Refuse),
        }
    }

    fn auth_query(&mut self, written: &RawAuth) -> Option<AuthQueryConfig> {
        let value = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
        let Some(At { value: sql, origin }) = &written.query else {
            let alone = [
                ("auth.query_user", written.query_user.as_ref().map(|at| &at.origin)),
                ("auth.query_password", written.query_password.as_ref().map(|at| &at.origin)),
                ("auth.query_database", written.query_database.as_ref().map(|at| &at.origin)),
            ];
            for (key, origin) in alone.into_iter().filter_map(|(key, at)| Some((key, at?))) {
                self.contradiction(origin, key, "there is no auth.query");
            }
            return None;
        };
        if !sql.contains("$1") {
            self.bad_value(origin, "auth.query", "does not name $1, the user that is looked up");
        }
        Some(AuthQueryConfig {
            sql: sql.clone(),
            user: value(&written.query_user),
            password: written.query_password.as_ref().map(|at| at.value.clone()),
            database: value(&written.query_database),
        })
    }

    fn users(&mut self, file: &At<PathBuf>) -> Users {
        let Some(text) = self.read("auth.users_file", file, limits::USERS_FILE_BYTES_MAX) else {
            return Users::default();
        };
        match Users::parse(&text) {
            Ok(users) => users,
            Err(errors) => {
                let name: std::sync::Arc<str> = file.value.display().to_string().into();
                for error in errors {
                    let (line, column) = (error.line, error.column);
                    let origin = Origin::File { file: name.clone(), line, column };
                    self.bad_value(&origin, "", error.message);
                }
                Users::default()
            }
        }
    }

    fn hba(&mut self, file: &At<PathBuf>, tls: &ClientTls) -> Option<HbaFile> {
        let text = self.read("auth.hba_file", file, limits::HBA_FILE_BYTES_MAX)?;
        let all = RefCell::new(text.clone());
        let folder = file.value.parent().map(PathBuf::from).unwrap_or_default();
        let included = |name: &str| {
            let path = folder.join(name);
            let text = read_bounded(&path, limits::HBA_FILE_BYTES_MAX);
            let text = text.map_err(|error| error.to_string())?;
            all.borrow_mut().push_str(&text);
            Ok(text)
        };
        let rules = match Hba::parse(&text, &included) {
            Ok(rules) => rules,
            Err(errors) => {
                let name: Arc<str> = file.value.display().to_string().into();
                for error in errors {
                    let origin = Origin::File { file: name.clone(), line: error.line, column: 1 };
                    self.bad_value(&origin, "", error.message);
                }
                return None;
            }
        };
        if rules.needs_certificates() && tls.client_ca.is_none() {
            let message = "a rule says cert, which needs tls.client_ca";
            self.contradiction(&file.origin, "auth.hba_file", message);
        }
        Some(HbaFile { path: file.value.clone(), rules: Arc::new(rules), text: all.into_inner() })
    }
}
