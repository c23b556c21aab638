//! Caching: what a policy may say about keeping results, and how far the host follows it.

use super::template::Holes;
use super::{AskId, Nonsense, Template, at_most, is_text};
use crate::limits::{
    POLICY_KEY_PARTS_MAX, POLICY_LABEL_BYTES_MAX, POLICY_RESULT_BYTES_MAX, POLICY_TAGS_MAX,
    POLICY_TTL_MAX,
};
use std::time::Duration;

/// A policy's answer about the results of one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CachePlan {
    #[default]
    Bypass,
    Store(CacheRule),
    /// Asked again for each execution how long to keep it.
    Ask(AskId, CacheRule),
}

/// How an entry is kept. The host adds what keeps it correct: see the host's own key parts and tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    pub ttl: Duration,
    pub tier: Tier,
    /// What tells entries apart, on top of the host's own parts.
    pub key: Vec<KeyPart>,
    /// On top of the tables.
    pub tags: Vec<Template>,
    pub bytes_max: usize,
    pub write: WriteMode,
    pub expiry: ExpiryMode,
}

/// How old an answer may be after a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// As old as the TTL.
    Ttl,
    /// As old as the configured bound.
    Bounded,
    /// Never older than a write that was acknowledged before the read began.
    #[default]
    Fresh,
    /// Checked against the shared store at every read.
    Strict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    User,
    Application,
    EndUser,
    Tag(Box<str>),
}

/// What a write does to an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    #[default]
    Invalidate,
    /// The new value is there when the writer is acknowledged.
    WriteThrough,
}

/// What happens before an entry expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryMode {
    #[default]
    Expire,
    /// Filled again while it is in demand.
    Warm,
}

/// A rule as a plugin wrote it.
#[derive(Clone, Debug, Default)]
pub struct CacheRuleText {
    pub ttl_ms: u64,
    pub tier: Tier,
    pub key: Vec<KeyPart>,
    pub tags: Vec<String>,
    /// 0 for the host's bound.
    pub bytes_max: u64,
    pub write: WriteMode,
    pub expiry: ExpiryMode,
}

impl CacheRuleText {
    /// Refuses what no honest plugin says. `parameters` is the shape's highest `$n`.
    pub fn check(self, parameters: u16) -> Result<CacheRule, Nonsense> {
        at_most(self.key.len(), POLICY_KEY_PARTS_MAX, "key parts")?;
        for part in &self.key {
            if let KeyPart::Tag(name) = part {
                is_text(name, POLICY_LABEL_BYTES_MAX, "tag name")?;
            }
        }
        Ok(CacheRule {
            ttl: ttl(self.ttl_ms)?,
            tier: self.tier,
            key: self.key,
            tags: check_tags(&self.tags, parameters)?,
            bytes_max: bytes_max(self.bytes_max),
            write: self.write,
            expiry: self.expiry,
        })
    }
}

/// Zero would be an entry that never is: a plugin that wants none says `bypass`.
fn ttl(ms: u64) -> Result<Duration, Nonsense> {
    let ttl = Duration::from_millis(ms);
    let good = !ttl.is_zero() && ttl <= POLICY_TTL_MAX;
    if good { Ok(ttl) } else { Err(Nonsense::OutOfRange { what: "ttl-ms" }) }
}

/// A plugin narrows the host's bound, it cannot widen it.
fn bytes_max(asked: u64) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => POLICY_RESULT_BYTES_MAX,
        Ok(bytes) => bytes.min(POLICY_RESULT_BYTES_MAX),
    }
}

/// Reads the tags of a rule or of an invalidation.
pub fn check_tags(tags: &[String], parameters: u16) -> Result<Vec<Template>, Nonsense> {
    at_most(tags.len(), POLICY_TAGS_MAX, "tags")?;
    let read = |tag: &String| {
        Template::parse(tag, Holes::Parameters(parameters)).map_err(Nonsense::BadTemplate)
    };
    tags.iter().map(read).collect()
}

/// Reads the number that `decide` returned: a TTL in milliseconds, or -1 for none.
pub fn read_decision(answer: i64) -> Result<Option<Duration>, Nonsense> {
    match answer {
        -1 => Ok(None),
        _ => match u64::try_from(answer) {
            Ok(ms) => ttl(ms).map(Some),
            Err(_) => Err(Nonsense::UnknownDecision(answer)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(ttl_ms: u64) -> CacheRuleText {
        CacheRuleText { ttl_ms, ..CacheRuleText::default() }
    }

    #[test]
    fn lifetimes_are_real_and_bounded() {
        let most = POLICY_TTL_MAX.as_millis() as u64;
        assert_eq!(rule(most).check(0).map(|rule| rule.ttl), Ok(POLICY_TTL_MAX));
        for bad in [0, most + 1, u64::MAX] {
            assert_eq!(rule(bad).check(0), Err(Nonsense::OutOfRange { what: "ttl-ms" }));
        }
        assert_eq!(read_decision(-1), Ok(None));
        assert_eq!(read_decision(250), Ok(Some(Duration::from_millis(250))));
        assert_eq!(read_decision(-2), Err(Nonsense::UnknownDecision(-2)));
        assert!(read_decision(i64::MAX).is_err() && read_decision(0).is_err());
    }

    #[test]
    fn ten_thousand_tags_are_nonsense() {
        let tags = |count| CacheRuleText { tags: vec!["t".to_owned(); count], ..rule(1_000) };
        assert!(tags(POLICY_TAGS_MAX).check(0).is_ok());
        assert!(matches!(tags(10_000).check(0), Err(Nonsense::TooMany { what: "tags", .. })));
    }

    #[test]
    fn tags_name_parameters_that_exist() {
        let tags = vec!["orders:{1}".to_owned()];
        assert!(check_tags(&tags, 1).is_ok());
        assert!(matches!(check_tags(&tags, 0), Err(Nonsense::BadTemplate(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_rule_that_passes_is_within_the_hosts_bounds(
            ttl_ms in prop_oneof![any::<u64>(), 0..100_000u64],
            bytes_max in any::<u64>(),
            tags in prop::collection::vec("[a-z:{}1-3]{0,8}", 0..4),
            parameters in 0..4u16,
        ) {
            let text = CacheRuleText { bytes_max, tags, ..rule(ttl_ms) };
            if let Ok(rule) = text.check(parameters) {
                prop_assert!(!rule.ttl.is_zero() && rule.ttl <= POLICY_TTL_MAX);
                prop_assert!((1..=POLICY_RESULT_BYTES_MAX).contains(&rule.bytes_max));
            }
        }
    }
}
