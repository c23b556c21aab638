//! Which node of a Redis Cluster is asked, and where to go next: what nodes say about each other, decided without any I/O.
//!
//! All keys of one use carry one hash tag, so they are in one slot, and one node has them. Which one, any node tells: it refuses a
//! key of another's with `MOVED` and the address. So slots are never computed here, and no map is believed: a node has the keys if it
//! answers for them. The map (`CLUSTER SLOTS`) is read for the others' addresses alone: they can be asked when this node is gone.
//!
//! A slot that is being moved (`ASK`) has its keys in two places: nothing can be done in one step, and it is a fault until it has
//! been moved.
//!
//! Verbs: [`Nodes::search`] begins; [`Search::next`] says whom to ask; [`Search::handle_moved`], [`Search::handle_failed`],
//! [`Search::handle_nodes`] take what came of it; [`Nodes::handle_found`] remembers.

use std::collections::VecDeque;
use std::fmt::Write as _;

use redis::Value;

use crate::config::RedisNode;

/// Nodes that are remembered: more than any shard has, and as many as most clusters have.
const NODES_MAX: usize = 64;
/// Of why nodes were not the one, so many are told.
const REASONS_MAX: usize = 4;

/// Those that are known: written by people, or told by nodes.
#[derive(Clone, Debug)]
pub struct Nodes {
    written: Vec<RedisNode>,
    told: Vec<RedisNode>,
    /// The one that had the keys last.
    owner: Option<RedisNode>,
    /// Searches that came to nothing since then: each begins with another node, so that none that hangs keeps the others from being asked.
    failures: usize,
}

impl Nodes {
    pub fn new(written: Vec<RedisNode>) -> Self {
        Self { written, told: Vec::new(), owner: None, failures: 0 }
    }

    /// Begins to look for the one that has the keys: the last one that had them first, then all others.
    pub fn search(&mut self) -> Search {
        let mut open: Vec<RedisNode> = Vec::new();
        for node in self.owner.iter().chain(&self.told).chain(&self.written) {
            if !open.contains(node) {
                open.push(node.clone());
            }
        }
        let first = self.failures % open.len().max(1);
        open.rotate_left(first);
        // Until it is found.
        self.failures = self.failures.wrapping_add(1);
        Search { open: open.into(), asked: Vec::new(), reasons: Vec::new() }
    }

    /// This one has the keys; `others` are those that it knows, if it told.
    pub fn handle_found(&mut self, owner: RedisNode, others: Vec<RedisNode>) {
        if !others.is_empty() {
            self.told = others;
        }
        (self.owner, self.failures) = (Some(owner), 0);
    }
}

/// One look for the node that has the keys. Each is asked once, so that it ends.
#[derive(Clone, Debug)]
pub struct Search {
    open: VecDeque<RedisNode>,
    asked: Vec<RedisNode>,
    reasons: Vec<String>,
}

impl Search {
    /// Whom to ask; `None`: all have been.
    pub fn next(&mut self) -> Option<RedisNode> {
        let node = self.open.pop_front()?;
        self.asked.push(node.clone());
        Some(node)
    }

    /// Has everybody been asked who is known?
    pub fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// A node says that another has the keys.
    pub fn handle_moved(&mut self, from: &RedisNode, to: RedisNode) {
        self.note(from, &format!("it says that {to} has the keys"));
        self.open.retain(|node| *node != to);
        if !self.asked.contains(&to) {
            self.open.push_front(to);
        }
    }

    /// A node does not serve the keys, and says nothing of who does.
    pub fn handle_failed(&mut self, from: &RedisNode, why: &str) {
        self.note(from, why);
    }

    /// These are nodes, too.
    pub fn handle_nodes(&mut self, nodes: &[RedisNode]) {
        for node in nodes {
            if !self.asked.contains(node) && !self.open.contains(node) {
                self.open.push_back(node.clone());
            }
        }
    }

    fn note(&mut self, from: &RedisNode, why: &str) {
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(format!("{from}: {why}"));
        }
    }

    /// Why none was the one. Of a single node its own words.
    pub fn why(self) -> String {
        match &self.reasons[..] {
            [] => "no node is known".to_owned(),
            [one] if self.asked.len() == 1 => {
                one.split_once(": ").map_or_else(|| one.clone(), |(_, why)| why.to_owned())
            }
            all => {
                let mut words = all.join("; ");
                let rest = self.asked.len().saturating_sub(all.len());
                if rest > 0 {
                    // Writing to a string does not fail.
                    let _ = write!(words, "; and {rest} more");
                }
                words
            }
        }
    }
}

/// What an error says about where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node has them.
    Moved(RedisNode),
    /// Another node has them, of which it knows no address.
    MovedSomewhere,
    /// They are on their way to another node.
    Moving,
    /// Anything else.
    Other,
}

/// Reads an error: its first word, and what follows. `asked` is who said it.
pub fn refusal(code: &str, detail: &str, asked: &RedisNode) -> Refusal {
    match code {
        "MOVED" => {
            let address = detail.split_ascii_whitespace().nth(1);
            let node = address.and_then(|address| {
                let (host, port) = address.rsplit_once(':')?;
                node(host, port.parse().ok()?, asked)
            });
            node.map_or(Refusal::MovedSomewhere, Refusal::Moved)
        }
        "ASK" => Refusal::Moving,
        _ => Refusal::Other,
    }
}

/// An address as nodes tell it. No host: the one that was asked. `?`: nobody knows.
fn node(host: &str, port: u16, asked: &RedisNode) -> Option<RedisNode> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host {
        "?" => None,
        "" => Some(RedisNode { host: asked.host.clone(), port }),
        host => Some(RedisNode { host: host.to_owned(), port }),
    }
    .filter(|node| node.port != 0)
}

/// All nodes of an answer to `CLUSTER SLOTS`; what is not understood is left out.
pub fn nodes(answer: &Value, asked: &RedisNode) -> Vec<RedisNode> {
    let mut nodes = Vec::new();
    let Value::Array(ranges) = answer else { return nodes };
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        // The first two are the slots.
        for part in parts.iter().skip(2) {
            let Some(node) = node_of(part, asked) else { continue };
            if nodes.len() < NODES_MAX && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
    }
    nodes
}

/// Host, port, name, and since Redis 7 what else is known of it, in pairs.
fn node_of(part: &Value, asked: &RedisNode) -> Option<RedisNode> {
    let Value::Array(parts) = part else { return None };
    let [host, Value::Int(port), rest @ ..] = &parts[..] else { return None };
    let port = u16::try_from(*port).ok()?;
    let host = match host {
        Value::Nil => Some(String::new()),
        value => text(value),
    }?;
    node(&host, port, asked).or_else(|| {
        let Value::Array(known) = rest.get(1)? else { return None };
        let ip = known.chunks_exact(2).find(|pair| text(&pair[0]).as_deref() == Some("ip"))?;
        node(&text(&ip[1]).filter(|ip| !ip.is_empty())?, port, asked)
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
