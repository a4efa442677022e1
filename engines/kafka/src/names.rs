//! Names of queues as names of topics.
//!
//! A topic's name has 1 to 249 of the characters `a-zA-Z0-9._-`. A queue that is called so has that
//! topic, so that queues and topics of other programs meet. Any other byte is `_XX`, its value in
//! hexadecimal, and an underscore that would read like that is `_5F`: no two queues share a topic.

use leasehold_api::{Error, ErrorKind, Result};

/// The longest name of a topic, and of a group here.
const NAME_MAX: usize = 249;

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)
}

/// The topic of a queue.
///
/// # Errors
/// `Invalid` for a name that no topic can have.
pub(crate) fn topic(queue: &str) -> Result<String> {
    if queue.is_empty() || queue.chars().any(char::is_control) {
        let wrong = "a queue's name has 1 to 249 bytes without control characters";
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    let bytes = queue.as_bytes();
    let mut topic = String::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let reads_like_one = byte == b'_'
            && bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().copied().all(is_digit));
        if is_plain(byte) && !reads_like_one {
            topic.push(char::from(byte));
        } else {
            topic.push_str(&format!("_{byte:02X}"));
        }
    }
    if matches!(topic.as_str(), "." | "..") {
        return Err(Error::new(ErrorKind::Invalid, "a topic cannot be called . or .."));
    }
    if topic.len() > NAME_MAX {
        let wrong = format!(
            "queue {queue} would have a topic with a name of {} bytes, at most {NAME_MAX} are \
             allowed; characters other than a-z, A-Z, 0-9, ., - and _ count three each",
            topic.len()
        );
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a topic's name means.
    fn queue(topic: &str) -> Vec<u8> {
        let bytes = topic.as_bytes();
        let (mut queue, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let digits = bytes.get(at + 1..at + 3).filter(|two| two.iter().copied().all(is_digit));
            match digits.filter(|_| bytes[at] == b'_') {
                Some(two) => {
                    let two = std::str::from_utf8(two).expect("they are ASCII");
                    queue.push(u8::from_str_radix(two, 16).expect("they are digits"));
                    at += 3;
                }
                None => {
                    queue.push(bytes[at]);
                    at += 1;
                }
            }
        }
        queue
    }

    #[test]
    fn plain_names_stay_and_others_are_written_out() {
        for (queue, expected) in [
            ("orders.new-2", "orders.new-2"),
            ("order_lines", "order_lines"),
            ("mail/out", "mail_2Fout"),
            ("a_2Fb", "a_5F2Fb"),
            ("ü", "_C3_BC"),
        ] {
            assert_eq!(topic(queue).expect("it is a good name"), expected);
        }
        for bad in ["", ".", "..", "a\nb", &"x".repeat(250), &"/".repeat(84)] {
            assert_eq!(topic(bad).expect_err(bad).kind, ErrorKind::Invalid);
        }
    }

    proptest! {
        #[test]
        fn no_two_queues_share_a_topic(name in "[_/0-9A-Fa-fü.-]{1,30}") {
            prop_assume!(name != "." && name != "..");
            let topic = topic(&name).expect("it is short");
            prop_assert!(topic.bytes().all(is_plain));
            prop_assert_eq!(queue(&topic), name.as_bytes());
        }
    }
}
