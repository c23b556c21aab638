//! Words as integers, so that a keyword is one comparison.

/// A word of at most 16 bytes, folded to lower case; longer words are all 0, which is no keyword.
///
/// Folding sets bit 5 of each byte. Among the bytes an identifier may hold that is one-to-one but for the
/// case of ASCII letters (`_` becomes 0x7f) and for bytes above 0x7f, which no keyword has.
pub(super) type Key = u128;

const FOLD: Key = 0x2020_2020_2020_2020_2020_2020_2020_2020;

pub(super) const fn key(word: &str) -> Key {
    let bytes = word.as_bytes();
    assert!(bytes.len() <= 16);
    let mut folded = 0;
    let mut at = bytes.len();
    while at > 0 {
        at -= 1;
        folded = folded << 8 | (bytes[at] | 0x20) as Key;
    }
    folded
}

/// The key of `text[start..end]`.
#[inline]
pub(super) fn key_of(text: &[u8], start: usize, end: usize) -> Key {
    let length = end - start;
    if length > 16 || length == 0 {
        return 0;
    }
    let bytes = Key::from_le_bytes(sixteen(text, start));
    (bytes | FOLD) & (Key::MAX >> (128 - 8 * length))
}

/// Sixteen bytes from `at` on; zeros stand behind the end of the text.
#[inline]
pub(super) fn sixteen(text: &[u8], at: usize) -> [u8; 16] {
    match text.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => *bytes,
        None => last_bytes(text, at),
    }
}

fn last_bytes(text: &[u8], at: usize) -> [u8; 16] {
    let missing = (at + 16).saturating_sub(text.len());
    match text.last_chunk() {
        Some(bytes) => {
            let bytes = u128::from_le_bytes(*bytes).checked_shr(8 * missing as u32);
            bytes.unwrap_or(0).to_le_bytes()
        }
        None => {
            let mut bytes = [0; 16];
            let rest = text.get(at..).unwrap_or_default();
            bytes[..rest.len()].copy_from_slice(rest);
            bytes
        }
    }
}

macro_rules! words {
    ($($name:ident)*) => {
        $(pub(super) const $name: Key = key(stringify!($name));)*
    };
}

words! {
    ABORT AGGREGATE ALL ALSO ALTER ANALYSE ANALYZE AND ANY ARRAY AS ATOMIC AUTHORIZATION BEGIN BETWEEN BIT BOTH BY
    CALL CASE CAST CHAIN CHAR CHARACTER CHARACTERISTICS CHECK CHECKPOINT CLOSE CLUSTER COALESCE COLLATE
    COMMENT COMMIT CONFLICT CONSTRAINTS COPY CREATE CUBE CURRENT_ROLE CURRENT_TIME CURRENT_USER DATABASE DEALLOCATE DEC DECIMAL DECLARE DEFAULT
    DEFERRABLE DELETE DISCARD DISTINCT DO DROP ELSE END EXCEPT EXECUTE EXISTS EXPLAIN EXTENSION EXTRACT
    FALSE FETCH FILTER FLOAT FOR FOREIGN FROM FUNCTION GLOBAL GRANT GREATEST GROUP GROUPING HASH HAVING HOLD
    IDENTIFY_SYSTEM IF ILIKE IMPORT IN INCLUDE INDEX INSERT INSTEAD INT INTERSECT INTERVAL INTO IS ISOLATION JOIN KEY
    LANGUAGE LATERAL LEAST LIKE LIMIT LIST LISTEN LOAD LOCAL LOCALTIME LOCALTIMESTAMP LOCK MATERIALIZED MERGE MOVE NAMES
    NCHAR NORMALIZE NOT NOTIFY NULL NULLIF NUMERIC OFFSET ON ONLY OPERATOR OPTION OR ORDER ORDINALITY
    OVER OVERLAY PARTITION PG_SETTINGS PG_TEMP PLANS POSITION PRECISION PREPARE PREPARED PRIMARY PROCEDURE
    RANGE READ REASSIGN RECURSIVE REFERENCES REFRESH REINDEX RELEASE RENAME REPLACE RESET RETURNING REVOKE
    ROLE ROLLBACK ROLLUP ROUTINE ROW SAVEPOINT SCHEMA SECURITY SELECT SEQUENCES SESSION SESSION_USER SET SETS SHOW SIMILAR
    SOME START STDIN STDOUT SUBSTRING TABLE TABLESPACE TEMP TEMPLATE TEMPORARY THEN TIME TIMELINE_HISTORY TIMESTAMP TO TRANSACTION
    TREAT TRIM TRUE TRUNCATE UESCAPE UNION UNIQUE UNLISTEN UPDATE UPLOAD_MANIFEST USER USING VACUUM VALUES VARCHAR VARYING
    VIEW WHEN WHERE WINDOW WITH WITHIN WORK WRITE XML XMLATTRIBUTES XMLCONCAT XMLELEMENT XMLEXISTS XMLFOREST
    XMLNAMESPACES XMLPARSE XMLPI XMLROOT XMLSERIALIZE XMLTABLE ZONE BASE_BACKUP
}

// What stands before a name when it is no word: keys that no word has.
pub(super) const NOTHING: Key = 0;
pub(super) const PAREN_OPEN: Key = b'(' as Key;
pub(super) const PAREN_CLOSE: Key = b')' as Key;
/// `::`
pub(super) const COLONS: Key = b':' as Key;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fold_case_and_tell_words_apart() {
        let text = b"Select INTO a_b pg_advisory_lock pg_advisory_locks";
        assert_eq!(key_of(text, 0, 6), SELECT);
        assert_eq!(key_of(text, 7, 11), INTO);
        assert_eq!(key_of(text, 12, 15), key("a_b"));
        assert_eq!(key_of(text, 16, 32), key("pg_advisory_lock"));
        assert_eq!(key_of(text, 33, 50), 0);
        assert_ne!(key("a_b"), key("a$b"));
        assert_eq!(key_of(b"in", 0, 2), IN);
    }
}
