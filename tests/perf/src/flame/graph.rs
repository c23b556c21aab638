//! Stacks as `perf script` prints them, folded into a tree and drawn as a flame graph: callers below, callees above.

use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 15.0;
/// Narrower frames are left out: nobody can read them.
const WIDTH_MIN: f64 = 0.6;
/// Width of a letter, roughly.
const LETTER: f64 = 6.2;
/// Only threads with this name and a number: the others do no query's work.
const WORKERS: &str = "tidegate-";
/// The first frame that is a connection's own; what calls it is the runtime's business and not always unwound.
const CONNECTION: &str = "tidegate::data::connection::Connection::poll";

#[derive(Debug, Default)]
struct Node {
    samples: u64,
    callees: BTreeMap<String, Node>,
}

/// All samples of the workers.
#[derive(Debug, Default)]
pub struct Graph {
    root: Node,
    parts: BTreeMap<&'static str, u64>,
}

impl Graph {
    /// Reads what `perf script -F comm,ip,sym` prints: a line with the thread, then a frame a line from the innermost
    /// out, then an empty line.
    pub fn read(text: &str) -> Self {
        let mut graph = Self::default();
        let mut stack: Vec<&str> = Vec::new();
        let mut counts = false;
        for line in text.lines().chain([""]) {
            if line.trim().is_empty() {
                if counts && !stack.is_empty() {
                    graph.add(&stack);
                }
                (stack, counts) = (Vec::new(), false);
            } else if line.starts_with(char::is_whitespace) {
                let symbol = line.trim().split_once(' ').map_or("[unknown]", |(_, symbol)| symbol);
                stack.push(symbol);
            } else {
                let number = line.strip_prefix(WORKERS);
                counts = number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            }
        }
        graph
    }

    /// `stack` begins with the innermost frame.
    fn add(&mut self, stack: &[&str]) {
        let known: Vec<&str> = stack.iter().copied().filter(|name| *name != "[unknown]").collect();
        let outermost = known.iter().position(|name| *name == CONNECTION);
        let (root, inner) = match outermost {
            Some(at) => ("connections", &known[..=at]),
            None => ("runtime", &known[..]),
        };
        let innermost = known.first().copied().unwrap_or("[unknown]");
        *self.parts.entry(part(stack, innermost)).or_default() += 1;
        self.root.samples += 1;
        let mut node = self.root.callees.entry(root.to_owned()).or_default();
        node.samples += 1;
        for name in inner.iter().rev() {
            node = node.callees.entry(short(name)).or_default();
            node.samples += 1;
        }
    }

    pub fn samples(&self) -> u64 {
        self.root.samples
    }

    /// Shares of all samples by whose code ran, the largest first.
    pub fn parts(&self) -> Vec<(&'static str, f64)> {
        let all = self.root.samples.max(1) as f64;
        let mut parts: Vec<_> =
            self.parts.iter().map(|(part, samples)| (*part, *samples as f64 / all)).collect();
        parts.sort_by(|one, other| other.1.total_cmp(&one.1));
        parts
    }

    /// The picture; the names are shown where there is room, and always as the frame's title.
    pub fn draw(&self, title: &str) -> String {
        let depth = self.root.depth();
        let height = 40.0 + ROW * depth as f64;
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
             font-family=\"monospace\" font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" \
             fill=\"white\"/>\n<text x=\"6\" y=\"16\" font-size=\"13\">{}</text>\n",
            escaped(title)
        );
        let scale = WIDTH / self.root.samples.max(1) as f64;
        let mut x = 0.0;
        for (name, node) in &self.root.callees {
            node.draw(&mut out, name, x, height - ROW - 6.0, scale, self.root.samples);
            x += node.samples as f64 * scale;
        }
        out.push_str("</svg>\n");
        out
    }
}

impl Node {
    fn depth(&self) -> usize {
        1 + self.callees.values().map(Node::depth).max().unwrap_or(0)
    }

    fn draw(&self, out: &mut String, name: &str, x: f64, y: f64, scale: f64, all: u64) {
        let width = self.samples as f64 * scale;
        if width < WIDTH_MIN {
            return;
        }
        let share = self.samples as f64 / all as f64 * 100.0;
        let name = escaped(name);
        let _ = writeln!(
            out,
            "<g><title>{name} {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{:.1}\" fill=\"{}\" stroke=\"white\" stroke-width=\"0.4\"/>",
            ROW - 1.0,
            colour(&name)
        );
        let letters = (width / LETTER) as usize;
        if letters >= 4 {
            let shown: String = name.chars().take(letters).collect();
            // What was cut inside an entity would be no text.
            let shown = shown
                .rsplit_once('&')
                .filter(|(_, end)| !end.contains(';'))
                .map_or(shown.as_str(), |(whole, _)| whole);
            let _ =
                writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{shown}</text>", x + 2.0, y + 10.5);
        }
        out.push_str("</g>\n");
        let mut inner = x;
        for (callee, node) in &self.callees {
            node.draw(out, callee, inner, y - ROW, scale, all);
            inner += node.samples as f64 * scale;
        }
    }
}

/// Whose code the innermost frame is.
fn part(stack: &[&str], innermost: &str) -> &'static str {
    const KERNEL: [&str; 3] =
        ["entry_SYSCALL_64_after_hwframe", "el0t_64_sync", "asm_sysvec_apic_timer_interrupt"];
    if stack.iter().any(|name| KERNEL.contains(name)) {
        return "the kernel";
    }
    let is =
        |prefix: &str| innermost.starts_with(prefix) || innermost.contains(&format!("<{prefix}"));
    match () {
        () if is("tokio") || is("mio") => "tokio",
        () if is("tidegate_core") || is("tidegate_wire") || is("tidegate_pool") => "the core",
        () if is("tidegate") => "the shell",
        () => "libraries",
    }
}

/// Without the hash and the paths of types: the picture is for people.
fn short(name: &str) -> String {
    let name =
        name.replace("<impl ", "<").replace("tidegate::", "").replace("tidegate_core::", "core::");
    name.replace("tokio::runtime::", "tokio::")
}

fn colour(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("tokio") || name.starts_with("runtime") => "#d9c47a",
        _ if name.starts_with("core::") => "#76b5e6",
        _ if name.contains("::") || name.starts_with("connections") => "#8fbf8f",
        _ => "#e09a7a",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
tidegate-0 
	  1 tcp_sendmsg
	  2 entry_SYSCALL_64_after_hwframe
	  3 __send
	  4 tidegate::data::connection::Connection::poll
	  5 tidegate::data::worker::run

tidegate-0 
	  9 <tidegate_core::session::Session>::settle
	  4 tidegate::data::connection::Connection::poll
	ffffffffffffffff [unknown]

tidegate-0 
	  7 tokio::runtime::time::Driver::park_internal

tidegate-control 
	  8 tokio::runtime::time::Driver::park_internal
";

    #[test]
    fn stacks_are_folded_below_the_connection() {
        let graph = Graph::read(SCRIPT);
        assert_eq!(graph.samples(), 3, "threads that are no workers do not count");
        let connections = &graph.root.callees["connections"];
        assert_eq!(connections.samples, 2);
        let poll = &connections.callees["data::connection::Connection::poll"];
        assert_eq!((poll.samples, poll.callees.len()), (2, 2));
        let parts = graph.parts();
        assert_eq!(parts.len(), 3);
        for part in ["the kernel", "the core", "tokio"] {
            assert!(parts.iter().any(|(name, _)| *name == part), "{part}: {parts:?}");
        }
    }

    #[test]
    fn a_name_that_is_cut_stays_text() {
        let picture = Graph::read(SCRIPT).draw("a < b & c");
        assert!(picture.contains("a &lt; b &amp; c") && picture.ends_with("</svg>\n"));
        for (_, after) in picture.match_indices('&').map(|(at, _)| picture.split_at(at)) {
            assert!(after[1..].starts_with(['a', 'l', 'g']) && after[..6].contains(';'), "{after}");
        }
    }
}
