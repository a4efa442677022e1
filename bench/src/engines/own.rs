//! What each system or its clients bring for locks and queues.

pub mod etcd;
pub mod flock;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod mysql;
pub mod postgres;
pub mod rabbit;
pub mod redis;
pub mod zookeeper;
