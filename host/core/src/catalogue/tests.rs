use super::*;
use proptest::prelude::*;

fn function(oid: u32, name: &str, volatile: bool) -> FunctionRow {
    FunctionRow { oid, schema: "public".into(), name: name.into(), volatile, calls: Vec::new() }
}

fn table(oid: u32, name: &str) -> RelationRow {
    RelationRow {
        oid,
        schema: "public".into(),
        name: name.into(),
        kind: RelationKind::Table,
        permanent: true,
        reads: Vec::new(),
        calls: Vec::new(),
    }
}

fn build(functions: Vec<FunctionRow>, relations: Vec<RelationRow>) -> Catalogue {
    let mut builder = Builder::default();
    functions.into_iter().for_each(|row| builder.function(row));
    relations.into_iter().for_each(|row| builder.relation(row));
    builder.build()
}

#[test]
fn a_name_without_a_schema_means_every_object_of_that_name() {
    let mut other = function(2, "total", true);
    other.schema = "shop".into();
    let catalogue = build(vec![function(1, "total", false), other], vec![]);
    assert_eq!(catalogue.function(Some("public"), "total"), Ok(()));
    assert_eq!(catalogue.function(Some("shop"), "total"), Err(Unsafe::VolatileFunction));
    assert_eq!(catalogue.function(None, "total"), Err(Unsafe::VolatileFunction));
    assert_eq!(catalogue.function(None, "other"), Err(Unsafe::UnknownName));
    assert_eq!(catalogue.function(Some("absent"), "total"), Err(Unsafe::UnknownName));
}

#[test]
fn one_volatile_overload_makes_the_name_unsafe() {
    for rows in [[false, true], [true, false]] {
        let rows = vec![function(1, "f", rows[0]), function(2, "f", rows[1])];
        assert_eq!(build(rows, vec![]).function(None, "f"), Err(Unsafe::VolatileFunction));
    }
}

#[test]
fn a_volatile_default_makes_its_function_unsafe() {
    let stable = FunctionRow { calls: vec![2], ..function(1, "f", false) };
    let outer = FunctionRow { calls: vec![1], ..function(3, "g", false) };
    let catalogue = build(vec![stable, function(2, "nextval", true), outer], vec![]);
    assert_eq!(catalogue.function(None, "f"), Err(Unsafe::VolatileFunction));
    assert_eq!(catalogue.function(None, "g"), Err(Unsafe::VolatileFunction));
}

#[test]
fn what_a_server_alone_knows_stays_on_the_primary() {
    let mut address = function(1, "inet_server_addr", false);
    address.schema = "pg_catalog".into();
    let mut activity = table(2, "pg_stat_activity");
    activity.schema = "pg_catalog".into();
    let catalogue = build(vec![address], vec![activity]);
    assert_eq!(catalogue.function(None, "inet_server_addr"), Err(Unsafe::ServerSpecific));
    assert_eq!(catalogue.relation(None, "pg_stat_activity"), Err(Unsafe::ServerSpecific));
}

#[test]
fn what_is_not_replicated_stays_on_the_primary() {
    for kind in [RelationKind::Sequence, RelationKind::Foreign, RelationKind::Other] {
        let catalogue = build(vec![], vec![RelationRow { kind, ..table(1, "t") }]);
        assert_eq!(catalogue.relation(None, "t"), Err(Unsafe::NotReplicated));
    }
    let unlogged = RelationRow { permanent: false, ..table(1, "t") };
    assert_eq!(build(vec![], vec![unlogged]).relation(None, "t"), Err(Unsafe::NotReplicated));
    assert_eq!(build(vec![], vec![table(1, "t")]).relation(None, "t"), Ok(()));
}

#[test]
fn trap_98_views_are_followed() {
    let view =
        |oid, name, reads| RelationRow { kind: RelationKind::View, reads, ..table(oid, name) };
    let calls = RelationRow { calls: vec![9], ..view(2, "calls_volatile", vec![1]) };
    let rows = vec![
        table(1, "t"),
        calls,
        view(3, "plain", vec![1]),
        view(4, "outer", vec![3, 2]),
        view(5, "dangling", vec![77]),
        RelationRow { kind: RelationKind::Foreign, ..table(6, "partition") },
        RelationRow { reads: vec![6], ..table(7, "partitioned") },
    ];
    let catalogue = build(vec![function(9, "v", true)], rows);
    assert_eq!(catalogue.relation(None, "plain"), Ok(()));
    assert_eq!(catalogue.relation(None, "calls_volatile"), Err(Unsafe::Through));
    assert_eq!(catalogue.relation(None, "outer"), Err(Unsafe::Through));
    assert_eq!(catalogue.relation(None, "dangling"), Err(Unsafe::UnknownName));
    assert_eq!(catalogue.relation(None, "partitioned"), Err(Unsafe::Through));
}

#[test]
fn hidden_volatile_functions_stand_against_everything() {
    let build = |volatile| {
        let mut builder = Builder::default();
        builder.function(function(1, "of_an_operator", volatile));
        builder.hidden_function(1);
        builder.build().hidden()
    };
    assert_eq!(build(false), Ok(()));
    assert_eq!(build(true), Err(Unsafe::HiddenFunctions));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 9: whoever reaches an unsafe relation along what it reads, at any distance and around any circle, is unsafe.
    #[test]
    fn reach_is_followed_to_its_end(
        edges in proptest::collection::vec(proptest::collection::vec(0..8_u32, 0..3), 8),
        unlogged in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let rows: Vec<RelationRow> = (0..8_u32)
            .map(|oid| RelationRow {
                reads: edges[oid as usize].clone(),
                permanent: !(unlogged[oid as usize] && oid % 3 == 0),
                ..table(oid, &format!("r{oid}"))
            })
            .collect();
        let faulty = |oid: u32| !rows[oid as usize].permanent;
        let reaches = |start: u32| {
            let (mut seen, mut open) = (vec![start], vec![start]);
            while let Some(oid) = open.pop() {
                for next in &edges[oid as usize] {
                    if !seen.contains(next) {
                        seen.push(*next);
                        open.push(*next);
                    }
                }
            }
            seen.into_iter().any(faulty)
        };
        let expected: Vec<bool> = (0..8).map(reaches).collect();
        let catalogue = build(vec![], rows);
        for oid in 0..8 {
            let found = catalogue.relation(None, &format!("r{oid}")).is_err();
            prop_assert_eq!(found, expected[oid as usize]);
        }
    }
}
