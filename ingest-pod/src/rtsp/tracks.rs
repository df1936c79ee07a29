//! What a camera offers, and how its frames become access units of the run.

use super::clocks::Clocks;
use crate::stream::{Publication, PublishError};
use bytes::Bytes;
use lectern_contract::feed::{Codec, Track, pcm_config};
use lectern_media::reorder::{self, Reorder};
use prometheus_client::metrics::counter::Counter;
use retina::client::Stream;
use retina::codec::{AudioFrame, CodecItem, ParametersRef, VideoFrame};
use retina::rtcp::ReceivedCompoundPacket;
use std::time::Duration;
use tokio::time::Instant;

/// How long a picture lasts if the camera does not say it, in 90 kHz ticks.
const NOMINAL_FRAME: u32 = 3_000;
/// Lost packets are told of once in this time.
const TELL_LOSS_EVERY: Duration = Duration::from_secs(10);

/// The tracks of a camera that are pulled: the first picture and the first sound that can be taken.
#[derive(Debug)]
pub(super) struct Tracks {
    video: Option<Video>,
    audio: Option<Audio>,
    clocks: Clocks,
    began: Instant,
    loss: Loss,
}

#[derive(Debug)]
struct Video {
    stream: usize,
    codec: Codec,
    configured: bool,
    reorder: Option<Reorder>,
}

#[derive(Debug)]
struct Audio {
    stream: usize,
    codec: Codec,
    configured: bool,
}

impl Tracks {
    /// Chooses among what a camera offers.
    ///
    /// # Errors
    /// What it offers, for people, if nothing of it can be taken.
    pub(super) fn chosen(streams: &[Stream], lost: Counter) -> Result<Self, String> {
        let first = |track| streams.iter().position(|stream| codec(stream).is_some_and(|codec| codec.track() == track));
        let video = first(Track::Video).and_then(|stream| Some((stream, codec(&streams[stream])?)));
        let audio = first(Track::Audio).and_then(|stream| Some((stream, codec(&streams[stream])?)));
        if video.is_none() && audio.is_none() {
            return Err(offered(streams));
        }
        tracing::info!(offered = offered(streams), ?video, ?audio, "a camera answers");
        Ok(Self {
            video: video.map(|(stream, codec)| Video { stream, codec, configured: false, reorder: None }),
            audio: audio.map(|(stream, codec)| Audio { stream, codec, configured: false }),
            clocks: Clocks::default(),
            began: Instant::now(),
            loss: Loss { counter: lost, untold: 0, told: None },
        })
    }

    /// The numbers of the streams to set up.
    pub(super) fn streams(&self) -> impl Iterator<Item = usize> + use<> {
        let video = self.video.as_ref().map(|video| video.stream);
        video.into_iter().chain(self.audio.as_ref().map(|audio| audio.stream))
    }

    /// Whether pictures are pulled.
    pub(super) fn has_video(&self) -> bool {
        self.video.is_some()
    }

    /// Takes what came at `now`; says of which track it was, if it was media.
    pub(super) fn take(
        &mut self,
        publication: &mut Publication,
        streams: &[Stream],
        item: CodecItem,
        now: Instant,
    ) -> Result<Option<Track>, PublishError> {
        let arrival = ticks(i128::try_from((now - self.began).as_micros()).unwrap_or_default(), 1_000_000);
        match item {
            CodecItem::VideoFrame(frame) => {
                self.loss.saw(frame.loss(), now);
                self.picture(publication, streams, frame, arrival)?;
                Ok(Some(Track::Video))
            }
            CodecItem::AudioFrame(frame) => {
                self.loss.saw(frame.loss(), now);
                self.sound(publication, streams, frame, arrival)?;
                Ok(Some(Track::Audio))
            }
            CodecItem::Rtcp(report) => {
                self.report(&report);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn picture(&mut self, publication: &mut Publication, streams: &[Stream], frame: VideoFrame, arrival: i64) -> Result<(), PublishError> {
        let Some(video) = &mut self.video else { return Ok(()) };
        if !video.configured || frame.has_new_parameters() {
            // Until the camera has sent its parameters, pictures cannot be decoded.
            let Some(ParametersRef::Video(parameters)) = streams[frame.stream_id()].parameters() else { return Ok(()) };
            let config = parameters.extra_data();
            publication.configure(video.codec, Bytes::copy_from_slice(config))?;
            let depth = reorder::depth(video.codec, config);
            video.reorder.get_or_insert_with(|| Reorder::new(depth, duration(parameters.frame_rate()))).declare(depth);
            video.configured = true;
        }
        let Some(reorder) = &mut video.reorder else { return Ok(()) };
        let pts = self.clocks.at(Track::Video, elapsed(frame.timestamp()), arrival);
        let dts = reorder.dts(pts);
        // Each rounded by itself, so that no error adds up.
        let composition = i32::try_from(millis(pts) - millis(dts)).unwrap_or_default();
        let keyframe = frame.is_random_access_point();
        publication.picture(wrapped(millis(dts)), composition, keyframe, Bytes::from(frame.into_data()))
    }

    fn sound(&mut self, publication: &mut Publication, streams: &[Stream], frame: AudioFrame, arrival: i64) -> Result<(), PublishError> {
        let at = self.clocks.at(Track::Audio, elapsed(frame.timestamp()), arrival);
        let Some(audio) = &mut self.audio else { return Ok(()) };
        if self.video.as_ref().is_some_and(|video| !video.configured) {
            return Ok(()); // the run would take the stream for sound alone
        }
        if !audio.configured {
            let Some(ParametersRef::Audio(parameters)) = streams[frame.stream_id()].parameters() else { return Ok(()) };
            let config = match audio.codec {
                Codec::Aac => Bytes::copy_from_slice(parameters.extra_data()),
                _ => {
                    let channels = u8::try_from(parameters.channels().get()).unwrap_or(u8::MAX);
                    Bytes::copy_from_slice(&pcm_config(parameters.clock_rate(), channels))
                }
            };
            publication.configure(audio.codec, config)?;
            audio.configured = true;
        }
        publication.sound(wrapped(millis(at)), Bytes::copy_from_slice(frame.data()))
    }

    fn report(&mut self, report: &ReceivedCompoundPacket) {
        let is = |stream: Option<usize>| stream == Some(report.stream_id());
        let track = if is(self.video.as_ref().map(|video| video.stream)) { Track::Video } else { Track::Audio };
        let sender = report.pkts().next().and_then(|packet| packet.as_sender_report().ok().flatten());
        if let (Some(stamp), Some(sender)) = (report.rtp_timestamp(), sender) {
            self.clocks.reported(track, elapsed(stamp), sender.ntp_timestamp().0);
        }
    }
}

/// The packets that the camera sent and that never came, or came out of order.
#[derive(Debug)]
struct Loss {
    counter: Counter,
    untold: u64,
    told: Option<Instant>,
}

impl Loss {
    fn saw(&mut self, packets: u16, now: Instant) {
        if packets == 0 {
            return;
        }
        self.counter.inc_by(u64::from(packets));
        self.untold += u64::from(packets);
        if self.told.is_none_or(|told| now - told >= TELL_LOSS_EVERY) {
            tracing::warn!(packets = self.untold, "packets of a camera were lost; pictures are damaged until the next keyframe");
            (self.untold, self.told) = (0, Some(now));
        }
    }
}

/// The codec of a stream that can be taken (RTP encoding names: RFC 6184, 7798, 3640, 3551).
fn codec(stream: &Stream) -> Option<Codec> {
    let codec = match (stream.media(), stream.encoding_name()) {
        ("video", "h264") => Codec::H264,
        ("video", "h265") => Codec::Hevc,
        ("audio", "mpeg4-generic") => Codec::Aac,
        ("audio", "pcma") => Codec::PcmAlaw,
        ("audio", "pcmu") => Codec::PcmMulaw,
        _ => return None,
    };
    // Sound is described whole, or cannot be taken; pictures may bring their parameters along.
    (codec.track() == Track::Video || stream.parameters().is_some()).then_some(codec)
}

fn offered(streams: &[Stream]) -> String {
    let names: Vec<_> = streams.iter().map(|stream| format!("{} {}", stream.media(), stream.encoding_name())).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ").chars().take(200).collect() }
}

/// How long a picture lasts, by the camera's word (a fraction of a second), in 90 kHz ticks.
fn duration(frame: Option<(u32, u32)>) -> u32 {
    let said = frame.and_then(|(numerator, denominator)| (u64::from(numerator) * 90_000).checked_div(u64::from(denominator)));
    said.and_then(|ticks| u32::try_from(ticks).ok()).filter(|ticks| (750..=90_000).contains(ticks)).unwrap_or(NOMINAL_FRAME)
}

/// A stamp on its track's own clock, in 90 kHz ticks.
fn elapsed(stamp: retina::Timestamp) -> i64 {
    ticks(i128::from(stamp.elapsed()), stamp.clock_rate().get())
}

/// `count` units of which there are `rate` a second, in 90 kHz ticks. At most a quarter of what an `i64` holds, so that sums
/// of two fit.
fn ticks(count: i128, rate: u32) -> i64 {
    let ticks = (count * 90_000 + i128::from(rate / 2)).div_euclid(i128::from(rate));
    ticks.clamp(-(1 << 61), 1 << 61) as i64
}

/// Ticks in milliseconds, rounded.
fn millis(ticks: i64) -> i64 {
    (ticks + 45).div_euclid(90)
}

/// Milliseconds in the 32 bits of the timeline, which knows that they wrap.
fn wrapped(millis: i64) -> u32 {
    millis.rem_euclid(1 << 32) as u32 // below 2^32 by the remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_pictures_a_second_do_not_drift() {
        for picture in 0..100_000i64 {
            assert!((millis(picture * 3_000) * 90 - picture * 3_000).abs() <= 45);
        }
        assert_eq!(millis(30 * 3_003), 1_001);
    }

    #[test]
    fn sound_of_any_rate_is_put_on_the_clock_of_90_khz() {
        assert_eq!(ticks(8_000, 8_000), 90_000);
        assert_eq!(ticks(1_024, 44_100), 2_090);
        assert_eq!(ticks(-441, 44_100), -900);
        assert_eq!(ticks(i128::from(i64::MAX), 1), 1 << 61);
    }

    #[test]
    fn times_before_the_start_wrap() {
        assert_eq!(wrapped(millis(-90)), u32::MAX);
    }

    #[test]
    fn a_mad_frame_rate_is_not_believed() {
        for (said, lasts) in [(Some((1, 25)), 3_600), (Some((1, 0)), 3_000), (Some((0, 1)), 3_000), (Some((u32::MAX, 1)), 3_000)] {
            assert_eq!(duration(said), lasts);
        }
    }
}
