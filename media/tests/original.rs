//! Originals of every codec, made by ffmpeg, taken apart, cut and written anew; then Debian's ffmpeg and ffprobe say
//! whether every packet is there, untouched and decodable.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, Track, pcm_config};
use lectern_media::original::{Cutter, Limits, Piece};
use mp4_atom::{Any, Codec as Entry, Decode, Moof};
use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// Where the run's timeline begins in these tests.
const START: u64 = 90_000_000;
const PICTURE: &[&str] = &["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"];
const TONE: &[&str] = &["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
const X264: &[&str] = &["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "15", "-pix_fmt", "yuv420p"];

/// Runs ffmpeg or ffprobe over `input`; what it wrote. Any word of complaint is a failure.
fn run(program: &str, args: &[&[&str]], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-v", "error"]).args(args.concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input))); // ffprobe may have seen enough
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let noise = |line: &str| line.starts_with("Svt[") || line.starts_with("x265 ") || line.trim().is_empty();
    assert!(output.status.success() && said.lines().all(noise), "{command:?}: {said}");
    output.stdout
}

fn text(program: &str, args: &[&[&str]], input: &[u8]) -> String {
    String::from_utf8(run(program, args, input)).unwrap()
}

/// A fragmented MP4 of ffmpeg's own.
fn encoded(args: &[&[&str]]) -> Vec<u8> {
    let muxer: &[&str] = &["-strict", "-2", "-f", "mp4", "-movflags", "+frag_keyframe+delay_moov+default_base_moof", "-"];
    run("ffmpeg", &[args, &[muxer]].concat(), &[])
}

/// Digests of all payloads of each track.
fn hashes(file: &[u8]) -> String {
    text("ffmpeg", &[&["-i", "-", "-map", "0", "-c", "copy", "-f", "streamhash", "-hash", "md5", "-"]], file)
}

/// The body of the first box of this kind, wherever it is.
fn body<'a>(file: &'a [u8], kind: &[u8; 4]) -> &'a [u8] {
    let at = file.windows(4).position(|window| window == kind).unwrap();
    let size = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    &file[at + 4..at - 4 + size]
}

fn coding(file: &[u8], entry: &Entry) -> (Codec, Vec<u8>) {
    match entry {
        Entry::Avc1(_) => (Codec::H264, body(file, b"avcC").to_vec()),
        Entry::Hvc1(_) => (Codec::Hevc, body(file, b"hvcC").to_vec()),
        Entry::Av01(_) => (Codec::Av1, body(file, b"av1C").to_vec()),
        Entry::Vp09(_) => (Codec::Vp9, body(file, b"vpcC")[4..].to_vec()),
        Entry::Mp4a(mp4a) => match &mp4a.esds.es_desc.dec_config.dec_specific {
            Some(config) => (Codec::Aac, config.raw.clone()),
            None => (Codec::Mp3, pcm_config(48_000, 1).to_vec()),
        },
        Entry::Opus(opus) => {
            let dops = &opus.dops;
            let mut head = b"OpusHead\x01".to_vec();
            head.push(dops.output_channel_count);
            head.extend_from_slice(&dops.pre_skip.to_le_bytes());
            head.extend_from_slice(&dops.input_sample_rate.to_le_bytes());
            head.extend_from_slice(&dops.output_gain.to_le_bytes());
            head.push(0);
            (Codec::Opus, head)
        }
        Entry::Flac(_) => (Codec::Flac, body(file, b"dfLa")[8..].to_vec()),
        Entry::Ac3(_) => (Codec::Ac3, pcm_config(48_000, 1).to_vec()),
        other => panic!("{other:?}"),
    }
}

/// A file as a feed would give it.
fn feed(file: &[u8]) -> Vec<FeedFrame> {
    let (mut frames, mut units, mut tracks) = (Vec::new(), Vec::new(), HashMap::new());
    let mut rest = file;
    while !rest.is_empty() {
        let here = rest;
        match Any::decode(&mut rest).unwrap() {
            Any::Moov(moov) => {
                for trak in &moov.trak {
                    let (codec, config) = coding(file, &trak.mdia.minf.stbl.stsd.codecs[0]);
                    tracks.insert(trak.tkhd.track_id, (codec.track(), u64::from(trak.mdia.mdhd.timescale)));
                    frames.push(FeedFrame::Config { track: codec.track(), codec, config: config.into() });
                }
            }
            Any::Moof(moof) => units.extend(samples(&moof, here, &tracks)),
            _ => {}
        }
    }
    units.sort_by_key(|unit| unit.dts);
    frames.into_iter().chain(units.into_iter().map(FeedFrame::AccessUnit)).collect()
}

fn samples(moof: &Moof, from_here: &[u8], tracks: &HashMap<u32, (Track, u64)>) -> Vec<AccessUnit> {
    let mut units = Vec::new();
    for traf in &moof.traf {
        let (track, timescale) = tracks[&traf.tfhd.track_id];
        let mut time = traf.tfdt.as_ref().unwrap().base_media_decode_time;
        for trun in &traf.trun {
            let mut at = trun.data_offset.unwrap() as usize;
            for sample in trun.samples.iter() {
                let size = sample.size.or(traf.tfhd.default_sample_size).unwrap() as usize;
                let flags = sample.flags.or(traf.tfhd.default_sample_flags).unwrap_or_default();
                let ticks = |time: i64| Ticks((START as i64 + time * 90_000 / timescale as i64) as u64);
                units.push(AccessUnit {
                    track,
                    dts: ticks(time as i64),
                    pts: ticks(time as i64 + sample.cts.unwrap_or_default()),
                    keyframe: flags & 0x0001_0000 == 0,
                    payload: Bytes::copy_from_slice(&from_here[at..at + size]),
                });
                at += size;
                time += u64::from(sample.duration.or(traf.tfhd.default_sample_duration).unwrap());
            }
        }
    }
    units
}

fn cut(frames: &[FeedFrame]) -> Vec<Piece> {
    let mut cutter = Cutter::new(Limits { span: Ticks(90_000), ..Limits::default() });
    let mut pieces: Vec<_> = frames.iter().filter_map(|frame| cutter.push(frame.clone())).collect();
    pieces.extend(cutter.finish());
    pieces
}

/// What ffprobe reads: `[decode time, presentation time]` of every packet of the first track.
fn times(file: &[u8]) -> Vec<[u64; 2]> {
    let said = text("ffprobe", &[&["-select_streams", "0", "-show_entries", "packet=pts,dts", "-of", "compact=p=0:nk=1", "-"]], file);
    let line = |line: &str| line.split('|').map(|time| time.parse().unwrap()).collect::<Vec<u64>>();
    said.lines().map(line).map(|times| [times[1], times[0]]).collect()
}

/// Cuts what ffmpeg made into pieces of a second and has ffmpeg judge each and all of them; what ffprobe says of the first.
fn judged(source: &[u8]) -> String {
    let frames = feed(source);
    let pieces = cut(&frames);
    assert!(pieces.len() > 1, "one piece only");
    let files: Vec<_> = pieces.iter().map(|piece| piece.write().unwrap()).collect();
    for (piece, file) in pieces.iter().zip(&files) {
        run("ffmpeg", &[&["-xerror", "-i", "-", "-f", "null", "-"]], file);
        let first = piece.units()[0].track;
        let wanted: Vec<_> = piece.units().iter().filter(|unit| unit.track == first).map(|unit| [unit.dts.0, unit.pts.0]).collect();
        assert_eq!(times(file), wanted);
    }
    for (piece, file) in pieces.iter().zip(&files) {
        std::fs::create_dir_all("/tmp/orig-dump").unwrap();
        std::fs::write(
            format!(
                "/tmp/orig-dump/{}-{:014}.mp4",
                text("ffprobe", &[&["-show_entries", "stream=codec_name", "-of", "csv=p=0", "-"]], file).trim().replace('\n', "_"),
                piece.name().0
            ),
            file,
        )
        .unwrap();
    }
    let joined = files.concat();
    assert_eq!(hashes(&joined), hashes(source), "payloads were lost or changed");
    let packets = text("ffprobe", &[&["-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", "-"]], &joined);
    // ffprobe gives AC-3's side data a line of its own, which is empty.
    let counts = packets.lines().map(|line| line.trim_matches(',')).filter(|count| !count.is_empty());
    let packets: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
    assert_eq!(packets, pieces.iter().map(|piece| piece.units().len()).sum::<usize>());
    let about = "stream=codec_name,width,height,sample_rate,channels";
    text("ffprobe", &[&["-show_entries", about, "-of", "compact=p=0:nk=1", "-"]], &files[0])
}

fn video(args: &[&str]) -> String {
    judged(&encoded(&[PICTURE, &["-t", "3"], args]))
}

fn audio(args: &[&str]) -> String {
    judged(&encoded(&[TONE, &["-t", "3"], args]))
}

#[test]
fn h264_with_b_frames_and_aac() {
    let said = judged(&encoded(&[PICTURE, TONE, &["-t", "3"], X264, &["-c:a", "aac"]]));
    assert_eq!(said, "h264|320|180\naac|48000|1\n");
}

#[test]
fn hevc() {
    let said = video(&["-c:v", "libx265", "-preset", "ultrafast", "-g", "15", "-tag:v", "hvc1", "-x265-params", "log-level=none"]);
    assert_eq!(said, "hevc|320|180\n");
}

#[test]
fn av1() {
    let said = video(&["-c:v", "libsvtav1", "-preset", "12", "-g", "15", "-pix_fmt", "yuv420p"]);
    assert_eq!(said, "av1|320|180\n");
}

#[test]
fn vp9() {
    let said = video(&["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "15", "-pix_fmt", "yuv420p"]);
    assert_eq!(said, "vp9|320|180\n");
}

#[test]
fn sound_of_every_codec() {
    assert_eq!(audio(&["-c:a", "libopus"]), "opus|48000|1\n");
    assert_eq!(audio(&["-c:a", "libmp3lame"]), "mp3|48000|1\n");
    assert!(audio(&["-c:a", "ac3"]).starts_with("ac3|48000|1"));
    assert_eq!(audio(&["-c:a", "flac"]), "flac|48000|1\n");
}

#[test]
fn g711() {
    for (codec, name) in [(Codec::PcmAlaw, "alaw"), (Codec::PcmMulaw, "mulaw")] {
        let raw = run("ffmpeg", &[TONE, &["-t", "3", "-ar", "8000", "-f", name, "-"]], &[]);
        let config = FeedFrame::Config { track: Track::Audio, codec, config: pcm_config(8_000, 1).to_vec().into() };
        let units = raw.chunks(160).zip(0..).map(|(samples, at)| {
            let dts = Ticks(START + at * 1_800);
            let payload = Bytes::copy_from_slice(samples);
            FeedFrame::AccessUnit(AccessUnit { track: Track::Audio, dts, pts: dts, keyframe: true, payload })
        });
        let frames: Vec<_> = [config].into_iter().chain(units).collect();
        let joined = cut(&frames).iter().map(|piece| piece.write().unwrap()).collect::<Vec<_>>().concat();
        run("ffmpeg", &[&["-xerror", "-i", "-", "-f", "null", "-"]], &joined);
        let digest = |input: &[&str], data: &[u8]| {
            text("ffmpeg", &[input, &["-i", "-", "-c", "copy", "-f", "streamhash", "-hash", "md5", "-"]], data)
        };
        assert_eq!(digest(&[], &joined), digest(&["-f", name, "-ar", "8000", "-ac", "1"], &raw));
    }
}

/// The sizes that players make their windows by are in the boxes, not only in the stream.
#[test]
fn pictures_have_their_size_in_the_header() {
    for args in [
        &["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", "log-level=none"][..],
        &["-c:v", "libsvtav1", "-preset", "12", "-pix_fmt", "yuv420p"],
        &["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuv420p"],
        &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"],
    ] {
        let frames = feed(&encoded(&[PICTURE, &["-frames:v", "10"], args]));
        let file = cut(&frames)[0].write().unwrap();
        let mut rest = &file[..];
        let (Any::Ftyp(_), Any::Moov(moov)) = (Any::decode(&mut rest).unwrap(), Any::decode(&mut rest).unwrap()) else { panic!() };
        let visual = moov.trak[0].mdia.minf.stbl.stsd.codecs[0].visual().unwrap();
        assert_eq!((visual.width, visual.height), (320, 180), "{args:?}");
    }
}
