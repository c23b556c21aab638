//! A node_exporter on a server's machine, over HTTP.

use hyper::Method;
use tidegate_cluster::{LoadReading, read_exporter};

use super::Trouble;
use crate::config::{ExporterUrl, Secret, WebUrl};
use crate::upstream::Asker;
use crate::web::{self, Question, Wanted};

/// Of an answer, no more is read.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Where the server's data are: who may not know has no row.
const DIRECTORY_SQL: &str =
    "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";

/// Asks it; `directory` is where the server's data are, once that has been asked for.
pub(super) async fn read(
    url: &ExporterUrl,
    asker: &mut Asker,
    directory: &mut Option<Option<String>>,
) -> Result<LoadReading, Trouble> {
    if directory.is_none()
        && let Ok(mut rows) = asker.ask(DIRECTORY_SQL).await
    {
        *directory = Some(rows.pop().and_then(|mut row| row.pop()).flatten());
        asker.close();
    }
    let text = get(url).await.map_err(|why| Trouble::Passing(format!("{url}: {why}")))?;
    let reading = read_exporter(&text, directory.as_ref().and_then(|known| known.as_deref()));
    if reading == LoadReading::default() {
        return Err(Trouble::Lasting(format!("{url} does not say what a node_exporter says")));
    }
    Ok(reading)
}

async fn get(url: &ExporterUrl) -> Result<String, String> {
    let path = Secret::new(&url.path);
    let url = WebUrl { tls: false, host: url.host.clone(), port: url.port, path };
    let question = Question {
        method: Method::GET,
        url: &url,
        path: None,
        authorization: None,
        body: String::new(),
        answer: Wanted::Body { bytes_max: ANSWER_BYTES_MAX },
    };
    let answer = web::ask(question, None).await.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("it answers {}", answer.status));
    }
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
