//! What runs in Redis, in a real one, answers what the reference in Rust does.

use std::time::Duration;
use tidegate_limiter::{FUNCTIONS, Ring, Span, Taken, Taking};
use tidegate_test_support::{Redis, RedisClient, Reply};

/// The same text, with a clock that the last two arguments set; keys do not go by Redis's own.
fn with_a_clock() -> String {
    format!(
        "local real, stop = redis, #ARGV - 2\n\
         local time = {{ ARGV[stop + 1], ARGV[stop + 2] }}\n\
         local redis = {{ call = function(name, ...)\n\
         if name == 'TIME' then return time end\n\
         if name == 'PEXPIRE' then return 1 end\n\
         return real.call(name, ...) end }}\n\
         {FUNCTIONS}\n\
         ARGV[stop + 1], ARGV[stop + 2] = nil, nil\n\
         return take(KEYS, ARGV)"
    )
}

fn take(client: &mut RedisClient, script: &str, key: &str, taking: &Taking, micros: u64) -> Taken {
    let Taking { span, limit, need, also, extra, parts, life, back, told } = taking;
    let (tick, units) = back.unwrap_or_default();
    let mut words: Vec<String> = vec!["EVAL".into(), script.into(), "1".into(), key.into()];
    let numbers = [span.micros, span.slots, u64::from(*limit), u64::from(*need)];
    words.extend(numbers.map(|number| number.to_string()));
    words.extend([*also, *extra, *parts].map(|number| number.to_string()));
    words.extend([*life, tick, u64::from(units)].map(|number| number.to_string()));
    words.extend(told.iter().flat_map(|(age, units)| [age.to_string(), units.to_string()]));
    words.extend([micros / 1_000_000, micros % 1_000_000].map(|number| number.to_string()));
    let parts = match client.call(&words) {
        Reply::List(parts) => parts,
        other => panic!("{other:?} to {:?}", &words[4..]),
    };
    let number = |part: usize| match &parts[part] {
        Reply::Number(number) => *number,
        other => panic!("{other:?}"),
    };
    let Reply::Text(life) = &parts[4] else { panic!("{parts:?}") };
    Taken {
        granted: number(0) as u32,
        left: number(1),
        retry: Duration::from_micros(number(2) as u64),
        tick: number(3) as u64,
        life: life.parse().unwrap(),
    }
}

/// Numbers that look like chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX; its high bits.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[test]
fn the_function_in_redis_is_the_reference_in_rust() {
    let redis = Redis::start(&[]);
    let mut client = redis.client();
    let script = with_a_clock();
    let mut granted = 0;
    for seed in 0..24 {
        let mut chance = Chance(seed * 7_919 + 1);
        let windows = [60_000, 60_000, 1_000, 1, 7_333, 3_600_000];
        let span = Span::of(Duration::from_millis(windows[seed as usize % windows.len()]));
        let (mut ring, mut micros, mut before) =
            (Ring::default(), 1_700_000_000_000_000, Taken::default());
        let key = format!("ring {seed}");
        for step in 0..300 {
            micros = match chance.below(40) {
                0 => micros + span.micros * chance.below(200),
                1 => micros - chance.below(span.micros * 30),
                2..20 => micros + chance.below(span.micros / 10),
                _ => micros + chance.below(span.micros * 2),
            };
            if chance.below(100) == 0 {
                client.call(&["DEL", &key]);
                ring.forget();
            }
            let told = (0..chance.below(4).saturating_sub(1))
                .map(|_| (chance.below(span.slots + 2) as u32, chance.below(9) as u32))
                .collect();
            let back = (chance.below(4) == 0).then(|| {
                (before.tick.saturating_sub(chance.below(span.slots)), chance.below(5) as u32)
            });
            let taking = Taking {
                span,
                limit: 20 + chance.below(200) as u32,
                need: chance.below(6) as u32,
                also: chance.below(3) as u32,
                extra: chance.below(64) as u32,
                parts: 4 + chance.below(8) as u32,
                life: if chance.below(10) == 0 { 1 } else { before.life },
                back,
                told,
            };
            let answer = take(&mut client, &script, &key, &taking, micros);
            let expected = ring.take(&taking, micros);
            assert_eq!(answer, expected, "seed {seed}, step {step}, at {micros}: {taking:?}");
            granted += answer.granted;
            before = answer;
        }
    }
    assert!(granted > 1_000, "{granted}");
}
