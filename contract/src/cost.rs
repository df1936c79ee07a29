//! What a job costs a transcoder, from its ladder alone: so that the operator can refuse what fits no pod, and a pod what does not fit now.
//!
//! The unit is a pixel per second **of H.264 by x264 `veryfast`**: a rendition costs width × height × frame rate × its codec's weight, in
//! hundredths. The weights are ratios of CPU time per pixel with the transcoder's own settings, at 720p, as `e2e/bench/run cost` measures them; it
//! also says what a core can do. Decoding the source and scaling it, which all renditions share, costs [`DECODE`] of
//! the dearest size; sound costs nothing that counts. On a GPU the unit is a pixel per second of its encoder.

use crate::{Ladder, VideoCodec, VideoRendition};
use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::Add;

/// Pixels per second of H.264 that cost as much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PixelRate(pub u64);

impl PixelRate {
    /// So many millions.
    pub const fn from_mega(mega: u64) -> Self {
        Self(mega.saturating_mul(1_000_000))
    }

    /// In millions, rounded up: as people write budgets.
    pub const fn mega(self) -> u64 {
        self.0.div_ceil(1_000_000)
    }
}

impl Add for PixelRate {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for PixelRate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        rates.fold(Self(0), Add::add)
    }
}

/// What encodes H.264 and HEVC in a pod. AV1 is encoded by the CPU in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The CPU.
    #[default]
    Software,
    /// An NVIDIA GPU.
    Nvenc,
}

/// Decoding and scaling a source as large as the largest rendition, in hundredths of encoding it in H.264.
pub const DECODE: u64 = 28;

/// The weight of a codec, in hundredths of H.264's. **Those of a GPU were not measured.**
const fn weight(codec: VideoCodec, class: Class) -> u64 {
    match (codec, class) {
        (VideoCodec::H264, _) | (VideoCodec::Hevc, Class::Nvenc) => 100,
        (VideoCodec::Hevc, Class::Software) => 550,
        (VideoCodec::Av1, _) => 650,
    }
}

/// What encoding `rendition` costs.
pub fn of_rendition(rendition: &VideoRendition, class: Class) -> PixelRate {
    hundredths(pixels(rendition), weight(rendition.codec, class))
}

/// What a job needs of a pod, or several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// Of its processors, or of its GPU's encoder.
    pub pixels: PixelRate,
    /// Encoding sessions on its GPU.
    pub gpu_sessions: u32,
    /// Memory of its GPU, in MiB.
    pub gpu_memory_mib: u64,
}

impl Needs {
    /// Of a job with `ladder` in a pod of `class`.
    pub fn of(ladder: &Ladder, class: Class) -> Self {
        let decode = ladder.video.iter().map(|rendition| hundredths(pixels(rendition), DECODE)).max().unwrap_or_default();
        let pixels = ladder.video.iter().map(|rendition| of_rendition(rendition, class)).sum::<PixelRate>() + decode;
        let on_gpu = ladder.video.iter().filter(|rendition| class == Class::Nvenc && rendition.codec != VideoCodec::Av1);
        Self {
            pixels,
            gpu_sessions: u32::try_from(on_gpu.clone().count()).unwrap_or(u32::MAX),
            gpu_memory_mib: on_gpu.map(session_mib).fold(0, u64::saturating_add),
        }
    }

    /// These and `others`.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self {
            pixels: self.pixels + others.pixels,
            gpu_sessions: self.gpu_sessions.saturating_add(others.gpu_sessions),
            gpu_memory_mib: self.gpu_memory_mib.saturating_add(others.gpu_memory_mib),
        }
    }
}

/// GPU memory of an encoding session, in MiB: about 100, and surfaces of 1.5 bytes a pixel for input, reference and reconstruction, twelve
/// without look-ahead and B-frames. An estimate from NVIDIA's documentation, **not measured on a GPU**.
fn session_mib(rendition: &VideoRendition) -> u64 {
    let picture = u64::from(rendition.width).saturating_mul(rendition.height.into());
    100_u64.saturating_add(picture.saturating_mul(18).div_ceil(1 << 20))
}

/// What a pod has for all its jobs together; `None`: as much as is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// See [`Needs::pixels`].
    pub pixels: Option<PixelRate>,
    /// See [`Needs::gpu_sessions`].
    pub gpu_sessions: Option<u32>,
    /// See [`Needs::gpu_memory_mib`].
    pub gpu_memory_mib: Option<u64>,
}

impl Budget {
    /// Why `needs` is more than the budget holds, for people; `None` where it fits.
    pub fn lacks(&self, needs: Needs) -> Option<String> {
        let over = |what: &str, needed: u64, has: Option<u64>| {
            has.filter(|has| needed > *has).map(|has| format!("{needed} {what} are needed, and the budget is {has}"))
        };
        over("megapixels a second", needs.pixels.mega(), self.pixels.map(PixelRate::mega))
            .or_else(|| over("GPU sessions", needs.gpu_sessions.into(), self.gpu_sessions.map(u64::from)))
            .or_else(|| over("MiB of GPU memory", needs.gpu_memory_mib, self.gpu_memory_mib))
    }
}

fn pixels(rendition: &VideoRendition) -> u64 {
    let picture = u64::from(rendition.width).saturating_mul(rendition.height.into());
    picture.saturating_mul(rendition.frame_rate.into())
}

fn hundredths(pixels: u64, weight: u64) -> PixelRate {
    PixelRate(pixels.saturating_mul(weight) / 100)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendition(width: u32, height: u32, frame_rate: u32, codec: VideoCodec) -> VideoRendition {
        VideoRendition { name: String::new(), width, height, frame_rate, codec, bitrate: 1 }
    }

    fn ladder(video: Vec<VideoRendition>) -> Ladder {
        Ladder { video, audio: Vec::new() }
    }

    #[test]
    fn a_ladder_costs_its_renditions_and_one_decoder() {
        let of = |video| Needs::of(&ladder(video), Class::Software).pixels;
        let hd = rendition(1280, 720, 30, VideoCodec::H264);
        assert_eq!(of(vec![hd.clone()]), PixelRate(27_648_000 + 7_741_440));
        let small = rendition(640, 360, 30, VideoCodec::H264);
        assert_eq!(of(vec![hd, small]), PixelRate(27_648_000 + 6_912_000 + 7_741_440));
        assert_eq!(of(vec![]), PixelRate(0), "sound alone fits everywhere");
    }

    #[test]
    fn a_gpu_counts_what_it_encodes() {
        let full = ladder(vec![rendition(3840, 2160, 30, VideoCodec::Hevc), rendition(1280, 720, 30, VideoCodec::Av1)]);
        let needs = Needs::of(&full, Class::Nvenc);
        assert_eq!((needs.gpu_sessions, needs.gpu_memory_mib), (1, 100 + 143));
        assert_eq!(Needs::of(&full, Class::Software).gpu_sessions, 0);
    }

    #[test]
    fn what_does_not_fit_is_told_in_numbers() {
        let needs = Needs { pixels: PixelRate(62_500_000), gpu_sessions: 3, gpu_memory_mib: 500 };
        assert_eq!(Budget::default().lacks(needs), None);
        let small = Budget { pixels: Some(PixelRate(50_000_000)), ..Budget::default() };
        assert_eq!(small.lacks(needs).unwrap(), "63 megapixels a second are needed, and the budget is 50");
        let few = Budget { gpu_sessions: Some(2), ..Budget::default() };
        assert_eq!(few.lacks(needs).unwrap(), "3 GPU sessions are needed, and the budget is 2");
        assert_eq!(Budget { gpu_memory_mib: Some(500), ..Budget::default() }.lacks(needs), None);
        assert!(few.lacks(Needs { gpu_sessions: 1, ..Needs::default() }.and(needs)).is_some());
    }

    proptest! {
        #[test]
        fn no_ladder_overflows_and_more_renditions_cost_more(sizes in proptest::collection::vec(any::<(u32, u32, u32)>(), 1..9)) {
            let video: Vec<_> = sizes.iter().map(|&(width, height, rate)| rendition(width, height, rate, VideoCodec::Hevc)).collect();
            let fewer = ladder(video[1..].to_vec());
            let needs = |ladder: &Ladder| Needs::of(ladder, Class::Software).pixels;
            prop_assert!(needs(&ladder(video)) >= needs(&fewer));
        }
    }
}
