use super::*;
use proptest::prelude::*;

const LEASE_MS: u64 = 100;
const RELIANCE_MS: u64 = 30;
const RUN: &str = "one";

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// Makes a beat, which arrives so much later; its answer, too.
    Beat(usize, u64),
    /// The oldest thing that is on its way is lost for good.
    Drop,
    Lose(usize),
    Join(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_u64).prop_map(Step::Wait),
        6 => (0..2_usize, 0..150_u64).prop_map(|(who, late)| Step::Beat(who, late)),
        1 => Just(Step::Drop),
        1 => (0..2_usize).prop_map(Step::Lose),
        2 => (0..2_usize).prop_map(Step::Join),
    ]
}

/// A beat that arrives then: whose, of which session, made when, and what it tells.
type OnItsWay = (Instant, usize, u64, Instant, u64);

struct Pair {
    both: [Membership; 2],
    number: u64,
    seen: [u64; 2],
    on_their_way: Vec<OnItsWay>,
}

impl Pair {
    fn new() -> Self {
        let config = |own: u8| Config {
            own,
            peers: [1 - own].into(),
            lease: Duration::from_millis(LEASE_MS),
            reliance: Duration::from_millis(RELIANCE_MS),
        };
        let both = [0, 1].map(|own| Membership::new(config(own), Instant::now()));
        Self { both, number: 0, seen: [0; 2], on_their_way: Vec::new() }
    }

    fn arrive(&mut self, now: Instant) {
        self.on_their_way.sort_unstable();
        while self.on_their_way.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, who, session, made_at, heard) = self.on_their_way.remove(0);
            self.number += 1;
            self.seen[who] = heard;
            let told = [(0, self.seen[0]), (1, self.seen[1])];
            // What is answered to a session that is over, nobody hears.
            if self.both[who].session() == session {
                self.both[who].handle_beat(made_at, self.number, &told, now);
            }
        }
    }

    fn join(&mut self, who: usize, now: Instant) {
        if self.both[who].standing() != Standing::Apart {
            return;
        }
        self.number += 1;
        self.both[who].handle_number(self.number);
        assert!(self.both[who].handle_connected(RUN).is_empty());
        let heard = self.both[who].begin_beat(now);
        self.both[who].handle_joined(now);
        let session = self.both[who].session();
        self.on_their_way.push((now, who, session, now, heard));
        self.arrive(now);
    }
}

#[test]
fn who_hears_all_others_serves_until_one_is_silent() {
    let (mut pair, mut now) = (Pair::new(), Instant::now());
    pair.join(0, now);
    assert!(!pair.both[0].may_serve(now), "the other is not there");
    pair.join(1, now);
    for _ in 0..20 {
        for who in [0, 1] {
            let (heard, session) = (pair.both[who].begin_beat(now), pair.both[who].session());
            pair.on_their_way.push((now, who, session, now, heard));
            pair.arrive(now);
        }
        now += Duration::from_millis(10);
    }
    assert!(pair.both.iter().all(|one| one.may_serve(now)));
    pair.both[0].handle_lost();
    let free_at = pair.both[0].free_at().unwrap();
    assert!(pair.both[1].may_serve(now) && !pair.both[0].is_free(1, now));
    assert!(!pair.both[1].may_serve(free_at) && pair.both[0].is_free(1, free_at));
    // It is back, and what it could not tell is void.
    pair.join(0, free_at);
    assert!(pair.both[0].is_free(1, free_at));
}

#[test]
fn another_place_is_used_when_nobody_hears_what_was_said_in_the_last_one() {
    let start = Instant::now();
    let config = |peers: &[u8]| Config {
        own: 0,
        peers: peers.into(),
        lease: Duration::from_millis(LEASE_MS),
        reliance: Duration::ZERO,
    };
    let mut one = Membership::new(config(&[1]), start);
    // A process of before may have been anywhere, and its beats may still be heard.
    let first = one.usable_at(RUN).unwrap();
    assert!(first > start + Duration::from_millis(LEASE_MS));
    assert!(!one.is_free(0, start) && one.is_free(0, first));
    one.handle_connected(RUN);
    let beat = first + Duration::from_millis(5);
    one.begin_beat(beat);
    one.handle_joined(beat);
    one.handle_lost();
    assert_eq!(one.usable_at(RUN), None, "the same one again");
    let other = one.usable_at("other").unwrap();
    assert!(other > beat + Duration::from_millis(LEASE_MS));
    one.handle_connected("other");
    assert!(one.usable_at(RUN).is_some_and(|at| at == other), "nor back at once");
    // Whoever has no others waits for nobody.
    assert_eq!(Membership::new(config(&[]), start).usable_at(RUN), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Property 44: what one process could not tell, no other serves any more once that one goes on; however late beats arrive,
    // and whichever of them do.
    #[test]
    fn nobody_serves_while_another_commits_untold(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut pair, mut now) = (Pair::new(), Instant::now());
        pair.join(0, now);
        pair.join(1, now);
        // The session in which each could not tell something, if it could not.
        let mut untold: [Option<u64>; 2] = [None; 2];
        // When each has last been told versions, and last committed without telling.
        let (mut told_at, mut committed_at) = ([None; 2], [None; 2]);
        for step in steps {
            match step {
                Step::Wait(time) => now += Duration::from_millis(time),
                Step::Beat(who, late) if pair.both[who].standing() == Standing::Joined => {
                    let heard = pair.both[who].begin_beat(now);
                    let at = now + Duration::from_millis(late);
                    let session = pair.both[who].session();
                    pair.on_their_way.push((at, who, session, now, heard));
                }
                Step::Beat(..) => {}
                Step::Drop => pair.on_their_way.truncate(pair.on_their_way.len().saturating_sub(1)),
                Step::Lose(who) => {
                    untold[who] = Some(pair.both[who].session());
                    pair.both[who].handle_lost();
                }
                Step::Join(who) => {
                    pair.join(who, now);
                    // What was kept is void by now.
                    untold[who] = None;
                }
            }
            pair.arrive(now);
            for who in [0, 1] {
                let other = &pair.both[1 - who];
                if let Some(session) = untold[who]
                    && pair.both[who].is_free(session, now)
                {
                    prop_assert!(!other.may_serve(now), "{who} goes on, and the other serves");
                    committed_at[who] = Some(now);
                }
                if let (Some(told_at), Some(committed_at)) = (told_at[1 - who], committed_at[who])
                    && told_at < committed_at
                {
                    prop_assert!(!pair.both[1 - who].may_rely(told_at, now), "relies on what is void");
                }
                if told_at[who].is_none_or(|at| !pair.both[who].may_rely(at, now))
                    && pair.both[who].may_serve(now)
                {
                    told_at[who] = Some(now);
                }
            }
        }
    }
}
