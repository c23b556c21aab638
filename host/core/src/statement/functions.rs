//! What a call of a named function may do to the session: pg_catalog's own functions, and which of them matter.
//!
//! `builtins.txt` lists, one a line, every function of PostgreSQL 15's `pg_catalog`
//! (`select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace group by 1`) without those
//! named in [`EFFECTFUL`], the `RI_FKey_*` triggers, `binary_upgrade_*`, and the language handlers. Newer servers'
//! functions stay out on purpose: on an older server a user's function may have the name.

use super::Effects;

/// What is known about a function name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// `set_config`: the caller looks at the arguments.
    SetConfig,
    /// About server processes: the caller looks at the whole text.
    Process,
    /// A built-in with these effects, mostly none.
    Known(Effects),
    /// May do anything.
    Unknown,
}

/// Built-ins that touch session state, and those that a caller looks at: position 0 is `set_config`, then come
/// [`PROCESS`] about server processes.
const EFFECTFUL: &[(&str, Effects)] = &[
    ("set_config", Effects::SETS),
    ("pg_backend_pid", Effects::NONE),
    ("pg_cancel_backend", Effects::NONE),
    ("pg_terminate_backend", Effects::NONE),
    ("setseed", Effects::SEED),
    ("currval", Effects::SEQUENCE_STATE),
    ("lastval", Effects::SEQUENCE_STATE),
    ("pg_advisory_lock", Effects::ADVISORY_LOCK),
    ("pg_advisory_lock_shared", Effects::ADVISORY_LOCK),
    ("pg_try_advisory_lock", Effects::ADVISORY_LOCK),
    ("pg_try_advisory_lock_shared", Effects::ADVISORY_LOCK),
    ("pg_advisory_unlock", Effects::ADVISORY_UNLOCK),
    ("pg_advisory_unlock_shared", Effects::ADVISORY_UNLOCK),
    ("pg_advisory_unlock_all", Effects::ADVISORY_UNLOCK),
    ("lo_open", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_close", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("loread", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lowrite", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_lseek", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_lseek64", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_tell", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_tell64", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_truncate", Effects::LARGE_OBJECT_DESCRIPTOR),
    ("lo_truncate64", Effects::LARGE_OBJECT_DESCRIPTOR),
    // A running base backup belongs to its connection (the first two: servers before 15).
    ("pg_start_backup", Effects::SESSION_BOUND),
    ("pg_stop_backup", Effects::SESSION_BOUND),
    ("pg_backup_start", Effects::SESSION_BOUND),
    ("pg_backup_stop", Effects::SESSION_BOUND),
    // Slots may be temporary, and are dropped with the connection then.
    ("pg_create_physical_replication_slot", Effects::SESSION_BOUND),
    ("pg_create_logical_replication_slot", Effects::SESSION_BOUND),
    ("pg_copy_physical_replication_slot", Effects::SESSION_BOUND),
    ("pg_copy_logical_replication_slot", Effects::SESSION_BOUND),
    ("pg_replication_origin_session_setup", Effects::SESSION_BOUND),
    ("pg_replication_origin_session_reset", Effects::SESSION_BOUND),
    // These run a query that they get as text.
    ("query_to_xml", Effects::UNKNOWN_SETTINGS),
    ("query_to_xmlschema", Effects::UNKNOWN_SETTINGS),
    ("query_to_xml_and_xmlschema", Effects::UNKNOWN_SETTINGS),
    ("cursor_to_xml", Effects::UNKNOWN_SETTINGS),
    ("cursor_to_xmlschema", Effects::UNKNOWN_SETTINGS),
    ("ts_stat", Effects::UNKNOWN_SETTINGS),
    ("ts_rewrite", Effects::UNKNOWN_SETTINGS),
];

const PROCESS: usize = 3;

const BUILTINS: &[u8] = include_bytes!("builtins.txt");

/// One name of the hash table: where it stands in `BUILTINS`, or which of `EFFECTFUL` it is.
#[derive(Clone, Copy)]
struct Slot {
    /// Offset in `BUILTINS`, or index into `EFFECTFUL` when `length` is 0.
    at: u16,
    /// Length of a name in `BUILTINS`, in bytes.
    length: u8,
    used: u8,
}

const SLOTS: usize = 8192;
static TABLE: [Slot; SLOTS] = table();

const fn table() -> [Slot; SLOTS] {
    let mut table = [Slot { at: 0, length: 0, used: 0 }; SLOTS];
    let mut index = 0;
    while index < EFFECTFUL.len() {
        let name = EFFECTFUL[index].0.as_bytes();
        let slot = Slot { at: index as u16, length: 0, used: 1 };
        insert(&mut table, hash(name, 0, name.len()), slot);
        index += 1;
    }
    let mut start = 0;
    let mut at = 0;
    while at < BUILTINS.len() {
        if BUILTINS[at] == b'\n' {
            let slot = Slot { at: start as u16, length: (at - start) as u8, used: 1 };
            insert(&mut table, hash(BUILTINS, start, at), slot);
            start = at + 1;
        }
        at += 1;
    }
    assert!(BUILTINS.len() <= u16::MAX as usize && start == BUILTINS.len());
    table
}

const fn insert(table: &mut [Slot; SLOTS], hash: usize, slot: Slot) {
    let mut at = hash;
    while table[at].used != 0 {
        at = (at + 1) % SLOTS;
    }
    table[at] = slot;
}

/// Mixes the length with the first and the last eight bytes, whatever the case of their letters.
const fn hash(text: &[u8], start: usize, end: usize) -> usize {
    let length = end - start;
    let width = if length < 8 { length } else { 8 };
    let (mut first, mut last) = (0_u64, 0_u64);
    let mut at = 0;
    while at < width {
        first = first << 8 | (text[start + at] | 0x20) as u64;
        last = last << 8 | (text[end - 1 - at] | 0x20) as u64;
        at += 1;
    }
    let mixed = (first ^ last.rotate_left(23) ^ length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - SLOTS.trailing_zeros())) as usize
}

/// Does a call of this name count as one of a built-in function? `name` may be in any case.
pub fn is_built_in(name: &[u8]) -> bool {
    lookup(name) != Function::Unknown
}

/// Does a call of this built-in function do more to its session than to change settings? `name` may be in any case.
pub(super) fn touches_session(name: &[u8]) -> bool {
    match lookup(name) {
        Function::SetConfig => true,
        Function::Known(effects) => !effects.without(Effects::UNKNOWN_SETTINGS).is_empty(),
        Function::Process | Function::Unknown => false,
    }
}

/// Looks up a function by its name without schema; `name` may be in any case.
pub(super) fn lookup(name: &[u8]) -> Function {
    let mut at = hash(name, 0, name.len());
    loop {
        let slot = TABLE[at];
        if slot.used == 0 {
            return Function::Unknown;
        }
        let start = slot.at as usize;
        if slot.length == 0 {
            let (known, effects) = EFFECTFUL[start];
            if known.as_bytes().eq_ignore_ascii_case(name) {
                return match start {
                    0 => Function::SetConfig,
                    1..=PROCESS => Function::Process,
                    _ => Function::Known(effects),
                };
            }
        } else if slot.length as usize == name.len()
            && BUILTINS[start..start + name.len()].eq_ignore_ascii_case(name)
        {
            return Function::Known(Effects::NONE);
        }
        at = (at + 1) % SLOTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_found_and_others_are_not() {
        for line in BUILTINS.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            assert_eq!(lookup(line), Function::Known(Effects::NONE));
        }
        for (name, effects) in &EFFECTFUL[1 + PROCESS..] {
            assert_eq!(lookup(name.as_bytes()), Function::Known(*effects), "{name}");
        }
        assert_eq!(lookup(b"Set_Config"), Function::SetConfig);
        for name in ["pg_backend_pid", "PG_Cancel_Backend", "pg_terminate_backend"] {
            assert_eq!(lookup(name.as_bytes()), Function::Process, "{name}");
        }
        for name in
            ["", "f", "my_function", "countx", "pg_advisory_lock_shared_x", "dblink_connect"]
        {
            assert_eq!(lookup(name.as_bytes()), Function::Unknown, "{name}");
        }
    }

    #[test]
    fn no_probe_is_long() {
        let mut run = 0;
        for slot in TABLE.iter().chain(TABLE.iter()) {
            run = if slot.used == 0 { 0 } else { run + 1 };
            assert!(run < 40, "the table clusters: change `hash` or double `SLOTS`");
        }
    }
}
