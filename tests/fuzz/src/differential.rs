//! Our lexer against PostgreSQL's grammar: whatever that accepts has a fingerprint, texts with one fingerprint mean the
//! same, and the skeleton that is parsed in a text's stead means what the text means.
//!
//! Statements are mutated with fragments that are hostile to lexers. `TIDEGATE_FUZZ_MUTATIONS` is the number for each.

use crate::random::Random;
use pg_raw_parse::raw::A_Expr_Kind;
use pg_raw_parse::walk::walk;
use pg_raw_parse::{ConstValue, Node};
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::statement::{
    Effects, Fingerprint, FunctionForm, Grammar, Incomplete, Parsed, ShapeCache, StringSyntax,
    TextSettings, analyse,
};
use tidegate_grammar::PostgresGrammar;

/// Mutations of each statement in an ordinary run: a few seconds.
const MUTATIONS: u32 = 1_000;
/// A mutant grows at most to this, in bytes.
const MUTANT_BYTES_MAX: usize = 1_000;

const STATEMENTS: &str = include_str!("../statements.sql");

/// What lexers stumble over.
const FRAGMENTS: &[&str] = &[
    "'",
    "''",
    "'a'",
    "'a''b'",
    "'\\'",
    "E'\\''",
    "e'\\\\'",
    "E'a\\\n'",
    "'a'\n'b'",
    "'a' --x\n 'b'",
    "E'a'\n'\\''",
    "b'01'",
    "X'1f'",
    "x'1'\n'2'",
    "n'x'",
    "N''",
    "U&'\\0061'",
    "u&'a!' uescape '!'",
    "U&\"a\"",
    "U&\"!0061\" uescape '!'",
    "\"a\"",
    "\"a\"\"b\"",
    "\"--\"",
    "\"/*\"",
    "$$a$$",
    "$$",
    "$a$ $$ $a$",
    "$a$b$c$a$",
    "$1",
    "$2",
    "$12",
    "/* x */",
    "/* /* */ */",
    "/*+ x */",
    "--x\n",
    "-- '\n",
    "--",
    "/*",
    "*/",
    "/**/",
    "\n",
    "\t",
    " ",
    "\r",
    "\u{c}",
    ";",
    ";;",
    "-",
    "- ",
    "+",
    "--1\n",
    "-1",
    "- 1",
    "+-",
    "-+",
    "*-",
    "@-",
    "@ -",
    "<-",
    "<>",
    "!=",
    "=>",
    ":=",
    "::",
    ":",
    "..",
    ".",
    "~-",
    "|/",
    "||/",
    "?",
    "#-",
    "&&-",
    "`",
    "=-1",
    "1",
    "0x1F",
    "0b1",
    "0o7",
    "1_000",
    "1.5",
    ".5",
    "5.",
    "1e5",
    "1e-5",
    "1.e+5",
    "1..2",
    "99999999999",
    "123abc",
    "1a",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "a",
    "é",
    "É",
    "a$b",
    "_a",
    "user",
    "\"user\"",
    "in (1, 2)",
    "in ('a')",
    "in (1, a)",
    "in (-1, 2.5)",
    "in ($1, $2)",
    "in ((1, 2))",
    "in ((1, 2), (3, 4))",
    "in (select 1)",
    "array[1, 2]",
    "array[]",
    "array[a]",
    "values (1)",
    "values (1, 2), (3, 4)",
    "values (1), (f(2))",
    "(values (1), (2))",
    "null",
    "true",
    "default",
    "::int",
    "::text[]",
    "::mood",
    "::numeric(1, 2)",
    "f(1)",
    "f(1, 2)",
    "s.f()",
    "count(*)",
    "operator(s.+)",
    "is not null",
    "between 1 and 2",
    "at time zone 'x'",
    "collate \"C\"",
    "and",
    "or",
    "not",
    "union all select 1",
    "order by 1",
    "limit 5",
    "for update",
    "interval '1' day",
    "date '2020-01-01'",
    "int '5'",
    "row(1, 2)",
    "(1, 2)",
    "(-5)",
    "-5::int",
    "(a)",
    "x.y",
    "s.x.y",
    "\"S\".\"X\"",
    "case when 1 then 2 end",
    "exists (select 1)",
    "returning a",
    "with q as (select 1)",
    "as b",
    "b",
];

/// What a text means, as far as a shape tells it, by PostgreSQL's own tree and its own walker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    statements: Vec<u64>,
    names: BTreeSet<String>,
    constants: BTreeSet<&'static str>,
}

/// `None` if PostgreSQL refuses the text.
fn facts(sql: &str) -> Option<Facts> {
    let tree = pg_raw_parse::parse(sql).ok()?;
    let mut facts = Facts::default();
    for raw in tree.iter() {
        let mut hasher = DefaultHasher::new();
        std::mem::discriminant(&raw.stmt()).hash(&mut hasher);
        facts.statements.push(hasher.finish());
        // The walker knows no other statements.
        if let stmt @ (Node::SelectStmt(_)
        | Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::DeleteStmt(_)
        | Node::MergeStmt(_)) = raw.stmt()
        {
            walk(stmt, |node| note(node, &mut facts));
        }
    }
    Some(facts)
}

fn note(node: Node<'_>, facts: &mut Facts) {
    let join = |list: &pg_raw_parse::list::NodeList| {
        list.iter()
            .map(|part| part.as_str().unwrap_or("*").to_owned())
            .collect::<Vec<_>>()
            .join(".")
    };
    let name = match node {
        Node::RangeVar(t) => format!("table {:?}.{:?}", t.schemaname(), t.relname()),
        Node::FuncCall(f) => {
            format!("function {}/{} {}", join(f.funcname()), f.args().len(), f.agg_star)
        }
        Node::ColumnRef(c) => format!("column {}", join(c.fields())),
        Node::A_Expr(e) => {
            let unary = matches!(e.lexpr(), Node::None) && e.kind == A_Expr_Kind::AEXPR_OP;
            format!("operator {} {} {unary}", join(e.name()), e.kind)
        }
        Node::TypeName(t) => {
            let names: Vec<_> = t.names().iter().filter_map(|name| name.sval()).collect();
            format!("type {} {} {}", names.join("."), t.array_bounds().len(), t.typmods().len())
        }
        Node::LockingClause(l) => {
            let locked = l.locked_rels().iter().filter_map(|node| match node {
                Node::RangeVar(t) => Some(format!("locked {:?}.{:?}", t.schemaname(), t.relname())),
                _ => None,
            });
            facts.names.extend(locked);
            format!("lock {} {}", l.strength, l.wait_policy)
        }
        Node::ParamRef(p) => format!("parameter {}", p.number),
        Node::CommonTableExpr(c) => format!("with {:?}", c.ctename()),
        Node::ResTarget(r) => format!("target {:?}", r.name()),
        Node::A_Const(c) => {
            facts.constants.extend(c.val().and_then(|value| {
                match value {
                    ConstValue::Integer(_) => Some("integer"),
                    // An integer that does not fit is a float to the parser.
                    ConstValue::Float(digits) if is_integer(digits) => Some("integer"),
                    ConstValue::Float(_) => Some("decimal"),
                    ConstValue::String(_) => Some("text"),
                    ConstValue::BitString(bits) if bits.starts_with('x') => Some("hexadecimal"),
                    ConstValue::BitString(_) => Some("bits"),
                    // TRUE; NULL has no value at all.
                    _ => None,
                }
            }));
            return;
        }
        _ => return,
    };
    facts.names.insert(name);
}

fn is_integer(digits: &str) -> bool {
    let digits = digits.trim_start_matches('-').to_ascii_lowercase();
    digits.starts_with("0x") || !digits.contains(['.', 'e'])
}

/// Keeps the skeleton that the cache asks about.
struct Spy(String);

impl Grammar for Spy {
    fn parse(&mut self, skeleton: &str) -> Parsed {
        self.0 = skeleton.to_owned();
        PostgresGrammar.parse(skeleton)
    }
}

/// Makes a mutant: fragments put in, or in the place of something, or something removed.
fn mutant(statements: &[&str], position: usize, random: &mut Random) -> String {
    let mut text: Vec<char> = statements[position].chars().collect();
    for _ in 0..=random.below(2) {
        let at = random.below(text.len() + 1);
        let end = (at + random.below(6)).min(text.len());
        let fragment: Vec<char> = match random.below(8) {
            0 => Vec::new(),
            1 => {
                let other: Vec<char> = statements[random.below(statements.len())].chars().collect();
                let from = random.below(other.len());
                other[from..(from + random.below(30)).min(other.len())].to_vec()
            }
            _ => FRAGMENTS[random.below(FRAGMENTS.len())].chars().collect(),
        };
        // Between tokens most of the time, so that many a mutant is valid.
        match random.below(3) {
            0 => drop(text.splice(at..end, fragment)),
            1 => drop(text.splice(at..at, fragment)),
            _ => {
                let blank = (at..text.len()).find(|&at| text[at] == ' ').unwrap_or(text.len());
                text.splice(blank..blank, [' '].into_iter().chain(fragment));
            }
        }
    }
    text.into_iter().collect()
}

struct Hunt {
    cache: ShapeCache<Spy>,
    seen: HashMap<Fingerprint, (String, Facts, Option<Effects>)>,
    valid: usize,
}

impl Hunt {
    /// Everything that has to hold of a text that PostgreSQL accepts.
    fn check(&mut self, sql: &str) {
        let Some(facts) = facts(sql) else { return };
        self.valid += 1;
        let reading = tidegate_core::statement::Fingerprinter::new(1)
            .read(sql.as_bytes(), StringSyntax::Standard);
        assert!(reading.is_ok(), "{reading:?} of a valid text: {sql:?}");
        let known = self.cache.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now());
        let shape = known.shape;
        assert_ne!(shape.incomplete, Some(Incomplete::Unparseable), "{sql:?}");
        let effects = (!shape.literal_dependent).then(|| analyse(sql.as_bytes()).effects);
        match self.seen.get(&shape.fingerprint) {
            Some((other, theirs, their_effects)) => {
                assert_eq!(theirs, &facts, "one fingerprint:\n{sql:?}\n{other:?}");
                assert_eq!(their_effects, &effects, "one fingerprint:\n{sql:?}\n{other:?}");
            }
            None => {
                self.against_skeleton(sql, &facts);
                self.against_shape(sql, &facts, &shape);
                self.seen.insert(shape.fingerprint, (sql.to_owned(), facts, effects));
            }
        }
    }

    /// The skeleton means the same, but for the number and kinds of literals in lists.
    fn against_skeleton(&mut self, sql: &str, facts: &Facts) {
        let skeleton = std::mem::take(&mut self.cache.grammar_mut().0);
        let other = self::facts(&skeleton)
            .unwrap_or_else(|| panic!("{sql:?} has the skeleton {skeleton:?}"));
        assert_eq!(other.statements, facts.statements, "{sql:?} {skeleton:?}");
        assert_eq!(other.names, facts.names, "{sql:?} {skeleton:?}");
        assert!(other.constants.is_subset(&facts.constants), "{sql:?} {skeleton:?}");
    }

    /// The shape's own walk finds what PostgreSQL's walker finds.
    fn against_shape(&self, sql: &str, facts: &Facts, shape: &tidegate_core::statement::Shape) {
        for table in &shape.tables {
            let name = format!("table {:?}.{:?}", table.schema.as_deref(), Some(&*table.name));
            assert!(
                facts.names.contains(&name)
                    || facts.names.is_empty()
                    || facts.statements.len() > 1
                    || is_definition(shape),
                "{sql:?} {name}"
            );
        }
        let calls: BTreeSet<&str> = facts
            .names
            .iter()
            .filter_map(|name| name.strip_prefix("function "))
            .filter_map(|name| Some(name.rsplit_once('/')?.0))
            .collect();
        for call in calls {
            let found = shape.functions.iter().any(|f| {
                let name = f
                    .schema
                    .as_ref()
                    .map_or(f.name.to_string(), |schema| format!("{schema}.{}", f.name));
                f.form == FunctionForm::Call
                    && (name == call || call.ends_with(&format!(".{name}")))
            });
            assert!(found || shape.incomplete.is_some(), "{sql:?} {call} {:?}", shape.functions);
        }
        let withs: BTreeSet<&str> =
            facts.names.iter().filter_map(|name| name.strip_prefix("with ")).collect();
        for table in facts.names.iter().filter_map(|name| name.strip_prefix("table ")) {
            let is_with = table.strip_prefix("None.").is_some_and(|name| withs.contains(name));
            let found = shape
                .tables
                .iter()
                .any(|t| format!("{:?}.{:?}", t.schema.as_deref(), Some(&*t.name)) == table);
            // FOR UPDATE OF names what FROM has named.
            let is_locked = facts.names.contains(&format!("locked {table}"));
            assert!(
                found || is_with || is_locked || shape.incomplete.is_some(),
                "{sql:?} {table} {:?}",
                shape.tables
            );
        }
    }
}

fn is_definition(shape: &tidegate_core::statement::Shape) -> bool {
    shape.kind == tidegate_core::statement::ShapeKind::Ddl
}

#[test]
fn what_postgresql_accepts_is_read_as_postgresql_reads_it() {
    let asked = std::env::var("TIDEGATE_FUZZ_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let mutations: u32 = asked.unwrap_or(MUTATIONS);
    let statements: Vec<&str> = STATEMENTS.lines().collect();
    let cache = ShapeCache::new(Spy(String::new()), 1, SHAPE_CACHE_BYTES_MAX);
    let mut hunt = Hunt { cache, seen: HashMap::new(), valid: 0 };
    for (position, statement) in statements.iter().enumerate() {
        hunt.check(statement);
        let mut random = Random(position as u64);
        for _ in 0..mutations {
            let mutant = mutant(&statements, position, &mut random);
            if mutant.len() <= MUTANT_BYTES_MAX && !mutant.contains('\0') {
                hunt.check(&mutant);
            }
        }
    }
    println!("{} valid texts, {} fingerprints", hunt.valid, hunt.seen.len());
    // Else the mutations have become useless.
    assert!(
        hunt.valid as u32 > statements.len() as u32 * mutations / 10,
        "{} were valid",
        hunt.valid
    );
}
