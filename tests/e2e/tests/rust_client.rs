//! tokio-postgres: a driver that pipelines whatever is asked concurrently, with binary formats throughout.

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt, future, stream};
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::differential::front_url;
use tidegate_test_support::test_database;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, IsolationLevel, NoTls, SimpleQueryMessage};

const TIME_MAX: Duration = Duration::from_secs(60);

/// Runs `scenario` with a connection to a database of its own.
fn with_client<F: Future<Output = ()>>(name: &str, scenario: impl FnOnce(Client, String) -> F) {
    let url = front_url(ROLE, &test_database(name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = connect(&url).await;
        tokio::time::timeout(TIME_MAX, scenario(client, url)).await.expect("in time");
    });
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[test]
fn parameters_and_prepared_statements() {
    with_client("tokio_prepared", |client, _| async move {
        let statement = client.prepare("SELECT $1::int8 + 1, $2::text, $3::bytea").await.unwrap();
        for n in 0..50i64 {
            let row = client.query_one(&statement, &[&n, &"☃", &&b"\0\xff"[..]]).await.unwrap();
            assert_eq!((row.get(0), row.get(1), row.get(2)), (n + 1, "☃", &b"\0\xff"[..]));
        }
        let row = client.query_one("SELECT $1::text IS NULL", &[&None::<&str>]).await.unwrap();
        assert!(row.get::<_, bool>(0));
        let error = client.query("SELECT nope", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNDEFINED_COLUMN));
        assert_eq!(client.query("SELECT 1", &[]).await.unwrap().len(), 1);
    });
}

#[test]
fn concurrent_queries_share_a_connection() {
    with_client("tokio_pipeline", |client, _| async move {
        let answers = future::join_all((0..200i32).map(|n| {
            let client = &client;
            async move {
                if n % 10 == 9 {
                    let error = client.query_one("SELECT 1 / $1::int", &[&0i32]).await.unwrap_err();
                    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
                    return n;
                }
                client.query_one("SELECT $1::int", &[&n]).await.unwrap().get(0)
            }
        }));
        assert_eq!(answers.await, (0..200).collect::<Vec<i32>>());
    });
}

#[test]
fn transactions_savepoints_and_portals() {
    with_client("tokio_transactions", |mut client, _| async move {
        client.batch_execute("CREATE TABLE t (a int PRIMARY KEY)").await.unwrap();
        let level = IsolationLevel::Serializable;
        let mut transaction =
            client.build_transaction().isolation_level(level).start().await.unwrap();
        transaction.execute("INSERT INTO t SELECT generate_series(1, 100)", &[]).await.unwrap();
        let savepoint = transaction.savepoint("s").await.unwrap();
        let error = savepoint.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
        savepoint.rollback().await.unwrap();
        let portal = transaction.bind("SELECT a FROM t ORDER BY a", &[]).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 30).await.unwrap();
            if rows.is_empty() {
                break;
            }
            seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
        }
        assert_eq!(seen, (1..=100).collect::<Vec<_>>());
        transaction.commit().await.unwrap();
        let abandoned = client.transaction().await.unwrap();
        abandoned.execute("DELETE FROM t", &[]).await.unwrap();
        drop(abandoned);
        let count = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 100);
    });
}

#[test]
fn copy_in_and_out() {
    with_client("tokio_copy", |client, _| async move {
        client.batch_execute("CREATE TABLE t (a int, b text)").await.unwrap();
        let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
        futures_util::pin_mut!(sink);
        let lines: Vec<_> =
            (0..5000).map(|n| Ok(Bytes::from(format!("{n}\ttext {n}\n")))).collect();
        sink.send_all(&mut stream::iter(lines)).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 5000);
        let out = client.copy_out("COPY (SELECT a FROM t ORDER BY a) TO STDOUT").await.unwrap();
        let out: Vec<Bytes> = out.try_collect().await.unwrap();
        assert_eq!(
            out.concat(),
            (0..5000).map(|n| format!("{n}\n")).collect::<String>().as_bytes()
        );
        let dropped = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap();
        drop(dropped); // CopyFail
        let count = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 5000);
    });
}

#[test]
fn a_cancel_ends_the_running_statement() {
    with_client("tokio_cancel", |client, _| async move {
        let token = client.cancel_token();
        let sleeping = client.batch_execute("SELECT pg_sleep(30)");
        let cancelling = async {
            // A cancel that comes before the statement has started hits nothing: ask again until it ends.
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                token.cancel_query(NoTls).await.unwrap();
            }
        };
        let error = tokio::select! {
            result = sleeping => result.unwrap_err(),
            () = cancelling => unreachable!(),
        };
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    });
}

#[test]
fn notifications_and_notices() {
    with_client("tokio_notify", |other, url| async move {
        let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let (sender, mut heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = future::poll_fn(|cx| connection.poll_message(cx)).await {
                let text = match message {
                    AsyncMessage::Notification(n) => format!("{}:{}", n.channel(), n.payload()),
                    AsyncMessage::Notice(notice) => notice.message().to_owned(),
                    other => panic!("{other:?} was not expected"),
                };
                sender.send(text).unwrap();
            }
        });
        client
            .batch_execute("LISTEN news; DO $$ BEGIN RAISE NOTICE 'a notice'; END $$")
            .await
            .unwrap();
        other.batch_execute("NOTIFY news, 'from afar'").await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "a notice");
        assert_eq!(heard.recv().await.unwrap(), "news:from afar");
    });
}

#[test]
fn simple_queries_with_several_statements() {
    with_client("tokio_simple", |client, _| async move {
        let messages = client.simple_query("SELECT 1; SELECT 2; CREATE TABLE t ()").await.unwrap();
        let rows: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        assert_eq!(rows, ["1", "2"]);
        let error = client.batch_execute("DROP TABLE t; SELECT 1/0").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
        assert_eq!(client.query("SELECT * FROM t", &[]).await.unwrap().len(), 0);
    });
}
