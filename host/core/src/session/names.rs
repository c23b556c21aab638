//! A client's named statements, which can be put back to what they were when its transaction began.

use super::Held;
use rustc_hash::FxHashMap;

type Map = FxHashMap<Box<[u8]>, Held>;

#[derive(Debug, Default)]
pub(super) struct Names {
    now: Map,
    /// While somebody watches.
    before: Option<Box<Before>>,
}

/// What was there when somebody began to watch: copied when the first name changes.
#[derive(Debug)]
enum Before {
    Same,
    Other(Map),
}

/// What was there when names were put back; `None`: the same.
pub(super) type Displaced = Option<FxHashMap<Box<[u8]>, Held>>;

impl Names {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Held> {
        self.now.get(name)
    }

    /// To parse the statement anew, which is not another for that.
    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Held> {
        self.now.get_mut(name)
    }

    pub(super) fn contains_key(&self, name: &[u8]) -> bool {
        self.now.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, held: Held) {
        self.note_change();
        self.now.insert(name, held);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.note_change();
        self.now.remove(name);
    }

    pub(super) fn remove_entry(&mut self, name: &[u8]) -> Option<(Box<[u8]>, Held)> {
        if self.contains_key(name) {
            self.note_change();
        }
        self.now.remove_entry(name)
    }

    pub(super) fn clear(&mut self) {
        self.note_change();
        self.now.clear();
    }

    fn note_change(&mut self) {
        if let Some(before) = &mut self.before
            && let Before::Same = **before
        {
            **before = Before::Other(self.now.clone());
        }
    }

    /// From here on they can be put back.
    pub(super) fn watch(&mut self) {
        self.before = Some(Box::new(Before::Same));
    }

    pub(super) fn unwatch(&mut self) {
        self.before = None;
    }

    /// Puts them back. They can be put back again.
    pub(super) fn put_back(&mut self) -> Displaced {
        match self.before.as_deref() {
            None | Some(Before::Same) => None,
            Some(Before::Other(before)) => Some(std::mem::replace(&mut self.now, before.clone())),
        }
    }

    /// Undoes that.
    pub(super) fn undo_put_back(&mut self, displaced: Displaced) {
        if let Some(displaced) = displaced {
            self.now = displaced;
        }
    }
}
