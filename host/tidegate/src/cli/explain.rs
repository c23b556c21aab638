//! `tidegate explain`: what a running Tidegate makes of a statement.

use hyper::Method;
use tidegate_core::limits::ADMIN_ANSWER_TIME_MAX;

use super::plugin::api::{Admin, Request};
use crate::exit::Exit;
use crate::explain::{ExplainQuestion, Explanation};

pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate explain \"SELECT * FROM orders WHERE id = 7\"
  tidegate explain --user app --database shop \"DELETE FROM orders /* user_id='7' */\"
  tidegate explain --json \"SELECT now()\"

The statement is not run.";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExplainArgs {
    #[command(flatten)]
    admin: Admin,
    /// Who would run it [default: the user of the primary's URL]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Where [default: the database of the primary's URL]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Its `application_name`
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
    /// The application's user, unless the statement has a comment that names one
    #[arg(long, value_name = "NAME")]
    end_user: Option<String>,
    /// The answer of the admin API as it is
    #[arg(long)]
    json: bool,
    /// The statement
    sql: String,
}

pub(super) fn run(args: &ExplainArgs) -> Exit {
    super::end(perform(args))
}

fn perform(args: &ExplainArgs) -> Result<String, String> {
    let question = ExplainQuestion {
        sql: args.sql.clone(),
        database: args.database.clone(),
        user: args.user.clone(),
        application: args.application.clone(),
        end_user: args.end_user.clone(),
    };
    let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let request = Request { body, ..Request::new(Method::POST, "/api/v1/explain".to_owned()) };
    let answer = args.admin.ask_within(ADMIN_ANSWER_TIME_MAX, request)?;
    let explanation: Explanation =
        serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    if args.json {
        let text = serde_json::to_string_pretty(&explanation);
        return text.map(|text| text + "\n").map_err(|error| error.to_string());
    }
    Ok(explanation.text())
}
