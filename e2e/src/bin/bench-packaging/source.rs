//! A minute of coded media: as a file, and as an engine puts it out.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use lectern_e2e::boxes;
use lectern_transcoder_pod::engine::{Encoded, Output};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const WIDTH: u32 = 1280;
pub const HEIGHT: u32 = 720;
pub const RATE: u32 = 30;
/// Samples in a frame of AAC-LC.
const FRAME: u64 = 1024;
/// An AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1): AAC-LC, 48 kHz, two channels.
const STEREO: &[u8] = &[0x11, 0x90];

/// See the module.
pub struct Source {
    file: PathBuf,
    avcc: Bytes,
    pictures: Vec<Encoded>,
    sounds: Vec<Encoded>,
}

impl Source {
    /// Encodes it with ffmpeg, once, into `folder`.
    pub fn encode(folder: &Path) -> Result<Self> {
        let file = folder.join("minute.mp4");
        let picture = format!("testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration=60");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args([
            "-y",
            "-v",
            "error",
            "-nostdin",
            "-f",
            "lavfi",
            "-i",
            &picture,
            "-f",
            "lavfi",
            "-i",
            "sine=sample_rate=48000:duration=60",
        ]);
        ffmpeg.args(
            "-c:v libx264 -preset ultrafast -tune zerolatency -g 60 -keyint_min 60 -sc_threshold 0 -b:v 2800k -pix_fmt yuv420p".split(' '),
        );
        ffmpeg.args("-c:a aac -b:a 128k -ac 2 -movflags +faststart".split(' ')).arg(&file);
        ensure!(ffmpeg.status().context("ffmpeg; scripts/install bench")?.success(), "ffmpeg cannot encode the minute");
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
        ensure!(ffmpeg.status()?.success(), "ffmpeg cannot take {track} out of the minute");
        let bytes = std::fs::read(&one)?;
        let all = boxes::boxes(&bytes)?;
        let samples = all.iter().filter(|(kind, _)| kind == b"mdat").map(|(_, body)| Bytes::copy_from_slice(body)).collect();
        Ok((bytes, samples))
    }

    /// As an engine puts it out: parameters first, then both tracks in the order of time.
    pub fn outputs(&self) -> impl Iterator<Item = Output> + '_ {
        let configs =
            [(0, self.avcc.clone()), (1, Bytes::from_static(STEREO))].map(|(rendition, config)| Output::Config { rendition, config });
        let (mut pictures, mut sounds) = (self.pictures.iter().peekable(), self.sounds.iter().peekable());
        let samples = std::iter::from_fn(move || {
            let picture_first = match (pictures.peek(), sounds.peek()) {
                (Some(picture), Some(sound)) => picture.start * 48_000 <= sound.start * 90_000,
                (picture, _) => picture.is_some(),
            };
            let (rendition, sample) = if picture_first { (0, pictures.next()?) } else { (1, sounds.next()?) };
            Some(Output::Sample { rendition, sample: sample.clone() })
        });
        configs.into_iter().chain(samples)
    }

    /// Of all samples.
    pub fn bytes(&self) -> usize {
        self.pictures.iter().chain(&self.sounds).map(|sample| sample.data.len()).sum()
    }

    pub fn file(&self) -> &Path {
        &self.file
    }
}
