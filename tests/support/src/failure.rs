//! What a failing test says last: why it failed. What comes before it, a process's log, may be long and is cut by whoever shows it.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static REASON: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics are remembered by the thread that panics.
pub(crate) fn remember_reasons() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let earlier_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            REASON.set(panic.to_string());
            earlier_hook(panic);
        }));
    });
}

/// Shows a log and, after it, why the test that this thread runs fails.
pub(crate) fn show(whose: &str, log: &str) {
    let reason = REASON.with_borrow(String::clone);
    eprintln!("{whose}'s log ends with:\n{log}\n\n{reason}");
}
