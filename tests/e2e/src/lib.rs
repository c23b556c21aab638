//! End-to-end scenarios against real PostgreSQL.
