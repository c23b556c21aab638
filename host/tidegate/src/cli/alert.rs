//! `tidegate alert --test`: do alerts of a running Tidegate arrive?

use std::fmt::Write as _;

use hyper::Method;

use super::plugin::api::{Admin, Request};
use crate::admin::{AlertsTried, ReceiverTried};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AlertArgs {
    #[command(flatten)]
    admin: Admin,
    /// Send every receiver of `[[alerts]]` a message that says that nothing is wrong
    #[arg(long, required = true)]
    test: bool,
}

/// Good if every receiver has got it, and there is one.
pub(super) fn run(args: &AlertArgs) -> Exit {
    let request = Request::new(Method::POST, "/api/v1/alerts/test".to_owned());
    let tried = args.admin.ask(request).and_then(|answer| {
        serde_json::from_slice::<AlertsTried>(&answer).map_err(|error| error.to_string())
    });
    let receivers = match tried {
        Ok(AlertsTried { receivers }) => receivers,
        Err(words) => {
            eprintln!("tidegate: {words}");
            return Exit::Failure;
        }
    };
    if receivers.is_empty() {
        eprintln!("tidegate: nobody is told: there is no [[alerts]] in the configuration");
        return Exit::Failure;
    }
    let mut out = String::new();
    for ReceiverTried { receiver, error } in &receivers {
        let outcome = error.as_deref().unwrap_or("sent");
        let _ = writeln!(out, "{receiver}: {outcome}");
    }
    super::say(&out);
    let is_good = receivers.iter().all(|tried| tried.error.is_none());
    if is_good { Exit::Ok } else { Exit::Failure }
}
