//! The push: how a packager hands objects to origins the moment their last byte exists.
//!
//! An origin connects to the address in the run's head, sends one [`PushRequest`], hears under which epoch it is served, and gets what a player needs now
//! (playlists, init sections, the segments that the playlists name) and from then on every new object, each after the
//! objects that it names. After [`PushFrame::Ended`] nothing follows.
//!
//! A successor that has read the feed and encodes already asks at the same address for the run ([`PushRequest::HandOver`]): the
//! packager names the segment that is the successor's ([`PushFrame::HandingOver`]), makes all before it, sees them into S3, lets go of
//! the head, and closes the connection. Only then does the successor claim the run.

use crate::frame::{self, Fields, FrameError};
use crate::{Epoch, RunId, SegmentNumber};
use bytes::{Bytes, BytesMut};

const REQUEST: u8 = 1;
const OBJECT: u8 = 2;
const ENDED: u8 = 3;
const REFUSED: u8 = 4;
const JOINED: u8 = 5;
const HAND_OVER: u8 = 6;
const HANDING_OVER: u8 = 7;
const SERVING: u8 = 8;

/// What a packager is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushRequest {
    /// An origin wants the run's objects.
    Objects(RunId),
    /// A successor wants the run.
    HandOver(RunId),
}

/// What an origin gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushFrame {
    /// The packager owns the run since this epoch, and all that follows is of it. Comes before any object. Who has heard of a newer one hangs up.
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
    /// The run will be the successor's; this packager makes all segments before `at`.
    HandingOver {
        /// The first that it does not make.
        at: SegmentNumber,
    },
}

impl PushRequest {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let (kind, run) = match self {
            Self::Objects(run) => (REQUEST, run),
            Self::HandOver(run) => (HAND_OVER, run),
        };
        frame::put(out, kind, &[&frame::text_field(&run.0)]);
    }

    /// Takes one request off `input`; `None` until it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame::take(input)? else { return Ok(None) };
        let of_run = match kind {
            REQUEST => Self::Objects,
            HAND_OVER => Self::HandOver,
            other => return Err(FrameError::Kind(other)),
        };
        Ok(Some(of_run(RunId(Fields::new(kind, body).text("run")?))))
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
        let requests = [PushRequest::Objects("r".into()), PushRequest::HandOver("r".into())];
        requests.iter().for_each(|request| request.encode(&mut bytes));
        for request in requests {
            assert_eq!(PushRequest::decode(&mut bytes), Ok(Some(request)));
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
