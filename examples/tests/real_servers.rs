//! The examples that show one program over many systems, over the real systems: their workers are
//! processes, and what they did is looked at when all of them have ended.

use std::process::Command;

use leasehold_testbed::{Server, servers};

fn run(program: &str, server: &Server) -> String {
    let output = Command::new(program).arg(server.url()).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Four processes add one to a number ten times each, and no count is lost.
fn one_at_a_time(server: &Server) {
    let text = run(env!("CARGO_BIN_EXE_one_at_a_time"), server);
    assert_eq!(text, "40 of 40 counted\n");
}

/// Two processes handle twenty orders, and none is lost.
fn handed_on(server: &Server) {
    let text = run(env!("CARGO_BIN_EXE_handed_on"), server);
    assert_eq!(text, "20 of 20 orders handled\n");
}

mod redis {
    #[test]
    fn locks_and_hands_on() {
        let server = super::servers::redis::start(&[]);
        super::one_at_a_time(&server);
        super::handed_on(&server);
    }
}

mod mysql {
    #[test]
    fn locks_and_hands_on() {
        let server = super::servers::mysql::start(&[]);
        super::one_at_a_time(&server);
        super::handed_on(&server);
    }
}

mod postgres {
    #[test]
    fn locks_and_hands_on() {
        let server = super::servers::postgres::start(&[]);
        super::one_at_a_time(&server);
        super::handed_on(&server);
    }
}

mod zookeeper {
    #[test]
    fn locks() {
        super::one_at_a_time(&super::servers::zookeeper::start());
    }
}

mod etcd {
    #[test]
    fn locks() {
        super::one_at_a_time(&super::servers::etcd::start());
    }
}

mod amqp {
    #[test]
    fn locks_and_hands_on() {
        let server = super::servers::rabbitmq::start("");
        super::one_at_a_time(&server);
        super::handed_on(&server);
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    #[test]
    fn hands_on() {
        let broker = super::servers::kafka::Broker::start();
        super::handed_on(&broker.server);
    }
}
