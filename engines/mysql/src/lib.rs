//! The engine that keeps locks and queues in MySQL or MariaDB.
