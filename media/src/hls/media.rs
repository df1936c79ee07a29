//! Media playlists.

use super::Kind;
use super::parts::{self, LowLatency};
use lectern_contract::ledger::LedgerSegment;
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks, WallMillis};
use std::fmt::{self, Write};

/// A media playlist of one rendition.
///
/// **Live**: every number between the first and the last entry is listed, missing ones as [`Entry::Gap`], so the media
/// sequence number of an entry is its segment number always. The timeline is continuous (a segment's decode time is its
/// number times the duration), so no discontinuity is written.
///
/// **Vod**: list segments only. A jump in the numbers becomes `EXT-X-DISCONTINUITY`: hls.js maps the media after it
/// onto the playlist's own time, so the seek bar has no hole and nothing stalls. (With `EXT-X-GAP` it waits at the hole's
/// edge until its stall detector nudges it over; with neither, it trusts `EXTINF`, buffers behind the hole and stalls.)
/// Discontinuities must match between renditions, so list in each rendition only the numbers that **every** rendition
/// has: [`common_numbers`](super::common_numbers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlaylist<'a> {
    /// Live or VOD.
    pub kind: Kind,
    /// The ladder's segment duration.
    pub segment_duration: SegmentDuration,
    /// Wall-clock time of tick zero.
    pub anchor: WallMillis,
    /// Its segments are WebVTT, `{n}.vtt`, which needs no init section.
    pub text: bool,
    /// Whoever asks for what comes next is answered once it is there (`CAN-BLOCK-RELOAD`), although there are no parts.
    pub blocking: bool,
    /// In the order of their numbers.
    pub entries: Vec<Entry>,
    /// Nothing will be added: writes `EXT-X-ENDLIST`.
    pub ended: bool,
    /// The parts, where segments have some and the playlist is not ended.
    pub low_latency: Option<LowLatency<'a>>,
}

/// One number of a media playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// There is a segment.
    Segment(Segment),
    /// Of captions: nothing is said in it, and it has no file of its own but is `empty.vtt`.
    Empty(Segment),
    /// There is none and never will be.
    Gap(SegmentNumber),
}

/// A segment that a playlist names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub number: SegmentNumber,
    /// How much later than its number's time it begins, in ticks: a run's first by what it lacks, one of sound by up to a frame.
    pub offset: Ticks,
    /// Its real duration in ticks.
    pub duration: Ticks,
    /// Which `init-{n}.mp4` it needs.
    pub init: u32,
}

impl From<LedgerSegment> for Segment {
    fn from(LedgerSegment { number, offset, duration, init, .. }: LedgerSegment) -> Self {
        Self { number, offset, duration, init }
    }
}

impl Entry {
    /// Its number.
    pub const fn number(&self) -> SegmentNumber {
        match self {
            Self::Segment(segment) | Self::Empty(segment) => segment.number,
            Self::Gap(number) => *number,
        }
    }

    const fn offset(&self) -> Ticks {
        match self {
            Self::Segment(segment) | Self::Empty(segment) => segment.offset,
            Self::Gap(_) => Ticks(0),
        }
    }
}

/// The text of `playlist`, to be served as `{rendition}/live.m3u8` or `{rendition}/vod.m3u8`: its URIs are relative to
/// the rendition's folder.
pub fn media_playlist(playlist: &MediaPlaylist<'_>) -> String {
    let mut out = String::new();
    let (next, init) = whole_segments(&mut out, playlist);
    if let (Some(low_latency), Some(next)) = (playlist.low_latency.filter(|_| !playlist.ended), next) {
        parts::open(&mut out, &low_latency, next, init);
    }
    if playlist.ended {
        line(&mut out, format_args!("#EXT-X-ENDLIST"));
    }
    out
}

/// What [`media_playlist`] writes of a live playlist up to its last whole segment. It stays as it is until another segment is whole, or
/// the first part of one comes, while [`growing`], which follows it, is another with each part.
pub fn settled(playlist: &MediaPlaylist<'_>) -> String {
    let mut out = String::new();
    whole_segments(&mut out, playlist);
    out
}

/// What follows [`settled`], whose last segment is `last`.
pub fn growing(low_latency: &LowLatency<'_>, last: &Segment) -> String {
    let mut out = String::with_capacity(512);
    parts::open(&mut out, low_latency, last.number.next(), Some(last.init));
    out
}

/// The number that comes next, and the init section that the last segment needs.
fn whole_segments(out: &mut String, playlist: &MediaPlaylist<'_>) -> (Option<SegmentNumber>, Option<u32>) {
    let low_latency = playlist.low_latency.filter(|_| !playlist.ended);
    out.reserve(256 + playlist.entries.len() * 40 + low_latency.map_or(0, |_| 2560));
    header(out, playlist);
    if let Some(low_latency) = &low_latency {
        parts::header(out, low_latency, target_duration(playlist));
    } else if playlist.blocking && !playlist.ended {
        line(out, format_args!("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"));
    }
    let (mut init, mut expected, mut dated) = (None, None, false);
    for entry in &playlist.entries {
        let number = entry.number();
        let jump = expected.is_some_and(|expected| expected != number);
        if jump {
            line(out, format_args!("#EXT-X-DISCONTINUITY"));
        }
        if let Entry::Segment(segment) = entry
            && !playlist.text
            && init.replace(segment.init) != Some(segment.init)
        {
            line(out, format_args!("#EXT-X-MAP:URI=\"init-{}.mp4\"", segment.init));
        }
        if !dated || jump {
            date(out, playlist, entry);
            dated = true;
        }
        if let (Some(low_latency), Entry::Segment(_)) = (&low_latency, entry) {
            parts::of_segment(out, low_latency, number);
        }
        match entry {
            Entry::Segment(segment) | Entry::Empty(segment) => line(out, format_args!("#EXTINF:{},", Seconds(segment.duration))),
            Entry::Gap(_) => {
                line(out, format_args!("#EXT-X-GAP"));
                line(out, format_args!("#EXTINF:{},", Seconds(playlist.segment_duration.ticks())));
                dated = false; // players drift over a gap: say the time again after it
            }
        }
        match entry {
            Entry::Empty(_) => line(out, format_args!("empty.vtt")),
            _ if playlist.text => line(out, format_args!("{number}.vtt")),
            _ => line(out, format_args!("{number}.m4s")),
        }
        expected = Some(number.next());
    }
    (expected, init)
}

/// In whole seconds. RFC 8216 §4.3.3.1: EXTINF, rounded to the nearest integer, must not exceed it.
fn target_duration(playlist: &MediaPlaylist<'_>) -> u64 {
    let rounded = playlist.entries.iter().map(|entry| match entry {
        Entry::Segment(segment) | Entry::Empty(segment) => segment.duration.as_millis().saturating_add(500) / 1000,
        Entry::Gap(_) => 0,
    });
    rounded.fold(u64::from(playlist.segment_duration.millis().div_ceil(1000)), u64::max)
}

fn header(out: &mut String, playlist: &MediaPlaylist<'_>) {
    line(out, format_args!("#EXTM3U"));
    // 9, because a delta update of it may be asked for (draft-pantos-hls-rfc8216bis §7).
    line(out, format_args!("#EXT-X-VERSION:{}", if playlist.low_latency.is_some() { 9 } else { 8 }));
    line(out, format_args!("#EXT-X-TARGETDURATION:{}", target_duration(playlist)));
    if playlist.kind == Kind::Vod {
        line(out, format_args!("#EXT-X-PLAYLIST-TYPE:VOD"));
    } else {
        let first = playlist.entries.first().map_or(SegmentNumber(0), Entry::number);
        line(out, format_args!("#EXT-X-MEDIA-SEQUENCE:{first}"));
    }
    line(out, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
}

/// When the entry's first sample is to be shown (RFC 8216 §4.3.2.6). shaka-player puts each rendition where its own dates say, whatever its media says.
fn date(out: &mut String, playlist: &MediaPlaylist<'_>, entry: &Entry) {
    let at = entry.number().start(playlist.segment_duration).plus(entry.offset());
    let millis = playlist.anchor.0.saturating_add(at.as_millis());
    // Outside jiff's years (to 9999) there is no date to write, and the tag is optional.
    if let Some(at) = i64::try_from(millis).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()) {
        line(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{at:.3}"));
    }
}

/// In seconds, with five decimals: in whole numbers, because live playlists say it a hundred times a second.
pub(super) struct Seconds(pub Ticks);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 100,000 / 90,000, rounded to the nearest: ninths have no middle.
        let decimals = self.0.0.saturating_mul(10).saturating_add(4) / 9;
        write!(out, "{}.{:05}", decimals / 100_000, decimals % 100_000)
    }
}

pub(super) fn line(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn seconds_are_written_as_a_float_would_be(ticks in 0..90_000_000_000u64) {
            prop_assert_eq!(Seconds(Ticks(ticks)).to_string(), format!("{:.5}", Ticks(ticks).as_secs_f64()));
        }
    }
}
