//! Fuzz entry points and their corpus.
