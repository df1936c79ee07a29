//! From what a LiveStream says and names to what can be carried out, or a refusal that says how to mend it.

use super::observe::Seen;
use super::tenants;
use kube::ResourceExt;
use lectern_contract::cost::Needs;
use lectern_contract::{Ladder, PartCount, SegmentDuration};
use lectern_crds::{EncodingLadderSpec, Latency, LiveStream, StreamPoolSpec};

/// What the stream asks for, everything resolved.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The pool's name.
    pub pool_name: String,
    /// The pool.
    pub pool: StreamPoolSpec,
    /// What is encoded.
    pub ladder: Ladder,
    /// How long segments are.
    pub segment_duration: SegmentDuration,
    /// Into how many parts they are cut.
    pub parts: Option<PartCount>,
    /// How far back live playlists reach, in milliseconds, where that is said.
    pub dvr_window_ms: Option<u64>,
    /// What stands on the card while nothing comes.
    pub slate: Option<String>,
    /// How long a transcoder waits for a silent source, in milliseconds.
    pub idle_after_ms: u64,
}

/// Why a stream cannot be carried out as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind.
    pub reason: RefusalReason,
    /// For people: what is wrong and how to mend it.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// No StreamPool of that name.
    UnknownPool,
    /// No EncodingLadder of that name.
    UnknownLadder,
    /// The ladder cannot be encoded.
    BadLadder,
    /// It costs more than any transcoder of the pool has.
    LadderTooCostly,
    /// The pool is for other namespaces.
    NotATenant,
    /// The namespace has as many streams in the pool as it may have.
    QuotaExceeded,
    /// A Secret that is in the way.
    BadKeySecret,
    /// The camera's user name and password are not where the stream says.
    BadCameraSecret,
}

impl RefusalReason {
    /// As a condition's reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownPool => "UnknownPool",
            Self::UnknownLadder => "UnknownLadder",
            Self::BadLadder => "BadLadder",
            Self::LadderTooCostly => "LadderTooCostly",
            Self::NotATenant => "NotATenant",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::BadKeySecret => "BadKeySecret",
            Self::BadCameraSecret => "BadCameraSecret",
        }
    }
}

/// Resolves the stream's pool and ladder.
pub fn validate(stream: &LiveStream, seen: &Seen) -> Result<Wanted, Refusal> {
    let spec = &stream.spec;
    let Some(pool) = seen.pool.clone() else {
        let message = format!(
            "there is no StreamPool {:?}; {}; create it, or create the stream anew with another spec.poolName",
            spec.pool_name,
            known(&seen.pools)
        );
        return Err(Refusal { reason: RefusalReason::UnknownPool, message });
    };
    let (segment_duration, parts) = match spec.latency {
        Latency::Low => (SegmentDuration::LOW_LATENCY, Some(PartCount::LOW_LATENCY)),
        Latency::Standard => (SegmentDuration::STANDARD, None),
    };
    // Who has a place keeps it: a smaller quota is for those to come.
    if stream.status.as_ref().is_none_or(|status| status.placement.is_none()) {
        tenants::admits(&pool.tenants, &seen.tenancy, &stream.namespace().unwrap_or_default(), &spec.pool_name)?;
    }
    let ladder = ladder(stream, seen)?;
    // A run that has a job keeps it: a smaller budget is for those to come.
    if stream.status.as_ref().is_none_or(|status| status.dispatch.is_none()) {
        fits(&ladder, &pool, &spec.pool_name)?;
    }
    Ok(Wanted {
        pool_name: spec.pool_name.clone(),
        pool,
        ladder,
        segment_duration,
        parts,
        dvr_window_ms: spec.dvr_window_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| seconds * 1000),
        slate: spec.reconnect.slate.enabled.then(|| spec.reconnect.slate.text.clone()),
        idle_after_ms: u64::try_from(spec.reconnect.grace_seconds).unwrap_or(0).max(1) * 1000,
    })
}

fn ladder(stream: &LiveStream, seen: &Seen) -> Result<Ladder, Refusal> {
    let from = stream.spec.ladder.name.as_ref().map_or_else(|| "spec.ladder".to_owned(), |name| format!("EncodingLadder {name:?}"));
    let Some(found) = chosen(stream, seen) else {
        let message = format!("there is no {from}; {}; create it, or change spec.ladder.name", known(&seen.ladders));
        return Err(Refusal { reason: RefusalReason::UnknownLadder, message });
    };
    let bad = |what: String| Refusal { reason: RefusalReason::BadLadder, message: format!("{from}: {what}") };
    let (live, late) = found.resolve().map_err(|error| bad(error.to_string()))?;
    if let Some(late) = late.first().filter(|_| !stream.spec.record.original) {
        let name = &late.name;
        return Err(bad(format!("{name:?} is `when: Archive` and would be encoded from the original: set spec.record.original to true")));
    }
    Ok(live)
}

/// The ladder that the stream chooses; `None` where the one that it names is not there.
pub fn chosen(stream: &LiveStream, seen: &Seen) -> Option<EncodingLadderSpec> {
    let choice = &stream.spec.ladder;
    match &choice.name {
        Some(_) => seen.ladder.clone(),
        None => {
            Some(EncodingLadderSpec { video: choice.video.clone().unwrap_or_default(), audio: choice.audio.clone().unwrap_or_default() })
        }
    }
}

fn fits(ladder: &Ladder, pool: &StreamPoolSpec, pool_name: &str) -> Result<(), Refusal> {
    let mut lacks = Vec::new();
    for (_, class) in pool.transcoder.all() {
        match class.budget().lacks(Needs::of(ladder, class.class())) {
            Some(lack) => lacks.push(lack),
            None => return Ok(()),
        }
    }
    let lacks = lacks.join("; or ");
    let message = format!(
        "the ladder fits into no transcoder of StreamPool {pool_name:?}: {lacks}; choose a smaller ladder, or raise spec.transcoder.budget of the pool and give its pods more"
    );
    Err(Refusal { reason: RefusalReason::LadderTooCostly, message })
}

fn known(names: &[String]) -> String {
    match names {
        [] => "none exists".to_owned(),
        [one] => format!("the only one is {one:?}"),
        // A message of a condition has room for 32 KiB; nobody reads more than a few names.
        many => format!(
            "there are {}{}",
            many.iter().take(10).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
            if many.len() > 10 { ", …" } else { "" }
        ),
    }
}
