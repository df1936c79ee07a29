//! What a publisher's ffmpeg makes of pictures and sound, and which ffmpeg that is.

use crate::pattern::FRAME_RATE;
use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// How pictures and sound are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// H.264 without B-frames, and AAC.
    LowDelay,
    /// H.264 as OBS codes it, with two B-frames, so that decoding and showing order differ; AAC.
    BFrames,
    /// HEVC with B-frames, and AAC, in enhanced RTMP; by ffmpeg 9.
    Hevc,
    /// AV1 and Opus, in enhanced RTMP; by ffmpeg 9.
    Av1Opus,
}

impl Coding {
    /// The program.
    pub(crate) fn ffmpeg(self) -> Result<PathBuf> {
        match self {
            Self::LowDelay | Self::BFrames => Ok("ffmpeg".into()),
            Self::Hevc | Self::Av1Opus => ffmpeg9(),
        }
    }

    /// Its arguments, between input and output: a keyframe a second.
    pub(crate) fn args(self) -> Vec<String> {
        const H264: &str = "-c:v libx264 -sc_threshold 0 -threads 1 -b:v 800k -maxrate 800k -bufsize 800k";
        const AAC: &str = "-c:a aac -b:a 96k -ac 2";
        // Without it ffmpeg 9, told to end with the shorter of picture and sound, reads no sound for the first 10 s.
        const AT_ONCE: &str = "-shortest_buf_duration 0.1";
        let codecs = match self {
            Self::LowDelay => format!("{H264} -preset ultrafast -tune zerolatency {AAC}"),
            Self::BFrames => format!("{H264} -preset veryfast -bf 2 -profile:v high {AAC}"),
            // `fourCcList` in `connect` (E-RTMP v1): ffmpeg sends it only where it is told to.
            Self::Hevc => format!(
                "-c:v libx265 -preset ultrafast -b:v 400k -x265-params log-level=error:scenecut=0:pools=1:frame-threads=1 {AAC} \
                 -rtmp_enhanced_codecs hvc1,av01,vp09,Opus {AT_ONCE}"
            ),
            // Quicker presets than 9 show some pictures twice and others never.
            Self::Av1Opus => format!("-c:v libsvtav1 -preset 9 -crf 35 -svtav1-params lp=1 -c:a libopus -b:a 96k -ac 2 {AT_ONCE}"),
        };
        format!("-g {FRAME_RATE} -keyint_min {FRAME_RATE} {codecs}").split_whitespace().map(str::to_owned).collect()
    }
}

/// A static ffmpeg 9 with libx265 and SVT-AV1, from PyPI: Debian's has no enhanced RTMP.
fn ffmpeg9() -> Result<PathBuf> {
    let venv = lectern_cloud::testing::installed("venv-ffmpeg9", "imageio-ffmpeg==0.8.1").context("ffmpeg 9 cannot be installed")?;
    let code = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    // Without the variable, that names the one in the package.
    let told = Command::new(venv.join("bin/python")).args(["-c", code]).env_remove("IMAGEIO_FFMPEG_EXE").output()?;
    ensure!(told.status.success(), "{code}: {}", String::from_utf8_lossy(&told.stderr));
    Ok(String::from_utf8(told.stdout)?.trim().into())
}
