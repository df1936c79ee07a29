//! The feed: how a shard hands a run's access units to transcoders.
//!
//! A reader connects to the shard, sends one [`FeedRequest`], and gets [`FeedFrame`]s until it hangs up or the run ends.
//! Stamps are on the run's timeline (the shard is its one clock): 90 kHz, monotonic in DTS per track.

use crate::frame::{self, Fields, FrameError};
use crate::{RunId, Ticks};
use bytes::{Bytes, BytesMut};

const REQUEST: u8 = 1;
const CONFIG: u8 = 2;
const ACCESS_UNIT: u8 = 3;
const GAP: u8 = 4;
const END: u8 = 5;
const REFUSED: u8 = 6;

/// What a reader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRequest {
    /// The run.
    pub run: RunId,
    /// Start at the last keyframe at or before this time, or at the oldest one still kept; `None`: at the newest
    /// keyframe.
    pub from: Option<Ticks>,
}

/// Which of a run's two elementary streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Track {
    /// The picture.
    Video,
    /// The sound.
    Audio,
}

/// How a track is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264; config is an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1), payloads are NAL units with
    /// 4-byte lengths.
    H264,
    /// AAC; config is an AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1), payloads are raw access units.
    Aac,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedFrame {
    /// A track's parameters: before its first access unit and whenever they change.
    Config {
        /// Which track.
        track: Track,
        /// How it is coded.
        codec: Codec,
        /// The codec's out-of-band parameters.
        config: Bytes,
    },
    /// One picture or one AAC frame.
    AccessUnit(AccessUnit),
    /// Nothing came from `from` on: the publisher left, or this reader was too slow and lost what lies in between.
    Gap {
        /// Where the last access unit ended.
        from: Ticks,
        /// Why, for people.
        reason: String,
    },
    /// The run has ended; nothing follows.
    End,
    /// The shard does not serve this run (moved, or unknown): ask again later, or elsewhere. Nothing follows.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// One coded picture or sound frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// Which track.
    pub track: Track,
    /// Decode time on the run's timeline.
    pub dts: Ticks,
    /// Presentation time on the run's timeline.
    pub pts: Ticks,
    /// Decoding can start here. True for every audio frame.
    pub keyframe: bool,
    /// The coded bytes, framed as [`Codec`] says.
    pub payload: Bytes,
}

impl FeedRequest {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let from = self.from.map_or(u64::MAX, |ticks| ticks.0);
        frame::put(out, REQUEST, &[&from.to_be_bytes(), &frame::text_field(&self.run.0)]);
    }

    /// Takes one request off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        if kind != REQUEST {
            return Err(FrameError::Kind(kind));
        }
        let mut fields = Fields::new(kind, body);
        let from = Some(fields.u64("from")?).filter(|ticks| *ticks != u64::MAX).map(Ticks);
        Ok(Some(Self { run: RunId(fields.text("run")?), from }))
    }
}

impl FeedFrame {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Config { track, codec, config } => frame::put(out, CONFIG, &[&[track_code(*track), codec_code(*codec)], config]),
            Self::AccessUnit(unit) => frame::put(
                out,
                ACCESS_UNIT,
                &[&[track_code(unit.track), u8::from(unit.keyframe)], &unit.dts.0.to_be_bytes(), &unit.pts.0.to_be_bytes(), &unit.payload],
            ),
            Self::Gap { from, reason } => frame::put(out, GAP, &[&from.0.to_be_bytes(), &frame::text_field(reason)]),
            Self::End => frame::put(out, END, &[]),
            Self::Refused { reason } => frame::put(out, REFUSED, &[&frame::text_field(reason)]),
        }
    }

    /// Takes one frame off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        let mut fields = Fields::new(kind, body);
        Ok(Some(match kind {
            CONFIG => {
                let track = track_of(&mut fields)?;
                let codec = match fields.u8("codec")? {
                    0 => Codec::H264,
                    1 => Codec::Aac,
                    _ => return Err(fields.bad("codec")),
                };
                Self::Config { track, codec, config: fields.rest() }
            }
            ACCESS_UNIT => {
                let track = track_of(&mut fields)?;
                let keyframe = fields.u8("keyframe")? != 0;
                let dts = Ticks(fields.u64("dts")?);
                let pts = Ticks(fields.u64("pts")?);
                Self::AccessUnit(AccessUnit { track, dts, pts, keyframe, payload: fields.rest() })
            }
            GAP => Self::Gap { from: Ticks(fields.u64("from")?), reason: fields.text("reason")? },
            END => Self::End,
            REFUSED => Self::Refused { reason: fields.text("reason")? },
            other => return Err(FrameError::Kind(other)),
        }))
    }
}

fn track_code(track: Track) -> u8 {
    match track {
        Track::Video => 0,
        Track::Audio => 1,
    }
}

fn codec_code(codec: Codec) -> u8 {
    match codec {
        Codec::H264 => 0,
        Codec::Aac => 1,
    }
}

fn track_of(fields: &mut Fields) -> Result<Track, FrameError> {
    match fields.u8("track")? {
        0 => Ok(Track::Video),
        1 => Ok(Track::Audio),
        _ => Err(fields.bad("track")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> Vec<FeedFrame> {
        vec![
            FeedFrame::Config { track: Track::Video, codec: Codec::H264, config: Bytes::from_static(b"avcC") },
            FeedFrame::AccessUnit(AccessUnit {
                track: Track::Audio,
                dts: Ticks(7),
                pts: Ticks(9),
                keyframe: true,
                payload: Bytes::from_static(b"sound"),
            }),
            FeedFrame::Gap { from: Ticks(90_000), reason: "the publisher left".into() },
            FeedFrame::Refused { reason: "not mine".into() },
            FeedFrame::End,
        ]
    }

    #[test]
    fn frames_come_back_whole_from_any_split() {
        let mut bytes = BytesMut::new();
        frames().iter().for_each(|frame| frame.encode(&mut bytes));
        for step in 1..bytes.len() {
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(frame) = FeedFrame::decode(&mut input).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames(), "in pieces of {step}");
        }
    }

    #[test]
    fn a_request_keeps_its_start() {
        for from in [None, Some(Ticks(0)), Some(Ticks(123))] {
            let request = FeedRequest { run: "r".into(), from };
            let mut bytes = BytesMut::new();
            request.encode(&mut bytes);
            assert_eq!(FeedRequest::decode(&mut bytes), Ok(Some(request)));
        }
    }

    #[test]
    fn a_huge_claim_is_refused_before_its_bytes_come() {
        let mut input = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 3][..]);
        assert_eq!(FeedFrame::decode(&mut input), Err(FrameError::Length(0xffff_ffff)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = FeedFrame::decode(&mut input) {}
        }
    }
}
