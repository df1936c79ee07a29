//! Conditions as Kubernetes wants them: one of each type, and a transition time that moves only when the status flips.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A time that lies farther ahead than this was not written by a clock like ours: clocks that are kept agree to a fraction of a second.
const AHEAD: SignedDuration = SignedDuration::from_secs(2);

/// The three values of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell now.
    Unknown,
}

impl Truth {
    /// As it stands in a condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition before it has times: what a plan claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The condition's type.
    pub kind: &'static str,
    /// Its status.
    pub truth: Truth,
    /// One of a closed set of words.
    pub reason: &'static str,
    /// For people. Nothing in it may change from second to second, because every change is a write.
    pub message: String,
}

/// `claims` as conditions. A transition time is carried over from `old` unless the status flips.
pub fn dated(old: &[Condition], claims: &[Claim], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let dated = |claim: &Claim| {
        let before = find(old, claim.kind).filter(|condition| condition.status == claim.truth.as_str());
        Condition {
            type_: claim.kind.to_owned(),
            status: claim.truth.as_str().to_owned(),
            reason: claim.reason.to_owned(),
            message: claim.message.clone(),
            observed_generation: generation,
            last_transition_time: before.map_or(Time(whole_second(now)), |condition| condition.last_transition_time.clone()),
        }
    };
    claims.iter().map(dated).collect()
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is there and True.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// The reason of a condition.
pub fn reason<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a str> {
    find(conditions, kind).map(|condition| condition.reason.as_str())
}

/// Whether `then`, which an operator on another machine may have written, is at least `long` ago.
///
/// One that is ahead of us says that the clocks disagree, and not how long ago it was. It counts as long ago: students would wait for as long as
/// the clocks are apart, and what is done too early (a job sent again, a live edge written anew) does no harm. So nothing is done either about a clock of ours
/// that is ahead of the other's: all seems long ago by it. That is so once each time, because what is written next has its time from our own clock.
pub fn is_past(then: Timestamp, long: SignedDuration, now: Timestamp) -> bool {
    let since = now.duration_since(then);
    since >= long || since < -AHEAD
}

/// The API's times have whole seconds; one that had more would read back as another.
pub fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(truth: Truth, reason: &'static str) -> Claim {
        Claim { kind: "Ready", truth, reason, message: String::new() }
    }

    #[test]
    fn what_lies_ahead_by_another_clock_is_past() {
        let (long, now) = (SignedDuration::from_secs(30), Timestamp::from_second(100_000).unwrap());
        let answers = [-3_600, -30, -29, 0, 1, 2, 3, 3_600].map(|ahead| is_past(now + SignedDuration::from_secs(ahead), long, now));
        assert_eq!(answers, [true, true, false, false, false, false, true, true]);
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = dated(&[], &[claim(Truth::False, "A")], Some(1), at(10));
        let second = dated(&first, &[claim(Truth::False, "B")], Some(1), at(20));
        assert_eq!(second[0].last_transition_time, Time(at(10)), "another reason is no flip");
        let third = dated(&second, &[claim(Truth::True, "C")], Some(1), at(30));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }
}
