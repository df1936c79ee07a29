//! Runs the engine and the packager on feed frames, and measures what comes out.

use super::{folder, ladder, tool};
use bytes::{BufMut as _, Bytes};
use lectern_contract::feed::FeedFrame;
use lectern_contract::{Ladder, PartCount, SegmentDuration, Ticks, VideoCodec, VideoRendition};
use lectern_media::{aac::AacConfig, cmaf};
use lectern_transcoder_pod::engine::{Backend, Card, Engine, Input, Libav, Order, Output, Predecessor};
use lectern_transcoder_pod::packager::{self, Packager, Segment};
use std::collections::BTreeMap;
use std::path::Path;

pub const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

/// What came out of one rendition.
#[derive(Default)]
pub struct Made {
    pub init: Vec<Bytes>,
    pub segments: Vec<Segment>,
    /// Start, duration and whether decoding can start there.
    pub samples: Vec<(u64, u32, bool)>,
    /// What is coded of each.
    pub coded: Vec<Bytes>,
    pub ended: bool,
    /// How often it was said that the open segment gets nothing more.
    pub cut: usize,
    /// Why it is not encoded as ordered.
    pub degraded: Vec<String>,
}

pub fn transcode(frames: Vec<FeedFrame>, from: Ticks) -> BTreeMap<usize, Made> {
    transcode_inputs(ladder(), inputs(frames), from)
}

/// A rendition of each codec, and sound.
pub fn every_codec() -> Ladder {
    let of = |codec| VideoRendition { name: format!("{codec:?}").to_lowercase(), codec, ..ladder().video[1].clone() };
    Ladder { video: [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1].map(of).to_vec(), ..ladder() }
}

pub fn inputs(frames: Vec<FeedFrame>) -> Vec<Input> {
    let input = |frame| match frame {
        FeedFrame::Config { track, codec, config } => Input::Config { track, codec, config },
        FeedFrame::AccessUnit(unit) => Input::Unit(unit),
        FeedFrame::Metadata(metadata) => Input::Said(metadata),
        _ => Input::Gap,
    };
    frames.into_iter().map(input).collect()
}

pub fn transcode_inputs(ladder: Ladder, inputs: Vec<Input>, from: Ticks) -> BTreeMap<usize, Made> {
    transcode_by(Backend::Software, ladder, inputs, from)
}

pub fn transcode_by(encoder: Backend, ladder: Ladder, inputs: Vec<Input>, from: Ticks) -> BTreeMap<usize, Made> {
    let card = Card { title: "Algebra I".into(), text: "Back soon".into(), picture: None };
    made_of(
        Order {
            ladder,
            segment_duration: TWO,
            from,
            card,
            encoder,
            passthrough: true,
            parts: Some(PartCount::LOW_LATENCY),
            joints_until: Ticks(0),
            predecessor: Predecessor::default(),
        },
        inputs,
    )
}

/// What comes of `inputs`.
pub fn made_of(order: Order, inputs: Vec<Input>) -> BTreeMap<usize, Made> {
    let (shapes, parts) = (order.ladder.clone(), order.parts);
    let (out, mut outputs) = tokio::sync::mpsc::channel(64);
    let feeder = std::thread::spawn(move || {
        let mut engine: Box<dyn Engine> = Box::new(Libav::new(order, out).unwrap());
        inputs.into_iter().for_each(|input| engine.push(input).unwrap());
        engine.finish().unwrap();
    });
    let mut made: BTreeMap<usize, Made> = BTreeMap::new();
    let mut packagers: BTreeMap<usize, Packager> = BTreeMap::new();
    while let Some(output) = outputs.blocking_recv() {
        let rendition = match &output {
            Output::Captions { .. } | Output::Said(_) | Output::StandIn { .. } => continue,
            Output::Config { rendition, .. }
            | Output::Sample { rendition, .. }
            | Output::Degraded { rendition, .. }
            | Output::Cut { rendition }
            | Output::End { rendition } => *rendition,
        };
        let timescale = if rendition < shapes.video.len() { cmaf::VIDEO_TIMESCALE } else { cmaf::AUDIO_TIMESCALE };
        let packager = packagers.entry(rendition).or_insert_with(|| Packager::new(timescale, TWO, parts, None));
        let made = made.entry(rendition).or_default();
        match output {
            Output::Config { of, config, .. } => {
                let init = match shapes.video.get(of) {
                    Some(video) => cmaf::video_init(video.codec, video.width as u16, video.height as u16, &config).unwrap(),
                    None => {
                        assert_eq!(AacConfig::parse(&config).unwrap().sample_rate, 48_000);
                        cmaf::audio_init(&config, 2, 96_000).unwrap()
                    }
                };
                if made.init.last() != Some(&init) {
                    made.segments.extend(segments(packager.set_init(made.init.len() as u32).unwrap()));
                    made.init.push(init);
                }
            }
            Output::Sample { sample, .. } => {
                made.samples.push((sample.start, sample.duration, sample.sync));
                made.coded.push(sample.data.clone());
                made.segments.extend(segments(packager.push(sample).unwrap()));
            }
            Output::Degraded { why, .. } => made.degraded.push(why),
            Output::Captions { .. } | Output::Said(_) | Output::StandIn { .. } => unreachable!("passed over above"),
            Output::Cut { .. } => {
                made.cut += 1;
                made.segments.extend(segments(packager.cut().unwrap()));
            }
            Output::End { .. } => {
                made.segments.extend(segments(packager.cut().unwrap()));
                made.ended = true;
            }
        }
    }
    feeder.join().unwrap();
    made
}

fn segments(made: Vec<packager::Made>) -> impl Iterator<Item = Segment> {
    made.into_iter().filter_map(|made| if let packager::Made::Segment(segment) = made { Some(segment) } else { None })
}

pub fn write(folder: &Path, name: &str, init: &Bytes, segments: &[Segment]) -> String {
    let mut file = init.to_vec();
    segments.iter().for_each(|segment| file.put(segment.body.clone()));
    let path = folder.join(format!("{name}.mp4"));
    std::fs::write(&path, file).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn numbers(made: &Made) -> Vec<u64> {
    made.segments.iter().map(|segment| segment.number.0).collect()
}

/// Of the first so many renditions, pictures: every slot is filled once, segments begin with keyframes where they are to and are numbered without a hole, and those of
/// each of the `inits` init sections decode by themselves.
pub fn is_whole(name: &str, made: &BTreeMap<usize, Made>, inits: &[usize]) {
    let folder = folder(&format!("{name}-out"));
    for (at, inits) in inits.iter().enumerate() {
        let made = &made[&at];
        assert!(made.ended);
        let ends = |sample: &(u64, u32, bool)| sample.0 + u64::from(sample.1);
        let broken: Vec<_> = made.samples.windows(2).filter(|pair| ends(&pair[0]) != pair[1].0).collect();
        assert!(broken.is_empty(), "rendition {at}: a picture is missing or doubled: {broken:?}");
        let number = |sample: &(u64, u32, bool)| sample.0 / TWO.ticks().0;
        let begins = made.samples.windows(2).filter(|pair| number(&pair[0]) != number(&pair[1])).map(|pair| pair[1]);
        begins.for_each(|(start, _, sync)| {
            assert!(sync && start % TWO.ticks().0 == 0, "rendition {at}: a segment begins with {start}, {sync}")
        });
        let numbers = numbers(made);
        assert_eq!(numbers, (numbers[0]..numbers[0] + numbers.len() as u64).collect::<Vec<_>>(), "rendition {at}");
        assert_eq!(made.init.len(), *inits, "rendition {at}");
        for (number, init) in made.init.iter().enumerate() {
            let own: Vec<_> = made.segments.iter().filter(|segment| segment.init == number as u32).cloned().collect();
            assert!(!own.is_empty(), "rendition {at}: nothing is of init section {number}");
            let path = write(&folder, &format!("{at}-{number}"), init, &own);
            let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
            assert_eq!(complaints.trim(), "", "rendition {at}, init section {number}");
        }
    }
}

/// PSNR in dB between the pictures of a file and the generator of the ones that were sent. Neighbouring pictures have less
/// than 26 dB.
pub fn likeness(path: &str, original: &str) -> f64 {
    let graph = "[0:v]setpts=N/30/TB[a];[1:v]setpts=N/30/TB[b];[a][b]psnr";
    let said = tool("ffmpeg", &["-v", "info", "-i", path, "-f", "lavfi", "-i", original, "-lavfi", graph, "-f", "null", "-"]);
    number_after(&said, "average:")
}

pub fn number_after(said: &str, name: &str) -> f64 {
    let (_, rest) = said.rsplit_once(name).unwrap_or_else(|| panic!("no {name} in {said}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}
