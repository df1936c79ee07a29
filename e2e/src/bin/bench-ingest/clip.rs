//! What every publisher of the benchmark sends, in a loop: two seconds of H.264 with one keyframe, and of AAC.

use crate::message::{AUDIO, Message, VIDEO, with_counter};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// The loop's length, and the GOP's.
pub const PERIOD_MILLIS: u32 = 2_000;

/// Messages in the order of their time.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Both tracks' sequence headers.
    pub headers: Vec<Message>,
    /// One period of media. The first is the keyframe.
    pub messages: Vec<Message>,
}

impl Clip {
    /// Reads a clip that [`encode`] made, for chunks of this size.
    pub fn read(file: &Path, chunk_size: usize) -> Result<Self> {
        let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let (mut headers, mut messages) = (Vec::new(), Vec::new());
        let mut start = None;
        let mut rest = bytes.get(13..).context("no FLV header")?; // FLV 10.1, E.2: header of 9 bytes, and a zero PreviousTagSize
        while let Some((Tag { kind, at, body }, following)) = next_tag(rest) {
            rest = following;
            match (kind, body.get(1)) {
                (VIDEO | AUDIO, Some(0)) => headers.push(Message::new(kind, 0, body, chunk_size, false)),
                (VIDEO | AUDIO, Some(1)) => {
                    if kind == VIDEO {
                        start.get_or_insert(at); // AAC's priming comes before
                    }
                    let at = start.and_then(|start| at.checked_sub(start)).filter(|at| *at < PERIOD_MILLIS);
                    let Some(at) = at else { continue };
                    messages.push(match kind {
                        VIDEO => Message::new(kind, at, &with_counter(body), chunk_size, true),
                        _ => Message::new(kind, at, body, chunk_size, false),
                    });
                }
                _ => {} // metadata, the end of the sequence
            }
        }
        messages.sort_by_key(|message| (message.at, message.kind != VIDEO));
        let keyframes = messages.iter().filter(|message| message.keyframe).count();
        let opens = messages.first().is_some_and(|message| message.keyframe);
        ensure!(headers.len() == 2 && keyframes == 1 && opens, "{} is no GOP of two seconds with sound", file.display());
        Ok(Self { headers, messages })
    }

    /// Payload bytes of one period.
    pub fn payload(&self) -> usize {
        self.messages.iter().map(|message| message.payload).sum()
    }
}

/// Has ffmpeg encode a clip with so many kbit/s of video (constant bit rate, filled where the picture needs less) and 128 kbit/s
/// of sound.
pub fn encode(file: &Path, kbit: u32) -> Result<()> {
    let rate = format!("{kbit}k");
    let status = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30,noise=alls=24:allf=t"])
        .args(["-f", "lavfi", "-i", "anoisesrc=color=pink:sample_rate=48000"])
        .args(["-t", "2", "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "0"])
        .args(["-b:v", &rate, "-minrate", &rate, "-maxrate", &rate, "-bufsize", &rate])
        .args(["-x264-params", "keyint=60:min-keyint=60:scenecut=0:nal-hrd=cbr"])
        .args(["-c:a", "aac", "-b:a", "128k", "-f", "flv"])
        .arg(file)
        .stdin(Stdio::null())
        .status()
        .context("ffmpeg cannot be started; scripts/install test")?;
    ensure!(status.success(), "ffmpeg could not encode the clip: {status}");
    Ok(())
}

struct Tag<'a> {
    kind: u8,
    at: u32,
    body: &'a [u8],
}

/// FLV 10.1, E.4.1: type, size, time and its extension, a stream id of zero, the body, and the size of it all.
fn next_tag(bytes: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    let [kind, a, b, c, d, e, f, high, ..] = *bytes else { return None };
    let size = u32::from_be_bytes([0, a, b, c]) as usize;
    let at = u32::from_be_bytes([high, d, e, f]);
    Some((Tag { kind, at, body: bytes.get(11..11 + size)? }, bytes.get(11 + size + 4..)?))
}
