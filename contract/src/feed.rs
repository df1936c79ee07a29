//! The feed: how a shard hands a run's access units to transcoders.
//!
//! A reader connects to a shard, any of the pool, sends one [`FeedRequest`], and gets [`FeedFrame`]s until it hangs up or
//! the run ends: first [`FeedFrame::Serving`] from the owner, or [`FeedFrame::Moved`] from any other, which passes the
//! owner's feed on instead to who says that it does not reach the owner. Stamps are on the
//! run's timeline (the owner is its one clock): 90 kHz, monotonic in DTS per track.

use crate::frame::{self, Fields, FrameError};
use crate::{Epoch, RunId, Ticks};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

const REQUEST: u8 = 1;
const CONFIG: u8 = 2;
const ACCESS_UNIT: u8 = 3;
const GAP: u8 = 4;
const END: u8 = 5;
const REFUSED: u8 = 6;
const SERVING: u8 = 7;
const MOVED: u8 = 8;
const METADATA: u8 = 9;
const ALIVE: u8 = 10;

/// How often an owner that has nothing else for a reader says [`FeedFrame::Alive`].
pub const ALIVE_EVERY: Duration = Duration::from_millis(250);

/// What a reader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRequest {
    /// The run.
    pub run: RunId,
    /// The newest epoch of an owner that the reader has heard of, zero for none: an owner of an older one has lost the run
    /// without knowing, and must not serve it.
    pub epoch: Epoch,
    /// Start at the last keyframe at or before this time, or at the oldest one still kept, and then after a gap; zero: at the
    /// oldest one, whatever came before it; `None`: at the newest one.
    pub from: Option<Ticks>,
    /// The reader understands [`FeedFrame::Alive`].
    pub alive: bool,
    /// How far the run has come by the reader's own clock, which no step of a machine's time moves, since it had the run's newest media from another owner;
    /// `None` where it had none.
    pub now: Option<Ticks>,
    /// The reader does not reach the owner: a shard that is not it passes the owner's feed on, if it reaches it.
    pub through: bool,
}

/// Which of a run's two elementary streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Track {
    /// The picture.
    Video,
    /// The sound.
    Audio,
}

/// How a track is coded. Each says what its config holds and how its payloads are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264; config is an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1), payloads are NAL units with
    /// 4-byte lengths.
    H264,
    /// H.265; config is an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1), payloads are NAL units with
    /// 4-byte lengths.
    Hevc,
    /// AV1; config is an AV1CodecConfigurationRecord (AV1-ISOBMFF §2.3.3), payloads are temporal units in the low-overhead
    /// format without temporal delimiters.
    Av1,
    /// VP9; config is a VPCodecConfigurationRecord without its box header (VP-ISOBMFF §2.2), payloads are frames.
    Vp9,
    /// AAC; config is an AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1), payloads are raw access units.
    Aac,
    /// MPEG-1 or -2 audio layer III; config is [`pcm_config`]'s layout, payloads are frames with their headers.
    Mp3,
    /// Opus; config is an identification header (`OpusHead`, RFC 7845 §5.1), payloads are packets.
    Opus,
    /// AC-3; config is [`pcm_config`]'s layout, payloads are syncframes (ETSI TS 102 366).
    Ac3,
    /// FLAC; config is a STREAMINFO block without its header (RFC 9639 §8.2), payloads are frames.
    Flac,
    /// G.711 A-law; config is [`pcm_config`]'s layout, payloads are samples of a byte.
    PcmAlaw,
    /// G.711 µ-law; config is [`pcm_config`]'s layout, payloads are samples of a byte.
    PcmMulaw,
}

impl Codec {
    /// Every codec, in the order of their codes on the wire.
    pub const ALL: [Self; 11] = [
        Self::H264,
        Self::Aac,
        Self::Hevc,
        Self::Av1,
        Self::Vp9,
        Self::Mp3,
        Self::Opus,
        Self::Ac3,
        Self::Flac,
        Self::PcmAlaw,
        Self::PcmMulaw,
    ];

    /// Whether it codes pictures or sound.
    pub const fn track(self) -> Track {
        match self {
            Self::H264 | Self::Hevc | Self::Av1 | Self::Vp9 => Track::Video,
            Self::Aac | Self::Mp3 | Self::Opus | Self::Ac3 | Self::Flac | Self::PcmAlaw | Self::PcmMulaw => Track::Audio,
        }
    }
}

/// The config of codecs that have none of their own: sample rate in Hz (`u32`, big endian) and channels (`u8`).
pub fn pcm_config(sample_rate: u32, channels: u8) -> [u8; 5] {
    let [a, b, c, d] = sample_rate.to_be_bytes();
    [a, b, c, d, channels]
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedFrame {
    /// First, from the owner.
    Serving {
        /// Under which epoch it owns the run. A reader that has heard of a newer one hangs up.
        epoch: Epoch,
    },
    /// The owner is there. Right after [`FeedFrame::Serving`], and where nothing else is sent for [`ALIVE_EVERY`], to readers that understand it:
    /// a publisher that says nothing is another thing than a network that is cut.
    Alive,
    /// Another shard owns the run. Nothing follows.
    Moved {
        /// Where its feed is served: `host:port`.
        feed: String,
    },
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
    /// Something that the publisher says beside them.
    Metadata(TimedMetadata),
    /// Nothing came from `from` on: the publisher left; or what lies in between is lost to this reader, which was too slow or
    /// asks for what this owner never had.
    ///
    /// What follows lies at `from` or later, but for sound that begins before its picture: that lies behind the sound before the gap.
    Gap {
        /// Where the last access unit ended, or what the reader asked for.
        from: Ticks,
        /// Why, for people.
        reason: String,
    },
    /// The run has ended; nothing follows.
    End,
    /// The shard does not serve this run (unknown, or a newer owner is known to the reader): ask again later, or elsewhere. Nothing follows.
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

/// What a publisher says at a moment of the lecture, for scripts in players: the next slide, a question to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedMetadata {
    /// When, on the run's timeline. No two of a run's have the same time: players tell them apart by it.
    pub at: Ticks,
    /// What kind it is: the name of the publisher's data message, `onTextData`.
    pub name: String,
    /// What it says, in JSON.
    pub value: String,
}

impl FeedRequest {
    /// Of who wants `run` from its newest keyframe on, has heard of no owner, and understands no more than it must.
    pub fn newest(run: RunId) -> Self {
        Self { run, epoch: Epoch(0), from: None, alive: false, now: None, through: false }
    }

    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let time = |ticks: Option<Ticks>| ticks.map_or(u64::MAX, |ticks| ticks.0).to_be_bytes();
        let (run, alive, through) = (frame::text_field(&self.run.0), [u8::from(self.alive)], [u8::from(self.through)]);
        frame::put(out, REQUEST, &[&time(self.from), &self.epoch.0.to_be_bytes(), &run, &alive, &time(self.now), &through]);
    }

    /// Takes one request off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        if kind != REQUEST {
            return Err(FrameError::Kind(kind));
        }
        let mut fields = Fields::new(kind, body);
        let time = |ticks: u64| Some(ticks).filter(|ticks| *ticks != u64::MAX).map(Ticks);
        let from = time(fields.u64("from")?);
        let epoch = Epoch(fields.u64("epoch")?);
        let run = RunId(fields.text("run")?);
        // Readers of before end with their run, or with what they understand.
        let rest = fields.rest();
        let now = rest.get(1..9).and_then(|bytes| time(u64::from_be_bytes(bytes.try_into().ok()?)));
        Ok(Some(Self { run, epoch, from, alive: rest.first() == Some(&1), now, through: rest.get(9) == Some(&1) }))
    }
}

impl FeedFrame {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Serving { epoch } => frame::put(out, SERVING, &[&epoch.0.to_be_bytes()]),
            Self::Moved { feed } => frame::put(out, MOVED, &[&frame::text_field(feed)]),
            Self::Config { track, codec, config } => frame::put(out, CONFIG, &[&[track_code(*track), codec_code(*codec)], config]),
            Self::AccessUnit(unit) => {
                out.extend_from_slice(&unit.head());
                out.extend_from_slice(&unit.payload);
            }
            Self::Metadata(TimedMetadata { at, name, value }) => {
                frame::put(out, METADATA, &[&at.0.to_be_bytes(), &frame::text_field(name), &frame::text_field(value)]);
            }
            Self::Gap { from, reason } => frame::put(out, GAP, &[&from.0.to_be_bytes(), &frame::text_field(reason)]),
            Self::Alive => frame::put(out, ALIVE, &[]),
            Self::End => frame::put(out, END, &[]),
            Self::Refused { reason } => frame::put(out, REFUSED, &[&frame::text_field(reason)]),
        }
    }

    /// Takes one frame off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        let mut fields = Fields::new(kind, body);
        Ok(Some(match kind {
            SERVING => Self::Serving { epoch: Epoch(fields.u64("epoch")?) },
            MOVED => Self::Moved { feed: fields.text("feed")? },
            CONFIG => {
                let track = track_of(&mut fields)?;
                let code = usize::from(fields.u8("codec")?);
                let codec = Codec::ALL.get(code).copied().filter(|codec| codec.track() == track).ok_or_else(|| fields.bad("codec"))?;
                Self::Config { track, codec, config: fields.rest() }
            }
            ACCESS_UNIT => {
                let track = track_of(&mut fields)?;
                let keyframe = fields.u8("keyframe")? != 0;
                let dts = Ticks(fields.u64("dts")?);
                let pts = Ticks(fields.u64("pts")?);
                Self::AccessUnit(AccessUnit { track, dts, pts, keyframe, payload: fields.rest() })
            }
            METADATA => {
                Self::Metadata(TimedMetadata { at: Ticks(fields.u64("at")?), name: fields.text("name")?, value: fields.text("value")? })
            }
            GAP => Self::Gap { from: Ticks(fields.u64("from")?), reason: fields.text("reason")? },
            ALIVE => Self::Alive,
            END => Self::End,
            REFUSED => Self::Refused { reason: fields.text("reason")? },
            other => return Err(FrameError::Kind(other)),
        }))
    }
}

impl AccessUnit {
    /// The bytes of its frame before its payload: with the payload behind them, what [`FeedFrame::encode`] writes.
    pub fn head(&self) -> [u8; Head::BYTES] {
        let length = (Head::BYTES - 4 + self.payload.len()) as u32; // one access unit: far below 4 GiB
        let mut head = [0; Head::BYTES];
        head[..4].copy_from_slice(&length.to_be_bytes());
        head[4..7].copy_from_slice(&[ACCESS_UNIT, track_code(self.track), u8::from(self.keyframe)]);
        head[7..15].copy_from_slice(&self.dts.0.to_be_bytes());
        head[15..].copy_from_slice(&self.pts.0.to_be_bytes());
        head
    }
}

/// What a frame's first bytes say: enough to step over it, for who keeps frames as they are written. Only of frames that
/// this process has encoded: nothing is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The whole frame's bytes, its length field included.
    pub length: usize,
    /// What it is.
    pub kind: HeadKind,
}

/// What a frame is, as far as its first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// [`FeedFrame::AccessUnit`].
    AccessUnit {
        /// Which track.
        track: Track,
        /// Decode time on the run's timeline.
        dts: Ticks,
    },
    /// [`FeedFrame::Config`].
    Config,
    /// Any other.
    Other,
}

impl Head {
    /// So many bytes are wanted; zeros follow a frame that is shorter.
    pub const BYTES: usize = 23;

    /// Reads it.
    pub fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, kind, track, _keyframe, dts @ .., _, _, _, _, _, _, _, _] = bytes;
        let kind = match *kind {
            ACCESS_UNIT => HeadKind::AccessUnit {
                track: if *track == track_code(Track::Video) { Track::Video } else { Track::Audio },
                dts: Ticks(u64::from_be_bytes(*dts)),
            },
            CONFIG => HeadKind::Config,
            _ => HeadKind::Other,
        };
        Self { length: 4 + u32::from_be_bytes([*a, *b, *c, *d]) as usize, kind }
    }
}

fn track_code(track: Track) -> u8 {
    match track {
        Track::Video => 0,
        Track::Audio => 1,
    }
}

/// Its place in [`Codec::ALL`], where every codec is.
fn codec_code(codec: Codec) -> u8 {
    Codec::ALL.iter().position(|known| *known == codec).unwrap_or_default() as u8
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

    #[test]
    fn a_head_says_how_long_a_frame_is_and_where_it_lies() {
        for frame in frames() {
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            let mut head = [0; Head::BYTES];
            let there = bytes.len().min(Head::BYTES);
            head[..there].copy_from_slice(&bytes[..there]);
            let kind = match &frame {
                FeedFrame::AccessUnit(unit) => HeadKind::AccessUnit { track: unit.track, dts: unit.dts },
                FeedFrame::Config { .. } => HeadKind::Config,
                _ => HeadKind::Other,
            };
            assert_eq!(Head::read(&head), Head { length: bytes.len(), kind }, "{frame:?}");
        }
    }

    fn frames() -> Vec<FeedFrame> {
        let configs = Codec::ALL.map(|codec| FeedFrame::Config { track: codec.track(), codec, config: Bytes::from_static(b"config") });
        let rest = [
            FeedFrame::Serving { epoch: Epoch(3) },
            FeedFrame::Moved { feed: "shard-1:7000".into() },
            FeedFrame::Config { track: Track::Video, codec: Codec::H264, config: Bytes::from_static(b"avcC") },
            FeedFrame::AccessUnit(AccessUnit {
                track: Track::Audio,
                dts: Ticks(7),
                pts: Ticks(9),
                keyframe: true,
                payload: Bytes::from_static(b"sound"),
            }),
            FeedFrame::Metadata(TimedMetadata { at: Ticks(8), name: "onTextData".into(), value: r#"{"text":"2 ½"}"#.into() }),
            FeedFrame::Gap { from: Ticks(90_000), reason: "the publisher left".into() },
            FeedFrame::Refused { reason: "not mine".into() },
            FeedFrame::End,
        ];
        configs.into_iter().chain(rest).collect()
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
            let request = FeedRequest { run: "r".into(), epoch: Epoch(2), from, alive: true, now: from, through: from.is_some() };
            let mut bytes = BytesMut::new();
            request.encode(&mut bytes);
            assert_eq!(FeedRequest::decode(&mut bytes), Ok(Some(request)));
        }
    }

    #[test]
    fn readers_of_before_are_understood() {
        let (from, epoch) = (7_u64.to_be_bytes(), 2_u64.to_be_bytes());
        for (rest, alive) in [(&[][..], false), (&[1][..], true)] {
            let mut bytes = BytesMut::new();
            frame::put(&mut bytes, REQUEST, &[&from, &epoch, &frame::text_field("r"), rest]);
            let request = FeedRequest { run: "r".into(), epoch: Epoch(2), from: Some(Ticks(7)), alive, now: None, through: false };
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
