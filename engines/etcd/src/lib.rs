//! The engine that keeps locks in etcd.
