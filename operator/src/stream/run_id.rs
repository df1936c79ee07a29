//! The name of a run.

use jiff::Timestamp;
use lectern_contract::RunId;
use lectern_contract::ids::SIGNED;
use lectern_crds::Viewing;

/// How far before its creation a run's timeline begins, in milliseconds: no publisher's first stamps, nor AAC priming,
/// can come to lie before tick zero.
pub const HEADROOM_MILLIS: i64 = 10_000;

/// `{unix seconds in base 36}-{six of the base-36 digits of random}`, of a signed run with `s-` before it: sorts by time among its like,
/// and is a DNS label.
pub fn run_id(now: Timestamp, random: u64, viewing: Viewing) -> RunId {
    let signed = if viewing == Viewing::Signed { SIGNED } else { "" };
    RunId(format!("{signed}{}-{:0>6}", base36(u64::try_from(now.as_second()).unwrap_or(0)), base36(random % 36u64.pow(6))))
}

/// Wall-clock time of tick zero of a run made at `now`.
pub fn anchor_millis(now: Timestamp) -> i64 {
    now.as_millisecond().saturating_sub(HEADROOM_MILLIS)
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        // A remainder by 36 is below 36, so it is a digit.
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_a_dns_label_that_sorts_by_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (viewing, first) in [(Viewing::Public, "tro8w0-000000"), (Viewing::Signed, "s-tro8w0-000000")] {
            let of = |second, random| run_id(at(second), random, viewing);
            assert_eq!(of(1_800_000_000, 0).0, first);
            assert!(of(1_800_000_000, u64::MAX).0 < of(1_800_000_001, 0).0);
            assert!(of(1_800_000_000, u64::MAX).0.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert_eq!(of(1_800_000_000, 0).is_signed(), viewing == Viewing::Signed);
        }
    }
}
