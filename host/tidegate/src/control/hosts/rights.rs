//! Whether our user may do what a failover takes.

use tidegate_cluster::{Asking, WHO_SQL, grants, missing, quoted, rights_sql};

use crate::upstream::{Asker, ConnectError};

/// What it lacks, in a sentence with the SQL that helps; `None`: nothing.
pub(super) async fn lacking(asker: &mut Asker) -> Result<Option<String>, ConnectError> {
    let rows = asker.ask(WHO_SQL).await?;
    let Some(asking) = rows.first().and_then(|row| Asking::read(row)) else { return Ok(None) };
    if asking.is_superuser {
        return Ok(None);
    }
    let name = quoted(&asking.user);
    if !asking.may_be_granted() {
        return Ok(Some(format!(
            "failover.mode = \"embedded\" takes a superuser before PostgreSQL 15, and {name} is none: \
             ALTER ROLE {name} SUPERUSER;"
        )));
    }
    let rows = asker.ask(&rights_sql()).await?;
    let lacks = missing(rows.first().map_or(&[][..], Vec::as_slice));
    if lacks.is_empty() {
        return Ok(None);
    }
    let (sql, place) = (grants(&asking.user, &lacks), quoted(&asking.database));
    Ok(Some(format!(
        "failover.mode = \"embedded\" takes rights that the user {name} lacks: a failover, a switchover or a resync would fail; \
         run as a superuser on the primary, in database {place}: {sql}"
    )))
}
