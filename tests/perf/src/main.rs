//! Benchmarks: `micro` for single functions.

mod micro;

fn main() {
    micro::run();
}
