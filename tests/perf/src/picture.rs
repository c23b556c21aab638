//! The results as SVG: throughput and the proxies' CPU time per query, in bars.

use crate::load::Mode;
use crate::report::Report;
use crate::targets::Name;
use std::fmt::Write;

const BAR_WIDTH: f64 = 14.0;
const GROUP_WIDTH: f64 = BAR_WIDTH * Name::ALL.len() as f64;
const GROUP_GAP: f64 = 16.0;
const PANEL_HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;

type Load = (Mode, u32);

fn colour(name: Name) -> &'static str {
    match name {
        Name::Direct => "#9aa5b1",
        Name::PgBouncer => "#d9822b",
        Name::Tidegate => "#1769aa",
        Name::TidegateEpoll => "#4c8f9e",
        Name::TidegateTwo => "#76b5e6",
    }
}

/// Draws the report.
pub fn draw(report: &Report) -> String {
    let loads = report.loads();
    let group = GROUP_WIDTH + GROUP_GAP;
    // The legend and the titles need some width, however few loads there are.
    let width = (LEFT + group * loads.len() as f64 + 20.0).max(500.0);
    let height = 2.0 * (PANEL_HEIGHT + 80.0) + 40.0;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let throughput = |load: Load, name: Name| report.per_second(load, name);
    let cost = |load: Load, name: Name| report.cpu_us(load, name);
    panel(
        &mut out,
        30.0,
        "pgbench -S: transactions per second (more is better)",
        &loads,
        throughput,
    );
    let second = 30.0 + PANEL_HEIGHT + 80.0;
    panel(&mut out, second, "CPU time of the proxy per query, µs (less is better)", &loads, cost);
    for (at, name) in Name::ALL.into_iter().enumerate() {
        let x = LEFT + at as f64 * 100.0;
        let y = height - 18.0;
        rectangle(&mut out, (x, y - 9.0), (10.0, 10.0), colour(name), name.label());
        text(&mut out, (x + 14.0, y), "start", name.label());
    }
    out.push_str("</svg>\n");
    out
}

fn panel(
    out: &mut String,
    top: f64,
    title: &str,
    loads: &[Load],
    value: impl Fn(Load, Name) -> f64,
) {
    let values = loads.iter().flat_map(|load| Name::ALL.map(|name| value(*load, name)));
    let highest = values.filter(|v| v.is_finite()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let bottom = top + PANEL_HEIGHT;
    text(out, (LEFT, top - 10.0), "start", title);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let y = bottom - share * PANEL_HEIGHT;
        let right = LEFT + loads.len() as f64 * (GROUP_WIDTH + GROUP_GAP);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\" stroke=\"#e4e7eb\"/>"
        );
        let decimals = if highest < 100.0 { 1 } else { 0 };
        text(out, (LEFT - 6.0, y + 4.0), "end", &format!("{:.decimals$}", share * highest));
    }
    for (group, load) in loads.iter().enumerate() {
        let x = LEFT + group as f64 * (GROUP_WIDTH + GROUP_GAP) + GROUP_GAP / 2.0;
        for (bar, name) in Name::ALL.into_iter().enumerate() {
            let height = value(*load, name) / highest * PANEL_HEIGHT;
            if height.is_finite() {
                let corner = (x + bar as f64 * BAR_WIDTH, bottom - height);
                let note = format!("{}: {:.1}", name.label(), value(*load, name));
                rectangle(out, corner, (BAR_WIDTH - 2.0, height), colour(name), &note);
            }
        }
        let middle = x + GROUP_WIDTH / 2.0;
        text(out, (middle, bottom + 14.0), "middle", load.0.label());
        text(out, (middle, bottom + 27.0), "middle", &load.1.to_string());
    }
}

fn rectangle(
    out: &mut String,
    (x, y): (f64, f64),
    (width, height): (f64, f64),
    fill: &str,
    note: &str,
) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\">\
         <title>{note}</title></rect>"
    );
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
