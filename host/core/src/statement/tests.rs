//! Tables of texts and what they do.
