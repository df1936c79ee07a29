//! One video rendition: pictures onto the grid, scaled, encoded. Runs on a thread of its own.

use super::outlet::{Maker, Outlet, Step};
use super::pass::Own;
use super::rung::{Hurry, Picture, Told};
use super::scale::Scaler;
use super::software::Keyframes;
use super::video_grid::{Place, VideoGrid};
use super::{Backend, Encoded, EngineError, Order, Output, coded, ff, nvenc, software};
use ffmpeg_next::codec::encoder;
use ffmpeg_next::frame::side_data::Type::A53CC;
use ffmpeg_next::{Packet, frame, picture};
use lectern_contract::{Ticks, VideoRendition};
use lectern_media::captions::{Pending, Triplet, carriage};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc;

/// A rendition under way.
pub struct VideoEncoder {
    at: usize,
    order: Order,
    rendition: VideoRendition,
    grid: VideoGrid,
    /// `None` while another rendition stands in.
    encoder: Option<encoder::video::Encoder>,
    /// When that changes.
    turns: VecDeque<Ticks>,
    /// It changes soon because this encoder is too slow: until then fewer pictures have to do.
    hurry: Option<Hurry>,
    keyframes: Keyframes,
    /// Pictures that the open encoder was given.
    given: u64,
    /// It is NVENC.
    hardware: bool,
    scaler: Scaler,
    last: Option<Last>,
    /// Drawn when it is first needed.
    slate: Option<frame::Video>,
    force: bool,
    /// Captions of pictures that came and are not encoded yet.
    captions: Pending,
    /// Captions of pictures that the encoder has, by their slots.
    carried: VecDeque<(u64, Vec<Triplet>)>,
    outlet: Outlet,
    own: Arc<Own>,
}

/// The picture that was shown last: it is repeated where one is missing.
enum Last {
    Scaled(frame::Video),
    /// As it was decoded: nobody needed it smaller.
    Source(Arc<frame::Video>),
    Slate,
}

impl VideoEncoder {
    /// Opens the encoder of `rendition`, which is number `at` of the ladder, and puts out its parameters.
    pub fn open(at: usize, rendition: VideoRendition, order: Order, out: mpsc::Sender<Output>, own: Arc<Own>) -> Result<Self, EngineError> {
        let keyframes = software::keyframes(&rendition, order.segment_duration);
        let grid = VideoGrid::new(rendition.frame_rate);
        let scaler = Scaler::new(rendition.width, rendition.height);
        let mut opened = Self {
            at,
            order,
            rendition,
            grid,
            encoder: None,
            turns: VecDeque::new(),
            hurry: None,
            keyframes,
            given: 0,
            hardware: false,
            scaler,
            last: None,
            slate: None,
            force: true,
            captions: Pending::default(),
            carried: VecDeque::new(),
            outlet: Outlet::new(at, out),
            own,
        };
        opened.begin()?;
        Ok(opened)
    }

    /// Encodes until the decoder hangs up, then what is left.
    pub fn run(mut self, told: Receiver<Told>) -> Result<(), EngineError> {
        for told in told {
            match told {
                Told::Picture(Picture::Frame(picture, pts)) => self.take(picture, pts)?,
                Told::Picture(Picture::Slate(until)) => self.fill(until)?,
                Told::Picture(Picture::Hold(until)) => {
                    let slots = self.grid.fill(until);
                    self.repeat(slots)?;
                }
                // Also of one that has the next picture, and none has come.
                Told::Picture(Picture::Cut) if self.encoder.is_some() || !self.turns.is_empty() => {
                    self.put(Output::Cut { rendition: self.at })
                }
                Told::Picture(Picture::Cut) => {} // whoever stands in is told as well
                Told::Turn { at, hurry } => self.turn(at, hurry)?,
                Told::Lead(follower) => self.outlet.lead(follower),
                Told::Leave(rendition, until) => self.outlet.leave(rendition, until),
                Told::Relayed(step) => self.outlet.take(Maker::Below, step),
            }
            if self.outlet.is_closed() {
                return Ok(());
            }
        }
        self.flush()?;
        self.outlet.end();
        Ok(())
    }

    fn put(&mut self, output: Output) {
        self.outlet.take(Maker::Own, Step::Put(output));
    }

    fn failed(&self, what: &str) -> impl FnOnce(ffmpeg_next::Error) -> EngineError + use<> {
        EngineError::libav(format!("rendition {} {what}", self.rendition.name))
    }

    /// Opens the encoder that was ordered, or the one that there is, and puts out its parameters.
    fn begin(&mut self) -> Result<(), EngineError> {
        let ordered = match (self.order.encoder, nvenc::encoder_of(self.rendition.codec)) {
            (Backend::Nvenc, Some(name)) => Some(nvenc::open(name, &self.rendition)),
            _ => None,
        };
        self.hardware = matches!(ordered, Some(Ok(_)));
        let encoder = match ordered {
            Some(Ok(encoder)) => encoder,
            Some(Err(error)) => {
                self.order.encoder = Backend::Software; // where the source is passed on until the next time the init section has other parameter sets than NVENC's
                self.put(Output::Degraded { rendition: self.at, why: format!("NVENC cannot be opened ({error}); the CPU encodes") });
                self.software()?
            }
            None => self.software()?,
        };
        self.go_on_with(encoder)
    }

    fn software(&self) -> Result<encoder::video::Encoder, EngineError> {
        let (name, codec) = (&self.rendition.name, software::encoder_of(self.rendition.codec));
        let opened = software::open(&self.rendition, self.keyframes, self.own.set_id());
        opened.map_err(EngineError::libav(format!("{codec} for {name} cannot be opened")))
    }

    fn go_on_with(&mut self, encoder: encoder::video::Encoder) -> Result<(), EngineError> {
        let config = coded::record(self.rendition.codec, &ff::extradata(&encoder)).map_err(EngineError::Parameters)?;
        self.encoder = Some(encoder);
        self.given = 0;
        let config = self.own.complete(config);
        self.put(Output::Config { rendition: self.at, of: self.at, config });
        Ok(())
    }

    fn turn(&mut self, at: Ticks, hurry: bool) -> Result<(), EngineError> {
        if hurry && self.encoder.is_some() && self.turns.is_empty() {
            self.hurry = Hurry::begin(self.rendition.frame_rate, self.order.parts.is_some(), self.grid.next());
        }
        self.turns.push_back(at);
        // A source that is earlier than its slots was shown beyond that time before it was found not to go on.
        let missed = self.grid.taken_from(at);
        if self.encoder.is_none() { self.repeat(missed) } else { Ok(()) }
    }

    /// Gets out of the encoder what it still has.
    fn flush(&mut self) -> Result<(), EngineError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        if let Err(error) = encoder.send_eof() {
            return Err(self.failed("cannot be flushed")(error));
        }
        self.drain();
        Ok(())
    }

    /// Whether the picture of `slot` is encoded here. Where that changes with this slot the encoder is closed, or opened.
    fn encodes(&mut self, slot: u64) -> Result<bool, EngineError> {
        while self.turns.front().is_some_and(|turn| *turn <= self.grid.start(slot)) {
            if self.encoder.is_some() {
                self.flush()?;
                (self.encoder, self.hurry) = (None, None);
                self.outlet.take(Maker::Own, Step::Over);
            } else {
                self.begin()?;
                self.force = true;
            }
            self.turns.pop_front();
        }
        let encodes = self.encoder.is_some() && self.grid.start(slot) >= self.order.from;
        if !encodes {
            self.captions = Pending::default();
        }
        Ok(encodes && self.hurry.is_none_or(|hurry| hurry.encodes(slot)))
    }

    fn take(&mut self, picture: Arc<frame::Video>, pts: Ticks) -> Result<(), EngineError> {
        let captions = ff::captions(&picture);
        let Place::At { repeat_from, slot, after_hole } = self.grid.place(pts) else {
            self.captions.push(captions);
            return Ok(());
        };
        self.force |= after_hole;
        if repeat_from < slot {
            self.repeat(repeat_from..slot)?;
        }
        self.captions.push(captions);
        if !self.encodes(slot)? {
            self.last = Some(Last::Source(picture)); // needed only to be repeated
            return Ok(());
        }
        let mut scaled = self.scaled(&picture)?;
        self.encode(&mut scaled, slot)?;
        self.last = Some(Last::Scaled(scaled));
        Ok(())
    }

    fn scaled(&mut self, picture: &frame::Video) -> Result<frame::Video, EngineError> {
        let mut scaled = self.scaler.run(picture)?;
        scaled.remove_side_data(A53CC); // x264 and NVENC would write it, again with each repetition
        Ok(scaled)
    }

    /// Shows the last picture in `slots` as well.
    fn repeat(&mut self, slots: Range<u64>) -> Result<(), EngineError> {
        for slot in slots {
            if !self.encodes(slot)? {
                continue;
            }
            let mut picture = match self.last.take() {
                Some(Last::Scaled(picture)) => picture,
                Some(Last::Source(picture)) => self.scaled(&picture)?,
                Some(Last::Slate) => {
                    let shared = ff::share(self.slate()?);
                    shared.map_err(self.failed("cannot share the slate"))?
                }
                None => return Ok(()),
            };
            self.encode(&mut picture, slot)?;
            self.last = Some(Last::Scaled(picture));
        }
        Ok(())
    }

    fn slate(&mut self) -> Result<&frame::Video, EngineError> {
        let drawn = match self.slate.take() {
            Some(slate) => slate,
            None => self.order.card.draw(self.rendition.width, self.rendition.height)?,
        };
        Ok(self.slate.insert(drawn))
    }

    fn fill(&mut self, until: Ticks) -> Result<(), EngineError> {
        // The lecturer's next picture may come a little later: until then the slate stays.
        self.last = Some(Last::Slate);
        self.grid.begin(self.order.slate_begins(until));
        let slots = self.grid.fill(until);
        self.repeat(slots)
    }

    fn encode(&mut self, picture: &mut frame::Video, slot: u64) -> Result<(), EngineError> {
        let key = std::mem::take(&mut self.force) || self.grid.begins_segment(slot, self.order.segment_duration) || self.is_joint(slot);
        if let Keyframes::Every(pictures) = self.keyframes
            && key
            && !self.given.is_multiple_of(pictures)
        {
            // It would come at another time: what is left comes out, and a new one begins with a keyframe.
            self.flush()?;
            self.encoder = Some(self.software()?);
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
        match self.send(picture) {
            Err(error) if self.hardware => {
                self.fall_back(&error)?;
                picture.set_kind(picture::Type::I);
                self.send(picture).map_err(self.failed("cannot be encoded"))?;
            }
            sent => sent.map_err(self.failed("cannot be encoded"))?,
        }
        self.drain();
        Ok(())
    }

    /// Whether a successor goes on here with what its predecessor may have made of the segment.
    fn is_joint(&self, slot: u64) -> bool {
        let parts = self.order.parts.filter(|_| self.keyframes == Keyframes::Asked && self.grid.start(slot) < self.order.joints_until);
        parts.is_some_and(|parts| self.grid.begins_part(slot, self.order.segment_duration, parts))
    }

    fn send(&mut self, picture: &frame::Video) -> Result<(), ffmpeg_next::Error> {
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.send_frame(picture))
    }

    /// Goes on in software, from the next picture on: under another init section, and with a keyframe. The open segment ends here; its number is not
    /// used again.
    fn fall_back(&mut self, error: &ffmpeg_next::Error) -> Result<(), EngineError> {
        (self.hardware, self.order.encoder) = (false, Backend::Software); // as in begin
        let encoder = self.software()?;
        self.put(Output::Degraded { rendition: self.at, why: format!("NVENC failed ({error}); the CPU encodes") });
        self.go_on_with(encoder)
    }

    fn drain(&mut self) {
        let mut packet = Packet::empty();
        while self.encoder.as_mut().is_some_and(|encoder| encoder.receive_packet(&mut packet).is_ok()) {
            let slot = u64::try_from(packet.pts().unwrap_or_default()).unwrap_or_default();
            let start = self.grid.start(slot).0;
            let mut captions = Vec::new();
            while let Some((_, carried)) = self.carried.pop_front_if(|(of, _)| *of <= slot) {
                captions.extend(carried);
            }
            let data = coded::access_unit(self.rendition.codec, packet.data().unwrap_or_default());
            let shown_for = self.hurry.map_or(1, |hurry| hurry.shown_for(slot));
            let end = self.turns.front().map_or(u64::MAX, |turn| turn.0).min(self.grid.start(slot + shown_for).0);
            let sample = Encoded {
                start,
                duration: u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX),
                sync: packet.is_key(),
                data: carriage::carry(self.rendition.codec, data, &captions),
            };
            self.put(Output::Sample { rendition: self.at, sample });
        }
    }
}
