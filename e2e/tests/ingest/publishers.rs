//! Every publisher that there is for a Debian machine.

use super::{is_shown, judged, received, small};
use anyhow::{Context as _, Result};
use lectern_e2e::judge::Expected;
use lectern_e2e::lab::STEP;
use lectern_e2e::{Coding, Lab, Program, Share, Shot, condition};
use serde_json::json;

/// A kind of publisher, and what the status has to say of it.
struct Kind {
    name: &'static str,
    by: By,
    codecs: [&'static str; 2],
    picture: &'static str,
}

#[derive(Clone, Copy)]
enum By {
    /// Its pictures can be told.
    Ffmpeg(Coding),
    Program(Program),
}

const KINDS: [Kind; 5] = [
    Kind { name: "obs", by: By::Program(Program::Obs), codecs: ["avc1.", "mp4a.40.2"], picture: "64x48" },
    Kind { name: "ffmpeg9-hevc", by: By::Ffmpeg(Coding::Hevc), codecs: ["hvc1.", "mp4a.40.2"], picture: "320x180" },
    Kind { name: "ffmpeg9-av1", by: By::Ffmpeg(Coding::Av1Opus), codecs: ["av01.", "Opus"], picture: "320x180" },
    Kind { name: "ffmpeg5-b-frames", by: By::Ffmpeg(Coding::BFrames), codecs: ["avc1.", "mp4a.40.2"], picture: "320x180" },
    Kind { name: "gstreamer", by: By::Program(Program::GStreamer), codecs: ["avc1.", "mp4a.40.2"], picture: "320x180" },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_publisher_is_taken() -> Result<()> {
    Lab::run("every_publisher_is_taken", Share::Whole, async |lab| {
        // One after the other: beside another one AV1 is not encoded in real time.
        for kind in &KINDS {
            is_taken(lab, kind).await.context(kind.name)?;
        }
        Ok(())
    })
    .await
}

async fn is_taken(lab: &Lab, kind: &Kind) -> Result<()> {
    // A publisher whose machine is busy sends late, and what comes later than by a segment would be a slate.
    let spec = json!({"title": kind.name, "reconnect": {"slate": {"enabled": false}}});
    let lecture = lab.apply(kind.name, small(spec)).await?;
    let (url, key) = lecture.credentials().await?;
    let (ffmpeg, program) = match kind.by {
        By::Ffmpeg(coding) => (Some(lab.publish(&url, &key, Shot { coding, ..Shot::small() })?), None),
        By::Program(program) => (None, Some(program.publish(&lab.out, &url, &key)?)),
    };
    lecture
        .wait_for("Receiving=True with its codecs", STEP, |stream| {
            let is_receiving = condition(stream, "Receiving").is_some_and(|receiving| receiving.status == "True");
            is_receiving
                && received(stream).is_some_and(|received| {
                    let named = received.codecs.iter().zip(kind.codecs).filter(|(is, wanted)| is.starts_with(wanted)).count();
                    named == 2 && received.picture.as_deref() == Some(kind.picture)
                })
        })
        .await?;
    let prefix = is_shown(&lecture).await?;

    if let Some(program) = program {
        program.leave().await?;
    }
    let published = ffmpeg.map(|ffmpeg| ffmpeg.leave()).transpose()?;
    lecture.until("Receiving", "False").await?;
    if let Some(published) = published {
        judged(lab, &lecture, &prefix, Expected { published: vec![published], interrupted: false }).await?;
    }
    Ok(())
}
