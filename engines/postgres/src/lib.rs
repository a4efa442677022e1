//! The engine that keeps locks and queues in PostgreSQL.
