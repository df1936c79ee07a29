//! The engine on libav: one decoder for the picture, a thread with scaler and x264 per video rendition, sound alongside.

use super::audio::{AudioEncoder, FORMAT};
use super::audio_grid::{AudioGrid, FRAME, SoundFrame};
use super::lead::lead;
use super::outlet::Follower;
use super::pass::Pass;
use super::rung::{Picture, Told};
use super::shed::{Rungs, StandIn};
use super::tail::tail;
use super::video::VideoEncoder;
use super::video_grid::{Place, VideoGrid};
use super::{By, Engine, EngineError, Input, Order, Output, decode, ff, put};
use bytes::Bytes;
use ffmpeg_next::codec::decoder;
use ffmpeg_next::software::resampling;
use ffmpeg_next::{ChannelLayout, Packet, frame, packet};
use lectern_contract::feed::{AccessUnit, Codec, Track};
use lectern_contract::{SegmentNumber, TICKS_PER_SECOND, Ticks};
use lectern_media::cmaf::AUDIO_TIMESCALE;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Pictures that may wait for a rendition's encoder. More would hide how far it is behind, and hold 3 MB each at 1080p.
const WAITING: usize = 8;

/// See the module.
pub struct Libav {
    order: Order,
    out: mpsc::Sender<Output>,
    video: Option<Video>,
    audio: Option<Audio>,
    renditions: Vec<Rendition>,
    rungs: Rungs,
    /// The renditions that the source may be passed on as.
    passes: Vec<Pass>,
    /// How far the renditions have pictures, by frame rate.
    shown: Vec<VideoGrid>,
    sounds: Vec<AudioEncoder>,
    grid: AudioGrid,
    /// An access unit has come.
    begun: bool,
    skipped: u64,
}

struct Video {
    codec: Codec,
    config: Bytes,
    decoder: decoder::Video,
}

struct Audio {
    codec: Codec,
    config: Bytes,
    decoder: decoder::Audio,
    resampler: Option<(resampling::Context, resampling::context::Definition)>,
}

struct Rendition {
    name: String,
    told: SyncSender<Told>,
    thread: JoinHandle<Result<(), EngineError>>,
}

impl Libav {
    /// An engine that has opened nothing yet: encoders are opened when their track's first parameters come, so that a
    /// source without sound (or picture) makes only the renditions that it can.
    pub fn new(order: Order, out: mpsc::Sender<Output>) -> Result<Self, EngineError> {
        ffmpeg_next::init().map_err(EngineError::libav("libav cannot be set up"))?;
        // A broken stream would fill the log with libav's lines; what is skipped is counted and told here.
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
        let rates: BTreeSet<u32> = order.ladder.video.iter().map(|rendition| rendition.frame_rate).collect();
        Ok(Self {
            rungs: Rungs::of(&order.ladder, order.parts.is_some()),
            order,
            out,
            video: None,
            audio: None,
            renditions: Vec::new(),
            passes: Vec::new(),
            shown: rates.into_iter().map(VideoGrid::new).collect(),
            sounds: Vec::new(),
            grid: AudioGrid::default(),
            begun: false,
            skipped: 0,
        })
    }

    fn configure(&mut self, codec: Codec, config: Bytes) -> Result<(), EngineError> {
        let known = match codec.track() {
            Track::Video => self.video.as_ref().is_some_and(|video| (video.codec, &video.config) == (codec, &config)),
            Track::Audio => self.audio.as_ref().is_some_and(|audio| (audio.codec, &audio.config) == (codec, &config)),
        };
        match codec.track() {
            _ if known => Ok(()),
            Track::Video => self.open_video(codec, config),
            Track::Audio => self.open_audio(codec, config),
        }
    }

    /// The renditions go on through a change of codec: pictures are scaled to what they were opened for.
    fn open_video(&mut self, codec: Codec, config: Bytes) -> Result<(), EngineError> {
        self.drain_video()?;
        self.video = None; // it could do nothing with the new codec
        match decode::open(codec, &config).and_then(|opened| opened.video()) {
            Ok(decoder) => self.video = Some(Video { codec, config: config.clone(), decoder }),
            Err(error) => return self.unusable(codec, error),
        }
        if self.renditions.is_empty() {
            self.start_renditions(Some((codec, &config)))?;
        }
        self.pass(|pass| pass.configured(codec, &config))
    }

    /// As for pictures: sound is resampled to what the renditions were opened for.
    fn open_audio(&mut self, codec: Codec, config: Bytes) -> Result<(), EngineError> {
        if let Some(audio) = &mut self.audio {
            let _ = audio.decoder.send_eof(); // as in drain_video
        }
        self.sound()?;
        self.audio = None;
        match decode::open(codec, &config).and_then(|opened| opened.audio()) {
            Ok(decoder) => self.audio = Some(Audio { codec, config, decoder, resampler: None }),
            Err(error) => return self.unusable(codec, error),
        }
        self.open_sounds()
    }

    /// Opens the sound renditions, unless they are.
    fn open_sounds(&mut self) -> Result<(), EngineError> {
        if self.sounds.is_empty() {
            let first = self.order.ladder.video.len();
            for (at, rendition) in self.order.ladder.audio.iter().enumerate() {
                self.sounds.push(AudioEncoder::open(first + at, rendition, &self.order, self.out.clone())?);
            }
        }
        Ok(())
    }

    /// Parameters that the decoder does not take come from the publisher: its next ones may be better.
    fn unusable(&mut self, codec: Codec, error: ffmpeg_next::Error) -> Result<(), EngineError> {
        tracing::warn!(?codec, %error, "the parameters of a track are unusable; waiting for others");
        Ok(())
    }

    /// Starts them, for a `source` of pictures or for the slate alone.
    fn start_renditions(&mut self, source: Option<(Codec, &[u8])>) -> Result<(), EngineError> {
        for (at, rendition) in self.order.ladder.video.iter().enumerate() {
            let (told, waiting) = sync_channel(WAITING);
            let (order, out, name) = (self.order.clone(), self.out.clone(), rendition.name.clone());
            let pass = match source {
                Some((codec, config)) => Pass::new(at, rendition, &order, codec, config),
                None => order.predecessor.init(&name).and_then(|init| Pass::after(at, rendition, &order, init)),
            };
            let own = pass.as_ref().map(Pass::own).unwrap_or_default();
            self.passes.extend(pass);
            let rendition = rendition.clone();
            let thread = std::thread::Builder::new()
                .name(format!("encode-{name}"))
                .spawn(move || VideoEncoder::open(at, rendition, order, out, own)?.run(waiting))
                .map_err(|source| EngineError::Thread { rendition: name.clone(), source })?;
            self.renditions.push(Rendition { name, told, thread });
        }
        Ok(())
    }

    fn unit(&mut self, unit: &AccessUnit) -> Result<(), EngineError> {
        if unit.track == Track::Video {
            self.pass_on(unit)?;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.lead_in(unit);
        }
        let mut packet = Packet::copy(&unit.payload);
        packet.set_pts(i64::try_from(unit.pts.0).ok());
        packet.set_dts(i64::try_from(unit.dts.0).ok());
        if unit.keyframe {
            packet.set_flags(packet::Flags::KEY);
        }
        let sent = match (unit.track, &mut self.video, &mut self.audio) {
            (Track::Video, Some(video), _) => video.decoder.send_packet(&packet),
            (Track::Audio, _, Some(audio)) => audio.decoder.send_packet(&packet),
            _ => return Ok(()), // before its parameters: the feed promises them first, a publisher may not keep it
        };
        if let Err(error) = sent {
            self.skipped += 1;
            if self.skipped.is_power_of_two() {
                tracing::warn!(track = ?unit.track, pts = %unit.pts, %error, skipped = self.skipped, "an access unit does not decode; skipped");
            }
        }
        match unit.track {
            Track::Video => self.pictures(),
            Track::Audio => self.sound(),
        }
    }

    /// Where a new run begins with `unit` and that is a picture, as the feed has it of a source with pictures, its sound begins beside that.
    fn lead_in(&mut self, unit: &AccessUnit) {
        let is_new = self.order.from == Ticks(0) && unit.track == Track::Video && self.video.is_some();
        let Some(mut shown) = self.shown.first().filter(|_| is_new).cloned() else { return };
        if let Place::At { slot, .. } = shown.place(unit.pts) {
            self.grid.lead(lead(shown.start(slot), self.order.segment_duration));
        }
    }

    /// Lets the source be every rendition that it agrees with, but for those that are shed.
    fn pass_on(&mut self, unit: &AccessUnit) -> Result<(), EngineError> {
        let shed: BTreeSet<usize> = self.passes.iter().map(Pass::rendition).filter(|at| self.rungs.is_shed(*at)).collect();
        self.pass(|pass| if shed.contains(&pass.rendition()) { pass.interrupt() } else { pass.take(unit) })
    }

    /// Tells the renditions what comes of something that the source did.
    fn pass(&mut self, mut what: impl FnMut(&mut Pass) -> Vec<Told>) -> Result<(), EngineError> {
        let told: Vec<_> = self.passes.iter_mut().map(|pass| (pass.rendition(), what(pass))).collect();
        for (at, told) in told.into_iter().flat_map(|(at, told)| told.into_iter().map(move |told| (at, told))) {
            self.tell(at, told)?;
        }
        // What the source is not any more has to be encoded by who was behind already.
        while let Some(stand_in) = self.rungs.due(|at| is_free(&self.passes, at)) {
            self.step_down(stand_in)?;
        }
        Ok(())
    }

    fn pictures(&mut self) -> Result<(), EngineError> {
        while let Some(video) = &mut self.video {
            let mut decoded = frame::Video::empty();
            if video.decoder.receive_frame(&mut decoded).is_err() {
                break; // wants more input, or has come to its end
            }
            let Some(pts) = decoded.timestamp().or(decoded.pts()).and_then(|pts| u64::try_from(pts).ok()) else { continue };
            let triplets = ff::captions(&decoded);
            if !triplets.is_empty() {
                let _ = put(&self.out, Output::Captions { at: Ticks(pts), triplets }); // as in VideoEncoder::open
            }
            self.pass(|pass| pass.shown(&decoded))?;
            self.show(&Picture::Frame(Arc::new(decoded), Ticks(pts)))?;
        }
        Ok(())
    }

    fn show(&mut self, picture: &Picture) -> Result<(), EngineError> {
        for grid in &mut self.shown {
            match picture {
                Picture::Frame(_, pts) => drop(grid.place(*pts)),
                Picture::Slate(until) => {
                    grid.begin(self.order.slate_begins(*until));
                    grid.fill(*until);
                }
                Picture::Hold(until) => drop(grid.fill(*until)),
                Picture::Cut => {}
            }
        }
        let stopped = self.renditions.iter().position(|rendition| rendition.told.send(Told::Picture(picture.clone())).is_err());
        self.without(stopped)
    }

    fn tell(&mut self, rendition: usize, told: Told) -> Result<(), EngineError> {
        let stopped = self.renditions.get(rendition).is_some_and(|it| it.told.send(told).is_err());
        self.without(stopped.then_some(rendition))
    }

    fn without(&mut self, stopped: Option<usize>) -> Result<(), EngineError> {
        match stopped {
            // With nobody left to listen every thread ends well: the job is being stopped, and push says so quietly.
            Some(at) => ended(self.renditions.swap_remove(at)),
            None => Ok(()),
        }
    }

    /// Sheds the costliest rendition, once it costs something.
    fn shed(&mut self) -> Result<(), EngineError> {
        // Without pictures there is nothing to shed; the rungs must not think so.
        match self.renditions.first().and_then(|_| self.rungs.shed(|at| is_free(&self.passes, at))) {
            Some(stand_in) => self.step_down(stand_in),
            None => Ok(()),
        }
    }

    /// Lets `by` stand in for `rendition`, from the next segment on.
    fn step_down(&mut self, StandIn { rendition, by }: StandIn) -> Result<(), EngineError> {
        let from = self.next_segment();
        let follower = Follower { rendition, told: self.renditions[rendition].told.clone(), from, until: None, begun: false };
        self.tell(rendition, Told::Turn { at: from, hurry: true })?;
        self.tell(by, Told::Lead(follower))?;
        let _ = put(&self.out, Output::StandIn { rendition, by: Some(By::Encoder(by)) }); // as in show
        Ok(())
    }

    /// Takes the last step of [`Self::shed`] back, from the next segment on.
    fn restore(&mut self) -> Result<(), EngineError> {
        let Some(StandIn { rendition, by }) = self.rungs.restore() else { return Ok(()) };
        let until = self.next_segment();
        self.tell(by, Told::Leave(rendition, until))?;
        self.tell(rendition, Told::Turn { at: until, hurry: false })?;
        let _ = put(&self.out, Output::StandIn { rendition, by: None }); // as in show
        Ok(())
    }

    /// The start of the first segment of which no rendition has a picture.
    fn next_segment(&self) -> Ticks {
        let shown = self.shown.iter().filter_map(VideoGrid::last);
        let last = shown.chain(self.passes.iter().map(Pass::newest)).max().unwrap_or_default(); // the decoder may hold what was passed
        SegmentNumber::of(last, self.order.segment_duration).next().start(self.order.segment_duration)
    }

    /// What the last segment lacks of either track.
    fn even_out(&mut self) -> Result<(), EngineError> {
        let sound = self.grid.expected().and_then(|next| next.checked_sub(1)).map(|last| last / FRAME as u64 * FRAME as u64);
        let tail = tail(self.shown.iter().filter_map(VideoGrid::last), sound, self.order.segment_duration);
        if let Some(until) = tail.hold {
            self.pass(Pass::interrupt)?; // the source has no picture in that segment
            self.show(&Picture::Hold(until))?;
        }
        match tail.silence {
            Some(until) => {
                let frames = self.grid.fill(until);
                self.hear(&frames)
            }
            None => Ok(()),
        }
    }

    fn sound(&mut self) -> Result<(), EngineError> {
        while let Some(audio) = &mut self.audio {
            let mut decoded = frame::Audio::empty();
            if audio.decoder.receive_frame(&mut decoded).is_err() {
                break;
            }
            let Some(pts) = decoded.timestamp().or(decoded.pts()).and_then(|pts| u64::try_from(pts).ok()) else { continue };
            let at = pts * u64::from(AUDIO_TIMESCALE) / TICKS_PER_SECOND;
            let (sound, delay) = match audio.resample(&decoded) {
                Ok(resampled) => resampled,
                Err(error) => {
                    self.skipped += 1;
                    tracing::warn!(%error, skipped = self.skipped, "sound cannot be resampled; skipped");
                    continue;
                }
            };
            if sound.samples() == 0 {
                continue;
            }
            let frames = self.grid.push(at.saturating_sub(delay), [sound.plane::<f32>(0), sound.plane::<f32>(1)]);
            self.hear(&frames)?;
        }
        Ok(())
    }

    fn hear(&mut self, frames: &[SoundFrame]) -> Result<(), EngineError> {
        for frame in frames {
            for encoder in &mut self.sounds {
                encoder.take(frame)?;
            }
        }
        Ok(())
    }

    /// Gets the pictures that the decoder holds back for reordering; it then takes a new sequence.
    fn drain_video(&mut self) -> Result<(), EngineError> {
        if let Some(video) = &mut self.video {
            // A decoder that refuses the end of input has nothing to give.
            let _ = video.decoder.send_eof();
        }
        self.pictures()?;
        if let Some(video) = &mut self.video {
            video.decoder.flush();
        }
        Ok(())
    }
}

impl Engine for Libav {
    fn push(&mut self, input: Input) -> Result<(), EngineError> {
        match input {
            Input::Config { codec, config, .. } => self.configure(codec, config),
            Input::Unit(unit) => self.unit(&unit),
            Input::Gap => {
                self.pass(Pass::interrupt)?;
                self.drain_video()
            }
            Input::Fill(Track::Video, until) => {
                if self.renditions.is_empty() {
                    self.start_renditions(None)?;
                }
                self.pass(|pass| pass.fill(until))?;
                self.drain_video()?; // what is held back belongs before the slate
                self.show(&Picture::Slate(until))
            }
            Input::Fill(Track::Audio, until) => {
                self.open_sounds()?;
                let samples = |time: Ticks| time.0 * u64::from(AUDIO_TIMESCALE) / TICKS_PER_SECOND;
                // Encoders are primed with two frames.
                self.grid.begin_silent(samples(self.order.slate_begins(until)).saturating_sub(2 * FRAME as u64));
                let frames = self.grid.fill(samples(until));
                self.hear(&frames)
            }
            Input::Cut => {
                for sound in &self.sounds {
                    sound.cut();
                }
                self.pass(Pass::cut)?;
                self.show(&Picture::Cut)
            }
            Input::Said(metadata) => {
                let _ = put(&self.out, Output::Said(metadata)); // as in VideoEncoder::open
                Ok(())
            }
            Input::Shed => self.shed(),
            Input::Restore => self.restore(),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.drain_video()?;
        self.even_out()?;
        self.pass(Pass::finish)?;
        let rest = self.grid.flush();
        for mut sound in self.sounds.drain(..) {
            if let Some(rest) = &rest {
                sound.take(rest)?;
            }
            sound.finish()?;
        }
        // All are told first: one that another stands in for ends after that one.
        let threads: Vec<_> = self.renditions.drain(..).map(|Rendition { name, thread, .. }| (name, thread)).collect();
        for (name, thread) in threads {
            join(&name, thread)?;
        }
        Ok(())
    }
}

/// Whether rendition `at` costs nothing now, or soon: the source is passed on as it.
fn is_free(passes: &[Pass], at: usize) -> bool {
    passes.iter().any(|pass| pass.rendition() == at && pass.is_armed())
}

fn ended(rendition: Rendition) -> Result<(), EngineError> {
    let name = rendition.name;
    join(&name, rendition.thread)?;
    Err(EngineError::Stopped(name))
}

fn join(name: &str, thread: JoinHandle<Result<(), EngineError>>) -> Result<(), EngineError> {
    thread.join().unwrap_or_else(|_| Err(EngineError::Stopped(name.to_owned())))
}

impl Audio {
    /// `sound` at 48 kHz in stereo, and how many samples before its own time the output begins: what the resampler held.
    fn resample(&mut self, sound: &frame::Audio) -> Result<(frame::Audio, u64), ffmpeg_next::Error> {
        let layout = match sound.channel_layout() {
            layout if layout.is_empty() => ChannelLayout::default(i32::from(sound.channels())),
            layout => layout,
        };
        let from = resampling::context::Definition { format: sound.format(), channel_layout: layout, rate: sound.rate() };
        if self.resampler.as_ref().is_none_or(|(_, shape)| *shape != from) {
            let made = resampling::Context::get(from.format, layout, from.rate, FORMAT, ChannelLayout::STEREO, AUDIO_TIMESCALE)?;
            self.resampler = Some((made, from));
        }
        let Some((resampler, _)) = &mut self.resampler else { return Err(ffmpeg_next::Error::InvalidData) };
        let held = resampler.delay().map_or(0, |delay| usize::try_from(delay.output).unwrap_or_default());
        let room = sound.samples() * AUDIO_TIMESCALE as usize / from.rate.max(1) as usize + held + 64;
        let mut output = frame::Audio::new(FORMAT, room, ChannelLayout::STEREO);
        resampler.run(sound, &mut output)?;
        Ok((output, held as u64))
    }
}
