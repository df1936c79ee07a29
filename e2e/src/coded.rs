//! Coded media for benchmarks: as a file, as a feed brings it, and as an engine puts it out.

use crate::boxes;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use lectern_contract::feed::{AccessUnit, Codec, Track};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::RunPrefix;
use lectern_contract::{Ladder, PartCount, SegmentDuration, StreamRef, Ticks, WallMillis};
use lectern_transcoder_pod::engine::{Encoded, Input, Output};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pictures a second, with a keyframe every two seconds.
pub const RATE: u32 = 30;
/// Samples in a frame of AAC-LC.
const FRAME: u64 = 1024;
/// An AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1): AAC-LC, 48 kHz, two channels.
const STEREO: &[u8] = &[0x11, 0x90];

/// A job with `ladder` in parts, of a lecture called `name` that nobody gives: for what is measured without a pod.
pub fn job(name: &str, ladder: Ladder) -> LiveJob {
    let stream = StreamRef { namespace: "bench".into(), name: name.into() };
    LiveJob {
        title: name.into(),
        run: "r1".into(),
        attempt: 1,
        anchor: WallMillis(1_700_000_000_000),
        feed: String::new(),
        any_feed: None,
        ladder,
        segment_duration: SegmentDuration::LOW_LATENCY,
        parts: Some(PartCount::LOW_LATENCY),
        dvr_window_ms: None,
        slate: None,
        prefix: RunPrefix::of(&stream, &"r1".into()),
        replaces: None,
        passed_on: 0,
        idle_after_ms: 1_000,
        stream,
    }
}

/// What is coded: H.264 without reordering, and AAC.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Seconds.
    pub seconds: u32,
    /// Kilobits a second of the picture.
    pub kbit: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Source {
    file: PathBuf,
    avcc: Bytes,
    pictures: Vec<Encoded>,
    sounds: Vec<Encoded>,
}

impl Source {
    /// Encodes it with ffmpeg, once, into `folder`.
    pub fn encode(folder: &Path, shape: Shape) -> Result<Self> {
        let Shape { width, height, seconds, kbit } = shape;
        let file = folder.join("source.mp4");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-y", "-v", "error", "-nostdin", "-f", "lavfi", "-i"]);
        ffmpeg.arg(format!("testsrc2=size={width}x{height}:rate={RATE}:duration={seconds}"));
        ffmpeg.args(["-f", "lavfi", "-i", &format!("sine=sample_rate=48000:duration={seconds}")]);
        ffmpeg.args("-c:v libx264 -preset ultrafast -tune zerolatency -g 60 -keyint_min 60 -sc_threshold 0 -pix_fmt yuv420p".split(' '));
        ffmpeg.args(["-b:v", &format!("{kbit}k")]);
        ffmpeg.args("-c:a aac -b:a 128k -ac 2 -movflags +faststart".split(' ')).arg(&file);
        ensure!(ffmpeg.status().context("ffmpeg; scripts/install bench")?.success(), "ffmpeg cannot encode the source");
        let pictures = Self::samples(folder, &file, "0:v")?;
        let sounds = Self::samples(folder, &file, "0:a")?;
        let stsd = boxes::at(&pictures.0, "moov/trak/mdia/minf/stbl/stsd")?;
        let entry = boxes::at(stsd.get(8..).context("stsd")?, "avc1")?;
        let avcc = boxes::at(entry.get(78..).context("avc1")?, "avcC")?; // after the fields of a VisualSampleEntry
        let duration = 90_000 / RATE;
        let pictures_of =
            |(at, data): (usize, Bytes)| Encoded { start: at as u64 * u64::from(duration), duration, sync: at.is_multiple_of(60), data };
        let sounds_of = |(at, data): (usize, Bytes)| Encoded { start: at as u64 * FRAME, duration: FRAME as u32, sync: true, data };
        Ok(Self {
            avcc: Bytes::copy_from_slice(avcc),
            pictures: pictures.1.into_iter().enumerate().map(pictures_of).collect(),
            sounds: sounds.1.into_iter().enumerate().map(sounds_of).collect(),
            file,
        })
    }

    /// A track's header, and each of its samples: ffmpeg writes a fragment for each.
    fn samples(folder: &Path, file: &Path, track: &str) -> Result<(Vec<u8>, Vec<Bytes>)> {
        let one = folder.join("track.mp4");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-y", "-v", "error", "-nostdin", "-i"]).arg(file).args(["-map", track, "-c", "copy", "-movflags"]);
        ffmpeg.arg("+frag_every_frame+empty_moov+default_base_moof").arg(&one);
        ensure!(ffmpeg.status()?.success(), "ffmpeg cannot take {track} out of the source");
        let bytes = std::fs::read(&one)?;
        let all = boxes::boxes(&bytes)?;
        let samples = all.iter().filter(|(kind, _)| kind == b"mdat").map(|(_, body)| Bytes::copy_from_slice(body)).collect();
        Ok((bytes, samples))
    }

    /// As an engine puts it out: parameters first, then both tracks in the order of time.
    pub fn outputs(&self) -> impl Iterator<Item = Output> + '_ {
        let configs = [(0, self.avcc.clone()), (1, Bytes::from_static(STEREO))];
        let configs = configs.map(|(rendition, config)| Output::Config { rendition, of: rendition, config });
        configs.into_iter().chain(self.samples_in_order().map(|(rendition, sample)| Output::Sample { rendition, sample: sample.clone() }))
    }

    /// As a feed brings it, from `since` on.
    pub fn inputs(&self, since: Ticks) -> impl Iterator<Item = Input> + '_ {
        let configs = [(Track::Video, Codec::H264, self.avcc.clone()), (Track::Audio, Codec::Aac, Bytes::from_static(STEREO))];
        let configs = configs.map(|(track, codec, config)| Input::Config { track, codec, config });
        let units = self.samples_in_order().map(move |(rendition, sample)| {
            let (track, scale) = if rendition == 0 { (Track::Video, 90_000) } else { (Track::Audio, 48_000) };
            let at = since.plus(Ticks(sample.start * 90_000 / scale));
            Input::Unit(AccessUnit { track, keyframe: sample.sync, dts: at, pts: at, payload: sample.data.clone() })
        });
        configs.into_iter().chain(units)
    }

    fn samples_in_order(&self) -> impl Iterator<Item = (usize, &Encoded)> {
        let (mut pictures, mut sounds) = (self.pictures.iter().peekable(), self.sounds.iter().peekable());
        std::iter::from_fn(move || {
            let picture_first = match (pictures.peek(), sounds.peek()) {
                (Some(picture), Some(sound)) => picture.start * 48_000 <= sound.start * 90_000,
                (picture, _) => picture.is_some(),
            };
            Some(if picture_first { (0, pictures.next()?) } else { (1, sounds.next()?) })
        })
    }

    /// Of all samples.
    pub fn bytes(&self) -> usize {
        self.pictures.iter().chain(&self.sounds).map(|sample| sample.data.len()).sum()
    }

    /// Where it is stored.
    pub fn file(&self) -> &Path {
        &self.file
    }
}
