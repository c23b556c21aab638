//! A Django application whose pages are read from the cache while others write what they show.

use super::{CONFIG, With};
use crate::clients;
use crate::own::{SOON, policies_answer};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, TidegateOptions, shared_cluster, test_database, wait_until,
};

/// What Django and the shop read.
const TABLES: [&str; 13] = [
    "shop_product",
    "shop_tag",
    "shop_product_tags",
    "shop_order",
    "shop_item",
    "auth_user",
    "auth_group",
    "auth_permission",
    "auth_user_groups",
    "auth_group_permissions",
    "auth_user_user_permissions",
    "django_content_type",
    "django_session",
];

fn browse(url: &str, how: &[&str]) -> String {
    clients::succeed(
        clients::python().arg(clients::script("django_app/browse.py")).arg(url).args(how),
    )
}

/// No page shows what is older than what had been acknowledged before it was asked for, nor half of a transaction.
fn pages_are_never_old(name: &str, with: With, hits_min: u64) {
    let cluster = shared_cluster();
    let database = test_database(name);
    browse(&cluster.primary().url(ROLE, &database), &["--fill"]);
    cluster.wait_until_caught_up().unwrap();
    let mut options = TidegateOptions::for_cluster(cluster, &database);
    if with == With::ThePrimary {
        options.replicas.clear();
    }
    // A read that is sent to a replica sees what its own session wrote, unless it is to see what anybody did.
    options.toml = Some(format!("{CONFIG}[routing]\ncausality = \"global\"\n"));
    let tidegate = Tidegate::start(options);
    wait_until(SOON, "policies answer", || policies_answer(&tidegate));
    let rules = TABLES.map(|table| format!(r#"{{"table": "{table}", "ttl_ms": 60000}}"#));
    let settings = format!(r#"{{"rules": [{}]}}"#, rules.join(", "));
    let answer = tidegate.admin_put("/api/v1/plugins/caching/config", &settings);
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    wait_until(SOON, "answers are kept", || {
        client.query("SELECT count(*) FROM shop_tag");
        client.value("SHOW tidegate.cache").as_deref() == Some("hit")
    });
    let before = hits(&tidegate);
    let said = browse(&tidegate.url(ROLE, &database), &["4", "--filled"]);
    assert!(said.contains("old {}"), "{said}");
    let hits = hits(&tidegate) - before;
    assert!(hits > hits_min, "{hits} hits: {said}");
}

fn hits(tidegate: &Tidegate) -> u64 {
    let metrics = tidegate.admin_get("/metrics").body;
    let count = metrics.lines().find_map(|line| {
        line.strip_prefix("tidegate_cache_hits_total{layer=\"memory\"} ")?.parse().ok()
    });
    count.unwrap_or_else(|| panic!("no hits are counted in\n{metrics}"))
}

#[test]
fn pages_of_django_are_never_old() {
    pages_are_never_old("cache_pages", With::ThePrimary, 50);
}

#[test]
fn nor_where_replicas_answer() {
    // What a replica says that is behind is not kept: on a busy machine that is most of it.
    pages_are_never_old("cache_pages_replicas", With::Replicas, 0);
}
