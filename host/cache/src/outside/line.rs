//! What PostgreSQL's output plugin `test_decoding` writes, as far as it matters: which tables.
//!
//! ```text
//! BEGIN 726
//! table public.t: INSERT: id[integer]:2 v[text]:'x'
//! table public."we ird", public.u: TRUNCATE: (no-flags)
//! message: transactional: 1 prefix: p, sz: 2 content:hi
//! COMMIT 726
//! ```
//! Each of these is a message of its own, so no value can be taken for a line. Source: `test_decoding.c`.

/// Tables that one TRUNCATE names; with more it is not understood.
const TABLES_MAX: usize = 1_024;

/// The beginning of what was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Begin(u32),
    Commit(u32),
    /// Rows of these tables, as they are written: schema, a dot, name.
    Tables(&'a [u8]),
    /// Somebody's own message.
    Message,
}

impl<'a> Line<'a> {
    /// `None`: it is none of these.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        if let Some(xid) = text.strip_prefix(b"BEGIN ") {
            return number(xid).map(Self::Begin);
        }
        if let Some(xid) = text.strip_prefix(b"COMMIT ") {
            return number(xid).map(Self::Commit);
        }
        if text.starts_with(b"message: ") {
            return Some(Self::Message);
        }
        let tables = text.strip_prefix(b"table ")?;
        let mut rest = Rest(tables, None);
        for _ in 0..TABLES_MAX {
            rest.name()?;
            if !rest.eat(b", ") {
                let length = tables.len() - rest.0.len();
                let acts: [&[u8]; 4] = [b": INSERT:", b": UPDATE:", b": DELETE:", b": TRUNCATE:"];
                let known = acts.iter().any(|act| rest.0.starts_with(act));
                return known.then(|| Self::Tables(&tables[..length]));
            }
        }
        None
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    let good = (1..=10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    good.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// The schema and name of each table in what [`Line::Tables`] has. `None`: one is not known, since it is not ASCII.
pub(super) fn names(tables: &[u8]) -> Option<Vec<(String, String)>> {
    let (mut rest, mut names) = (Rest(tables, None), Vec::new());
    loop {
        names.push(rest.name()?);
        if !rest.eat(b", ") {
            return (rest.0.is_empty() && rest.1.is_none()).then_some(names);
        }
    }
}

/// What is still to be read, and whether a name was there that is not ASCII.
struct Rest<'a>(&'a [u8], Option<()>);

impl Rest<'_> {
    fn eat(&mut self, token: &[u8]) -> bool {
        let rest = self.0.strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn name(&mut self) -> Option<(String, String)> {
        let schema = self.identifier()?;
        let name = if self.eat(b".") { self.identifier()? } else { return None };
        Some((schema, name))
    }

    /// As `quote_identifier` writes one. Others than ASCII come in the encoding of the database.
    fn identifier(&mut self) -> Option<String> {
        if !self.eat(b"\"") {
            let is_of_it =
                |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
            let length = self.0.iter().position(|byte| !is_of_it(byte)).unwrap_or(self.0.len());
            let (plain, rest) = self.0.split_at(length);
            self.0 = rest;
            return (length > 0).then(|| String::from_utf8_lossy(plain).into_owned());
        }
        let mut identifier = String::new();
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' if self.eat(b"\"") => identifier.push('"'),
                b'"' => return (!identifier.is_empty() || self.1.is_some()).then_some(identifier),
                byte if byte.is_ascii() => identifier.push(char::from(*byte)),
                _ => self.1 = Some(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_plugin_writes_is_read() {
        assert_eq!(Line::read(b"BEGIN 726"), Some(Line::Begin(726)));
        assert_eq!(Line::read(b"COMMIT 4294967295"), Some(Line::Commit(u32::MAX)));
        let message = b"message: transactional: 0 prefix: x, sz: 2 content:hi";
        assert_eq!(Line::read(message), Some(Line::Message));
        let row = b"table public.t: INSERT: id[integer]:2 v[text]:'table a.b: DELETE:\nCOMMIT 7'";
        assert_eq!(Line::read(row), Some(Line::Tables(b"public.t")));
        assert_eq!(names(b"public.t"), Some(vec![("public".into(), "t".into())]));
        let cut = b"table public.\"we ird: \"\"X\", s_1.u: TRUNCATE: (no-flags)";
        let Some(Line::Tables(tables)) = Line::read(cut) else { panic!("not read") };
        let expected = vec![("public".into(), "we ird: \"X".into()), ("s_1".into(), "u".into())];
        assert_eq!(names(tables), Some(expected));
        let Some(Line::Tables(tables)) = Line::read("table public.\"é\": INSERT: x".as_bytes())
        else {
            panic!("not read");
        };
        assert_eq!(names(tables), None, "its encoding is the database's");
    }

    #[test]
    fn what_it_does_not_write_is_not() {
        for text in [
            "",
            "BEGIN",
            "BEGIN ",
            "BEGIN x",
            "BEGIN 4294967296",
            "BEGIN 1 ",
            "COMMIT -1",
            "table t: INSERT:",
            "table public.t",
            "table public.t: MERGE: x",
            "table public.t INSERT:",
            "table public.\"t: INSERT: x",
            "table public.\"\": INSERT: x",
            "table public.t, : TRUNCATE: x",
            "table public.é: INSERT: x",
            "PREPARE TRANSACTION 'x', txid 7",
        ] {
            assert_eq!(Line::read(text.as_bytes()), None, "{text}");
        }
        let many = vec!["a.b"; TABLES_MAX + 1].join(", ");
        assert_eq!(Line::read(format!("table {many}: TRUNCATE: x").as_bytes()), None);
    }

    fn quoted(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 20: whatever tables are called, and whatever their rows hold, the tables are found.
        #[test]
        fn tables_are_found(
            tables in proptest::collection::vec(("[ -~]{1,12}", "[ -~]{1,12}"), 1..5),
            row in ".*",
        ) {
            let written: Vec<String> = tables
                .iter()
                .map(|(schema, name)| format!("{}.{}", quoted(schema), quoted(name)))
                .collect();
            let text = format!("table {}: TRUNCATE: {row}", written.join(", "));
            let Some(Line::Tables(found)) = Line::read(text.as_bytes()) else {
                return Err(TestCaseError::fail("not read"));
            };
            prop_assert_eq!(names(found), Some(tables));
        }

        // Property 20: no bytes make it panic, and what is read as tables has names.
        #[test]
        fn noise_is_borne(
            start in prop_oneof![Just(""), Just("table "), Just("BEGIN "), Just("table a.b: INSERT:")],
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let text = [start.as_bytes(), &bytes].concat();
            if let Some(Line::Tables(tables)) = Line::read(&text) {
                prop_assert!(names(tables).is_none_or(|names| !names.is_empty()));
            }
        }
    }
}
