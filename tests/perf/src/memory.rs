//! What a proxy's idle clients and a long result cost it.

use crate::process::Tree;
use crate::targets::Door;
use std::io::Read;
use std::time::Duration;
use tidegate_test_support::Client;
use tidegate_wire::backend::tag;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend;

/// What it says about a proxy.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    pub clients: u32,
    pub bytes_per_client: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub bytes: u64,
    /// Of the proxy; not a number for the database itself, like the next.
    pub cpu_us_per_mb: f64,
    pub mb_per_second: f64,
    /// Above what was resident before.
    pub peak_extra_bytes: f64,
}

/// Connects clients that then do nothing, and shares out what the proxy grew by.
pub fn idle(door: &Door, clients: u32) -> Result<Option<Idle>, String> {
    let Some(tree) = door.tree else { return Ok(None) };
    // The first clients fill pools and caches, which is not their cost.
    let warm: Vec<Client> = (0..20).map(|_| connect(door)).collect::<Result<_, _>>()?;
    let before = tree.resident_bytes();
    let idle: Vec<Client> = (0..clients).map(|_| connect(door)).collect::<Result<_, _>>()?;
    let grown = tree.resident_bytes().saturating_sub(before);
    drop((warm, idle));
    Ok(Some(Idle { clients, bytes_per_client: grown as f64 / f64::from(clients) }))
}

fn connect(door: &Door) -> Result<Client, String> {
    Client::try_connect(&door.url(), &[])
        .map_err(|error| format!("a client is refused: {}", error.describe()))
}

/// Reads a result of about `megabytes`, and counts what that took.
pub fn transfer(door: &Door, megabytes: u32) -> Result<Transfer, String> {
    let mut client = connect(door)?;
    let rows = megabytes * 1000;
    let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})");
    let mut query = Vec::new();
    frontend::query(&mut query, sql.as_bytes());
    if let Some(tree) = door.tree {
        tree.reset_peak();
    }
    let usage = |tree: Tree| (tree.cpu_us(), tree.resident_bytes());
    let before = door.tree.map(usage);
    let begun = std::time::Instant::now();
    client.send(&query);
    let bytes = read_to_ready(client.stream())?;
    let seconds = begun.elapsed().as_secs_f64();
    let megabytes = bytes as f64 / 1e6;
    let grown = door.tree.zip(before).map(|(tree, (cpu, resident))| {
        let cpu = tree.cpu_us().saturating_sub(cpu) as f64;
        (cpu, tree.peak_bytes().saturating_sub(resident) as f64)
    });
    let (cpu, peak_extra_bytes) = grown.unwrap_or((f64::NAN, f64::NAN));
    Ok(Transfer {
        bytes,
        cpu_us_per_mb: cpu / megabytes,
        mb_per_second: megabytes / seconds,
        peak_extra_bytes,
    })
}

/// Reads frames up to ReadyForQuery without keeping them; their length in bytes.
fn read_to_ready(mut stream: &std::net::TcpStream) -> Result<u64, String> {
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 1 << 18];
    let mut kept = 0;
    let mut skip = 0;
    let mut total = 0;
    loop {
        let count = stream.read(&mut buffer[kept..]).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("the connection ended before the result did".into());
        }
        total += count as u64;
        let filled = kept + count;
        let mut at = 0;
        loop {
            let here = skip.min(filled - at);
            at += here;
            skip -= here;
            if skip > 0 {
                break;
            }
            match Header::peek(&buffer[at..filled], 1 << 30) {
                Ok(Some(header)) if header.tag == tag::READY_FOR_QUERY => return Ok(total),
                Ok(Some(header)) if header.tag == tag::ERROR_RESPONSE => {
                    let end = (at + header.frame_bytes()).min(filled);
                    let text =
                        String::from_utf8_lossy(&buffer[at + HEADER_BYTES..end]).into_owned();
                    return Err(text.replace('\0', " "));
                }
                Ok(Some(header)) => skip = header.frame_bytes(),
                Ok(None) => break,
                Err(bad) => return Err(format!("a frame of length {}", bad.length)),
            }
        }
        buffer.copy_within(at..filled, 0);
        kept = filled - at;
    }
}
