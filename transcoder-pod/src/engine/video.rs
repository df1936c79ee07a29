//! One video rendition: pictures onto the grid, scaled, encoded. Runs on a thread of its own.

use super::software::Keyframes;
use super::video_grid::{Place, VideoGrid};
use super::{Encoded, EngineError, Order, Output, ff, put, software};
use ffmpeg_next::codec::encoder;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Packet, frame, picture};
use lectern_contract::{Ticks, VideoRendition};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc;

/// What the decoder hands to every video rendition.
#[derive(Clone)]
pub enum Picture {
    /// A decoded picture and when it is shown.
    Frame(Arc<frame::Video>, Ticks),
    /// The silence has lasted: see [`super::Input::Cut`].
    Cut,
    /// The slate until this time: see [`super::Input::Fill`].
    Slate(Ticks),
}

/// A rendition under way.
pub struct VideoEncoder {
    at: usize,
    order: Order,
    rendition: VideoRendition,
    grid: VideoGrid,
    encoder: encoder::video::Encoder,
    keyframes: Keyframes,
    /// Pictures that the open encoder was given.
    given: u64,
    scaler: Option<scaling::Context>,
    last: Option<frame::Video>,
    /// Drawn when it is first needed.
    slate: Option<frame::Video>,
    force: bool,
    out: mpsc::Sender<Output>,
}

impl VideoEncoder {
    /// Opens the encoder of `rendition`, which is number `at` of the ladder, and puts out its parameters.
    pub fn open(at: usize, rendition: VideoRendition, order: Order, out: mpsc::Sender<Output>) -> Result<Self, EngineError> {
        let keyframes = software::keyframes(&rendition, order.segment_duration);
        let encoder = open(&rendition, keyframes)?;
        let config = software::record(rendition.codec, &ff::extradata(&encoder)).map_err(EngineError::Parameters)?;
        let grid = VideoGrid::new(rendition.frame_rate);
        // Nobody listens only when the job is being stopped; the first picture finds out.
        let _ = put(&out, Output::Config { rendition: at, config });
        Ok(Self { at, order, rendition, grid, encoder, keyframes, given: 0, scaler: None, last: None, slate: None, force: true, out })
    }

    /// Encodes until the decoder hangs up, then what is left.
    pub fn run(mut self, pictures: Receiver<Picture>) -> Result<(), EngineError> {
        for picture in pictures {
            let listening = match picture {
                Picture::Frame(picture, pts) => self.take(&picture, pts)?,
                Picture::Slate(until) => self.fill(until)?,
                Picture::Cut => put(&self.out, Output::Cut { rendition: self.at }),
            };
            if !listening {
                return Ok(());
            }
        }
        self.encoder.send_eof().map_err(self.failed("cannot be flushed"))?;
        if self.drain()? {
            put(&self.out, Output::End { rendition: self.at });
        }
        Ok(())
    }

    fn failed(&self, what: &str) -> impl FnOnce(ffmpeg_next::Error) -> EngineError + use<> {
        EngineError::libav(format!("rendition {} {what}", self.rendition.name))
    }

    fn take(&mut self, picture: &frame::Video, pts: Ticks) -> Result<bool, EngineError> {
        let Place::At { repeat_from, slot, after_hole } = self.grid.place(pts) else { return Ok(true) };
        self.force |= after_hole;
        if let Some(mut last) = self.last.take() {
            for slot in repeat_from..slot {
                if !self.encode(&mut last, slot)? {
                    return Ok(false);
                }
            }
        }
        // Before the order's start a picture is needed only to be repeated.
        let mut scaled = self.scale(picture)?;
        let listening = self.encode(&mut scaled, slot)?;
        self.last = Some(scaled);
        Ok(listening)
    }

    fn fill(&mut self, until: Ticks) -> Result<bool, EngineError> {
        let mut slate = match self.slate.take() {
            Some(slate) => slate,
            None => self.order.card.draw(self.rendition.width, self.rendition.height)?,
        };
        for slot in self.grid.fill(until) {
            if !self.encode(&mut slate, slot)? {
                return Ok(false);
            }
        }
        // The lecturer's next picture may come a little later: until then the slate stays.
        self.last = Some(ff::share(&slate).map_err(self.failed("cannot share the slate"))?);
        self.slate = Some(slate);
        Ok(true)
    }

    fn encode(&mut self, picture: &mut frame::Video, slot: u64) -> Result<bool, EngineError> {
        if self.grid.start(slot) < self.order.from {
            return Ok(true);
        }
        let key = std::mem::take(&mut self.force) || self.grid.begins_segment(slot, self.order.segment_duration);
        if let Keyframes::Every(pictures) = self.keyframes
            && key
            && !self.given.is_multiple_of(pictures)
        {
            // It would come at another time: what is left comes out, and a new one begins with a keyframe.
            self.encoder.send_eof().map_err(self.failed("cannot be flushed"))?;
            if !self.drain()? {
                return Ok(false);
            }
            self.encoder = open(&self.rendition, self.keyframes)?;
            self.given = 0;
        }
        self.given += 1;
        let asked = key && self.keyframes == Keyframes::Asked;
        picture.set_kind(if asked { picture::Type::I } else { picture::Type::None });
        picture.set_pts(Some(i64::try_from(slot).unwrap_or(i64::MAX)));
        self.encoder.send_frame(picture).map_err(self.failed("cannot be encoded"))?;
        self.drain()
    }

    fn drain(&mut self) -> Result<bool, EngineError> {
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            let slot = u64::try_from(packet.pts().unwrap_or_default()).unwrap_or_default();
            let start = self.grid.start(slot).0;
            let sample = Encoded {
                start,
                duration: u32::try_from(self.grid.start(slot + 1).0 - start).unwrap_or(u32::MAX),
                sync: packet.is_key(),
                data: software::access_unit(self.rendition.codec, packet.data().unwrap_or_default()),
            };
            if !put(&self.out, Output::Sample { rendition: self.at, sample }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The picture in the rendition's size and 4:2:0.
    fn scale(&mut self, picture: &frame::Video) -> Result<frame::Video, EngineError> {
        let (width, height) = (self.rendition.width, self.rendition.height);
        if picture.format() == Pixel::YUV420P && (picture.width(), picture.height()) == (width, height) {
            return ff::share(picture).map_err(self.failed("cannot share a picture"));
        }
        let from = scaling::context::Definition { format: picture.format(), width: picture.width(), height: picture.height() };
        if self.scaler.as_ref().is_none_or(|scaler| *scaler.input() != from) {
            let scaler =
                scaling::Context::get(from.format, from.width, from.height, Pixel::YUV420P, width, height, scaling::Flags::BICUBIC);
            self.scaler = Some(scaler.map_err(self.failed("cannot be scaled"))?);
        }
        let mut scaled = frame::Video::empty();
        if let Some(scaler) = &mut self.scaler {
            scaler.run(picture, &mut scaled).map_err(EngineError::libav(format!("rendition {} cannot be scaled", self.rendition.name)))?;
        }
        Ok(scaled)
    }
}

fn open(rendition: &VideoRendition, keyframes: Keyframes) -> Result<encoder::video::Encoder, EngineError> {
    let (name, codec) = (&rendition.name, software::encoder_of(rendition.codec));
    software::open(rendition, keyframes).map_err(EngineError::libav(format!("{codec} for {name} cannot be opened")))
}
