//! A lecture's times. Pure.

use super::{is_deleting, status_of};
use jiff::{SignedDuration, Timestamp};
use lectern_crds::LiveStream;
use std::time::Duration;

/// How long a slot is kept for a lecturer who is late.
const LATE: SignedDuration = SignedDuration::from_mins(15);
/// After a time has come, so that a look at it finds it passed.
const AFTER: Duration = Duration::from_millis(100);

/// The stream is to end: somebody said so, deleted it, or its time is over.
pub fn is_to_end(stream: &LiveStream, now: Timestamp) -> bool {
    stream.spec.ended || is_deleting(stream) || ends_at(stream).is_some_and(|end| end <= now)
}

/// The lecture will begin soon, or should have begun by now, and needs a transcoder that it has never had.
pub fn is_expected(stream: &LiveStream, now: Timestamp) -> bool {
    let Some((ready, start)) = starts_at(stream) else { return false };
    ready <= now && now < start + LATE && status_of(stream).dispatch.is_none() && !is_to_end(stream, now)
}

/// When the stream has to be looked at because of its times.
pub fn next_bell(stream: &LiveStream, now: Timestamp) -> Option<Duration> {
    let start = starts_at(stream).into_iter().flat_map(|(ready, start)| [ready, start + LATE]);
    let next = start.chain(ends_at(stream)).filter(|bell| *bell > now).min()?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default() + AFTER)
}

fn ends_at(stream: &LiveStream) -> Option<Timestamp> {
    Some(stream.spec.schedule.as_ref()?.ends_at.as_ref()?.0)
}

/// When its slot has to be ready, and when it begins.
fn starts_at(stream: &LiveStream) -> Option<(Timestamp, Timestamp)> {
    let schedule = stream.spec.schedule.as_ref()?;
    let start = schedule.starts_at.as_ref()?.0;
    let ready = start.checked_sub(SignedDuration::from_secs(i64::from(schedule.prewarm_seconds))).unwrap_or(Timestamp::MIN);
    Some((ready, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn lecture(schedule: serde_json::Value) -> LiveStream {
        serde_json::from_value(json!({
            "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream", "metadata": {"name": "a"}, "spec": {"schedule": schedule},
        }))
        .unwrap()
    }

    #[test]
    fn a_slot_is_wanted_from_before_a_lecture_begins_until_nobody_comes_any_more() {
        let it = lecture(json!({"startsAt": at(10).to_string(), "endsAt": at(100).to_string(), "prewarmSeconds": 120}));
        let expected = [7, 8, 10, 24, 25].map(|minute| is_expected(&it, at(minute)));
        assert_eq!(expected, [false, true, true, true, false]);
        assert!(!is_expected(&lecture(json!({"endsAt": at(100).to_string()})), at(10)));
    }

    #[test]
    fn a_lecture_that_had_its_transcoder_needs_no_second_one() {
        let mut it = lecture(json!({"startsAt": at(10).to_string()}));
        it.status = serde_json::from_value(json!({"dispatch": {"attempt": 1}})).unwrap();
        assert!(!is_expected(&it, at(10)));
    }

    #[test]
    fn a_lecture_ends_at_its_end() {
        let it = lecture(json!({"startsAt": at(10).to_string(), "endsAt": at(100).to_string()}));
        assert_eq!([99, 100, 101].map(|minute| is_to_end(&it, at(minute))), [false, true, true]);
        assert!(!is_expected(&it, at(100)));
    }

    #[test]
    fn a_stream_is_looked_at_when_each_of_its_times_comes() {
        let it = lecture(json!({"startsAt": at(10).to_string(), "endsAt": at(100).to_string(), "prewarmSeconds": 120}));
        let bell = |minute| next_bell(&it, at(minute)).map(|wait| wait.as_secs() / 60);
        assert_eq!([0, 8, 25, 100].map(bell), [Some(8), Some(17), Some(75), None]);
        assert_eq!(next_bell(&serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {}})).unwrap(), at(0)), None);
    }
}
