//! MPDs (MPEG-DASH, ISO/IEC 23009-1:2022), here the live one, in `vod` the recording's: values in, text out. It names the segments that HLS names.
//!
//! **Addressing.** A `SegmentTimeline` with `$Number$`, and not the arithmetic of `@duration`: by arithmetic a player would ask
//! for every number that the clock has reached, also for those that are late or that never came to be (the publisher was
//! away), and stall on the 404s. A timeline says what is there. Times and durations in it are those of slots: a number's slot is
//! all of the time that belongs to the number, and holds the segment also where that begins late (the publisher came in the
//! middle of it) or ends early, so two transcoders write the same. (Sound may reach over by a frame of AAC, 21 ms.)
//!
//! **Holes.** In such a timeline a number is a segment's place in the list plus `@startNumber`, so a list with a hole would name
//! the wrong segments after it: `S@n`, which could say the number, is read neither by shaka-player 5.2 nor by ffmpeg. A Period per
//! gapless stretch would need its start remembered for as long as the Period lasts, by a successor and in S3, too. So the MPD
//! lists the newest [`Stretch`] only, with its first number as `@startNumber`: always one Period from `PT0S`, whose times
//! are the run's. What lies before a hole goes from the MPD when the first segment after the hole comes; shaka-player keeps what it
//! knew of before and jumps over the hole.
//!
//! **Another init section** begins a stretch, too, in the same Period and Representation: shaka-player applies the new
//! `@initialization` when the MPD names it. It happens only where a successor's encoder has other parameters.
//!
//! **Low latency** ([`Mpd::part`]; DASH-IF IOP part 5, ISO/IEC 23009-1 §5.3.9.5.3). The segment that is being made is the last of the
//! timeline from its first part on ([`Stretch::with_open`]), and its body comes part by part: `@availabilityTimeOffset` says how
//! much earlier than its end it can be asked for, `@availabilityTimeComplete` that it is not whole then. The timeline stays because of
//! the holes, and because dash.js 5.2 and shaka-player 5.2 take it: both ask for a segment that is listed as soon as the offset
//! allows. What it costs against the arithmetic is an MPD to load in each segment, which the target latency has room for. A segment
//! that is not begun is not listed: it may never be.

mod stretch;
mod vod;
mod xml;

pub use stretch::Stretch;
pub use vod::{Recorded, vod_mpd};

use lectern_contract::ledger::EndedRendition;
use lectern_contract::{SegmentDuration, TICKS_PER_SECOND, Ticks, WallMillis};
use xml::Xml;

const NAMESPACE: &str = "urn:mpeg:dash:schema:mpd:2011";
const PROFILES: &str = "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019";
/// Segments between the clock and the picture. By the clock, the newest segment that an MPD names is up to three segments
/// old: one is being made, an encoder takes up to half of one, caches and `minimumUpdatePeriod` add one and a half. One more
/// is what a player has in hand.
const DELAY_SEGMENTS: u64 = 4;
/// A player that is late catches up, and one that is early waits, by this much: nobody hears it.
const CATCH_UP: f64 = 0.04;
/// Of low latency, between the clock and the picture. A part is made (a third of a second) and encoded (half of one), and the MPD
/// that lists a new segment may be as old as `minimumUpdatePeriod` and a cache's second together (two); the rest is in hand.
/// shaka-player 5.2, unless `manifest.dash.autoCorrectDrift` is off, takes the end of the listed segment that is being made for
/// what can be had already and so plays two to three seconds closer: it needs that rest.
const LOW_LATENCY_TARGET: Ticks = Ticks::from_millis(4_000);
/// `Representation@bandwidth` holds with a buffer of this size (§5.3.5.2): encoders even their rate out over one second, and
/// boxes and AAC swing by less than another. So it is the average, and not a peak as `BANDWIDTH` in HLS.
const MIN_BUFFER: Ticks = Ticks::from_millis(2_000);

/// `ProducerReferenceTime@id` that the latency is counted by.
const REFERENCE: u32 = 0;

/// What an MPD says of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mpd {
    /// The ladder's segment duration.
    pub segment_duration: SegmentDuration,
    /// Segments that a live playlist lists at most: how far one may seek back.
    pub window: usize,
    /// Wall-clock time of tick zero.
    pub anchor: WallMillis,
    /// When this text is made.
    pub published: WallMillis,
    /// The pictures carry captions, channel CC1 of CEA-608.
    pub captions: bool,
    /// Nothing will be added: the MPD is static, as `EXT-X-ENDLIST` closes a playlist.
    pub ended: bool,
    /// The longest that a part may be, in ticks, where segments can be had part by part as they are made; shorter than a segment.
    pub part: Option<Ticks>,
}

impl Mpd {
    /// How much earlier than its end a segment can be asked for.
    fn ahead(&self) -> Option<Ticks> {
        self.part.filter(|_| !self.ended).map(|part| Ticks(self.segment_duration.ticks().0.saturating_sub(part.0)))
    }
}

/// A rendition and its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Representation<'a> {
    /// The rendition.
    pub named: &'a EndedRendition,
    /// Its segments.
    pub stretch: Stretch,
}

/// The text of `mpd` for `representations`, to be served as `live.mpd` in the run's folder; `None` where there are none.
///
/// Pictures of one codec make an AdaptationSet, because players change between the Representations of a set without
/// asking, and sounds another; in the order that they have here.
pub fn mpd(mpd: &Mpd, representations: &[Representation<'_>]) -> Option<String> {
    let end = representations.iter().map(|representation| representation.stretch.end(mpd.segment_duration)).max()?;
    let segment = mpd.segment_duration.ticks();
    let live = |span: Ticks| (!mpd.ended).then_some(Duration(span));
    let mut xml = Xml::document();
    xml.element("MPD")
        .attr("xmlns", NAMESPACE)
        .attr("profiles", PROFILES)
        .attr("type", if mpd.ended { "static" } else { "dynamic" })
        .attr("availabilityStartTime", date(mpd.anchor))
        .attr("publishTime", date(mpd.published))
        .attr_if("mediaPresentationDuration", mpd.ended.then_some(Duration(end)))
        .attr_if("minimumUpdatePeriod", live(if mpd.ahead().is_some() { Ticks(segment.0 / 2) } else { segment }))
        .attr_if("timeShiftBufferDepth", live(times(segment, mpd.window as u64)))
        .attr_if("suggestedPresentationDelay", live(times(segment, DELAY_SEGMENTS)).filter(|_| mpd.ahead().is_none()))
        .attr("maxSegmentDuration", Duration(segment))
        .attr("minBufferTime", Duration(MIN_BUFFER))
        .with(|xml| {
            if !mpd.ended {
                service(xml, mpd);
            }
            xml.element("Period").attr("id", 0).attr("start", "PT0S").with(|xml| {
                let (zero, ahead) = (Ticks(0), mpd.ahead());
                let timing = Timing {
                    segment_duration: mpd.segment_duration,
                    zero,
                    ahead,
                    reference: ahead.map(|_| mpd.anchor),
                    captions: mpd.captions,
                };
                adaptation_sets(xml, &timing, representations);
            });
            if !mpd.ended {
                clock(xml);
            }
        });
    Some(xml.finish())
}

/// What the service aims at (§K.3): latency in milliseconds, and the rates by which a player may get there.
///
/// Either a target or `suggestedPresentationDelay`: shaka-player 5.2 counts the target from where that delay has put it, so with both
/// it would play too slowly until it were twice as late.
fn service(xml: &mut Xml, mpd: &Mpd) {
    let target = mpd.ahead().map(|_| LOW_LATENCY_TARGET);
    let most = target.map_or(times(mpd.segment_duration.ticks(), DELAY_SEGMENTS + 1), |target| times(target, 2));
    xml.element("ServiceDescription").attr("id", 0).with(|xml| {
        xml.element("Latency")
            .attr_if("referenceId", target.map(|_| REFERENCE))
            .attr_if("target", target.map(Ticks::as_millis))
            .attr("max", most.as_millis())
            .empty();
        xml.element("PlaybackRate").attr("min", 1.0 - CATCH_UP).attr("max", 1.0 + CATCH_UP).empty();
    });
}

/// The codec without its parameters: `avc1`.
fn family<'a>(it: &Representation<'a>) -> &'a str {
    it.named.codec.split('.').next().unwrap_or_default()
}

/// How the segments of a Period lie in time.
#[derive(Debug)]
struct Timing {
    segment_duration: SegmentDuration,
    /// The run's time at the Period's start.
    zero: Ticks,
    /// How much earlier than its end a segment can be asked for.
    ahead: Option<Ticks>,
    /// Wall-clock time of the run's zero, where latency is counted from it.
    reference: Option<WallMillis>,
    /// As [`Mpd::captions`].
    captions: bool,
}

/// An AdaptationSet for each codec of pictures, and one for sounds.
fn adaptation_sets(xml: &mut Xml, timing: &Timing, representations: &[Representation<'_>]) {
    let (video, audio): (Vec<_>, Vec<_>) = representations.iter().partition(|it| it.named.picture.is_some());
    let mut sets: Vec<(&str, Vec<&Representation<'_>>)> = Vec::new();
    for it in video {
        match sets.iter_mut().find(|(known, _)| *known == family(it)) {
            Some((_, set)) => set.push(it),
            None => sets.push((family(it), vec![it])),
        }
    }
    let mut id = 0;
    // The packager puts events where every player meets them.
    let events = if audio.is_empty() { "video" } else { "audio" };
    for (kind, set) in sets.iter().map(|(_, set)| ("video", set)).chain((!audio.is_empty()).then_some(("audio", &audio))) {
        id += 1;
        adaptation_set(xml, id, kind, kind == events, timing, set);
    }
}

fn adaptation_set(xml: &mut Xml, id: u32, kind: &str, events: bool, timing: &Timing, representations: &[&Representation<'_>]) {
    xml.element("AdaptationSet")
        .attr("id", id)
        .attr("contentType", kind)
        .attr("mimeType", format_args!("{kind}/mp4"))
        .attr("segmentAlignment", true)
        .attr("startWithSAP", 1)
        .with(|xml| {
            if events {
                xml.element("InbandEventStream").attr("schemeIdUri", crate::metadata::SCHEME).empty();
            }
            if let Some(anchor) = timing.reference {
                reference(xml, anchor);
            }
            if timing.captions && kind == "video" {
                // ANSI/SCTE 214-1 §7.2; nobody says in which language they are.
                xml.element("Accessibility").attr("schemeIdUri", "urn:scte:dash:cc:cea-608:2015").attr("value", "CC1=und").empty();
            }
            xml.element("Role").attr("schemeIdUri", "urn:mpeg:dash:role:2011").attr("value", "main").empty();
            representations.iter().for_each(|it| representation(xml, it, timing));
        });
}

/// What latency is counted from (§5.12): tick zero, at the wall clock's `anchor`. The shard stamps what comes in by this clock. Segments say
/// the same of themselves in a `prft`.
fn reference(xml: &mut Xml, anchor: WallMillis) {
    xml.element("ProducerReferenceTime")
        .attr("id", REFERENCE)
        .attr("inband", true)
        .attr("type", "captured")
        .attr("wallClockTime", date(anchor))
        .attr("presentationTime", 0)
        .with(clock);
}

/// The `Date` of this very object, which every server sends and the origin's CORS headers expose: right to a second or two behind a CDN
/// that keeps it for one. A path of its own for the time would not be there where a CDN sits before S3, and a time in the
/// text (`direct`) is as old as the text. Too early a time only adds delay.
fn clock(xml: &mut Xml) {
    xml.element("UTCTiming").attr("schemeIdUri", "urn:mpeg:dash:utc:http-head:2014").attr("value", "live.mpd").empty();
}

fn representation(xml: &mut Xml, it: &Representation<'_>, timing: &Timing) {
    let picture = it.named.picture;
    xml.element("Representation")
        .attr("id", &it.named.name)
        .attr("codecs", &it.named.codec)
        .attr("bandwidth", it.named.bitrate.saturating_add(crate::cmaf::BOXES))
        .attr_if("width", picture.map(|picture| picture.width))
        .attr_if("height", picture.map(|picture| picture.height))
        .attr_if("frameRate", picture.map(|picture| picture.frame_rate))
        .attr_if("sar", picture.map(|_| "1:1"))
        .attr_if("audioSamplingRate", picture.is_none().then_some(crate::cmaf::AUDIO_TIMESCALE))
        .with(|xml| {
            if picture.is_none() {
                xml.element("AudioChannelConfiguration")
                    .attr("schemeIdUri", "urn:mpeg:dash:23003:3:audio_channel_configuration:2011")
                    .attr("value", 2)
                    .empty();
            }
            segments(xml, &it.stretch, timing);
        });
}

/// A live MPD's `presentationTimeOffset` is zero: a segment's decode time, counted from tick zero, is its time in the Period.
fn segments(xml: &mut Xml, stretch: &Stretch, timing: &Timing) {
    xml.element("SegmentTemplate")
        .attr("timescale", TICKS_PER_SECOND)
        .attr("presentationTimeOffset", timing.zero.0)
        .attr_if("availabilityTimeOffset", timing.ahead.map(seconds))
        .attr_if("availabilityTimeComplete", timing.ahead.map(|_| false))
        .attr("startNumber", stretch.first())
        .attr("initialization", format_args!("$RepresentationID$/init-{}.mp4", stretch.init()))
        .attr("media", "$RepresentationID$/$Number$.m4s")
        .with(|xml| {
            xml.element("SegmentTimeline").with(|xml| {
                let repeats = stretch.last().0 - stretch.first().0; // the last is not before the first
                xml.element("S")
                    .attr("t", stretch.first().start(timing.segment_duration).0)
                    .attr("d", timing.segment_duration.ticks().0)
                    .attr_if("r", (repeats > 0).then_some(repeats))
                    .empty();
            });
        });
}

fn times(span: Ticks, n: u64) -> Ticks {
    Ticks(span.0.saturating_mul(n))
}

/// A span in seconds and whole milliseconds, rounded down: nothing may be asked for too early.
fn seconds(span: Ticks) -> String {
    format!("{:.3}", span.as_millis() as f64 / 1e3)
}

/// A span as xs:duration (W3C XML Schema 2 §3.3.6), in seconds and whole milliseconds, rounded up: a duration must not cut media.
struct Duration(Ticks);

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.0.div_ceil(TICKS_PER_SECOND / 1000);
        match millis % 1000 {
            0 => write!(f, "PT{}S", millis / 1000),
            rest => write!(f, "PT{}.{rest:03}S", millis / 1000),
        }
    }
}

/// A time as xs:dateTime. An MPD must have it, so a time after the year 9999 becomes the last one that can be written.
fn date(at: WallMillis) -> String {
    let at = i64::try_from(at.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    format!("{:.3}", at.unwrap_or(jiff::Timestamp::MAX))
}
