//! Reports: what a pod tells the operator, once a second and at once when something changed. `POST /v1/reports`, JSON.

use crate::cost::{Budget, Class, Needs};
use crate::job::LiveJob;
use crate::{Epoch, RunId, SegmentNumber, StreamRef, Ticks, WallMillis};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The path of the operator's report endpoint.
pub const PATH: &str = "/v1/reports";

/// All that one pod has to say. A report replaces the pod's last one: a run that is missing from it is no longer there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The pod's name.
    pub pod: String,
    /// The pool that it belongs to.
    pub pool: String,
    /// When the pod's process began, by its own clock: another time is another process, which has nothing in hand of what the one before had. Zero: a build that does not say.
    #[serde(default)]
    pub began: WallMillis,
    /// What the pod is and how its runs do.
    pub role: Role,
}

/// What the operator answers to a report where there is more to say than that it was taken (`204 No Content`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Jobs for this transcoder, past a queue that cannot be reached or would be late. Each is repeated until a report names its run and attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<LiveJob>,
    /// Runs of this transcoder whose jobs the next report is to carry: an operator that stands by keeps them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wants: Vec<RunId>,
    /// From a leader that knows: where the operators are that stand by. They want the same reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standbys: Option<Vec<SocketAddr>>,
}

impl Answer {
    /// There is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.wants.is_empty() && self.standbys.is_none()
    }
}

/// What a pod is, with what pods of its kind say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Role {
    /// An ingest shard.
    #[serde(rename_all = "camelCase")]
    Ingest {
        /// The runs that it owns and has seen a publisher for.
        runs: Vec<IngestRun>,
        /// It is going: its streams belong on other shards, to which it relays until its publishers have left.
        #[serde(default)]
        draining: bool,
        /// Runs that a publisher has reached it for and whose owner it cannot reach: it would adopt them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        orphans: Vec<Orphan>,
    },
    /// A transcoder pod.
    #[serde(rename_all = "camelCase")]
    Transcoder {
        /// Jobs that it can take in all.
        slots: u32,
        /// What it encodes with.
        #[serde(default)]
        class: Class,
        /// What it has for them.
        #[serde(default)]
        budget: Budget,
        /// What its jobs take of that.
        #[serde(default)]
        taken: Needs,
        /// Running and lately ended jobs (an ended one is repeated for a minute).
        runs: Vec<TranscoderRun>,
        /// The jobs of those runs that the operator asked for ([`Answer::wants`]).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        jobs: Vec<LiveJob>,
    },
    /// An origin: it is there.
    Origin,
}

/// A run at its ingest shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestRun {
    /// The LiveStream.
    pub stream: StreamRef,
    /// The run.
    pub run: RunId,
    /// The publisher that is there now, or why none is.
    pub publisher: Publisher,
    /// The address of the publisher with the other key (primary or backup) that would take over at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
    /// The original's recording; `None` where none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Recording>,
}

/// A run whose owner does not answer, at the shard where its publisher came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// The LiveStream.
    pub stream: StreamRef,
    /// The run.
    pub run: RunId,
    /// The owner's epoch in the route: a decision about an older one is no news.
    pub epoch: Epoch,
}

/// How far the original of a run is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// Up to where S3 has confirmed the original; `None` before the first object.
    pub stored: Option<Ticks>,
    /// Gaps in it that were declared, because S3 was away for longer than the memory lasts.
    pub gaps: u64,
    /// What is amiss now, for people.
    pub trouble: Option<String>,
}

/// A run's publisher, as its shard sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Publisher {
    /// Media arrives.
    #[serde(rename_all = "camelCase")]
    Publishing {
        /// Its address.
        remote: String,
        /// It came with the backup key.
        #[serde(default)]
        backup: bool,
        /// RFC 6381 codec strings or names of what arrives: `avc1.64001f`, `mp4a.40.2`.
        codecs: Vec<String>,
        /// Pixels of the picture, if known.
        picture: Option<(u32, u32)>,
        /// Bits a second over the last seconds.
        bitrate: u64,
        /// The newest DTS on the run's timeline.
        newest: Ticks,
    },
    /// The publisher is gone, and may come back.
    #[serde(rename_all = "camelCase")]
    Gone {
        /// Why, for people: `the publisher closed the connection`.
        reason: String,
    },
}

/// A run at its transcoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TranscoderRun {
    /// The LiveStream.
    pub stream: StreamRef,
    /// The run.
    pub run: RunId,
    /// The dispatch that it answers.
    pub attempt: u32,
    /// The epoch under which it writes; zero before the run is claimed.
    pub epoch: Epoch,
    /// How far it is.
    pub state: TranscoderState,
}

/// How far a transcoder is with a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum TranscoderState {
    /// The job is taken; no segment is complete yet.
    #[serde(rename_all = "camelCase")]
    Starting {
        /// What it waits for, if anything is amiss: `S3 cannot be reached: …`.
        waiting_for: Option<String>,
    },
    /// Segments come out.
    #[serde(rename_all = "camelCase")]
    Running {
        /// The newest segment that S3 has confirmed in every rendition; `None` before the first.
        confirmed: Option<SegmentNumber>,
        /// The newest segment offered to origins.
        live_edge: SegmentNumber,
        /// How far encoding is behind the newest input.
        lag: Ticks,
        /// Bits a second that all renditions together put out over the last segments.
        bitrate: u64,
        /// What is amiss although segments come out: `S3 is slow: 12 segments wait`.
        trouble: Option<String>,
        /// What else is worth to be known: `1080p is the source's own picture`.
        #[serde(default)]
        remark: Option<String>,
    },
    /// The source was silent for longer than the job allows; a new job goes on when it returns.
    Idle,
    /// The run is complete: playlists closed, `ended.json` written.
    #[serde(rename_all = "camelCase")]
    Ended {
        /// The first segment of the run, if any came out.
        first: Option<SegmentNumber>,
        /// The last segment of the run, if any came out.
        last: Option<SegmentNumber>,
    },
    /// The job cannot be done; trying again would not help.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// Somebody else owns the run; this transcoder has stopped.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let report = Report {
            pod: "lectern-ingest-0".into(),
            pool: "default".into(),
            began: WallMillis(1_700_000_000_000),
            role: Role::Ingest {
                runs: vec![IngestRun {
                    stream: StreamRef { namespace: "school".into(), name: "algebra".into() },
                    run: "r1".into(),
                    publisher: Publisher::Publishing {
                        remote: "192.0.2.1:1234".into(),
                        backup: false,
                        codecs: vec!["avc1.64001f".into()],
                        picture: Some((1280, 720)),
                        bitrate: 2_000_000,
                        newest: Ticks(90_000),
                    },
                    standby: Some("192.0.2.2:1234".into()),
                    recording: Some(Recording { stored: Some(Ticks(90_000)), gaps: 0, trouble: None }),
                }],
                draining: false,
                orphans: vec![Orphan {
                    stream: StreamRef { namespace: "school".into(), name: "botany".into() },
                    run: "r2".into(),
                    epoch: Epoch(1),
                }],
            },
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let of_before = json.replace(r#""began":1700000000000,"#, "");
        assert_eq!(serde_json::from_str::<Report>(&of_before).unwrap(), Report { began: WallMillis(0), ..report });
    }
}
