//! Prometheus' `node_exporter`, in its text format. Source: "Text-based format" of Prometheus' documentation, and the names of
//! node_exporter's collectors `cpu`, `meminfo` and `filesystem`.

use super::{CpuTime, LoadReading, used_percent};

/// Kinds of file systems that hold no data.
const NO_DISKS: [&str; 10] = [
    "tmpfs",
    "devtmpfs",
    "ramfs",
    "rootfs",
    "squashfs",
    "iso9660",
    "autofs",
    "proc",
    "sysfs",
    "fuse.lxcfs",
];

/// Reads what it says. Of the file systems the one counts that holds `directory`, or, where that is not known, the fullest one.
pub fn read_exporter(text: &str, directory: Option<&str>) -> LoadReading {
    let mut cpu: Option<CpuTime> = None;
    let (mut memory, mut available) = (None, None);
    let mut disks: Vec<Disk<'_>> = Vec::new();
    for sample in text.lines().filter_map(Sample::read) {
        match sample.name {
            "node_cpu_seconds_total" => {
                let time = cpu.get_or_insert(CpuTime { busy: 0.0, all: 0.0 });
                time.all += sample.value;
                match sample.label("mode") {
                    Some("idle" | "iowait") => {}
                    _ => time.busy += sample.value,
                }
            }
            "node_memory_MemTotal_bytes" => memory = Some(sample.value),
            "node_memory_MemAvailable_bytes" => available = Some(sample.value),
            "node_filesystem_size_bytes" => Disk::at(&mut disks, &sample).size = sample.value,
            "node_filesystem_avail_bytes" => Disk::at(&mut disks, &sample).free = sample.value,
            _ => {}
        }
    }
    LoadReading {
        cpu: cpu.filter(|cpu| cpu.all.is_finite() && cpu.busy.is_finite()),
        memory_percent: memory.zip(available).and_then(|(size, free)| used_percent(size, free)),
        disk_percent: disk(&disks, directory),
    }
}

#[derive(Debug)]
struct Disk<'a> {
    mountpoint: &'a str,
    kind: &'a str,
    size: f64,
    free: f64,
}

impl<'a> Disk<'a> {
    fn at<'d>(disks: &'d mut Vec<Disk<'a>>, sample: &Sample<'a>) -> &'d mut Disk<'a> {
        let mountpoint = sample.label("mountpoint").unwrap_or("/");
        let known = disks.iter().position(|disk| disk.mountpoint == mountpoint);
        let at = known.unwrap_or_else(|| {
            let kind = sample.label("fstype").unwrap_or_default();
            disks.push(Disk { mountpoint, kind, size: f64::NAN, free: f64::NAN });
            disks.len() - 1
        });
        &mut disks[at]
    }

    fn used_percent(&self) -> Option<f64> {
        used_percent(self.size, self.free)
    }

    fn holds(&self, directory: &str) -> bool {
        let below = directory.strip_prefix(self.mountpoint.trim_end_matches('/'));
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

fn disk(disks: &[Disk<'_>], directory: Option<&str>) -> Option<f64> {
    match directory {
        Some(directory) => disks
            .iter()
            .filter(|disk| disk.holds(directory))
            .max_by_key(|disk| disk.mountpoint.len())?
            .used_percent(),
        None => disks
            .iter()
            .filter(|disk| !NO_DISKS.contains(&disk.kind))
            .filter_map(Disk::used_percent)
            .max_by(f64::total_cmp),
    }
}

/// One line: `name{label="value",…} number`, maybe with a time behind it.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    /// As they are written.
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        if !name.starts_with("node_") {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_at(closing_brace(rest)?),
            None => ("", rest),
        };
        let value = rest.trim_start_matches('}').split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { name, labels, value })
    }

    /// The value of a label, if it holds nothing that had to be escaped: names of modes and mount points do not.
    fn label(&self, wanted: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            if name.trim_start_matches([',', ' ']) == wanted {
                return Some(&after[..end]);
            }
            rest = &after[end + 1..];
        }
    }
}

/// Where the labels end: a brace outside quotes.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        let ends = byte == b'}' && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} 700
node_cpu_seconds_total{cpu="0",mode="iowait"} 50
node_cpu_seconds_total{cpu="0",mode="user"} 1.5e2
node_cpu_seconds_total{cpu="1",mode="idle"} 100 1395066363000
node_memory_MemTotal_bytes 8e+09
node_memory_MemAvailable_bytes 6e+09
node_filesystem_size_bytes{device="/dev/a",fstype="ext4",mountpoint="/"} 1000
node_filesystem_avail_bytes{device="/dev/a",fstype="ext4",mountpoint="/"} 900
node_filesystem_size_bytes{device="/dev/b",fstype="xfs",mountpoint="/data"} 1000
node_filesystem_avail_bytes{device="/dev/b",fstype="xfs",mountpoint="/data"} 400
node_filesystem_size_bytes{device="t",fstype="tmpfs",mountpoint="/run"} 1000
node_filesystem_avail_bytes{device="t",fstype="tmpfs",mountpoint="/run"} 0
go_goroutines 8
"#;

    #[test]
    fn what_node_exporter_says_is_read() {
        let reading = read_exporter(TEXT, Some("/data/pg/15"));
        assert_eq!(reading.cpu, Some(CpuTime { busy: 150.0, all: 1_000.0 }));
        assert_eq!((reading.memory_percent, reading.disk_percent), (Some(25.0), Some(60.0)));
        let disk = |directory| read_exporter(TEXT, directory).disk_percent;
        assert_eq!(disk(Some("/database")), Some(10.0), "not below /data");
        assert_eq!(disk(Some("/data")), Some(60.0));
        assert_eq!(disk(None), Some(60.0), "the fullest that is a disk");
        assert_eq!(read_exporter("node_load1 0.5\n", None), LoadReading::default());
    }

    #[test]
    fn labels_end_where_they_end() {
        let line = r#"node_x{a="}\"",mode="idle"} 3"#;
        let sample = Sample::read(line).unwrap();
        assert_eq!((sample.name, sample.value), ("node_x", 3.0));
        assert_eq!((sample.label("mode"), sample.label("b")), (Some("idle"), None));
        for odd in ["", "node_x", "node_x{a=\"b\" 3", "node_x{} x", "{", "other 3"] {
            assert_eq!(Sample::read(odd), None, "{odd}");
        }
    }
}
