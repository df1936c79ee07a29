//! From an engine's output to everybody who wants it: cuts segments, offers them to origins at once, queues them for S3.
//! Nothing here waits.

use crate::body::Body;
use crate::engine::{By, Encoded, Output};
use crate::foregoing::Foregoing;
use crate::packager::{Made, Packager, Part, Segment, init_number};
use crate::publish::{
    Backlog, Event, Item, Live, NEWEST, Restored, empty_window, ladder_renditions, live_mpd, live_playlist, settled_playlist,
};
use crate::status::Status;
use bytes::{Buf as _, Bytes};
use lectern_contract::feed::TimedMetadata;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::EndedRendition;
use lectern_contract::{Ladder, SegmentNumber, TICKS_PER_SECOND, Ticks};
use lectern_media::aac;
use lectern_media::captions::{Captions, webvtt};
use lectern_media::cmaf::{self, CmafError};
use lectern_media::dash::{Representation, Stretch};
use lectern_media::hls::{self, Kind, LiveWindow, LowLatency, Multivariant, PartWindow, Report, growing, multivariant};
use tokio::sync::mpsc;

/// Segments that a rendition may make before the multivariant playlist stops waiting for the other track's parameters.
const WAIT_FOR_TRACK: usize = 2;
/// As many for a track that has parameters and sends nothing.
const WAIT_FOR_MEDIA: usize = 5;
/// Bytes of segments that may wait for S3 unless something else is said, and so much of a ladder that makes more.
const BACKLOG: u64 = 256 << 20;
const BACKLOG_SECONDS: u64 = 210;

/// See the module.
#[derive(Debug)]
pub struct Studio {
    job: LiveJob,
    /// The ladder's, and after them the captions.
    renditions: Vec<Rendition>,
    captions: Captions,
    /// The first segment that is this child's to make.
    next: SegmentNumber,
    /// The first that is its successor's.
    until: Option<SegmentNumber>,
    /// The newest that it has begun.
    newest: Option<SegmentNumber>,
    /// Of segments that begin before this the first parts may be a predecessor's.
    joints_until: Ticks,
    live: Live,
    status: Status,
    keeper: mpsc::UnboundedSender<Event>,
    named: usize,
    /// What the MPD names.
    listed: Vec<Stretch>,
    /// Bytes of segments that may wait for S3.
    backlog: usize,
    given_up: u64,
}

#[derive(Debug)]
struct Rendition {
    named: EndedRendition,
    packager: Packager,
    /// Until its first segment comes, and where there are parts.
    foregoing: Option<Foregoing>,
    window: LiveWindow,
    parts: PartWindow,
    /// Its playlist up to the last whole segment, as it is written once and stands in every playlist until the next.
    settled: Option<Bytes>,
    /// The init section in use: this child's, or a predecessor's that S3 already has.
    init: Option<(u32, Bytes)>,
    begun: bool,
    /// It has come to where a successor goes on.
    through: bool,
    made: usize,
    backlog: Backlog,
}

/// Why output cannot be packaged.
#[derive(Debug, thiserror::Error)]
pub enum StudioError {
    /// A CMAF file cannot be written.
    #[error(transparent)]
    Cmaf(#[from] CmafError),
    /// An encoder's parameters do not parse.
    #[error("the parameters of rendition {rendition} are unusable: {what}")]
    Parameters {
        /// Its name.
        rendition: String,
        /// What is wrong.
        what: String,
    },
    /// An engine named a rendition that the ladder does not have.
    #[error("there is no rendition {0}")]
    Unknown(usize),
}

impl Studio {
    /// A studio that goes on from `next`, the head's next segment.
    pub fn new(
        job: LiveJob,
        restored: &Restored,
        next: SegmentNumber,
        live: Live,
        status: Status,
        keeper: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let last = next.0.checked_sub(1).map(SegmentNumber);
        let renditions = ladder_renditions(&job.ladder).into_iter().chain([EndedRendition::captions()]).map(|mut named| {
            let timescale = if named.picture.is_some() { cmaf::VIDEO_TIMESCALE } else { cmaf::AUDIO_TIMESCALE };
            // Known before this child's encoders say it, for an MPD that may have to be closed before they do.
            let codec = restored.inits.get(&named.name).and_then(|(_, init)| cmaf::codec_of_init(init));
            if !named.is_text() {
                named.codec = codec.unwrap_or_default();
            }
            let packager = Packager::new(timescale, job.segment_duration, job.parts, last);
            Rendition {
                foregoing: job.parts.map(|count| Foregoing::new(timescale, job.segment_duration, count, next)),
                // Who plays segments while they are made counts the latency.
                packager: if job.parts.is_some() { packager.telling_when(job.anchor) } else { packager },
                window: restored.windows.get(&named.name).cloned().unwrap_or_else(|| empty_window(&job)),
                parts: PartWindow::default(),
                settled: None,
                init: restored.inits.get(&named.name).cloned(),
                begun: false,
                through: false,
                made: 0,
                backlog: Backlog::default(),
                named,
            }
        });
        let captions = Captions::default();
        let renditions = renditions.collect();
        let (until, newest, joints_until, backlog) = (None, None, Ticks(0), backlog_of(&job.ladder));
        Self {
            renditions,
            captions,
            next,
            until,
            newest,
            joints_until,
            job,
            live,
            status,
            keeper,
            named: 0,
            listed: Vec::new(),
            backlog,
            given_up: 0,
        }
    }

    /// The parts of segments that begin before `until` may be put out as a predecessor has made them (`publish/inheritance.rs`), and those have fewer keyframes.
    pub const fn goes_on_within(&mut self, until: Ticks) {
        self.joints_until = until;
    }

    /// How many bytes of segments may wait for S3 while it is slow or away. What is more than that is given up.
    pub const fn holds_for_s3(&mut self, bytes: usize) {
        self.backlog = bytes;
    }

    /// Leaves all segments from some number on, not yet begun, to a successor: that number, or `None` while nothing is begun.
    pub fn leave_the_rest(&mut self) -> Option<SegmentNumber> {
        self.until = Some(self.until.unwrap_or(self.newest?.next()));
        self.until
    }

    /// Whether all renditions have come to where the successor goes on.
    pub fn is_through(&self) -> bool {
        self.renditions.iter().filter(|rendition| rendition.begun && !rendition.named.is_text()).all(|rendition| rendition.through)
    }

    /// The queues to S3, by rendition: name and backlog, in the ladder's order.
    pub fn backlogs(&self) -> impl Iterator<Item = (String, Backlog)> + '_ {
        self.renditions.iter().map(|rendition| (rendition.named.name.clone(), rendition.backlog.clone()))
    }

    /// Takes one thing that the engine put out.
    ///
    /// # Errors
    /// The engine and the packager do not fit together; nothing that comes later will be better.
    pub fn take(&mut self, output: Output) -> Result<(), StudioError> {
        match output {
            Output::Config { rendition, of, config } => self.configure(rendition, of, &config),
            Output::Sample { rendition, sample } => self.sample(rendition, sample),
            Output::Captions { at, triplets } => {
                self.captions.take(at, triplets);
                Ok(())
            }
            Output::Said(said) => self.say(&said),
            Output::Degraded { rendition, why } => {
                let name = self.rendition(rendition)?.named.name.clone();
                tracing::warn!(rendition = name, why, "a rendition is encoded otherwise than ordered");
                self.status.trouble(&format!("encoder of {name}"), Some(format!("{name}: {why}")));
                Ok(())
            }
            Output::StandIn { rendition, by } => {
                let name = self.rendition(rendition)?.named.name.clone();
                let (mut shed, mut passed) = (None, None);
                match by {
                    Some(By::Encoder(by)) => {
                        let by = &self.rendition(by)?.named.name;
                        tracing::warn!(rendition = name, by, "a rendition is shed");
                        shed = Some(format!("{name} shows the picture of {by}: encoding it as well was too slow"));
                    }
                    Some(By::Source) => {
                        tracing::info!(rendition = name, "the source is passed on as a rendition");
                        passed = Some(format!("{name} is the source's own picture"));
                    }
                    None => tracing::info!(rendition = name, "a rendition is encoded again"),
                }
                self.status.trouble(&format!("shed {name}"), shed);
                self.status.remark(&name, passed);
                Ok(())
            }
            Output::Cut { rendition } | Output::End { rendition } => {
                let made = self.rendition(rendition)?.packager.cut()?;
                self.publish(rendition, made);
                Ok(())
            }
        }
    }

    fn rendition(&mut self, at: usize) -> Result<&mut Rendition, StudioError> {
        self.renditions.get_mut(at).ok_or(StudioError::Unknown(at))
    }

    /// Takes the parameters of rendition `at`, which are those of rendition `of`.
    fn configure(&mut self, at: usize, of: usize, config: &[u8]) -> Result<(), StudioError> {
        let coded = self.job.ladder.video.get(of).map(|video| (video.codec, video.width, video.height));
        let rendition = self.rendition(at)?;
        let named = &mut rendition.named;
        let unusable = |rendition: &str, what: String| StudioError::Parameters { rendition: rendition.to_owned(), what };
        let body = match coded {
            Some((coded, width, height)) => {
                let side = |pixels: u32| u16::try_from(pixels).map_err(|error| unusable(&named.name, error.to_string()));
                let codec = cmaf::codec_of_record(coded, config).map_err(|what| unusable(&named.name, what))?;
                let init = cmaf::video_init(coded, side(width)?, side(height)?, config)?;
                // A stand-in's pictures are smaller: who can decode the rendition's own can decode those.
                if of == at || named.codec.is_empty() {
                    named.codec = codec;
                }
                init
            }
            None => {
                let aac = aac::AacConfig::parse(config).map_err(|error| unusable(&named.name, error.to_string()))?;
                named.codec = aac.codec();
                cmaf::audio_init(config, aac.channels, u32::try_from(named.bitrate).unwrap_or(u32::MAX))?
            }
        };
        let (number, stored) = init_number(rendition.init.as_ref(), &body);
        let made = rendition.packager.set_init(number)?;
        rendition.begun = true;
        rendition.init = Some((number, body.clone()));
        if !stored {
            rendition.backlog.push(Item::Init(number, body.clone()));
        }
        let named = rendition.named.clone();
        self.live.put(ObjectName::Init(named.name.clone(), number), body);
        // The keeper is gone only when the run is lost; the child notices by itself.
        let _ = self.keeper.send(Event::Rendition { rendition: at, named });
        self.publish(at, made);
        Ok(())
    }

    /// In the segments of the sounds, which all players load, whatever picture they show; where there are none, in those of the pictures.
    fn say(&mut self, said: &TimedMetadata) -> Result<(), StudioError> {
        let number = SegmentNumber::of(said.at, self.job.segment_duration);
        if number < self.next || self.until.is_some_and(|until| number >= until) {
            return Ok(()); // a predecessor has said it, or a successor will
        }
        let sounds = self.renditions.iter().any(|rendition| rendition.named.is_sound());
        let carries = |rendition: &&mut Rendition| if sounds { rendition.named.is_sound() } else { rendition.named.picture.is_some() };
        for rendition in self.renditions.iter_mut().filter(carries) {
            rendition.packager.say(said)?;
        }
        Ok(())
    }

    fn sample(&mut self, at: usize, sample: Encoded) -> Result<(), StudioError> {
        let (next, until) = (self.next, self.until);
        let rendition = self.rendition(at)?;
        let number = rendition.packager.number_of(&sample);
        if until.is_some_and(|until| number >= until) {
            rendition.through = true;
            return Ok(());
        }
        if let Some(foregoing) = rendition.foregoing.as_mut().filter(|_| number < next) {
            let init = rendition.init.as_ref().map_or(0, |(init, _)| *init);
            for Part { number, duration, independent, .. } in foregoing.push(sample)? {
                rendition.parts.push(number, init, hls::Part { duration, independent });
            }
            return Ok(());
        }
        rendition.foregoing = None;
        let late = rendition.packager.late();
        let made = rendition.packager.push(sample)?;
        let now_late = rendition.packager.late();
        if now_late != late && now_late.is_power_of_two() {
            tracing::debug!(rendition = rendition.named.name, late = now_late, "samples belong to segments that were made before");
        }
        self.newest = self.newest.max(Some(number));
        self.status.begun();
        self.publish(at, made);
        Ok(())
    }

    /// Media first, then the playlist that names it, then what names the playlist.
    fn publish(&mut self, at: usize, made: Vec<Made>) {
        let news = !made.is_empty();
        let (mut whole, mut opened) = (false, false);
        for made in made {
            match made {
                Made::Part(part) => {
                    opened |= part.index == 0;
                    self.part(at, part);
                }
                Made::Segment(segment) => {
                    let (number, offset, duration) = (segment.number, segment.offset, segment.duration);
                    whole |= self.segment(at, segment);
                    self.write_captions(at, number, (offset, duration));
                }
            }
        }
        if news {
            self.put_playlist(at);
        }
        if whole {
            self.name_renditions();
        }
        if (whole || opened) && self.named > 0 {
            self.put_mpd(false);
        }
    }

    fn part(&mut self, at: usize, part: Part) {
        let Some(rendition) = self.renditions.get_mut(at) else { return };
        let Part { number, index, init, duration, independent, body } = part;
        let as_made = index == 0 || rendition.named.is_sound() || number.start(self.job.segment_duration) >= self.joints_until;
        let independent = independent && as_made;
        if index == 0 {
            rendition.settled = None; // the oldest parts are listed no more
        }
        rendition.parts.push(number, init, hls::Part { duration, independent });
        self.live.put_pieces(ObjectName::Part(rendition.named.name.clone(), number, index), body);
    }

    /// Publishes what was said in segment `number`, once the first rendition of pictures (here: `beside`) has it, and from then on that there
    /// was something to read. The captions of all its pictures have come: the engine puts them out before what is encoded.
    fn write_captions(&mut self, beside: usize, number: SegmentNumber, (offset, duration): (Ticks, Ticks)) {
        let at = self.renditions.len() - 1;
        let pictures = self.renditions[beside].named.picture.is_some();
        let rendition = &mut self.renditions[at];
        let known = self.captions.were_seen() || rendition.window.last().is_some();
        if !pictures || !known || rendition.window.last().is_some_and(|last| number <= last) {
            return;
        }
        if !rendition.begun {
            rendition.begun = true;
            let _ = self.keeper.send(Event::Rendition { rendition: at, named: rendition.named.clone() }); // as in configure
        }
        let cues = self.captions.between(number.start(self.job.segment_duration), number.next().start(self.job.segment_duration));
        let body = Bytes::from(webvtt(&cues)).into();
        let segment = Segment { number, offset, duration, init: 0, body, parts: 0 };
        self.segment(at, segment);
        self.put_playlist(at);
    }

    /// `false` where that number has been published before.
    fn segment(&mut self, at: usize, segment: Segment) -> bool {
        let Some(rendition) = self.renditions.get_mut(at) else { return false };
        let Segment { number, offset, duration, init, parts, .. } = segment;
        if !rendition.window.push(hls::Segment { number, offset, duration, init }) {
            return false; // the packager never makes a number twice; a window that was restored further decides
        }
        rendition.made += 1;
        rendition.settled = None;
        let name = rendition.named.name.clone();
        match parts {
            0 => self.live.put_pieces(ObjectName::segment(&name, number), segment.body.clone()),
            parts => self.live.put_joined(&name, number, parts, segment.body.clone()),
        }
        let parts = &rendition.parts;
        self.live.retain(&name, |held| held.0 + NEWEST as u64 > number.0, |number| parts.lists(number));
        self.status.segment(at, number, segment.end(self.job.segment_duration), duration, segment.body.remaining());
        let _ = self.keeper.send(Event::Made { rendition: at, number }); // as in configure; before it can be confirmed
        rendition.backlog.push(Item::Segment(segment));
        self.give_up();
        true
    }

    /// Gives up segments where more wait than may: the oldest number in all renditions, because a recording names no number that one of them lacks. What is the newest
    /// of a rendition stays.
    fn give_up(&mut self) {
        while self.renditions.iter().map(|rendition| rendition.backlog.bytes()).sum::<usize>() > self.backlog {
            let Some(oldest) = self.renditions.iter().filter_map(|rendition| rendition.backlog.dispensable()).min() else { return };
            for rendition in self.renditions.iter_mut().filter(|rendition| rendition.backlog.dispensable() == Some(oldest)) {
                rendition.backlog.give_up(oldest);
                self.given_up += 1;
                // Origins have it for a while yet, and then nobody has.
                rendition.window.lose(oldest);
                rendition.settled = None;
                tracing::error!(rendition = rendition.named.name, number = %oldest, "S3 was away for too long: a segment is given up");
            }
            self.status.trouble("given up", Some(format!("{} segments were given up because S3 was away", self.given_up)));
        }
    }

    /// A rendition's playlist as it is now; from its first whole segment on, because a player that is told of a rendition
    /// without one gives up.
    fn put_playlist(&mut self, at: usize) {
        let others = self.renditions.iter().enumerate().filter(|(other, known)| *other != at && known.window.last().is_some());
        let reports: Vec<Report> = others
            .filter_map(|(_, other)| {
                let (number, part) = other.parts.newest()?;
                Some(Report { rendition: other.named.name.clone(), number, part })
            })
            .collect();
        let Some(rendition) = self.renditions.get_mut(at) else { return };
        let Some(last) = rendition.window.newest() else { return };
        let (named, window, parts) = (&rendition.named, &rendition.window, &rendition.parts);
        let low_latency = self.job.parts.filter(|_| !named.is_text()).map(|count| LowLatency {
            parts,
            target: longest_part(named, count.nominal(self.job.segment_duration)),
            reports: &reports,
        });
        let settled = rendition.settled.get_or_insert_with(|| settled_playlist(&named.name, window, &self.job, low_latency));
        let rest = low_latency.map(|low_latency| Bytes::from(growing(&low_latency, &last)));
        self.live
            .put_pieces(ObjectName::MediaPlaylist(named.name.clone()), Body::of(std::iter::once(settled.clone()).chain(rest).collect()));
    }

    /// The MPD as it is now, if it names other segments than before or is final.
    fn put_mpd(&mut self, ended: bool) {
        // At the end also what only a predecessor has made: its MPD must be closed.
        let shown = |rendition: &&Rendition| if ended { !rendition.named.codec.is_empty() } else { rendition.made > 0 };
        let listed: Vec<Representation<'_>> = self
            .renditions
            .iter()
            .filter(shown)
            .filter_map(|rendition| {
                let whole = Stretch::newest(&rendition.window)?;
                let stretch = if ended { whole } else { whole.with_open(&rendition.parts) };
                Some(Representation { named: &rendition.named, stretch })
            })
            .collect();
        let stretches: Vec<Stretch> = listed.iter().map(|it| it.stretch).collect();
        if !ended && stretches == self.listed {
            return;
        }
        let nominal = self.job.parts.map(|parts| parts.nominal(self.job.segment_duration));
        let part = nominal.and_then(|nominal| listed.iter().map(|it| longest_part(it.named, nominal)).max());
        if let Some(text) = live_mpd(&self.job, listed, part, ended) {
            self.live.put(ObjectName::Mpd, text.into());
        }
        self.listed = stretches;
    }

    /// Publishes the multivariant playlist once every rendition that has begun has a segment: a player that is told of a
    /// rendition without one gives up. It waits a little for a track whose parameters have not come yet, and a little
    /// longer for one that has parameters and no media.
    fn name_renditions(&mut self) {
        let most = self.renditions.iter().map(|rendition| rendition.made).max().unwrap_or_default();
        let unknown = self.renditions.iter().any(|rendition| !rendition.begun && !rendition.named.is_text());
        let empty = self.renditions.iter().any(|rendition| rendition.begun && rendition.made == 0);
        let begun: Vec<&Rendition> = self.renditions.iter().filter(|rendition| rendition.made > 0).collect();
        if (unknown && most < WAIT_FOR_TRACK) || (empty && most < WAIT_FOR_MEDIA) || begun.len() <= self.named {
            return;
        }
        let renditions: Vec<EndedRendition> = begun.iter().map(|rendition| rendition.named.clone()).collect();
        self.named = renditions.len();
        let text = multivariant(&Multivariant { kind: Kind::Live, renditions: &renditions });
        self.live.put(ObjectName::Multivariant, text.into());
    }

    /// Tells the uploaders that nothing follows and, where the run has `ended`, origins that their playlists are final.
    pub fn close(mut self, ended: bool) {
        for rendition in &self.renditions {
            if ended && rendition.window.last().is_some() {
                let playlist = live_playlist(&rendition.named.name, &rendition.window, &self.job, true).into();
                self.live.put(ObjectName::MediaPlaylist(rendition.named.name.clone()), playlist);
            }
            rendition.backlog.push(Item::Last(ended));
        }
        if ended {
            self.put_mpd(true);
        }
    }
}

/// Bytes of segments of `ladder` that may wait for S3.
fn backlog_of(ladder: &Ladder) -> usize {
    let bits = ladder.video.iter().map(|it| it.bitrate).chain(ladder.audio.iter().map(|it| it.bitrate)).fold(0, u64::saturating_add);
    usize::try_from(BACKLOG.max(bits.saturating_mul(BACKLOG_SECONDS) / 8)).unwrap_or(usize::MAX)
}

/// The longest that a part of `nominal` length can be: parts end with a whole picture or sound frame.
fn longest_part(rendition: &EndedRendition, nominal: Ticks) -> Ticks {
    // Frames last `long` / `per` seconds.
    let (long, per) = match rendition.picture {
        Some(picture) => (1, u64::from(picture.frame_rate.max(1))),
        None => (1024, u64::from(cmaf::AUDIO_TIMESCALE)),
    };
    let frames = (nominal.0 * per).div_ceil(long * TICKS_PER_SECOND);
    Ticks((frames * long * TICKS_PER_SECOND).div_ceil(per))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::ledger::Picture;

    #[test]
    fn the_longest_part_holds_whole_frames() {
        let rendition = |frame_rate: Option<u32>| EndedRendition {
            name: String::new(),
            codec: String::new(),
            bitrate: 0,
            picture: frame_rate.map(|frame_rate| Picture { width: 320, height: 180, frame_rate }),
        };
        for (rate, wanted) in [(Some(30), 30_000), (Some(25), 32_400), (Some(10), 36_000), (Some(1), 90_000), (None, 30_720)] {
            assert_eq!(longest_part(&rendition(rate), Ticks(30_000)), Ticks(wanted), "{rate:?}");
        }
    }
}
