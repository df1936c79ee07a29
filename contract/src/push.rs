//! The push: how a packager hands objects to origins the moment their last byte exists.
//!
//! An origin connects to the address in the run's head, sends one [`PushRequest`], hears under which epoch it is served, and gets what a player needs now
//! (playlists, init sections, the segments that the playlists name) and from then on every new object, each after the
//! objects that it names. After [`PushFrame::Ended`] nothing follows.
//!
//! What was shown once does not change. A dead owner may have pushed what S3 has not got: an origin that comes to its successor says first what it has of that
//! kind ([`PushRequest::Holds`]), and the successor takes it for its own, or says that it cannot ([`PushFrame::Anew`]).
//!
//! A successor that has read the feed and encodes already asks at the same address for the run ([`PushRequest::HandOver`]). While S3 gives trouble it is told now and
//! then that the packager is there ([`PushFrame::Serving`]); after that the packager names the segment that is the successor's ([`PushFrame::HandingOver`]), makes all before it, sees them into S3, lets go of
//! the head, and closes the connection. Only then does the successor claim the run.

use crate::frame::{self, Fields, FrameError};
use crate::{Epoch, RunId, SegmentNumber};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

const REQUEST: u8 = 1;
const OBJECT: u8 = 2;
const ENDED: u8 = 3;
const REFUSED: u8 = 4;
const JOINED: u8 = 5;
const HAND_OVER: u8 = 6;
const HANDING_OVER: u8 = 7;
const SERVING: u8 = 8;
const HOLDS: u8 = 9;
const ANEW: u8 = 10;

/// The parts that a segment can have: [`crate::PartCount`] is a byte.
pub const MOST_PARTS: usize = 255;

/// How often a packager that has nothing to push says that it is there. A segment of four seconds makes pauses of four seconds, and one whose machine is gone, or that
/// is frozen, has a successor sooner than that.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// What a packager is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushRequest {
    /// An origin wants the run's objects. A transcoder that asks the same would like to know whether the owner lives: it gets [`PushFrame::Serving`], or
    /// [`PushFrame::Refused`], and no more. (Without TLS nobody can tell the two apart, and both are origins.)
    Objects(RunId),
    /// A successor wants the run.
    HandOver(RunId),
    /// Before [`PushRequest::Objects`]: an origin has this segment of an owner before, and the run's head does not say that S3 has it.
    Holds {
        /// Of which run.
        run: RunId,
        /// The segment.
        held: Held,
    },
}

/// What an origin has of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of which rendition.
    pub rendition: String,
    /// Its number.
    pub number: SegmentNumber,
    /// The init section that it needs, itself: its number may have been another owner's for another. Of captions, nothing.
    pub init: Bytes,
    /// It is all of it: whoever made it had finished it.
    pub whole: bool,
    /// Its parts from the first on, 255 at most; one where it was not made in parts.
    pub parts: Vec<Bytes>,
}

/// What an origin gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushFrame {
    /// The packager owns the run since this epoch, and all that follows is of it. Comes before any object, and again where nothing else is sent for
    /// [`ALIVE_EVERY`]: it is there. Who has heard of a newer one hangs up.
    Serving {
        /// As in the head.
        epoch: Epoch,
    },
    /// An object, whole: put it in the place of what had its name.
    Object {
        /// Its path below the run's prefix (see [`crate::keys::ObjectName`]).
        name: String,
        /// Its bytes.
        body: Bytes,
    },
    /// A segment whose parts were all pushed: it is those, joined. Saves sending it twice.
    Joined {
        /// The segment's path below the run's prefix.
        name: String,
        /// How many parts it has; they were pushed as [`crate::keys::ObjectName::Part`] 0 to `parts` − 1.
        parts: u32,
    },
    /// The run has ended: what was pushed is final.
    Ended,
    /// This packager does not own that run (any more): read the head again.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// The packager cannot go on with what the origin has of this segment: it is made anew, and what comes of it takes the place of that.
    Anew {
        /// Of which rendition.
        rendition: String,
        /// Its number.
        number: SegmentNumber,
    },
    /// The run will be the successor's; this packager makes all segments before `at`.
    HandingOver {
        /// The first that it does not make.
        at: SegmentNumber,
    },
}

impl PushRequest {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Objects(run) => frame::put(out, REQUEST, &[&frame::text_field(&run.0)]),
            Self::HandOver(run) => frame::put(out, HAND_OVER, &[&frame::text_field(&run.0)]),
            Self::Holds { run, held } => {
                let (run, rendition) = (frame::text_field(&run.0), frame::text_field(&held.rendition));
                let (number, whole) = (held.number.0.to_be_bytes(), [u8::from(held.whole)]);
                let bodies: Vec<&Bytes> = std::iter::once(&held.init).chain(&held.parts).collect();
                let lengths: Vec<[u8; 4]> = bodies.iter().map(|body| (body.len() as u32).to_be_bytes()).collect(); // as in `frame::put_head`
                let head: [&[u8]; 4] = [&run, &rendition, &number, &whole];
                let bodies = lengths.iter().zip(bodies).flat_map(|(length, body)| [&length[..], body]);
                frame::put(out, HOLDS, &head.into_iter().chain(bodies).collect::<Vec<_>>());
            }
        }
    }

    /// Takes one request off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        let mut fields = Fields::new(kind, body);
        Ok(Some(match kind {
            REQUEST => Self::Objects(RunId(fields.text("run")?)),
            HAND_OVER => Self::HandOver(RunId(fields.text("run")?)),
            HOLDS => Self::Holds { run: RunId(fields.text("run")?), held: Held::decode(fields)? },
            other => return Err(FrameError::Kind(other)),
        }))
    }
}

impl Held {
    fn decode(mut fields: Fields) -> Result<Self, FrameError> {
        let (rendition, number) = (fields.text("rendition")?, SegmentNumber(fields.u64("number")?));
        let (whole, init, mut parts) = (fields.u8("whole")? != 0, fields.bytes("init")?, Vec::new());
        while !fields.is_empty() {
            if parts.len() == MOST_PARTS {
                return Err(fields.bad("more parts than a segment can have"));
            }
            parts.push(fields.bytes("part")?);
        }
        Ok(Self { rendition, number, init, whole, parts })
    }
}

impl PushFrame {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Object { name, body } => {
                Self::encode_head(out, name, body.len());
                out.extend_from_slice(body);
            }
            Self::Joined { name, parts } => frame::put(out, JOINED, &[&frame::text_field(name), &parts.to_be_bytes()]),
            Self::Ended => frame::put(out, ENDED, &[]),
            Self::Refused { reason } => frame::put(out, REFUSED, &[&frame::text_field(reason)]),
            Self::Serving { epoch } => frame::put(out, SERVING, &[&epoch.0.to_be_bytes()]),
            Self::HandingOver { at } => frame::put(out, HANDING_OVER, &[&at.0.to_be_bytes()]),
            Self::Anew { rendition, number } => frame::put(out, ANEW, &[&frame::text_field(rendition), &number.0.to_be_bytes()]),
        }
    }

    /// Appends an object's frame to `out` but for its body of `length` bytes, which follows from where it lies: media is not
    /// copied to be sent.
    pub fn encode_head(out: &mut BytesMut, name: &str, length: usize) {
        frame::put_head(out, OBJECT, &[&frame::text_field(name)], length);
    }

    /// Takes one frame off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        let mut fields = Fields::new(kind, body);
        Ok(Some(match kind {
            OBJECT => Self::Object { name: fields.text("name")?, body: fields.rest() },
            JOINED => Self::Joined { name: fields.text("name")?, parts: fields.u32("parts")? },
            ENDED => Self::Ended,
            REFUSED => Self::Refused { reason: fields.text("reason")? },
            SERVING => Self::Serving { epoch: Epoch(fields.u64("epoch")?) },
            HANDING_OVER => Self::HandingOver { at: SegmentNumber(fields.u64("at")?) },
            ANEW => Self::Anew { rendition: fields.text("rendition")?, number: SegmentNumber(fields.u64("number")?) },
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
            PushFrame::Serving { epoch: Epoch(3) },
            PushFrame::Object { name: "360p/1.m4s".into(), body: Bytes::from_static(b"moof") },
            PushFrame::Joined { name: "360p/1.m4s".into(), parts: 6 },
            PushFrame::Refused { reason: "moved".into() },
            PushFrame::HandingOver { at: SegmentNumber(7) },
            PushFrame::Anew { rendition: "360p".into(), number: SegmentNumber(7) },
            PushFrame::Ended,
        ];
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        for frame in frames {
            assert_eq!(PushFrame::decode(&mut bytes), Ok(Some(frame)));
        }
    }

    #[test]
    fn every_request_comes_back() {
        let mut bytes = BytesMut::new();
        let parts = vec![Bytes::from_static(b"moof"), Bytes::new(), Bytes::from_static(b"mdat")];
        let held = Held { rendition: "360p".into(), number: SegmentNumber(7), init: Bytes::from_static(b"moov"), whole: true, parts };
        let nothing = Held { parts: Vec::new(), whole: false, ..held.clone() };
        let holds = |held| PushRequest::Holds { run: "r".into(), held };
        let requests = [PushRequest::Objects("r".into()), PushRequest::HandOver("r".into()), holds(held), holds(nothing)];
        requests.iter().for_each(|request| request.encode(&mut bytes));
        for request in requests {
            assert_eq!(PushRequest::decode(&mut bytes), Ok(Some(request)));
        }
    }

    #[test]
    fn a_segment_has_no_more_parts_than_it_can_have() {
        let held = |parts| {
            let (init, parts) = (Bytes::new(), vec![Bytes::new(); parts]);
            Held { rendition: "a".into(), number: SegmentNumber(0), init, whole: true, parts }
        };
        for (parts, taken) in [(MOST_PARTS, true), (MOST_PARTS + 1, false)] {
            let mut bytes = BytesMut::new();
            PushRequest::Holds { run: "r".into(), held: held(parts) }.encode(&mut bytes);
            assert_eq!(PushRequest::decode(&mut bytes).is_ok(), taken, "{parts}");
        }
    }

    #[test]
    fn a_body_sent_after_its_head_is_the_same_frame() {
        let (mut whole, mut in_two) = (BytesMut::new(), BytesMut::new());
        PushFrame::Object { name: "360p/1.m4s".into(), body: Bytes::from_static(b"moof") }.encode(&mut whole);
        PushFrame::encode_head(&mut in_two, "360p/1.m4s", 4);
        in_two.extend_from_slice(b"moof");
        assert_eq!(in_two, whole);
    }
}
