//! The rules of `docs/cache.md` on a small catalogue: what is kept and what is not (R), what a write takes (W).

mod catalogue; // the tables and functions of the examples
mod reads; // R
mod writes; // W
