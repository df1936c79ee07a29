//! Conditions as Kubernetes wants them: one of each type, and a transition time that moves only when the status flips.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

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
    fn a_transition_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = dated(&[], &[claim(Truth::False, "A")], Some(1), at(10));
        let second = dated(&first, &[claim(Truth::False, "B")], Some(1), at(20));
        assert_eq!(second[0].last_transition_time, Time(at(10)), "another reason is no flip");
        let third = dated(&second, &[claim(Truth::True, "C")], Some(1), at(30));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }
}
