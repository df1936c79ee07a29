//! Renditions that are encoded after the end: who is called for them, and how far they are.
//!
//! S3 knows how far: whoever works on them writes `archive.json` beside the run (`transcoder-pod/src/archive`). So this asks it twice a minute while there is
//! something to wait for, and nothing has to be remembered.

use super::claims::{self, claim};
use super::observe::Seen;
use super::{api, status, stream_ref, validate};
use crate::apply;
use crate::cloud::{CALL, CloudError, within};
use crate::conditions::{self, Claim, Truth};
use crate::context::{Context, Error};
use kube::ResourceExt as _;
use lectern_cloud::Objects;
use lectern_contract::RunId;
use lectern_contract::job::ArchiveJob;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{Archive, ArchiveState};
use lectern_contract::message::Message as _;
use lectern_crds::{LiveStream, LiveStreamStatus, StreamPoolSpec};
use std::time::Duration;

/// The recording has the renditions that are `when: Archive`. Only a stream that has ended, and whose ladder has some, has this condition.
pub const ARCHIVED: &str = "Archived";
/// `kubectl annotate livestream NAME lectern.video/archive=now`: they are encoded once more, from where it was given up. It is taken off once a transcoder is called.
pub const ARCHIVE_ANNOTATION: &str = "lectern.video/archive";

/// How often it is looked how far they are.
const LOOK: Duration = Duration::from_secs(30);
/// How soon it is looked again whether the shard has stored the last of the original.
const STORING: Duration = Duration::from_secs(3);
/// A message that nobody has taken for so long is no more: SQS keeps it for four days.
const OVERDUE: jiff::SignedDuration = jiff::SignedDuration::from_hours(4 * 24);

/// What is to be done about them now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Nothing, now and later.
    Rest,
    /// The shard still stores the original.
    Wait,
    /// A transcoder is to be called.
    Call,
    /// This is to be said of them.
    Say(Claim),
}

/// Sees to the renditions of a stream that has ended, and notes in `told` how far they are; when to look again, if ever.
///
/// # Errors
/// The API server's. Where S3 or SQS do not answer it is tried again.
pub async fn pursue(stream: &LiveStream, seen: &Seen, told: &mut LiveStreamStatus, ctx: &Context) -> Result<Option<Duration>, Error> {
    let (Some(pool), Some(run)) = (&seen.pool, told.run_id.clone().map(RunId)) else { return Ok(None) };
    let video = validate::chosen(stream, seen).and_then(|ladder| ladder.resolve().ok()).map(|(_, archive)| archive).unwrap_or_default();
    if video.is_empty() {
        return Ok(None);
    }
    let redo = stream.annotations().contains_key(ARCHIVE_ANNOTATION);
    let prefix = RunPrefix::of(&stream_ref(stream), &run);
    let asked = asks(told, redo);
    let found = match asked {
        true => match state(&ctx.clouds.objects(pool).await, &prefix, pool).await {
            Ok(state) => state,
            Err(error) => return Ok(Some(note(stream, seen, told, unreachable(told, &error)))),
        },
        false => None,
    };
    match step(told, seen, redo, found.as_ref()) {
        Step::Rest => Ok(None),
        Step::Wait => Ok(Some(STORING)),
        Step::Say(claim) => {
            let is_over = is_over(&claim);
            let next = note(stream, seen, told, claim);
            Ok((!is_over).then_some(next))
        }
        Step::Call => {
            let (title, slate) = (stream.spec.title.clone(), &stream.spec.reconnect.slate);
            let slate = slate.enabled.then(|| slate.text.clone());
            let job = ArchiveJob { stream: stream_ref(stream), run, title, slate, prefix, video };
            if let Err(error) = call(&job, redo, pool, ctx).await {
                return Ok(Some(note(stream, seen, told, unreachable(told, &error))));
            }
            tracing::info!(stream = %job.stream, run = %job.run, "the archive's job is in the queue");
            if redo {
                apply::remove_annotation(&api(stream, ctx), stream, ARCHIVE_ANNOTATION).await?;
            }
            let queued = claim(ARCHIVED, Truth::False, "Queued", "waits for a transcoder slot that no lecture needs");
            Ok(Some(note(stream, seen, told, queued)))
        }
    }
}

fn note(stream: &LiveStream, seen: &Seen, told: &mut LiveStreamStatus, claim: Claim) -> Duration {
    status::replace(told, &claim, stream.metadata.generation, seen.now);
    LOOK
}

/// Whether S3 knows more than is written down.
fn asks(told: &LiveStreamStatus, redo: bool) -> bool {
    !redo
        && conditions::find(&told.conditions, ARCHIVED)
            .is_some_and(|it| matches!(&it.reason[..], "Queued" | "Encoding" | "StorageUnreachable"))
}

fn step(told: &LiveStreamStatus, seen: &Seen, redo: bool, found: Option<&ArchiveState>) -> Step {
    let before = conditions::find(&told.conditions, ARCHIVED);
    if conditions::reason(&told.conditions, claims::ENDED) == Some("NeverStarted") {
        return Step::Rest;
    }
    if seen.is_recording() {
        return Step::Wait;
    }
    let say = |truth, reason, message: &str| Step::Say(claim(ARCHIVED, truth, reason, message));
    match (before.map(|before| &before.reason[..]), found) {
        (None | Some("NotCalled"), _) => Step::Call,
        _ if redo => Step::Call,
        (Some("Completed" | "Failed"), _) => Step::Rest,
        (_, Some(ArchiveState::Done)) => say(Truth::True, "Completed", ""),
        (_, Some(ArchiveState::Failed { reason })) => say(Truth::False, "Failed", reason),
        // In tenths: every change is a write.
        (_, Some(ArchiveState::Encoding { done, of })) => {
            let tenths = done.saturating_mul(10) / (*of).max(1);
            say(Truth::False, "Encoding", &format!("{}0 % of the segments are stored", tenths.min(9)))
        }
        (Some(reason), None) => {
            let since = before.map_or(seen.now, |before| before.last_transition_time.0);
            match reason {
                "Queued" if seen.now.duration_since(since) >= OVERDUE => {
                    say(Truth::False, "Failed", "no slot was idle for it in four days")
                }
                _ => say(Truth::False, "Queued", "waits for a transcoder slot that no lecture needs"),
            }
        }
    }
}

fn is_over(claim: &Claim) -> bool {
    matches!(claim.reason, "Completed" | "Failed")
}

/// The first words stay while it lasts: each failure has a request id of its own. Nobody was called yet where nothing was said before.
fn unreachable(told: &LiveStreamStatus, error: &CloudError) -> Claim {
    let before = conditions::find(&told.conditions, ARCHIVED);
    let reason = if before.is_none_or(|before| before.reason == "NotCalled") { "NotCalled" } else { "StorageUnreachable" };
    let message = before.filter(|before| before.reason == reason).map_or(&error.message, |before| &before.message);
    claim(ARCHIVED, Truth::False, reason, message)
}

async fn state(objects: &Objects, prefix: &RunPrefix, pool: &StreamPoolSpec) -> Result<Option<ArchiveState>, CloudError> {
    let key = prefix.key(&ObjectName::Archive);
    let object = within(CALL, &format!("bucket {}", pool.bucket.name), objects.get(&key)).await?;
    // What does not parse is overwritten by whoever works on them.
    Ok(object.and_then(|object| serde_json::from_slice::<Archive>(&object.body).ok()).map(|archive| archive.state))
}

async fn call(job: &ArchiveJob, redo: bool, pool: &StreamPoolSpec, ctx: &Context) -> Result<(), CloudError> {
    if redo {
        let (objects, key) = (ctx.clouds.objects(pool).await, job.prefix.key(&ObjectName::Archive));
        within(CALL, &format!("bucket {}", pool.bucket.name), objects.delete_prefix(&key)).await?;
    }
    let (archive, message) = (ctx.clouds.archive_queue(pool).await, job.to_message());
    within(CALL, &archive.at().to_string(), archive.send(&message)).await
}

#[cfg(test)]
mod tests {
    use super::super::tests::seen;
    use super::*;
    use crate::conditions::dated;

    fn told(ended: &'static str, archived: Option<&'static str>) -> LiveStreamStatus {
        let mut claims = vec![claim(claims::ENDED, Truth::True, ended, "")];
        claims.extend(archived.map(|reason| claim(ARCHIVED, Truth::False, reason, "")));
        LiveStreamStatus { conditions: dated(&[], &claims, None, seen(0).now), ..LiveStreamStatus::default() }
    }

    fn reason(step: &Step) -> &str {
        match step {
            Step::Say(claim) => claim.reason,
            Step::Rest => "rest",
            Step::Wait => "wait",
            Step::Call => "call",
        }
    }

    #[test]
    fn a_transcoder_is_called_once_and_then_s3_is_asked() {
        let half = ArchiveState::Encoding { done: 55, of: 100 };
        let broken = ArchiveState::Failed { reason: "nothing of the original is stored".to_owned() };
        let cases = [
            ("Completed", None, None, "call"),
            ("Incomplete", None, None, "call"),
            ("NeverStarted", None, None, "rest"),
            ("Completed", Some("NotCalled"), None, "call"),
            ("Completed", Some("Queued"), None, "Queued"),
            ("Completed", Some("Queued"), Some(&half), "Encoding"),
            ("Completed", Some("StorageUnreachable"), Some(&half), "Encoding"),
            ("Completed", Some("Encoding"), Some(&ArchiveState::Done), "Completed"),
            ("Completed", Some("Encoding"), Some(&broken), "Failed"),
            ("Completed", Some("Failed"), None, "rest"),
            ("Completed", Some("Completed"), None, "rest"),
        ];
        for (ended, archived, found, wanted) in cases {
            let told = told(ended, archived);
            assert_eq!(reason(&step(&told, &seen(1), false, found)), wanted, "{ended} {archived:?} {found:?}");
        }
        let Step::Say(said) = step(&told("Completed", Some("Queued")), &seen(1), false, Some(&half)) else { panic!() };
        assert_eq!(said.message, "50 % of the segments are stored");
    }

    #[test]
    fn who_asks_for_it_has_it_done_once_more_and_what_got_lost_is_told() {
        for archived in ["Failed", "Completed", "Queued"] {
            assert_eq!(step(&told("Completed", Some(archived)), &seen(1), true, None), Step::Call);
        }
        let late = Seen { now: seen(0).now + OVERDUE, ..seen(0) };
        assert_eq!(
            reason(&step(&told("Completed", Some("Queued")), &late, false, None)),
            "Failed",
            "it is told once, and nobody is called again and again"
        );
    }

    #[test]
    fn the_words_of_the_first_failure_stay() {
        let error = |id: &str| CloudError { reason: "Unreachable", message: format!("no answer ({id})") };
        let mut told = told("Completed", None);
        let first = unreachable(&told, &error("1"));
        assert_eq!((first.reason, &first.message[..]), ("NotCalled", "no answer (1)"));
        status::replace(&mut told, &first, None, seen(0).now);
        assert_eq!(unreachable(&told, &error("2")), first);
    }
}
