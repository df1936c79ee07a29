//! Judges of a finished run: what must hold of every run, whatever the test did to it. They read the bucket and trust nothing else.

use crate::pattern::{self, STRIP_BYTES, STRIP_FILTER};
use crate::storage::{Storage, segment_of};
use crate::{boxes, claims, count, playlist};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use lectern_contract::keys::{CAPTIONS, ObjectName, RunPrefix};
use lectern_contract::ledger::{Ended, Ledger};
use lectern_contract::{SegmentNumber, TICKS_PER_SECOND};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// What the publisher sent, as it came; a folder of the run's.
pub const ORIGINAL: &str = "original";

/// Tenths of a second of sound that ffmpeg may send before the pictures of their time.
const AHEAD: u32 = 20;

/// Tenths of a second that are heard too briefly to be read, in a run with nothing wrong.
const FEW: u32 = 2;

/// What a test knows of a run before it is judged.
#[derive(Debug, Default)]
pub struct Expected {
    /// The counters that each publisher drew, in the order in which they published.
    pub published: Vec<Range<u32>>,
    /// The test interrupted the run: numbers may be missing where playlists declare it, what follows a segment that was cut short may
    /// start late, and pictures without a code (a slate) may be shown in between.
    pub interrupted: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// All that is wrong, a line each.
    pub complaints: Vec<String>,
    /// The numbers of each rendition's segments, ascending.
    pub segments: BTreeMap<String, Vec<u64>>,
    /// The counters of each video rendition's pictures, in the order shown; `None` where no code could be read.
    pub pictures: BTreeMap<String, Vec<Option<u32>>>,
    /// The numbers that each rendition of sound counts (see [`count`]), in the order heard; none where another sound was sent.
    pub sounds: BTreeMap<String, Vec<u32>>,
    /// Numbers that are missing between the first and the last.
    pub missing: Vec<u64>,
}

impl Verdict {
    /// An error with all complaints, if there are any.
    pub fn sound(self) -> Result<Self> {
        ensure!(self.complaints.is_empty(), "the run is not sound:\n  {}", self.complaints.join("\n  "));
        Ok(self)
    }

    /// The first counter that any picture of the run shows.
    pub fn first_picture(&self) -> Option<u32> {
        self.pictures.values().filter_map(|pictures| pictures.iter().flatten().next().copied()).min()
    }

    fn complain(&mut self, complaint: impl Into<String>) {
        self.complaints.push(complaint.into());
    }
}

/// Judges an ended run with its VOD. Scratch files go to `scratch`.
pub async fn ended_run(storage: &Storage, prefix: &RunPrefix, expected: &Expected, scratch: &Path) -> Result<Verdict> {
    let mut verdict = Verdict { segments: storage.segments(prefix).await?, ..Verdict::default() };
    let objects = storage.list(&format!("{prefix}/")).await?;
    let ended: Ended = storage.json(prefix, &ObjectName::Ended).await?;
    let noted = ledgers(storage, prefix, &ended, &mut verdict).await?;
    numbers(&ended, expected, &mut verdict);
    ledgers_match_objects(prefix, &objects, &noted, &mut verdict);
    vod_playlists(storage, prefix, &ended, &mut verdict).await?;
    verdict.complaints.extend(claims::bandwidth(&storage.text(prefix, &ObjectName::Vod).await?, &noted));
    for rendition in &ended.renditions {
        if rendition.name == CAPTIONS {
            text(storage, prefix, &mut verdict).await?;
            continue;
        }
        media(storage, prefix, &ended, &rendition.name, &noted, expected, scratch, &mut verdict).await?;
    }
    original(storage, prefix, expected, scratch, &mut verdict).await?;
    Ok(verdict)
}

/// Every live playlist in the bucket names only what the bucket holds. True at any time of a run.
pub async fn live_playlists(storage: &Storage, prefix: &RunPrefix) -> Result<()> {
    let multivariant = storage.text(prefix, &ObjectName::Multivariant).await?;
    for name in playlist::variants(&multivariant) {
        let key = format!("{prefix}/{name}");
        let text = String::from_utf8(storage.get(&key).await?)?;
        let objects = storage.list(&format!("{prefix}/")).await?; // after the playlist: what it names must be there by now
        let read = playlist::media(&text);
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        for uri in read.segments.iter().filter(|segment| !segment.gap).map(|segment| &segment.uri).chain(&read.maps) {
            ensure!(objects.contains_key(&format!("{folder}/{uri}")), "{key} names {uri}, which is not in the bucket:\n{text}");
        }
    }
    Ok(())
}

/// Reads the ledgers that `ended.json` names; complains of others, and of a segment that stands in two.
async fn ledgers(storage: &Storage, prefix: &RunPrefix, ended: &Ended, verdict: &mut Verdict) -> Result<claims::Segments> {
    let mut noted = claims::Segments::new();
    for minute in &ended.minutes {
        let ledger: Ledger = storage.json(prefix, &ObjectName::Ledger(*minute)).await?;
        for (rendition, segments) in ledger.segments {
            for segment in segments {
                if noted.entry(rendition.clone()).or_default().insert(segment.number.0, segment).is_some() {
                    verdict.complain(format!("{rendition}/{} stands twice in the ledgers", segment.number));
                }
            }
        }
    }
    let there = storage.list(&format!("{prefix}/ledger/")).await?;
    if there.len() != ended.minutes.len() {
        verdict.complain(format!("ended.json names the minutes {:?}, but the ledgers are {:?}", ended.minutes, there.keys()));
    }
    Ok(noted)
}

/// Numbers have no holes, and every rendition has the same, text from when there was something to read.
fn numbers(ended: &Ended, expected: &Expected, verdict: &mut Verdict) {
    let named: BTreeSet<_> = ended.renditions.iter().map(|rendition| rendition.name.clone()).collect();
    let there: BTreeSet<_> = verdict.segments.keys().cloned().collect();
    if named != there {
        verdict.complain(format!("ended.json names the renditions {named:?}, the bucket holds {there:?}"));
    }
    let Some((one, numbers)) =
        verdict.segments.iter().find(|(name, _)| *name != CAPTIONS).map(|(name, numbers)| (name.clone(), numbers.clone()))
    else {
        return verdict.complain("the run has no segments");
    };
    for (name, others) in verdict.segments.clone() {
        let same = if name == CAPTIONS { numbers.ends_with(&others) } else { others == numbers };
        if !same {
            verdict.complain(format!("{one} has the segments {numbers:?}, but {name} has {others:?}"));
        }
    }
    let have: BTreeSet<_> = numbers.iter().copied().collect();
    verdict.missing = (numbers[0]..=numbers[numbers.len() - 1]).filter(|number| !have.contains(number)).collect();
    if !verdict.missing.is_empty() && !expected.interrupted {
        verdict.complain(format!("segments {:?} are missing", verdict.missing));
    }
}

fn ledgers_match_objects(prefix: &RunPrefix, objects: &BTreeMap<String, u64>, noted: &claims::Segments, verdict: &mut Verdict) {
    let mut left = noted.clone();
    for (key, size) in objects {
        let Some((rendition, number)) = segment_of(prefix, key) else { continue };
        match left.get_mut(&rendition).and_then(|segments| segments.remove(&number)) {
            None => verdict.complain(format!("{key} stands in no ledger")),
            Some(note) if note.bytes != *size => verdict.complain(format!("{key} has {size} bytes, its ledger says {}", note.bytes)),
            Some(note) if rendition != CAPTIONS && !objects.contains_key(&prefix.key(&ObjectName::Init(rendition.clone(), note.init))) => {
                verdict.complain(format!("{key} needs init {}, which is not there", note.init));
            }
            Some(_) => {}
        }
    }
    for (rendition, segments) in left.into_iter().filter(|(_, segments)| !segments.is_empty()) {
        verdict.complain(format!("ledgers name {:?} of {rendition}, which are not in the bucket", segments.keys()));
    }
}

/// The VOD names every segment exactly once, in order, is closed, and declares every hole.
async fn vod_playlists(storage: &Storage, prefix: &RunPrefix, ended: &Ended, verdict: &mut Verdict) -> Result<()> {
    let multivariant = storage.text(prefix, &ObjectName::Vod).await?;
    let named = playlist::variants(&multivariant);
    for rendition in &ended.renditions {
        let name = ObjectName::VodMedia(rendition.name.clone());
        if !named.contains(&name.to_string()) {
            verdict.complain(format!("vod.m3u8 does not name {name}"));
        }
        let read = playlist::media(&storage.text(prefix, &name).await?);
        let there = verdict.segments.get(&rendition.name).cloned().unwrap_or_default();
        let numbers: Vec<_> = read.segments.iter().filter(|segment| !segment.gap).filter_map(playlist::Segment::number).collect();
        if numbers != there {
            verdict.complain(format!("{name} names {numbers:?}, the bucket holds {there:?}"));
        }
        if !read.ended {
            verdict.complain(format!("{name} is not closed"));
        }
        for number in verdict.missing.clone() {
            let next = read.segments.iter().find(|segment| segment.number().is_some_and(|n| n >= number));
            if !next.is_some_and(|segment| segment.gap || segment.discontinuity) {
                verdict.complain(format!("{name} does not declare that {number} is missing"));
            }
        }
    }
    Ok(())
}

/// What can be read in the text's segments is WebVTT.
async fn text(storage: &Storage, prefix: &RunPrefix, verdict: &mut Verdict) -> Result<()> {
    for number in verdict.segments.get(CAPTIONS).cloned().unwrap_or_default() {
        let text = storage.text(prefix, &ObjectName::segment(CAPTIONS, SegmentNumber(number))).await?;
        if !text.starts_with("WEBVTT\nX-TIMESTAMP-MAP=") {
            verdict.complain(format!("{CAPTIONS}/{number} is {text:?}"));
        }
    }
    Ok(())
}

/// One rendition's bytes: segments start where their numbers say, with a keyframe; pictures are the published ones, in order.
#[allow(clippy::too_many_arguments)]
async fn media(
    storage: &Storage,
    prefix: &RunPrefix,
    ended: &Ended,
    rendition: &str,
    noted: &claims::Segments,
    expected: &Expected,
    scratch: &Path,
    verdict: &mut Verdict,
) -> Result<()> {
    let numbers = verdict.segments.get(rendition).cloned().unwrap_or_default();
    let note_of = |number: &u64| noted.get(rendition).and_then(|segments| segments.get(number));
    let init_of = |number: &u64| note_of(number).map_or(1, |note| note.init);
    // A segment that an interruption ended; sound frames lie on a grid of their own, so that a few are no sign of it.
    let is_cut = |number: &u64| {
        let whole = u64::from(ended.segment_duration.millis()) * TICKS_PER_SECOND / 1000;
        expected.interrupted && note_of(number).is_some_and(|note| note.duration.0 + TICKS_PER_SECOND / 20 < whole)
    };
    let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
    for stretch in numbers.chunk_by(|a, b| init_of(a) == init_of(b)) {
        let init = storage.get(&prefix.key(&ObjectName::Init(rendition.to_owned(), init_of(&stretch[0])))).await?;
        let video = boxes::is_video(&init)?;
        let coding = if video { Some(boxes::coding(&init)?) } else { None };
        let scale = boxes::timescale(&init)?;
        let span = u64::from(ended.segment_duration.millis()) * scale / 1000;
        let segments: Vec<Vec<u8>> = futures::stream::iter(stretch)
            .map(|number| async move { storage.get(&prefix.key(&ObjectName::Segment(rendition.to_owned(), SegmentNumber(*number)))).await })
            .buffered(8)
            .try_collect()
            .await?;
        for (at, (number, segment)) in stretch.iter().zip(&segments).enumerate() {
            let start = boxes::decode_time(segment).with_context(|| format!("{rendition}/{number}"))?;
            // What follows a hole may start late in its segment.
            let late = at == 0 || stretch[at - 1] + 1 != *number || is_cut(&stretch[at - 1]);
            let slack = if late {
                span - 1
            } else if video {
                0
            } else {
                1024
            };
            if !(number * span..=number * span + slack).contains(&start) {
                verdict.complain(format!("{rendition}/{number} starts at tick {start}, not at {}", number * span));
            }
            if let Some(coding) = coding
                && !boxes::starts_with_keyframe(segment, coding).with_context(|| format!("{rendition}/{number}"))?
            {
                verdict.complain(format!("{rendition}/{number} does not start with a keyframe"));
            }
        }
        let whole = [init, segments.concat()].concat();
        if video {
            keyframes(scratch, rendition, &whole, stretch, verdict).await?;
            pictures.extend(decode(scratch, rendition, &whole).await?);
        } else {
            sounds.extend(listen(scratch, rendition, &whole).await?);
        }
    }
    if !sounds.is_empty() {
        in_order_of_sound(rendition, &sounds, expected, verdict);
        verdict.sounds.insert(rendition.to_owned(), sounds);
    }
    if !pictures.is_empty() {
        in_order(rendition, &pictures, expected, verdict);
        verdict.pictures.insert(rendition.to_owned(), pictures);
    }
    Ok(())
}

/// The original's pieces, where it was kept: each can be decoded alone, and together they show the published pictures in order.
async fn original(storage: &Storage, prefix: &RunPrefix, expected: &Expected, scratch: &Path, verdict: &mut Verdict) -> Result<()> {
    let mut pictures = Vec::new();
    for piece in storage.list(&format!("{prefix}/{ORIGINAL}/")).await?.keys() {
        pictures.extend(decode(scratch, ORIGINAL, &storage.get(piece).await?).await.with_context(|| piece.clone())?);
    }
    if !pictures.is_empty() {
        in_order(ORIGINAL, &pictures, expected, verdict);
        verdict.pictures.insert(ORIGINAL.to_owned(), pictures);
    }
    Ok(())
}

/// ffprobe, too, sees a keyframe for each segment.
async fn keyframes(scratch: &Path, rendition: &str, whole: &[u8], stretch: &[u64], verdict: &mut Verdict) -> Result<()> {
    let args = ["-select_streams", "v", "-show_entries", "packet=flags", "-of", "csv=p=0"];
    let flags = String::from_utf8(tool("ffprobe", &args, &[], scratch, rendition, whole).await?)?;
    let found = flags.lines().filter(|line| line.starts_with('K')).count();
    if found < stretch.len() {
        verdict.complain(format!("{rendition}: ffprobe finds {found} keyframes in {} segments", stretch.len()));
    }
    Ok(())
}

/// The counters of all pictures, as ffmpeg decodes them.
async fn decode(scratch: &Path, rendition: &str, whole: &[u8]) -> Result<Vec<Option<u32>>> {
    let after = ["-vf", STRIP_FILTER, "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"];
    let strips = tool("ffmpeg", &["-nostdin", "-i"], &after, scratch, rendition, whole).await?;
    Ok(strips.chunks_exact(STRIP_BYTES).map(pattern::read_strip).collect())
}

/// The numbers in all sounds, as ffmpeg decodes them.
async fn listen(scratch: &Path, rendition: &str, whole: &[u8]) -> Result<Vec<u32>> {
    let rate = count::RATE.to_string();
    let after = ["-ac", "1", "-ar", &rate, "-f", "s16le", "pipe:1"];
    let samples = tool("ffmpeg", &["-nostdin", "-i"], &after, scratch, rendition, whole).await?;
    Ok(count::heard(&samples.chunks_exact(2).map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]])).collect::<Vec<_>>()))
}

/// Runs an ffmpeg tool on bytes; whatever it has to complain of is an error.
async fn tool(program: &str, before: &[&str], after: &[&str], scratch: &Path, name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    std::fs::create_dir_all(scratch)?;
    let file = scratch.join(format!("{name}.mp4"));
    std::fs::write(&file, bytes)?;
    let run =
        tokio::process::Command::new(program).args(["-hide_banner", "-loglevel", "error"]).args(before).arg(&file).args(after).output();
    let done = run.await.with_context(|| format!("{program} cannot be started; scripts/install test"))?;
    if !done.status.success() || !done.stderr.is_empty() {
        bail!("{program} on {}: {}", file.display(), String::from_utf8_lossy(&done.stderr));
    }
    std::fs::remove_file(&file)?; // kept above, for whoever looks into the failure
    Ok(done.stdout)
}

/// Sounds are published ones, in the order published, and hardly any is missing but where the run was interrupted.
fn in_order_of_sound(rendition: &str, sounds: &[u32], expected: &Expected, verdict: &mut Verdict) {
    let published: Vec<_> = expected.published.iter().map(sounds_of).collect();
    let missing = followed(rendition, "sound", sounds, &published, verdict).never;
    if missing > FEW && !expected.interrupted {
        verdict.complain(format!("{rendition}: {missing} tenths of a second of sound are missing"));
    }
}

/// The numbers that sound while these pictures are drawn; sound is sent a little ahead of them.
pub fn sounds_of(pictures: &Range<u32>) -> Range<u32> {
    let first = count::number_of(pictures.start);
    first..first + (pictures.end - pictures.start) / count::PICTURES + AHEAD
}

/// Pictures are published ones, in the order published, hardly any twice or never.
fn in_order(rendition: &str, pictures: &[Option<u32>], expected: &Expected, verdict: &mut Verdict) {
    // Between a lecturer's leaving and the end there may be a slate, in any run.
    let pictures = &pictures[..pictures.iter().rposition(Option::is_some).map_or(0, |last| last + 1)];
    let read: Vec<_> = pictures.iter().flatten().copied().collect();
    if read.len() < pictures.len() && !expected.interrupted {
        let (without, of) = (pictures.len() - read.len(), pictures.len());
        verdict.complain(format!("{rendition}: {without} of {of} pictures carry no code that checks: {}", stretches_without(pictures)));
    }
    let Followed { twice, never } = followed(rendition, "picture", &read, &expected.published, verdict);
    let most = u32::try_from(read.len() / 100 + 2).unwrap_or(u32::MAX);
    if twice + never > most && !expected.interrupted {
        verdict.complain(format!("{rendition}: of {} pictures {twice} come twice and {never} were lost", read.len()));
    }
}

/// Where pictures carry no code, for whoever looks for what was going on then: how many, after which.
fn stretches_without(pictures: &[Option<u32>]) -> String {
    let mut last = None;
    let stretches = pictures.chunk_by(|a, b| a.is_some() == b.is_some()).filter_map(|stretch| match stretch.last()? {
        Some(counter) => {
            last = Some(*counter);
            None
        }
        None => Some(last.map_or(format!("{} at first", stretch.len()), |last| format!("{} after {last}", stretch.len()))),
    });
    stretches.collect::<Vec<_>>().join(", ")
}

/// How many counters of one publisher's come twice, and how many never, between the first and the last.
#[derive(Debug, Default)]
struct Followed {
    twice: u32,
    never: u32,
}

/// Complains of counters of a `kind` that nobody published, or that come after later ones; what else is to be said of their order.
fn followed(rendition: &str, kind: &str, read: &[u32], published: &[Range<u32>], verdict: &mut Verdict) -> Followed {
    let publisher_of = |counter: u32| published.iter().position(|range| range.contains(&counter));
    let mut followed = Followed::default();
    for pair in read.windows(2) {
        match (publisher_of(pair[0]), publisher_of(pair[1])) {
            (Some(a), Some(b)) if (a, pair[0]) > (b, pair[1]) => {
                verdict.complain(format!("{rendition}: {kind} {} comes after {}", pair[1], pair[0]));
            }
            (Some(a), Some(b)) if a == b && pair[0] == pair[1] => followed.twice += 1,
            (Some(a), Some(b)) if a == b => followed.never += pair[1] - pair[0] - 1,
            (Some(_), Some(_)) => {}
            (_, None) | (None, _) => verdict.complain(format!("{rendition}: {kind} {} or {} was never published", pair[0], pair[1])),
        }
    }
    followed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_where_pictures_carry_no_code() {
        let mut verdict = Verdict::default();
        let pictures = [None, None, Some(4), Some(5), None, Some(6), None];
        in_order("180p", &pictures, &Expected { published: std::iter::once(4..7).collect(), interrupted: false }, &mut verdict);
        assert_eq!(verdict.complaints, ["180p: 3 of 6 pictures carry no code that checks: 2 at first, 1 after 5"]);
    }
}
