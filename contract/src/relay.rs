//! The relay: how a shard that accepted a publisher hands it on to the shard that owns the stream.
//!
//! The accepting shard connects to the owner's relay port, sends [`RelayFrame::Hello`], waits for the verdict, and then
//! sends every FLV tag as it came. The owner treats it as a publisher of its own: only the owner rebases stamps.
//!
//! A stream that moves takes its newest media and its timeline along, so that nothing is missing and nothing is renumbered: the
//! owner that loses it sends [`RelayFrame::Past`] and [`RelayFrame::Heritage`] back before [`RelayFrame::NotMine`], and the
//! accepting shard hands them on to the next owner, with the tags that the one before had not taken. Shards that do not know these
//! frames say so by leaving out `heirs`, and are not sent any.

use crate::frame::{self, Fields, FrameError};
use crate::timeline::TimelineState;
use crate::{Epoch, KeyHash, StreamRef};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

const HELLO: u8 = 1;
const ACCEPTED: u8 = 2;
const REFUSED: u8 = 3;
const TAG: u8 = 4;
const NOT_MINE: u8 = 5;
const TAKEN: u8 = 6;
const PAST: u8 = 7;
const HERITAGE: u8 = 8;

/// How long ago a publisher that comes to an owner asked to publish. It may have been accepted then, and have lost its way to the owner since; or it has waited
/// for one. Of two with the same key the one that asked later is the newer one, whichever comes first. In whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Until now.
    pub ago: Duration,
}

impl Asked {
    /// A moment ago.
    pub const NOW: Self = Self { ago: Duration::ZERO };
    /// Shards of before say no more than that others may have come meanwhile.
    const BEFORE: Self = Self { ago: Duration::from_secs(3600) };
    /// To them one that asked so long ago was there before.
    const A_WHILE: Duration = Duration::from_secs(1);
}

/// A frame of the relay, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayFrame {
    /// First, from the accepting shard.
    Hello {
        /// The hash of the key that the publisher gave.
        key: KeyHash,
        /// The stream that the accepting shard's route names, to catch two shards with different routes.
        stream: StreamRef,
        /// The epoch of that route: the owner accepts under the same one only, so that two shards never serve a run.
        epoch: Epoch,
        /// The publisher's address, for reports; one connection of it has one.
        remote: String,
        /// When it asked to publish.
        asked: Asked,
        /// The accepting shard understands what an owner hands over.
        heirs: bool,
    },
    /// From the owner: the publisher may publish.
    Accepted {
        /// The owner goes on with what one before it hands over.
        heirs: bool,
    },
    /// From the owner: it may not, or no more; the reason is passed on to the publisher. Nothing follows.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// From the shard that was taken for the owner: it is not, or no more. The publisher may stay; the accepting shard looks
    /// for the owner anew. Nothing follows.
    NotMine {
        /// Why, for people.
        reason: String,
    },
    /// From the accepting shard: one FLV tag body as it came.
    Tag {
        /// Message type: 8 audio, 9 video, 18 data (Adobe RTMP specification §7.1).
        kind: u8,
        /// The publisher's own stamp in milliseconds.
        timestamp: u32,
        /// The message's payload.
        payload: Bytes,
    },
    /// From the owner, now and then: so many tags of this connection were taken. The others may be needed again.
    Taken {
        /// Since [`RelayFrame::Accepted`].
        tags: u64,
    },
    /// From an owner that loses the stream, or to the next one: a piece of the run's newest media.
    Past {
        /// Frames of the feed, from a keyframe on; the pieces one behind the other are whole ones.
        frames: Bytes,
    },
    /// After the last [`RelayFrame::Past`]: how the publisher's stamps go on. The next owner goes on from here with the first tag after it.
    Heritage(TimelineState),
}

impl RelayFrame {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello { key, stream, epoch, remote, asked, heirs } => {
                let [key, namespace, name, remote] = [&key.0, &stream.namespace, &stream.name, remote].map(|text| frame::text_field(text));
                let was_there = [u8::from(asked.ago >= Asked::A_WHILE)];
                let ago = u32::try_from(asked.ago.as_millis()).unwrap_or(u32::MAX).to_be_bytes();
                frame::put(out, HELLO, &[&epoch.0.to_be_bytes(), &was_there, &key, &namespace, &name, &remote, &[u8::from(*heirs)], &ago]);
            }
            Self::Accepted { heirs } => frame::put(out, ACCEPTED, &[&[u8::from(*heirs)]]),
            Self::Refused { reason } => frame::put(out, REFUSED, &[&frame::text_field(reason)]),
            Self::NotMine { reason } => frame::put(out, NOT_MINE, &[&frame::text_field(reason)]),
            Self::Tag { kind, timestamp, payload } => frame::put(out, TAG, &[&[*kind], &timestamp.to_be_bytes(), payload]),
            Self::Taken { tags } => frame::put(out, TAKEN, &[&tags.to_be_bytes()]),
            Self::Past { frames } => frame::put(out, PAST, &[frames]),
            Self::Heritage(timeline) => frame::put(out, HERITAGE, &[&timeline.encode()]),
        }
    }

    /// Takes one frame off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        let mut fields = Fields::new(kind, body);
        Ok(Some(match kind {
            HELLO => {
                let epoch = Epoch(fields.u64("epoch")?);
                let was_there = fields.u8("coming")? != 0;
                let key = KeyHash(fields.text("key")?);
                let stream = StreamRef { namespace: fields.text("namespace")?, name: fields.text("name")? };
                let remote = fields.text("remote")?;
                let rest = fields.rest();
                let ago = rest.get(1..5).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
                let asked = match ago {
                    Some(ago) => Asked { ago: Duration::from_millis(ago.into()) },
                    None if was_there => Asked::BEFORE,
                    None => Asked::NOW,
                };
                Self::Hello { key, stream, epoch, remote, asked, heirs: rest.first() == Some(&1) }
            }
            ACCEPTED => Self::Accepted { heirs: fields.rest().first() == Some(&1) },
            REFUSED => Self::Refused { reason: fields.text("reason")? },
            NOT_MINE => Self::NotMine { reason: fields.text("reason")? },
            TAG => {
                let kind = fields.u8("type")?;
                let timestamp = fields.u32("timestamp")?;
                Self::Tag { kind, timestamp, payload: fields.rest() }
            }
            TAKEN => Self::Taken { tags: fields.u64("tags")? },
            PAST => Self::Past { frames: fields.rest() },
            HERITAGE => Self::Heritage(TimelineState::decode(&mut fields)?),
            other => return Err(FrameError::Kind(other)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_back() {
        let frames = [
            RelayFrame::Hello {
                key: KeyHash::of("k"),
                stream: StreamRef { namespace: "a".into(), name: "b".into() },
                epoch: Epoch(4),
                remote: "10.0.0.1:5".into(),
                asked: Asked { ago: Duration::from_millis(1234) },
                heirs: true,
            },
            RelayFrame::Accepted { heirs: true },
            RelayFrame::Accepted { heirs: false },
            RelayFrame::Refused { reason: "no".into() },
            RelayFrame::NotMine { reason: "moved".into() },
            RelayFrame::Tag { kind: 9, timestamp: 40, payload: Bytes::from_static(b"x") },
            RelayFrame::Taken { tags: 7 },
            RelayFrame::Past { frames: Bytes::from_static(b"frames") },
            RelayFrame::Heritage(TimelineState::default()),
        ];
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        for frame in frames {
            assert_eq!(RelayFrame::decode(&mut bytes), Ok(Some(frame)));
        }
    }

    #[test]
    fn a_shard_of_before_knows_nothing_of_heirs() {
        let (mut hello, mut accepted) = (BytesMut::new(), BytesMut::new());
        let text = |text: &str| frame::text_field(text);
        for was_there in [0, 1] {
            frame::put(&mut hello, HELLO, &[&4u64.to_be_bytes(), &[was_there], &text("k"), &text("a"), &text("b"), &text("10.0.0.1:5")]);
        }
        frame::put(&mut accepted, ACCEPTED, &[]);
        assert!(matches!(RelayFrame::decode(&mut hello), Ok(Some(RelayFrame::Hello { heirs: false, asked: Asked::NOW, .. }))));
        assert!(matches!(RelayFrame::decode(&mut hello), Ok(Some(RelayFrame::Hello { asked: Asked::BEFORE, .. }))));
        assert_eq!(RelayFrame::decode(&mut accepted), Ok(Some(RelayFrame::Accepted { heirs: false })));
    }
}
