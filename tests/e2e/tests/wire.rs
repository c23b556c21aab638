//! Message by message.
