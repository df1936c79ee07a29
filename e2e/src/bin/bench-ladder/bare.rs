//! Bare encoders: ffmpeg on pictures that are decoded and scaled already, with the settings of `lectern_transcoder_pod::engine`.

use anyhow::{Context as _, Result, ensure};
use lectern_contract::{Ladder, VideoCodec, VideoRendition};
use lectern_e2e::coded::{RATE, Source};
use lectern_e2e::process::children_cpu_seconds;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Raw pictures of every size of a ladder, and raw sound, in memory; gone when dropped.
pub struct Raw {
    folder: PathBuf,
}

impl Raw {
    pub fn of(source: &Source, ladder: &Ladder) -> Result<Self> {
        let raw = Self { folder: PathBuf::from("/dev/shm").join(format!("lectern-ladder-{}-{}", std::process::id(), ladder.video.len())) };
        std::fs::create_dir_all(&raw.folder)?;
        for rendition in &ladder.video {
            let size = size(rendition);
            let output = raw.pictures(rendition);
            run(Command::new("ffmpeg")
                .args(["-y", "-v", "error", "-nostdin", "-i"])
                .arg(source.file())
                .args(["-an", "-s", &size])
                .arg(output))?;
        }
        run(Command::new("ffmpeg").args(["-y", "-v", "error", "-nostdin", "-i"]).arg(source.file()).arg("-vn").arg(raw.sound()))?;
        Ok(raw)
    }

    fn pictures(&self, rendition: &VideoRendition) -> PathBuf {
        self.folder.join(format!("{}.yuv", size(rendition)))
    }

    fn sound(&self) -> PathBuf {
        self.folder.join("sound.wav")
    }

    /// CPU seconds of encoding every rendition of `ladder` by itself, less those of reading what is encoded.
    pub fn encode_all(&self, ladder: &Ladder) -> Result<f64> {
        let mut sum = 0.0;
        for rendition in &ladder.video {
            let input = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size(rendition), "-r", &RATE.to_string(), "-i"].map(str::to_owned);
            let input = [&input[..], &[self.pictures(rendition).display().to_string()]].concat();
            sum += cpu(&input, &coded(rendition))? - cpu(&input, &["-c:v", "wrapped_avframe"].map(str::to_owned))?;
        }
        for rendition in &ladder.audio {
            let input = ["-i".to_owned(), self.sound().display().to_string()];
            let coded = ["-c:a", "aac", "-b:a", &rendition.bitrate.to_string()].map(str::to_owned);
            sum += cpu(&input, &coded)? - cpu(&input, &["-c:a", "copy"].map(str::to_owned))?;
        }
        Ok(sum)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder); // in memory: gone with the machine
    }
}

fn size(rendition: &VideoRendition) -> String {
    format!("{}x{}", rendition.width, rendition.height)
}

fn coded(rendition: &VideoRendition) -> Vec<String> {
    let (rate, codec) = (rendition.bitrate, rendition.codec);
    let options = match codec {
        VideoCodec::H264 => {
            "-c:v libx264 -preset veryfast -tune zerolatency -x264-params force-cfr=0:scenecut=0:sliced-threads=0:open-gop=0".to_owned()
        }
        VideoCodec::Hevc => {
            "-c:v libx265 -preset superfast -tune zerolatency -x265-params scenecut=0:open-gop=0:pools=none:frame-threads=1:log-level=error"
                .to_owned()
        }
        VideoCodec::Av1 => "-c:v libsvtav1 -preset 10 -svtav1-params pred-struct=1:rc=2:lp=1:scd=0:irefresh-type=2".to_owned(),
    };
    let bound = if codec == VideoCodec::Av1 { String::new() } else { format!("-maxrate {rate} -bufsize {rate}") };
    let all = format!("{options} -threads 1 -g {} -b:v {rate} -bf 0 {bound}", RATE * 2);
    all.split_whitespace().map(str::to_owned).collect()
}

fn cpu(input: &[String], output: &[String]) -> Result<f64> {
    let before = children_cpu_seconds(std::process::id())?;
    run(Command::new("ffmpeg").args(["-v", "error", "-nostdin"]).args(input).args(output).args(["-f", "null", "-"]).env("SVT_LOG", "1"))?;
    Ok(children_cpu_seconds(std::process::id())? - before)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().context("ffmpeg; scripts/install bench")?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
