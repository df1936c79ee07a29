//! Faults that strike together.

use super::fault::Fault;

/// A trial: faults that strike one after the other, without a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair(pub Fault, pub Fault, pub &'static str);

/// The pairs that are tried, each with what it is there to show. Of the others most are two faults that do not meet.
pub const PAIRS: [Pair; 14] = [
    Pair(Fault::S3Slow, Fault::ChildKilled, "the next child reads the run's head and restores what is stored over 2 s an answer"),
    Pair(Fault::OperatorKilled, Fault::TranscoderLost, "nobody sends a new job: the message that comes again has to do"),
    Pair(Fault::ShardLost, Fault::ChildKilled, "the next child finds no owner of the feed"),
    Pair(Fault::OriginKilled, Fault::Drain, "a run changes hands while nobody subscribes to it"),
    Pair(Fault::S3Errors, Fault::Move, "the head is handed over by requests of which most fail"),
    Pair(Fault::SqsAway, Fault::SupervisorFrozen, "no heart beats, and the message cannot be taken by another"),
    Pair(Fault::OperatorKilled, Fault::ShardLost, "nobody places the run anew until there is a leader"),
    Pair(Fault::S3AnswersLost, Fault::TranscoderLost, "a successor claims a head whose moves have no answers"),
    Pair(Fault::SqsAnswersLost, Fault::Drain, "the successor's message is sent twice"),
    Pair(Fault::SqsAnswersLost, Fault::TranscoderLost, "the successor's message is given to pods that do not hear of it"),
    Pair(Fault::SqsAway, Fault::TranscoderLost, "no message calls the successor"),
    Pair(Fault::S3Away, Fault::TranscoderLost, "students have what S3 has not, and the successor cannot claim the run"),
    Pair(Fault::TranscoderFromS3, Fault::ChildKilled, "the same, and who goes on is as far from S3"),
    Pair(Fault::TranscoderFromTranscoder, Fault::Move, "the successor cannot ask the owner, and takes it for dead"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_pair_is_of_two_faults_that_can_meet() {
        for Pair(first, second, why) in PAIRS {
            assert!(first != second && !why.is_empty());
            // The first is still there when the second strikes, or has killed something that takes a while to come back.
            assert!(first.lasts() > Duration::ZERO || matches!(first, Fault::OperatorKilled | Fault::OriginKilled), "{first:?}");
        }
    }
}
