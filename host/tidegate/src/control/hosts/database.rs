//! The server itself, asked for files of its machine's `/proc`, as far as our user may.

use tidegate_cluster::{LoadReading, quoted, read_proc};

use super::Trouble;
use crate::upstream::{Asker, ConnectError};

/// What our user may: call the function of `docs/failover.md`, read files; and in which database. A function of that name that
/// somebody else than a superuser has made is not called: it would run with our user's rights.
const RIGHTS_SQL: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_roles r ON r.oid = p.proowner \
    WHERE n.nspname = 'tidegate' AND p.proname = 'host_load' AND p.pronargs = 0 AND r.rolsuper \
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')), \
  pg_catalog.has_function_privilege('pg_catalog.pg_read_file(text, bigint, bigint)', 'EXECUTE') \
    AND pg_catalog.pg_has_role('pg_read_server_files', 'USAGE'), \
  pg_catalog.current_database()";
const FUNCTION_SQL: &str = "SELECT stat, meminfo FROM tidegate.host_load()";
const FILES_SQL: &str = "\
SELECT pg_catalog.pg_read_file('/proc/stat', 0, 1024), pg_catalog.pg_read_file('/proc/meminfo', 0, 4096)";

/// How the files are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Function,
    Files,
}

impl Way {
    fn sql(self) -> &'static str {
        match self {
            Self::Function => FUNCTION_SQL,
            Self::Files => FILES_SQL,
        }
    }
}

/// What has been found out about one server.
#[derive(Debug, Default)]
pub(super) struct Database {
    way: Option<Way>,
}

impl Database {
    /// Cancel safe: what is cancelled is asked anew.
    pub(super) async fn read(&mut self, asker: &mut Asker) -> Result<LoadReading, Trouble> {
        let way = match self.way.take() {
            Some(way) => way,
            None => find_way(asker).await?,
        };
        let rows = asker.ask(way.sql()).await.map_err(trouble)?;
        let text = |column: usize| rows.first()?.get(column)?.as_deref();
        let reading = read_proc(text(0).unwrap_or_default(), text(1).unwrap_or_default());
        if reading == LoadReading::default() {
            return Err(Trouble::Lasting("its machine has no /proc as Linux has it".to_owned()));
        }
        self.way = Some(way);
        Ok(reading)
    }
}

async fn find_way(asker: &mut Asker) -> Result<Way, Trouble> {
    let rows = asker.ask(RIGHTS_SQL).await.map_err(trouble)?;
    let text = |column: usize| rows.first()?.get(column)?.as_deref();
    match (text(0), text(1)) {
        (Some("t"), _) => Ok(Way::Function),
        (_, Some("t")) => Ok(Way::Files),
        _ => Err(Trouble::Lasting(no_right(asker.user(), text(2).unwrap_or_default()))),
    }
}

fn no_right(user: &str, database: &str) -> String {
    let (name, place) = (quoted(user), quoted(database));
    format!(
        "the user {name} may not read /proc there; as a superuser on the primary, in database {place}: \
         GRANT pg_read_server_files TO {name}; GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint) TO {name}; \
         or make the function tidegate.host_load() of docs/failover.md, which gives no other file away"
    )
}

/// A refusal of SQL is not over by itself.
fn trouble(error: ConnectError) -> Trouble {
    match &error {
        ConnectError::Refused(refused)
            if refused.sqlstate.starts_with("42") || refused.sqlstate.starts_with("58") =>
        {
            Trouble::Lasting(error.to_string())
        }
        _ => Trouble::Passing(error.to_string()),
    }
}
