//! How a client's texts are encoded, as far as a reader of SQL has to know.

/// A class of encodings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextEncoding {
    #[default]
    Utf8,
    /// Bytes below 0x80 are those ASCII characters, others are letters of some alphabet: LATINn, EUC_*, WIN*, …
    AsciiBased,
    /// A quote or a backslash may be half a character.
    Unsafe,
}

/// Encodings, with PostgreSQL's other names for them, whose second bytes may be ASCII.
const UNSAFE: [&str; 17] = [
    "sjis",
    "mskanji",
    "shiftjis",
    "win932",
    "windows932",
    "shiftjis2004",
    "big5",
    "win950",
    "windows950",
    "gbk",
    "win936",
    "windows936",
    "johab",
    "gb18030",
    "uhc",
    "win949",
    "windows949",
];

impl TextEncoding {
    /// The class of a `client_encoding`, which PostgreSQL reads without regard to case and punctuation.
    pub fn named(client_encoding: &str) -> TextEncoding {
        let is = |other: &&str| {
            let letters = client_encoding.bytes().filter(u8::is_ascii_alphanumeric);
            letters.map(|b| b.to_ascii_lowercase()).eq(other.bytes())
        };
        if ["utf8", "unicode"].iter().any(is) {
            TextEncoding::Utf8
        } else if UNSAFE.iter().any(is) {
            TextEncoding::Unsafe
        } else {
            TextEncoding::AsciiBased
        }
    }
}

/// Without these bytes a text reads the same in every encoding, and under either string syntax.
pub fn is_safe_anywhere(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte.is_ascii() && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_told_by_any_spelling() {
        for name in ["UTF8", "utf-8", "Unicode"] {
            assert_eq!(TextEncoding::named(name), TextEncoding::Utf8, "{name}");
        }
        for name in
            ["SJIS", "Shift_JIS_2004", "SHIFTJIS2004", "BIG5", "gbk", "UHC", "JOHAB", "GB18030"]
        {
            assert_eq!(TextEncoding::named(name), TextEncoding::Unsafe, "{name}");
        }
        for name in ["LATIN1", "EUC_JP", "WIN1252", "SQL_ASCII", ""] {
            assert_eq!(TextEncoding::named(name), TextEncoding::AsciiBased, "{name}");
        }
    }
}
