//! What it costs to look whether a statement is within its limits, when nobody has to be asked.

use crate::micro::nanos_per_call;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_core::plan::Charge;
use tidegate_core::policy::Template;
use tidegate_core::policy::limit::{Bucket, OverLimit, TransactionState};
use tidegate_core::policy::template::Holes;
use tidegate_limiter::{Execution, FailMode, Limiter, Name, SharedConfig, Taken, Verdict};

/// Taken at a time here, so that hardly a check in a million has to ask.
const GRANTED: u32 = 1 << 28;

/// Prints a line for each way to count.
pub fn run() {
    let config = SharedConfig {
        deadline: Duration::from_millis(50),
        fail_mode: FailMode::Local,
        members: 2,
    };
    for count in [1, 2] {
        let mut shared = Limiter::shared(config);
        shared.handle_reached(2, Duration::ZERO);
        for (name, limiter) in [("alone", Limiter::default()), ("units in hand", shared)] {
            let Some(nanos) = check(&Mutex::new(limiter), count) else { continue };
            println!("limiter::admit  {name:<14} buckets: {count}  {nanos:>8.1} ns");
        }
    }
}

/// With the lock and the clock, as a worker does it.
fn check(limiter: &Mutex<Limiter>, count: usize) -> Option<f64> {
    let bucket = |name: &str| {
        let key = Template::parse(name, Holes::Identity).ok()?;
        let (limit, window) = (u32::MAX, Duration::from_secs(60));
        Some(Bucket { name: name.into(), key, limit, window, cost: 1, over: OverLimit::Reject })
    };
    let (own, all) = (bucket("own")?, bucket("all")?);
    let buckets = &[(&own, 7), (&all, 8)][..count];
    let execution = Execution {
        charge: Charge::ONE,
        transaction: TransactionState::Idle,
        waited: Duration::ZERO,
        asked: Duration::ZERO,
    };
    let began = Instant::now();
    let mut name = |number: usize| Name([number as u8; 16]);
    Some(nanos_per_call(|| {
        loop {
            let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
            let now = began.elapsed();
            match limiter.admit(black_box(buckets), &execution, &mut name, now) {
                Verdict::Asked(..) => {}
                verdict => {
                    black_box(verdict);
                    return;
                }
            }
            while let Some(order) = limiter.poll_order() {
                let taken = Taken { granted: GRANTED, tick: 1, life: 1, ..Taken::default() };
                limiter.handle_taken(order.key, order.number, &taken, now);
            }
        }
    }))
}
