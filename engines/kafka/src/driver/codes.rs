//! What the client's error codes mean.

use leasehold_api::{Error, ErrorKind, Retry};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::Fault;

impl From<KafkaError> for Fault {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(code) => fault(code),
            None => match &error {
                KafkaError::Nul(_) | KafkaError::ClientConfig(..) => {
                    Self::Refused(Error::new(ErrorKind::Invalid, error.to_string()))
                }
                _ => Self::Lost(error.to_string()),
            },
        }
    }
}

/// What a code means.
pub(super) fn fault(code: Code) -> Fault {
    use ErrorKind::{Broken, Forbidden, Full, Invalid, Unauthenticated, Unavailable, Unsupported};
    let text = code.to_string();
    let (kind, what) = match code {
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::UnknownTopicId => return Fault::Missing,
        Code::RebalanceInProgress
        | Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::StaleMemberEpoch
        | Code::FencedMemberEpoch => return Fault::Moving(text),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            (Forbidden, "docs.md of the engine lists the privileges that it needs")
        }
        Code::SaslAuthenticationFailed | Code::Authentication => {
            (Unauthenticated, "are user and password right?")
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            (Invalid, "raise max.message.bytes of the topic, or send less at once")
        }
        Code::NotEnoughReplicas => {
            let wrong = "nothing was published: fewer replicas are in step than \
                         min.insync.replicas demands";
            let error = Error::new(Unavailable, wrong).with_retry(Retry::Later);
            return Fault::Refused(error);
        }
        Code::InvalidReplicationFactor => {
            (Invalid, "are there fewer brokers than ?replicas demands?")
        }
        Code::OffsetMetadataTooLarge => {
            (Broken, "set offset.metadata.max.bytes of the brokers to its default, 4096")
        }
        Code::QueueFull => (Full, "more is being published than the brokers take"),
        Code::PolicyViolation
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidRequest
        | Code::InvalidRecord => (Invalid, "see the brokers' log"),
        Code::UnsupportedVersion | Code::UnsupportedFeature => {
            (Unsupported, "they are too old for this")
        }
        _ => return Fault::Lost(text),
    };
    Fault::Refused(Error::new(kind, format!("the brokers say: {text}; {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_told_apart() {
        let kind = |code| fault(code).told();
        let late = kind(Code::MessageTimedOut);
        assert_eq!((late.kind, late.retry), (ErrorKind::Unavailable, Retry::Unknown));
        let few = kind(Code::NotEnoughReplicas);
        assert_eq!((few.kind, few.retry), (ErrorKind::Unavailable, Retry::Later));
        let half = kind(Code::NotEnoughReplicasAfterAppend);
        assert_eq!((half.kind, half.retry), (ErrorKind::Unavailable, Retry::Unknown));
        assert_eq!(kind(Code::GroupAuthorizationFailed).kind, ErrorKind::Forbidden);
        assert_eq!(kind(Code::UnknownTopicOrPartition).kind, ErrorKind::NotFound);
    }
}
