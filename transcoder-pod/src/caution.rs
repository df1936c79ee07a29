//! What is done with less, for a source whose child dies again and again: each child is given less of what may have killed the one before it.
//!
//! Crashes are counted by the deliveries of the job's message, so that they are counted across pods; with the first delivery come two children, one after the other
//! in one slot. A node that was lost counts, too. A job that is handed over or moved has a new message, and a clean slate.

use crate::child::ChildJob;
use crate::engine::Backend;

/// The crash from which on less is done; what came before it may be a moment's bad luck.
const PATIENCE: u32 = 3;
/// What a card says where the lecture's pictures are not shown and the pool orders no other text.
const NO_PICTURE: &str = "Sound only";

/// How careful a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caution {
    /// All is as ordered.
    None,
    /// The CPU encodes, and nothing of the source is passed on.
    SoftwareOnly,
    /// Besides, of the pictures only the rendition of the lowest bit rate is made.
    LowestOnly,
    /// Besides, the source's pictures are not even decoded: there is the slate.
    SoundOnly,
}

impl Caution {
    /// After so many crashes; `None`: the source is the cause whatever is left out of it, and people decide.
    pub const fn after(crashes: u32) -> Option<Self> {
        match crashes.saturating_sub(PATIENCE - 1) {
            0 => Some(Self::None),
            1 => Some(Self::SoftwareOnly),
            2 => Some(Self::LowestOnly),
            3 => Some(Self::SoundOnly),
            _ => None,
        }
    }

    /// What it leaves out, for people; `None` where nothing is.
    pub const fn says(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::SoftwareOnly => Some("its process crashed several times: the CPU encodes all, and nothing is passed on"),
            Self::LowestOnly => Some("its process crashed several times: only the lowest picture is encoded"),
            Self::SoundOnly => Some("its process crashed several times: the source's sound is encoded, and its pictures are not"),
        }
    }

    /// Leaves that out of what a child is given.
    pub fn apply(self, given: &mut ChildJob) {
        given.caution = self.says().map(str::to_owned);
        if self >= Self::SoftwareOnly {
            given.encoder = Backend::Software;
            given.passthrough = false;
        }
        if self >= Self::LowestOnly {
            let lowest = given.job.ladder.video.iter().min_by_key(|rendition| rendition.bitrate).cloned();
            given.job.ladder.video = lowest.into_iter().collect();
        }
        if self >= Self::SoundOnly {
            given.deaf_to_pictures = true;
            given.job.slate.get_or_insert_with(|| NO_PICTURE.to_owned());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::job::LiveJob;
    use lectern_contract::keys::RunPrefix;
    use lectern_contract::{AudioRendition, Ladder, SegmentDuration, StreamRef, VideoCodec, VideoRendition, WallMillis};
    use std::net::Ipv4Addr;

    fn rendition(name: &str, bitrate: u64) -> VideoRendition {
        VideoRendition { name: name.into(), width: 640, height: 360, frame_rate: 30, codec: VideoCodec::H264, bitrate }
    }

    /// What a pod with a GPU gives a child, of a pool that orders no text for its slate. The lowest rendition is not the last.
    fn given() -> ChildJob {
        let stream = StreamRef { namespace: "school".into(), name: "algebra".into() };
        let video = vec![rendition("high", 3_000_000), rendition("low", 200_000), rendition("middle", 600_000)];
        let job = LiveJob {
            title: "Algebra".into(),
            run: "r1".into(),
            attempt: 1,
            anchor: WallMillis(0),
            feed: "shard-0:7000".into(),
            any_feed: None,
            ladder: Ladder { video, audio: vec![AudioRendition { name: "audio".into(), bitrate: 96_000 }] },
            segment_duration: SegmentDuration::LOW_LATENCY,
            parts: None,
            dvr_window_ms: None,
            slate: None,
            prefix: RunPrefix::of(&stream, &"r1".into()),
            replaces: None,
            passed_on: 0,
            idle_after_ms: 20_000,
            stream,
        };
        ChildJob {
            job,
            encoder: Backend::Nvenc,
            passthrough: true,
            slate_picture: None,
            backlog_mib: None,
            deaf_to_pictures: false,
            caution: None,
            owner: "pod-a/1".into(),
            pod_ip: Ipv4Addr::LOCALHOST.into(),
            bucket: "lectures".into(),
            bucket_region: "us-east-1".into(),
            bucket_endpoint: None,
            pool: "default".into(),
            peer_tls_dir: None,
        }
    }

    #[test]
    fn each_crash_after_the_second_leaves_more_out() {
        let steps: Vec<_> = (0..8).map(Caution::after).collect();
        let wanted = [Caution::None, Caution::None, Caution::None, Caution::SoftwareOnly, Caution::LowestOnly, Caution::SoundOnly];
        assert_eq!(steps[..6], wanted.map(Some));
        assert_eq!(steps[6..], [None, None]);
        assert!(wanted.is_sorted());
    }

    /// Besides what it names, a step leaves out what those before it did, and nothing else is another.
    #[test]
    fn the_gpu_is_left_out_first_then_renditions_and_at_last_the_source_s_pictures() {
        let after = |crashes| {
            let mut child = given();
            Caution::after(crashes).unwrap().apply(&mut child);
            child
        };
        let says = |caution: Caution| Some(caution.says().unwrap().to_owned());
        for crashes in 0..=2 {
            assert_eq!(after(crashes), given(), "{crashes} may be bad luck");
        }
        let software = ChildJob { encoder: Backend::Software, passthrough: false, caution: says(Caution::SoftwareOnly), ..given() };
        assert_eq!(after(3), software);
        let mut lowest = ChildJob { caution: says(Caution::LowestOnly), ..software };
        lowest.job.ladder.video = vec![rendition("low", 200_000)];
        assert_eq!(after(4), lowest);
        let mut sound = ChildJob { deaf_to_pictures: true, caution: says(Caution::SoundOnly), ..lowest };
        sound.job.slate = Some(NO_PICTURE.to_owned());
        assert_eq!(after(5), sound);
    }

    #[test]
    fn a_pool_s_own_text_stays_on_the_slate_where_there_is_only_sound() {
        let mut child = given();
        child.job.slate = Some("Back soon".to_owned());
        Caution::SoundOnly.apply(&mut child);
        assert_eq!(child.job.slate.as_deref(), Some("Back soon"));
    }
}
