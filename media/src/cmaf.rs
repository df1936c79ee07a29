//! CMAF (ISO/IEC 23000-19): headers ("init sections") and segments of one track each, in ISO/IEC 14496-12 boxes.

use crate::aac::AacConfig;
use crate::av1::Av1Config;
use crate::avc::AvcConfig;
use crate::hevc::HevcConfig;
use bytes::Bytes;
use lectern_contract::{VideoCodec, WallMillis};
use mp4_atom::{
    Any, Atom, Audio, Av01, Av1c, Avc1, Avcc, Codec, Decode, Dinf, Dref, Encode, Esds, Ftyp, Hdlr, Hvc1, Hvcc, Mdhd, Mdia, Mfhd, Minf,
    Moof, Moov, Mp4a, Mvex, Mvhd, Prft, ReferenceTime, Smhd, Stbl, Stco, Stsd, Styp, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry,
    Url, Visual, Vmhd, esds,
};

/// The timescale of video tracks: the run's own ticks.
pub const VIDEO_TIMESCALE: u32 = 90_000;
/// The timescale of audio tracks: samples at 48 kHz.
pub const AUDIO_TIMESCALE: u32 = 48_000;
/// Bits a second that the boxes of a track take: 16 bytes for each of up to 60 frames, and the heads of three parts.
pub const BOXES: u64 = 12_000;
/// The id of the only track in every file.
const TRACK_ID: u32 = 1;
/// ISO/IEC 14496-12 §8.8.3.1: depends on no other sample.
const SYNC: u32 = 0x0200_0000;
/// Depends on others, and is no sync sample.
const NON_SYNC: u32 = 0x0101_0000;

/// In the place of a data offset until it is known.
const UNKNOWN: i32 = i32::MAX;

/// Why a CMAF file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CmafError {
    /// The codec's parameters or a number do not fit into their boxes.
    #[error("a box cannot be written: {0}")]
    Boxes(#[from] mp4_atom::Error),
    /// A segment must have a sample.
    #[error("a segment without samples")]
    Empty,
    /// The segment is over 2 GiB, the most that `data_offset` and box sizes reach.
    #[error("a segment of {0} bytes is too large")]
    TooLarge(usize),
    /// `mp4-atom` writes a `moof` otherwise than it did: a mistake here, and better told than a file that nobody can read.
    #[error("the offset of the data is not where it was written")]
    Offset,
}

/// One coded picture or sound frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its bytes; H.264 as NAL units with lengths of 4 bytes.
    pub data: Bytes,
    /// How long it lasts, in the track's timescale.
    pub duration: u32,
    /// Presentation time less decode time, in the track's timescale.
    pub composition_offset: i32,
    /// Decoding can start here.
    pub sync: bool,
}

/// The init section of a video track: `avc1`, `hvc1` or `av01` with its parameter sets, timescale [`VIDEO_TIMESCALE`].
///
/// `record` is the AVC-, HEVC- or AV1CodecConfigurationRecord; width and height are in pixels.
///
/// # Errors
/// [`CmafError::Boxes`] where `record` does not parse.
pub fn video_init(codec: VideoCodec, width: u16, height: u16, record: &[u8]) -> Result<Bytes, CmafError> {
    let visual = Visual {
        data_reference_index: 1,
        width,
        height,
        horizresolution: 0x48.into(),
        vertresolution: 0x48.into(),
        frame_count: 1,
        compressor: "".into(),
        depth: 24,
    };
    let record = &mut &record[..];
    let entry: Codec = match codec {
        VideoCodec::H264 => Avc1 { visual, avcc: Avcc::decode_body(record)?, ..Default::default() }.into(),
        VideoCodec::Hevc => Hvc1 { visual, hvcc: Hvcc::decode_body(record)?, ..Default::default() }.into(),
        VideoCodec::Av1 => {
            let av1c = Av1c::decode_body(record)?;
            Av01 { visual, av1c, btrt: None, ccst: None, colr: None, pasp: None, taic: None, spatial: None }.into()
        }
    };
    let minf = Minf { vmhd: Some(Vmhd::default()), ..Default::default() };
    let tkhd = Tkhd { width: width.into(), height: height.into(), ..Default::default() };
    init(VIDEO_TIMESCALE, b"vide", "video", entry, minf, tkhd)
}

/// The init section of an AAC track: `mp4a` with `config`, an AudioSpecificConfig, timescale [`AUDIO_TIMESCALE`].
///
/// `bitrate` is the average in bits a second.
///
/// # Errors
/// [`CmafError::Boxes`] where something does not fit its box.
pub fn audio_init(config: &[u8], channels: u8, bitrate: u32) -> Result<Bytes, CmafError> {
    let audio = Audio {
        data_reference_index: 1,
        channel_count: channels.into(),
        sample_size: 16,
        sample_rate: (AUDIO_TIMESCALE as u16).into(), // 48,000 fits 16 bits
    };
    let specific = esds::DecoderSpecific { raw: config.to_vec(), ..Default::default() };
    let dec_config = esds::DecoderConfig {
        object_type_indication: 0x40, // ISO/IEC 14496-1 table 5: MPEG-4 audio
        stream_type: 5,               // table 6: audio
        max_bitrate: bitrate,
        avg_bitrate: bitrate,
        dec_specific: Some(specific),
        ..Default::default()
    };
    let es_desc = esds::EsDescriptor { es_id: 0, dec_config, sl_config: esds::SLConfig::default(), ..Default::default() };
    let entry = Mp4a { audio, esds: Esds { es_desc }, btrt: None, taic: None };
    let minf = Minf { smhd: Some(Smhd::default()), ..Default::default() };
    let tkhd = Tkhd { volume: 1.into(), alternate_group: 1, ..Default::default() };
    init(AUDIO_TIMESCALE, b"soun", "audio", entry.into(), minf, tkhd)
}

fn init(timescale: u32, handler: &[u8; 4], name: &str, entry: Codec, minf: Minf, tkhd: Tkhd) -> Result<Bytes, CmafError> {
    let stbl = Stbl { stsd: Stsd { codecs: vec![entry] }, stco: Some(Stco::default()), ..Default::default() };
    let dinf = Dinf { dref: Dref { entries: vec![Url::default().into()] } };
    let mdia = Mdia {
        mdhd: Mdhd { timescale, language: "und".to_owned(), ..Default::default() },
        hdlr: Hdlr { handler: handler.into(), name: name.to_owned() },
        minf: Minf { dinf, stbl, ..minf },
    };
    let tkhd = Tkhd { track_id: TRACK_ID, enabled: true, in_movie: true, ..tkhd };
    let trex = Trex { track_id: TRACK_ID, default_sample_description_index: 1, ..Default::default() };
    let moov = Moov {
        mvhd: Mvhd { timescale, rate: 1.into(), volume: 1.into(), next_track_id: TRACK_ID + 1, ..Default::default() },
        mvex: Some(Mvex { mehd: None, trex: vec![trex] }),
        trak: vec![Trak { tkhd, mdia, ..Default::default() }],
        ..Default::default()
    };
    let brands = [b"iso6", b"cmfc", b"mp41"].map(Into::into).to_vec();
    let mut out = Vec::with_capacity(1024);
    Ftyp { major_brand: b"iso6".into(), minor_version: 0, compatible_brands: brands }.encode(&mut out)?;
    moov.encode(&mut out)?;
    Ok(out.into())
}

/// A media segment of one fragment, up to its media: the samples' data follow it, in order.
///
/// `sequence` is `mfhd`'s number: the segment's own, cut to 32 bits. `start` is the decode time of the first sample since
/// the run's epoch, in the track's timescale. `captured` is the wall clock's time of that sample, where players are to be told by a `prft`
/// (ISO/IEC 14496-12 §8.16.5): who counts latency needs it. `events` are whole `emsg` boxes ([`crate::metadata::event_message`]).
///
/// # Errors
/// [`CmafError::Empty`], [`CmafError::TooLarge`], or [`CmafError::Boxes`].
pub fn segment_head(
    sequence: u32,
    start: u64,
    captured: Option<WallMillis>,
    events: &[Bytes],
    samples: &[Sample],
) -> Result<Bytes, CmafError> {
    let mut out = with_room(events, samples);
    let brands = [b"msdh", b"cmfs", b"iso6"].map(Into::into).to_vec();
    Styp { major_brand: b"msdh".into(), minor_version: 0, compatible_brands: brands }.encode(&mut out)?;
    if let Some(captured) = captured {
        let utc_time_semantics = ReferenceTime::RealTime;
        Prft { reference_track_id: TRACK_ID, ntp_timestamp: ntp(captured), media_time: start, utc_time_semantics }.encode(&mut out)?;
    }
    events.iter().for_each(|event| out.extend_from_slice(event));
    fragment_head(&mut out, TRACK_ID, sequence, start, samples)?;
    Ok(out.into())
}

/// A part of a media segment that is not its first (which begins as [`segment_head`] says), up to its media: one fragment, a
/// CMAF chunk (ISO/IEC 23000-19 §7.3.3.2). The parts of a segment, joined, are the segment.
///
/// # Errors
/// As [`segment_head`].
pub fn chunk_head(sequence: u32, start: u64, events: &[Bytes], samples: &[Sample]) -> Result<Bytes, CmafError> {
    let mut out = with_room(events, samples);
    events.iter().for_each(|event| out.extend_from_slice(event));
    fragment_head(&mut out, TRACK_ID, sequence, start, samples)?;
    Ok(out.into())
}

/// In NTP's 64 bits: seconds since 1900, whose upper bits are lost (RFC 5905 §6), and their fraction.
fn ntp(at: WallMillis) -> u64 {
    const UNIX: u64 = 2_208_988_800;
    let fraction = ((at.0 % 1000) << 32) / 1000;
    ((at.0 / 1000).wrapping_add(UNIX) << 32) | fraction
}

fn with_room(events: &[Bytes], samples: &[Sample]) -> Vec<u8> {
    Vec::with_capacity(192 + 16 * samples.len() + events.iter().map(Bytes::len).sum::<usize>())
}

/// Appends a movie fragment of one track up to its media: `moof` and the head of `mdat`. `sequence`, `start` and the errors
/// are [`segment_head`]'s.
pub(crate) fn fragment_head(out: &mut Vec<u8>, track: u32, sequence: u32, start: u64, samples: &[Sample]) -> Result<(), CmafError> {
    if samples.is_empty() {
        return Err(CmafError::Empty);
    }
    let payload: usize = samples.iter().map(|sample| sample.data.len()).sum();
    let mdat_size = u32::try_from(payload + 8).ok().filter(|size| *size < 1 << 31).ok_or(CmafError::TooLarge(payload))?;
    let before = out.len();
    moof(track, sequence, start, samples, UNKNOWN).encode(out)?;
    // The data's offset is counted from the moof's first byte, and is known once the moof has been written. In a `trun` of
    // these fields (ISO/IEC 14496-12 §8.8.8) it lies before 16 bytes a sample, and `trun` is the moof's end.
    let moof_size = out.len() - before;
    let offset = i32::try_from(moof_size + 8).map_err(|_| CmafError::TooLarge(moof_size))?;
    let field = out.len().checked_sub(16 * samples.len() + 4).and_then(|at| out.get_mut(at..at + 4));
    let field = field.filter(|field| *field == UNKNOWN.to_be_bytes()).ok_or(CmafError::Offset)?;
    field.copy_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&mdat_size.to_be_bytes());
    out.extend_from_slice(b"mdat");
    Ok(())
}

fn moof(track: u32, sequence: u32, start: u64, samples: &[Sample], data_offset: i32) -> Moof {
    let entry = |sample: &Sample| TrunEntry {
        duration: Some(sample.duration),
        size: Some(sample.data.len() as u32), // the sum was checked against 2 GiB
        flags: Some(if sample.sync { SYNC } else { NON_SYNC }),
        cts: Some(sample.composition_offset.into()),
    };
    let trun = Trun { data_offset: Some(data_offset), samples: samples.iter().map(entry).collect::<Vec<_>>().into() };
    let traf = Traf {
        tfhd: Tfhd { track_id: track, default_base_is_moof: true, ..Default::default() },
        tfdt: Some(Tfdt { base_media_decode_time: start }),
        trun: vec![trun],
        ..Default::default()
    };
    Moof { mfhd: Mfhd { sequence_number: sequence }, traf: vec![traf] }
}

/// The RFC 6381 codec string of an init section that [`video_init`] or [`audio_init`] wrote; `None` where it is another's.
pub fn codec_of_init(init: &[u8]) -> Option<String> {
    match entry_of_init(init)? {
        Codec::Avc1(avc1) => codec_of_box(VideoCodec::H264, &avc1.avcc),
        Codec::Hvc1(hvc1) => codec_of_box(VideoCodec::Hevc, &hvc1.hvcc),
        Codec::Av01(av01) => codec_of_box(VideoCodec::Av1, &av01.av1c),
        Codec::Mp4a(mp4a) => {
            let specific = mp4a.esds.es_desc.dec_config.dec_specific.as_ref()?;
            AacConfig::parse(&specific.raw).ok().map(|config| config.codec())
        }
        _ => None,
    }
}

/// The AVCDecoderConfigurationRecord in an init section of H.264 that [`video_init`] wrote; `None` where it is another's.
pub fn avc_of_init(init: &[u8]) -> Option<AvcConfig> {
    match entry_of_init(init)? {
        Codec::Avc1(avc1) => AvcConfig::parse(&record_of_box(&avc1.avcc)?).ok(),
        _ => None,
    }
}

fn entry_of_init(mut init: &[u8]) -> Option<Codec> {
    while let Ok(atom) = Any::decode(&mut init) {
        if let Any::Moov(moov) = atom {
            return moov.trak.into_iter().next()?.mdia.minf.stbl.stsd.codecs.into_iter().next();
        }
    }
    None
}

fn codec_of_box(codec: VideoCodec, atom: &impl Atom) -> Option<String> {
    codec_of_record(codec, &record_of_box(atom)?).ok()
}

fn record_of_box(atom: &impl Atom) -> Option<Vec<u8>> {
    let mut record = Vec::new();
    atom.encode_body(&mut record).ok()?;
    Some(record)
}

/// The RFC 6381 codec string of an AVC-, HEVC- or AV1CodecConfigurationRecord.
///
/// # Errors
/// What is wrong with it, for people.
pub fn codec_of_record(codec: VideoCodec, record: &[u8]) -> Result<String, String> {
    match codec {
        VideoCodec::H264 => AvcConfig::parse(record).map(|config| config.codec()).map_err(|error| error.to_string()),
        VideoCodec::Hevc => HevcConfig::parse(record).map(|config| config.codec()).map_err(|error| error.to_string()),
        VideoCodec::Av1 => Av1Config::parse(record).map(|config| config.codec()).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mp4_atom::Mdat;

    const AVCC: &[u8] = &[
        1, 0x64, 0, 0x0d, 0xff, 0xe1, 0, 24, 0x67, 0x64, 0x00, 0x0D, 0xAC, 0xD9, 0x41, 0x41, 0xFA, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
        0x00, 0x00, 0x03, 0x03, 0x20, 0xF1, 0x42, 0x99, 0x60, 1, 0, 6, 0x68, 0xEB, 0xE3, 0xCB, 0x22, 0xC0, 0xfd, 0xf8, 0xf8, 0,
    ];

    fn atoms(mut bytes: &[u8]) -> Vec<Any> {
        let mut atoms = Vec::new();
        while !bytes.is_empty() {
            atoms.push(Any::decode(&mut bytes).expect("every box parses"));
        }
        atoms
    }

    #[test]
    fn a_segment_reads_back_and_its_offset_meets_its_data() {
        let sample = |data: &'static [u8], sync| Sample { data: Bytes::from_static(data), duration: 3000, composition_offset: 0, sync };
        let samples = [sample(b"first", true), sample(b"second", false)];
        let mut bytes = segment_head(7, 1 << 40, None, &[], &samples).unwrap().to_vec();
        samples.iter().for_each(|sample| bytes.extend_from_slice(&sample.data));
        let atoms = atoms(&bytes);
        let [Any::Styp(styp), Any::Moof(moof), Any::Mdat(Mdat { data })] = &atoms[..] else { panic!("{atoms:?}") };
        assert_eq!(data, b"firstsecond");
        assert_eq!(moof.mfhd.sequence_number, 7);
        let traf = &moof.traf[0];
        assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time, 1 << 40);
        let mut head = Vec::new();
        styp.encode(&mut head).unwrap();
        let at = head.len() + usize::try_from(traf.trun[0].data_offset.unwrap()).unwrap();
        assert_eq!(&bytes[at..at + 5], b"first");
        assert_eq!(traf.trun[0].samples.get(1).unwrap().flags, Some(NON_SYNC));
    }

    #[test]
    fn a_segment_tells_when_its_first_sample_was_captured() {
        let sample = Sample { data: Bytes::from_static(b"x"), duration: 3000, composition_offset: 0, sync: true };
        // 2026-11-26T12:00:00.250Z
        let bytes = segment_head(7, 90_000, Some(WallMillis(1_795_694_400_250)), &[], &[sample]).unwrap();
        let mut input = &bytes[..];
        assert!(matches!(Any::decode(&mut input).unwrap(), Any::Styp(_)));
        let Any::Prft(prft) = Any::decode(&mut input).unwrap() else { panic!("no prft") };
        assert_eq!((prft.media_time, prft.utc_time_semantics), (90_000, ReferenceTime::RealTime));
        assert_eq!(prft.ntp_timestamp >> 32, 1_795_694_400 + 2_208_988_800);
        assert_eq!(prft.ntp_timestamp & u64::from(u32::MAX), 1 << 30, "a quarter of a second");
        // The seconds' field ends in 2036, and begins anew.
        assert_eq!(ntp(WallMillis(2_085_978_496_000)), 0);
    }

    #[test]
    fn init_sections_name_their_codecs() {
        let video = video_init(VideoCodec::H264, 320, 240, AVCC).unwrap();
        assert_eq!(codec_of_init(&video).as_deref(), Some("avc1.64000d"));
        let audio = audio_init(&[0x11, 0x90], 2, 128_000).unwrap();
        assert_eq!(codec_of_init(&audio).as_deref(), Some("mp4a.40.2"));
        for init in [video, audio] {
            assert!(matches!(&atoms(&init)[..], [Any::Ftyp(_), Any::Moov(_)]));
        }
        assert_eq!(codec_of_init(b"no boxes"), None);
    }

    #[test]
    fn a_segment_without_samples_is_refused() {
        assert!(matches!(segment_head(0, 0, None, &[], &[]), Err(CmafError::Empty)));
    }
}
