//! Files of rules, read and applied.

use super::*;
use proptest::prelude::*;

fn nothing_included(name: &str) -> Result<String, String> {
    Err(format!("{name} is not there"))
}

fn hba(text: &str) -> Hba {
    Hba::parse(text, &nothing_included).unwrap()
}

#[track_caller]
fn error(text: &str) -> String {
    let errors = Hba::parse(text, &nothing_included).unwrap_err();
    errors
        .iter()
        .map(|error| format!("{}: {}", error.line, error.message))
        .collect::<Vec<_>>()
        .join("; ")
}

/// A connection over TCP in clear.
struct Case {
    user: &'static str,
    wanted: Wanted<'static>,
    address: Option<IpAddr>,
    tls: Tls,
    roles: Option<&'static [&'static str]>,
}

/// What the rules say to it, changed as wanted.
fn judge(hba: &Hba, change: impl FnOnce(&mut Case)) -> HbaVerdict {
    let own = [Network::with_prefix("10.0.0.7".parse().unwrap(), 24).unwrap()];
    let mut case = Case {
        user: "ann",
        wanted: Wanted::Database("shop"),
        address: Some("192.0.2.1".parse().unwrap()),
        tls: Tls::No,
        roles: Some(&["staff", "readers"]),
    };
    change(&mut case);
    let roles = case.roles.filter(|_| case.user == "ann").unwrap_or_default();
    let is_member = |role: &str| roles.contains(&role);
    hba.judge(&Arrival {
        user: case.user,
        wanted: case.wanted,
        address: case.address,
        tls: case.tls,
        is_member: case.roles.map(|_| &is_member as &dyn Fn(&str) -> bool),
        own: &own,
    })
}

const TRUST: HbaVerdict = HbaVerdict::Ask(HbaMethod::Trust);

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = hba("# TYPE DATABASE USER ADDRESS METHOD\n\
         local   all       all                      peer\n\
         host    all       mallory  0.0.0.0/0       reject # not her\n\
         \n\
         hostssl shop      all      192.0.2.0/24    scram-sha-256\n\
         host    shop,\"all\" ann,bob 192.0.2.0 255.255.255.0 md5\n\
         host    sameuser  all      all             password\n\
         hostssl all       all      ::/0            cert clientcert=verify-full\n");
    let ask = HbaVerdict::Ask;
    assert_eq!(judge(&rules, |a| a.address = None), ask(HbaMethod::Peer));
    assert_eq!(judge(&rules, |a| a.user = "mallory"), HbaVerdict::Rejected);
    assert_eq!(judge(&rules, |a| a.tls = Tls::Yes), ask(HbaMethod::ScramSha256));
    assert_eq!(judge(&rules, |_| ()), ask(HbaMethod::Md5));
    assert_eq!(judge(&rules, |a| a.user = "eve"), HbaVerdict::NoEntry);
    assert_eq!(judge(&rules, |a| a.user = "shop"), ask(HbaMethod::Password));
    // In quotes it is a database of that name.
    let (all, other) = (Wanted::Database("all"), Wanted::Database("other"));
    assert_eq!(judge(&rules, |a| a.wanted = all), ask(HbaMethod::Md5));
    assert_eq!(judge(&rules, |a| a.wanted = other), HbaVerdict::NoEntry);
    let six = |a: &mut Case| {
        a.address = Some("2001:db8::1".parse().unwrap());
        a.tls = Tls::Yes;
    };
    assert_eq!(judge(&rules, six), ask(HbaMethod::Certificate));
}

#[test]
fn roles_patterns_and_own_networks() {
    let members = hba("host all +readers all trust\n");
    assert!(members.needs_roles() && !members.needs_peers());
    assert_eq!(judge(&members, |_| ()), TRUST);
    assert_eq!(judge(&members, |a| a.user = "readers"), TRUST, "a member of itself");
    assert_eq!(judge(&members, |a| a.user = "eve"), HbaVerdict::NoEntry);
    assert_eq!(judge(&members, |a| a.roles = None), HbaVerdict::RolesUnknown);
    let same_role = hba("host samerole all all trust\n");
    let staff = Wanted::Database("staff");
    assert_eq!(judge(&same_role, |a| a.wanted = staff), TRUST);
    assert_eq!(judge(&same_role, |_| ()), HbaVerdict::NoEntry);
    // What is not known matters only where nothing else decides.
    let either = hba("host all ann,+x all trust\nhost all all all reject\n");
    assert_eq!(judge(&either, |a| a.roles = None), TRUST);
    let other = hba("host other +x all trust\nhost all all all reject\n");
    assert_eq!(judge(&other, |a| a.roles = None), HbaVerdict::Rejected);
    let patterns = hba("host /^sh.p$ /n{2}$ all trust\n");
    assert_eq!(judge(&patterns, |_| ()), TRUST);
    assert_eq!(judge(&patterns, |a| a.user = "bob"), HbaVerdict::NoEntry);
    assert_eq!(judge(&hba("host \"/^sh\" all all trust"), |_| ()), HbaVerdict::NoEntry);
    let near = hba("host all all samehost trust\nhost all all samenet md5\n");
    let at = |address: &str| {
        let address = Some(address.parse().unwrap());
        judge(&near, |a| a.address = address)
    };
    assert_eq!(at("10.0.0.7"), TRUST);
    assert_eq!(at("10.0.0.8"), HbaVerdict::Ask(HbaMethod::Md5));
    assert_eq!(at("10.0.1.7"), HbaVerdict::NoEntry);
}

#[test]
fn trap_15_replication_without_a_database_has_a_word_of_its_own() {
    let rules = hba("host all all all trust\nhost replication all all md5\n");
    assert_eq!(judge(&rules, |a| a.wanted = Wanted::Log), HbaVerdict::Ask(HbaMethod::Md5));
    // Logical replication is connected to a database.
    assert_eq!(judge(&rules, |_| ()), TRUST);
    assert_eq!(judge(&hba("host replication all all trust"), |_| ()), HbaVerdict::NoEntry);
    let describe = |wanted, address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        Arrival { user: "ann", wanted, address, tls: Tls::No, is_member: None, own: &[] }.describe()
    };
    assert_eq!(
        describe(Wanted::Log, Some("192.0.2.1")),
        "replication connection from host \"192.0.2.1\", user \"ann\", no encryption"
    );
    assert_eq!(
        describe(Wanted::Database("shop"), None),
        "host \"[local]\", user \"ann\", database \"shop\", no encryption"
    );
}

#[test]
fn lines_go_on_and_files_are_included() {
    let files = |name: &str| match name {
        "users" => Ok("ann, bob\n# nobody else\n@more".to_owned()),
        "more" => Ok("\"eve\"\n".to_owned()),
        "circle" => Ok("@circle".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    let rules = Hba::parse("host all \\\n  @users all \\\r\n trust\r\n", &files).unwrap();
    for user in ["ann", "bob", "eve"] {
        assert_eq!(judge(&rules, |a| a.user = user), TRUST);
    }
    assert_eq!(judge(&rules, |a| a.user = "dan"), HbaVerdict::NoEntry);
    for bad in ["host all @none all trust", "host all @circle all trust"] {
        assert_eq!(Hba::parse(bad, &files).unwrap_err()[0].line, 1, "{bad}");
    }
}

#[test]
fn each_bad_line_is_an_error_with_its_number() {
    for (text, expected) in [
        ("", "1: no rule is in it: nobody could log in"),
        ("\nhosts all all all trust", "2: invalid connection type \"hosts\""),
        ("host,local all all all trust", "1: several values for the connection type"),
        (
            "hostgssenc all all all trust",
            "1: hostgssenc fits nobody: GSSAPI encryption is not offered",
        ),
        ("host all all", "1: the line ends before the address"),
        ("local all all", "1: the line ends before the authentication method"),
        ("host all all all ldap", "1: authentication method \"ldap\" is not supported by Tidegate"),
        (
            "host all all all ident",
            "1: authentication method \"ident\" is not supported by Tidegate",
        ),
        ("host all all all open", "1: invalid authentication method \"open\""),
        ("host all all all peer", "1: peer authentication is only supported on local sockets"),
        (
            "host all all all cert",
            "1: cert authentication is only supported on hostssl connections",
        ),
        ("host all all all md5 map=x", "1: option \"map\" is not supported by Tidegate"),
        ("host all all all md5 x", "1: authentication option not in name=value format: x"),
        ("host all all 1.2.3.4 trust", "1: invalid IP mask \"trust\""),
        (
            "host all all 1.2.3.4/33 trust",
            "1: \"1.2.3.4/33\": the prefix is longer than the address",
        ),
        ("host all all 1.2.3.4/x trust", "1: invalid CIDR mask in address \"1.2.3.4/x\""),
        (
            "host all all 1.2.3.4 ::1 trust",
            "1: \"1.2.3.4\": address and mask are not of one family",
        ),
        (
            "host all all db.example trust",
            "1: \"db.example\" is no address; names of hosts are not looked up",
        ),
        ("host all /( all trust", "1: invalid regular expression \"(\""),
        ("host all \"ann all trust", "1: a quote is not closed"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    assert_eq!(error("host x\nlocal all all trust\nfoo").matches(": ").count(), 2);
}

proptest! {
    /// Whatever the text, it is read or explained.
    #[test]
    fn any_text_is_read_or_explained(text in "(host|local|hostssl|all|@a|\"|,|#|/|\\\\|\n| |[a-z0-9.:+]{1,4}){0,30}") {
        if let Err(errors) = Hba::parse(&text, &|_| Ok("x y".to_owned())) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| error.line >= 1 && !error.message.is_empty()));
        }
    }

    /// A network holds the addresses that share its first bits, and no others.
    #[test]
    fn networks_hold_what_begins_alike(base: u32, other: u32, bits in 0_u8..=32) {
        let address = |bits: u32| IpAddr::from(bits.to_be_bytes());
        let network = Network::with_prefix(address(base), bits).unwrap();
        let alike = bits == 0 || (base ^ other) >> (32 - u32::from(bits)) == 0;
        prop_assert_eq!(network.contains(address(other)), alike);
        prop_assert!(network.contains(address(base)));
        prop_assert!(!network.contains("::1".parse().unwrap()));
    }

    /// The verdict is the first fitting rule's: rules behind it and rules that fit nobody change nothing.
    #[test]
    fn only_the_first_fitting_rule_counts(
        first in 0_usize..4, behind in proptest::collection::vec(0_usize..4, 0..4),
        before in proptest::collection::vec(0_usize..3, 0..4),
    ) {
        const FITTING: [&str; 4] = [
            "host all all all trust", "host shop ann 192.0.2.1/32 reject",
            "hostnossl sameuser,shop ann,eve all md5", "host all +readers 192.0.0.0 255.0.0.0 scram-sha-256",
        ];
        const OTHERS: [&str; 3] =
            ["local all all trust", "hostssl all all all reject", "host all bob,+nobody all password"];
        let alone = judge(&hba(FITTING[first]), |_| ());
        prop_assert_ne!(alone, HbaVerdict::NoEntry);
        let lines = before.iter().map(|n| OTHERS[*n]).chain([FITTING[first]]);
        let text: Vec<_> = lines.chain(behind.iter().map(|n| FITTING[*n])).collect();
        prop_assert_eq!(judge(&hba(&text.join("\n")), |_| ()), alone);
    }
}
