//! Cameras: streams with an RTSP URL are pulled by the shard that owns them, and reconnected for as long as they last.

use crate::routes::{Camera, Route, RouteTable};
use crate::shard::Shard;
use crate::stream::{Publication, PublishError};
use bytes::Bytes;
use futures::StreamExt;
use lectern_contract::RunId;
use lectern_contract::feed::Codec;
use retina::client::{Demuxed, PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions, Transport};
use retina::codec::{CodecItem, FrameFormat, ParametersRef};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long a camera may say nothing; `retina` itself would wait for ever.
const SILENCE: Duration = Duration::from_secs(10);
/// The first pause before trying again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before trying again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a pull ended.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the camera said nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the camera has neither H.264 nor AAC to offer")]
    NothingToPull,
    #[error("the camera ended the session")]
    Ended,
    #[error(transparent)]
    Rtsp(#[from] retina::Error),
    #[error(transparent)]
    Media(#[from] PublishError),
    #[error("the run is not to be pulled here: {0}")]
    NotHere(String),
}

impl From<tokio::time::error::Elapsed> for PullError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Silent
    }
}

/// Pulls the cameras of all routes that this shard owns until `stop`.
pub async fn run(shard: Arc<Shard>, stop: CancellationToken) -> Result<(), Infallible> {
    let mut routes = shard.routes();
    let mut pulls = HashMap::<(RunId, Camera), CancellationToken>::new();
    loop {
        let table = routes.borrow_and_update().clone();
        let wanted = wanted(&shard, &table);
        pulls.retain(|pull, stop_pull| {
            let keep = wanted.contains_key(pull);
            if !keep {
                stop_pull.cancel();
            }
            keep
        });
        for (pull, route) in wanted {
            pulls.entry(pull.clone()).or_insert_with(|| {
                let stop_pull = stop.child_token();
                tokio::spawn(keep_pulling(shard.clone(), route, pull.1.url, stop_pull.clone()));
                stop_pull
            });
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = routes.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
        }
    }
}

fn wanted(shard: &Shard, table: &RouteTable) -> HashMap<(RunId, Camera), Route> {
    let mine = table.routes().filter(|route| shard.owns(route) && !route.ended);
    mine.filter_map(|route| Some(((route.run.clone(), route.camera.clone()?), route.clone()))).collect()
}

async fn keep_pulling(shard: Arc<Shard>, route: Route, camera: Url, stop: CancellationToken) {
    // The URL may hold a password: people are told the host.
    let host = camera.host_str().unwrap_or("camera").to_owned();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut media_came = false;
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = pull(&shard, &route, &camera, &host, &mut media_came) => ended,
        };
        if media_came {
            pause = FIRST_PAUSE;
        }
        // Half to all of it, so that a hundred cameras behind one switch do not come back in step.
        let wait = pause.mul_f64(0.5 + 0.5 * rand::random::<f64>());
        let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
        tracing::warn!(stream = %route.stream, host, why, wait_ms = wait.as_millis() as u64, "a camera is tried again after a pause");
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(wait) => {} }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Pulls once, until something fails.
async fn pull(shard: &Shard, route: &Route, camera: &Url, host: &str, media_came: &mut bool) -> Result<Infallible, PullError> {
    let options = SessionOptions::default().user_agent("lectern".to_owned());
    let mut session = timeout(SILENCE, Session::describe(camera.clone(), options)).await??;
    let offered: Vec<usize> = (0..session.streams().len()).filter(|at| taken(session.streams()[*at].encoding_name())).collect();
    if offered.is_empty() {
        return Err(PullError::NothingToPull);
    }
    let video_offered = offered.iter().any(|stream| session.streams()[*stream].media() == "video");
    for stream in offered {
        let setup = SetupOptions::default().transport(Transport::Tcp(TcpTransportOptions::default())).frame_format(FrameFormat::MP4);
        timeout(SILENCE, session.setup(stream, setup)).await??;
    }
    let mut media = timeout(SILENCE, session.play(PlayOptions::default())).await??.demuxed()?;
    let mut publication = shard.pull(route, host).map_err(|refusal| PullError::NotHere(refusal.to_string()))?;
    let mut configured = Configured { video: false, audio: false, video_offered };
    loop {
        let item = tokio::select! {
            closing = publication.closing() => return Err(PublishError::Closed(closing).into()),
            item = timeout(SILENCE, media.next()) => item,
        };
        let taken = match item {
            Ok(Some(Ok(item))) => take(&mut publication, &media, item, &mut configured),
            Ok(Some(Err(error))) => Err(error.into()),
            Ok(None) => Err(PullError::Ended),
            Err(_) => Err(PullError::Silent),
        };
        if let Err(error) = taken {
            publication.leave(error.to_string());
            return Err(error);
        }
        *media_came = true;
    }
}

fn taken(encoding: &str) -> bool {
    matches!(encoding, "h264" | "mpeg4-generic")
}

/// What the run has been told of the camera's tracks.
struct Configured {
    video: bool,
    audio: bool,
    video_offered: bool,
}

/// Hands a camera's frame to the run. Cameras give one stamp a frame; it is taken for both times, which is right as long
/// as there are no B-frames.
fn take(publication: &mut Publication, media: &Demuxed, item: CodecItem, configured: &mut Configured) -> Result<(), PullError> {
    match item {
        CodecItem::VideoFrame(frame) => {
            if !configured.video || frame.has_new_parameters() {
                let Some(ParametersRef::Video(parameters)) = media.streams()[frame.stream_id()].parameters() else { return Ok(()) };
                publication.configure(Codec::H264, Bytes::copy_from_slice(parameters.extra_data()))?;
                configured.video = true;
            }
            let (at, keyframe) = (millis(frame.timestamp()), frame.is_random_access_point());
            Ok(publication.picture(at, 0, keyframe, Bytes::from(frame.into_data()))?)
        }
        CodecItem::AudioFrame(frame) => {
            if configured.video_offered && !configured.video {
                return Ok(()); // the run would take the stream for sound alone
            }
            if !configured.audio {
                let Some(ParametersRef::Audio(parameters)) = media.streams()[frame.stream_id()].parameters() else { return Ok(()) };
                publication.configure(Codec::Aac, Bytes::copy_from_slice(parameters.extra_data()))?;
                configured.audio = true;
            }
            Ok(publication.sound(millis(frame.timestamp()), Bytes::copy_from_slice(frame.data()))?)
        }
        _ => Ok(()),
    }
}

/// A camera's stamp in the 32-bit milliseconds of the timeline, which knows that they wrap.
fn millis(stamp: retina::Timestamp) -> u32 {
    let millis = i128::from(stamp.elapsed()) * 1000 / i128::from(stamp.clock_rate().get());
    millis.rem_euclid(1 << 32) as u32 // below 2^32 by the remainder
}
