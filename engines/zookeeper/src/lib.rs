//! The engine that keeps locks in ZooKeeper.
