//! The control plane against a server that is none: it answers what a test needs, and counts what it is asked.

use std::sync::Arc;

use tidegate_policy::{Engine, Registry, Settings, Silence, Sink};
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::catalogues::{Catalogues, Refreshed};
use super::*;
use crate::config::raw::{At, Raw};
use crate::config::{Admission, CacheSettings, ConfigSource, ServerUrl, flag_value};
use crate::tls::ServerTls;
use tidegate_cache::Bounds;

/// What the server has seen so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Databases that somebody asked about to read their catalogues, once for each connection.
    catalogues: Vec<String>,
    /// Whether one of these waited in vain for an answer.
    is_given_up: bool,
    /// Questions on other connections since the first of those.
    others: usize,
}

/// What it says to whoever wants a catalogue: `gone` does not exist, `starting` is refused for a while, others get no answer.
fn refusal(database: &str) -> Option<&'static [u8]> {
    match database {
        "gone" => Some(b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"gone\" does not exist\0\0"),
        "starting" => Some(b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"),
        _ => None,
    }
}

async fn serve(mut stream: TcpStream, seen: watch::Sender<Seen>) -> std::io::Result<()> {
    let mut startup = vec![0; usize::try_from(stream.read_u32().await?).unwrap() - 4];
    stream.read_exact(&mut startup).await?;
    let startup = String::from_utf8_lossy(&startup[4..]).into_owned();
    let parts: Vec<&str> = startup.split('\0').collect();
    let parameter = |name| parts.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    if parameter("application_name") == Some("tidegate: catalogue") {
        let database = parameter("database").unwrap();
        seen.send_modify(|seen| seen.catalogues.push(database.to_owned()));
        if let Some(fields) = refusal(database) {
            let mut out = Vec::new();
            frame::write(&mut out, b'E', |out| out.extend_from_slice(fields));
            return stream.write_all(&out).await;
        }
        let _ = stream.read_u8().await;
        seen.send_modify(|seen| seen.is_given_up = true);
        return Ok(());
    }
    let mut out = b"R\0\0\0\x08\0\0\0\0".to_vec();
    backend::ready_for_query(&mut out, TransactionStatus::Idle);
    loop {
        stream.write_all(&out).await?;
        stream.read_u8().await?;
        let mut query = vec![0; usize::try_from(stream.read_u32().await?).unwrap() - 4];
        stream.read_exact(&mut query).await?;
        seen.send_modify(|seen| seen.others += usize::from(!seen.catalogues.is_empty()));
        out.clear();
        // A primary, in the order of what is asked.
        backend::row_description_text(&mut out, &["system", "is", "w", "rc", "rp", "tl", "r", "p"]);
        let row: [Option<&[u8]>; 8] = [
            Some(b"7"),
            Some(b"f"),
            Some(b"0/1000"),
            None,
            None,
            Some(b"1"),
            Some(b"gone"),
            Some(b"f"),
        ];
        backend::data_row(&mut out, &row);
        backend::command_complete(&mut out, b"SELECT 1");
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
    }
}

/// Primary and replica in one.
async fn server() -> (Watched, watch::Receiver<Seen>) {
    let primary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = primary.local_addr().unwrap().port();
    let replica = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let (seen, told) = watch::channel(Seen::default());
    for listener in [primary, replica] {
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, seen.clone()));
            }
        });
    }
    let server = |name, host: &str| {
        let url = format!("postgres://app@{host}:{port}/shop?sslmode=disable");
        At::flag(name, flag_value::<ServerUrl>(&url).unwrap())
    };
    let mut raw = Raw::default();
    raw.cluster.primary = Some(server("--primary", "127.0.0.1"));
    raw.cluster.replicas = vec![server("--replica", "127.0.0.2")];
    let config = Arc::new(ConfigSource::new(None, raw).read().unwrap());
    let target = |server: &ServerUrl| {
        let tls = ServerTls::new(server.sslmode, None, None).unwrap();
        let (name, address) = (server.name.as_str().into(), server.address.clone());
        Arc::new(Target { name, address, tls, protocol: server.max_protocol_version })
    };
    let servers = std::iter::once(&config.cluster.primary).chain(&config.cluster.replicas);
    let targets = servers.map(target).collect();
    (Watched { config, targets, yields: false }, told)
}

/// Nothing is kept.
fn results() -> Arc<Results> {
    let bounds = Bounds { entries: 0, bytes: 0, ttl: Duration::from_secs(1) };
    Results::new(
        &CacheSettings {
            bounds,
            pack_min: None,
            admission: Admission::Always,
            inspect_per_second: 0,
            single_flight: None,
            write_through: None,
            follow: None,
            warm: Vec::new(),
            redis: None,
        },
        1,
    )
}

fn input(watched: Watched) -> (Input, Arc<Watched>) {
    let sink: Arc<dyn Sink> = Arc::new(Silence);
    let engine = Arc::new(Engine::new(Settings::default()).unwrap());
    let watched = Arc::new(watched);
    let input = Input {
        views: Arc::default(),
        watched: watch::channel(watched.clone()).1,
        schema: Arc::default(),
        policies: Arc::new(Registry::new(engine, 1, &sink)),
        hidden: Arc::default(),
        pools: SharedPools::new(1),
        adopt: Box::new(|name| Err(format!("{name} is never adopted here"))),
        orders: mpsc::channel(1).1,
        results: results(),
        counters: Counters::start(&watched.config.rates, 0).unwrap(),
        alerts: Alerts::start().unwrap(),
    };
    (input, watched)
}

#[tokio::test]
async fn a_database_that_is_gone_is_asked_about_once_for_each_login() {
    let (watched, seen) = server().await;
    let (input, watched) = input(watched);
    let gone: Arc<str> = "gone".into();
    let mut views = input.views.subscribe();
    let logins = async {
        for login in 1..4 {
            input.views.want(&gone);
            views.changed().await.unwrap();
            assert!(input.views.wanted().is_empty());
            assert_eq!(seen.borrow().catalogues.len(), login);
        }
    };
    tokio::select! {
        () = read_catalogues(&input, &watched) => {}
        () = logins => {}
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_read_is_not_asked_about_at_each_look() {
    let (watched, seen) = server().await;
    let mut catalogues = Catalogues::new(&watched, &Default::default());
    let hidden = HiddenCodes::default();
    let results = results();
    let first = catalogues.refresh(&"starting".into(), 0, &hidden, &results).await;
    assert_eq!((first, catalogues.known().len()), (Refreshed::Yes, 0));
    // No schema change makes it worth a try.
    for schema in 0..10 {
        let again = catalogues.refresh(&"starting".into(), schema, &hidden, &results).await;
        assert_eq!(again, Refreshed::No);
    }
    assert_eq!(seen.borrow().catalogues, ["starting"]);
}

#[tokio::test]
async fn replicas_are_watched_while_a_catalogue_takes_its_time() {
    let (watched, mut seen) = server().await;
    let (input, watched) = input(watched);
    input.views.want(&"slow".into());
    let rounds = async {
        let enough = |seen: &Seen| seen.others >= 12 || seen.is_given_up;
        seen.wait_for(enough).await.unwrap().clone()
    };
    let mut standing = cluster::Standing::default();
    let (_sender, mut orders) = mpsc::channel(1);
    let watch = watch_cluster(&input, &watched, &mut standing, &mut orders);
    let tasks = LocalSet::new();
    tokio::select! {
        () = tasks.run_until(watch) => {}
        seen = rounds => {
            assert!(!seen.is_given_up, "after {} questions", seen.others);
            assert_eq!(seen.catalogues, ["slow"]);
            assert_eq!(input.views.latest().replicas.len(), 1);
        }
    }
}

#[tokio::test]
async fn catalogues_stand_where_only_the_roles_of_servers_have_changed() {
    let (watched, _seen) = server().await;
    let (input, watched) = input(watched);
    let name: Arc<str> = "slow".into();
    let known = || crate::view::Known {
        catalogue: Arc::new(tidegate_core::catalogue::Builder::default().build()),
        schema: 0,
        tables: None,
    };
    input.views.update(|view| drop(view.catalogues.insert(name.clone(), known())));
    let mut targets = watched.targets.clone();
    targets.reverse();
    let swapped = Arc::new(Watched { config: watched.config.clone(), targets, yields: false });
    forget(&input, Some(watched.clone()), &swapped);
    assert!(input.views.latest().catalogues.contains_key(&name));
    assert_eq!(Catalogues::new(&swapped, &input.views.latest().catalogues).known().len(), 1);
    let targets = vec![watched.targets[0].clone()];
    let fewer = Watched { config: watched.config.clone(), targets, yields: false };
    forget(&input, Some(swapped), &fewer);
    assert!(input.views.latest().catalogues.is_empty(), "another cluster");
}
