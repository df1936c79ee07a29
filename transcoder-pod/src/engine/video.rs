//! One video rendition: pictures onto the grid, scaled, encoded. Runs on a thread of its own.

use super::scale::Scaler;
use super::software::Keyframes;
use super::video_grid::{Place, VideoGrid};
use super::{Backend, Encoded, EngineError, Order, Output, coded, ff, nvenc, put, software};
use ffmpeg_next::codec::encoder;
use ffmpeg_next::frame::side_data::Type::A53CC;
use ffmpeg_next::{Packet, frame, picture};
use lectern_contract::{Ticks, VideoRendition};
use lectern_media::captions::{Pending, Triplet, carriage};
use std::collections::VecDeque;
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
    /// It is NVENC.
    hardware: bool,
    scaler: Scaler,
    last: Option<frame::Video>,
    /// Drawn when it is first needed.
    slate: Option<frame::Video>,
    force: bool,
    /// Captions of pictures that came and are not encoded yet.
    captions: Pending,
    /// Captions of pictures that the encoder has, by their slots.
    carried: VecDeque<(u64, Vec<Triplet>)>,
    out: mpsc::Sender<Output>,
}

impl VideoEncoder {
    /// Opens the encoder of `rendition`, which is number `at` of the ladder, and puts out its parameters.
    pub fn open(at: usize, rendition: VideoRendition, order: Order, out: mpsc::Sender<Output>) -> Result<Self, EngineError> {
        let keyframes = software::keyframes(&rendition, order.segment_duration);
        let hardware = match (order.encoder, nvenc::encoder_of(rendition.codec)) {
            (Backend::Nvenc, Some(name)) => Some(nvenc::open(name, &rendition)),
            _ => None,
        };
        let (encoder, hardware) = match hardware {
            Some(Ok(encoder)) => (encoder, true),
            Some(Err(error)) => {
                let _ = put(&out, Output::Degraded { rendition: at, why: format!("NVENC cannot be opened ({error}); the CPU encodes") });
                (open(&rendition, keyframes)?, false)
            }
            None => (open(&rendition, keyframes)?, false),
        };
        let config = coded::record(rendition.codec, &ff::extradata(&encoder)).map_err(EngineError::Parameters)?;
        let grid = VideoGrid::new(rendition.frame_rate);
        let scaler = Scaler::new(rendition.width, rendition.height);
        // Nobody listens only when the job is being stopped; the first picture finds out.
        let _ = put(&out, Output::Config { rendition: at, config });
        Ok(Self {
            at,
            order,
            rendition,
            grid,
            encoder,
            keyframes,
            given: 0,
            hardware,
            scaler,
            last: None,
            slate: None,
            force: true,
            captions: Pending::default(),
            carried: VecDeque::new(),
            out,
        })
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
        let captions = ff::captions(picture);
        let Place::At { repeat_from, slot, after_hole } = self.grid.place(pts) else {
            self.captions.push(captions);
            return Ok(true);
        };
        self.force |= after_hole;
        if let Some(mut last) = self.last.take() {
            for slot in repeat_from..slot {
                if !self.encode(&mut last, slot)? {
                    return Ok(false);
                }
            }
        }
        // Before the order's start a picture is needed only to be repeated.
        let mut scaled = self.scaler.run(picture)?;
        scaled.remove_side_data(A53CC); // x264 and NVENC would write it, again with each repetition
        self.captions.push(captions);
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
            self.captions = Pending::default();
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
        let captions = self.captions.take();
        if !captions.is_empty() {
            self.carried.push_back((slot, captions));
        }
        let asked = key && self.keyframes == Keyframes::Asked;
        picture.set_kind(if asked { picture::Type::I } else { picture::Type::None });
        picture.set_pts(Some(i64::try_from(slot).unwrap_or(i64::MAX)));
        match self.encoder.send_frame(picture) {
            Ok(()) => self.drain(),
            Err(error) if self.hardware => {
                if !self.fall_back(&error)? {
                    return Ok(false);
                }
                picture.set_kind(picture::Type::I);
                self.encoder.send_frame(picture).map_err(self.failed("cannot be encoded"))?;
                self.drain()
            }
            Err(error) => Err(self.failed("cannot be encoded")(error)),
        }
    }

    /// Goes on in software, from the next picture on: under another init section, and with a keyframe. The open segment ends here; its number is not
    /// used again.
    fn fall_back(&mut self, error: &ffmpeg_next::Error) -> Result<bool, EngineError> {
        self.hardware = false;
        self.encoder = open(&self.rendition, self.keyframes)?;
        self.given = 0;
        let config = coded::record(self.rendition.codec, &ff::extradata(&self.encoder)).map_err(EngineError::Parameters)?;
        let why = format!("NVENC failed ({error}); the CPU encodes");
        Ok(put(&self.out, Output::Degraded { rendition: self.at, why }) && put(&self.out, Output::Config { rendition: self.at, config }))
    }

    fn drain(&mut self) -> Result<bool, EngineError> {
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            let slot = u64::try_from(packet.pts().unwrap_or_default()).unwrap_or_default();
            let start = self.grid.start(slot).0;
            let mut captions = Vec::new();
            while let Some((_, carried)) = self.carried.pop_front_if(|(of, _)| *of <= slot) {
                captions.extend(carried);
            }
            let data = coded::access_unit(self.rendition.codec, packet.data().unwrap_or_default());
            let sample = Encoded {
                start,
                duration: u32::try_from(self.grid.start(slot + 1).0 - start).unwrap_or(u32::MAX),
                sync: packet.is_key(),
                data: carriage::carry(self.rendition.codec, data, &captions),
            };
            if !put(&self.out, Output::Sample { rendition: self.at, sample }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn open(rendition: &VideoRendition, keyframes: Keyframes) -> Result<encoder::video::Encoder, EngineError> {
    let (name, codec) = (&rendition.name, software::encoder_of(rendition.codec));
    software::open(rendition, keyframes).map_err(EngineError::libav(format!("{codec} for {name} cannot be opened")))
}
