use super::*;
use proptest::prelude::*;

fn at(host: &str, port: u16) -> RedisNode {
    RedisNode { host: host.to_owned(), port }
}

#[test]
fn errors_say_where_the_keys_are_in_all_forms_that_redis_knows() {
    let asked = at("r1", 7000);
    let moved = |detail: &str| refusal("MOVED", detail, &asked);
    assert_eq!(moved("3999 127.0.0.1:6381"), Refusal::Moved(at("127.0.0.1", 6381)));
    assert_eq!(
        moved("3999 redis-2.shop.local:6381"),
        Refusal::Moved(at("redis-2.shop.local", 6381))
    );
    assert_eq!(moved("3999 :6381"), Refusal::Moved(at("r1", 6381)), "the same host");
    assert_eq!(moved("3999 ::1:6381"), Refusal::Moved(at("::1", 6381)));
    assert_eq!(moved("3999 [2001:db8::7]:6381"), Refusal::Moved(at("2001:db8::7", 6381)));
    for detail in ["3999 ?:6381", "3999", "", "3999 host", "3999 host:x", "3999 host:0"] {
        assert_eq!(moved(detail), Refusal::MovedSomewhere, "{detail}");
    }
    assert_eq!(refusal("ASK", "3999 127.0.0.1:6381", &asked), Refusal::Moving);
    for code in ["CLUSTERDOWN", "TRYAGAIN", "LOADING", "ERR", "NOPERM", ""] {
        assert_eq!(refusal(code, "The cluster is down", &asked), Refusal::Other);
    }
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

#[test]
fn a_map_names_all_nodes_with_hosts_addresses_or_neither() {
    let asked = at("r1", 7000);
    let known = |ip: &str| Value::Array(vec![bulk("ip"), bulk(ip)]);
    let node = |host: Value, port, rest: Vec<Value>| {
        Value::Array([vec![host, Value::Int(port), bulk("id")], rest].concat())
    };
    let range =
        |nodes: Vec<Value>| Value::Array([vec![Value::Int(0), Value::Int(5460)], nodes].concat());
    let answer = Value::Array(vec![
        range(vec![
            node(bulk("10.0.0.1"), 7001, vec![]),
            node(bulk("r2"), 7002, vec![known("10.0.0.2")]),
        ]),
        range(vec![node(Value::Nil, 7003, vec![]), node(bulk(""), 7004, vec![])]),
        range(vec![node(bulk("?"), 7005, vec![known("10.0.0.5")]), node(bulk("?"), 7006, vec![])]),
        range(vec![node(bulk("10.0.0.1"), 7001, vec![]), node(bulk("r9"), -1, vec![]), Value::Nil]),
        Value::Okay,
    ]);
    let all = [
        at("10.0.0.1", 7001),
        at("r2", 7002),
        at("r1", 7003),
        at("r1", 7004),
        at("10.0.0.5", 7005),
    ];
    assert_eq!(nodes(&answer, &asked), all);
    assert_eq!(nodes(&Value::Nil, &asked), []);
    let many = (0..200).map(|port| range(vec![node(bulk("r"), 1_000 + port, vec![])])).collect();
    assert_eq!(nodes(&Value::Array(many), &asked).len(), NODES_MAX);
}

#[test]
fn why_nothing_was_found_is_said_of_each() {
    let mut one = Nodes::new(vec![at("r1", 7000)]).search();
    let first = one.next().unwrap();
    let mut search = one.clone();
    one.handle_failed(&first, "connection refused");
    assert_eq!((one.next(), one.why()), (None, "connection refused".to_owned()));
    search.handle_moved(&first, at("r2", 7000));
    let second = search.next().unwrap();
    assert_eq!(second, at("r2", 7000));
    search.handle_failed(&second, "connection refused");
    assert_eq!(search.next(), None);
    assert_eq!(
        search.why(),
        "r1:7000: it says that r2:7000 has the keys; r2:7000: connection refused"
    );
}

/// A cluster as a search finds it: who has the keys, who is gone, and whom those who do not have them say has them.
#[derive(Clone, Debug)]
struct World {
    owner: u16,
    gone: Vec<bool>,
    says: Vec<u16>,
    knows: Vec<u16>,
}

fn world() -> impl Strategy<Value = World> {
    (2..8_usize).prop_flat_map(|count| {
        let number = move || 0..u16::try_from(count).unwrap_or(1);
        let gone = prop::collection::vec(proptest::bool::ANY, count);
        let says = prop::collection::vec(number(), count);
        (number(), gone, says, prop::collection::vec(number(), 0..count))
            .prop_map(|(owner, gone, says, knows)| World { owner, gone, says, knows })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Whatever nodes say of each other, a search asks each once and ends; and if anybody who is there knows all, and the
    // owner is there, it is found.
    #[test]
    fn the_owner_is_found_wherever_the_search_begins(world in world(), seed in 0..8_u16, tries in 0..5_usize) {
        let count = world.gone.len();
        let seed = seed % u16::try_from(count).unwrap_or(1);
        let mut nodes = Nodes::new(vec![at("n", seed + 1)]);
        for _ in 0..tries {
            let _ = nodes.search();
        }
        let (mut search, mut asked, mut found) = (nodes.search(), Vec::new(), false);
        while let Some(node) = search.next() {
            prop_assert!(!asked.contains(&node), "asked twice");
            asked.push(node.clone());
            let number = node.port - 1;
            if world.gone[usize::from(number)] {
                search.handle_failed(&node, "gone");
            } else if number == world.owner {
                found = true;
                break;
            } else {
                let all: Vec<_> = world.knows.iter().map(|number| at("n", number + 1)).collect();
                search.handle_moved(&node, at("n", world.says[usize::from(number)] + 1));
                search.handle_nodes(&all);
            }
        }
        prop_assert!(asked.len() <= count);
        let starts = !world.gone[usize::from(seed)];
        let is_there = !world.gone[usize::from(world.owner)];
        if is_there && (seed == world.owner || starts && world.knows.contains(&world.owner)) {
            prop_assert!(found);
        }
    }

    // No node that hangs keeps the others from being asked first, one search after the other.
    #[test]
    fn each_search_begins_with_another(count in 1..10_u16, told in 0..10_u16) {
        let mut nodes = Nodes::new((1..=count).map(|port| at("w", port)).collect());
        nodes.handle_found(at("w", 1), (0..told).map(|port| at("t", port + 1)).collect());
        prop_assert_eq!(nodes.search().next(), Some(at("w", 1)), "the last owner first");
        let all = usize::from(count + told);
        let mut firsts: Vec<RedisNode> = (0..all).filter_map(|_| nodes.search().next()).collect();
        firsts.sort_by_key(ToString::to_string);
        firsts.dedup();
        prop_assert_eq!(firsts.len(), all);
    }
}
