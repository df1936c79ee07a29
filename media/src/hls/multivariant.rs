//! Multivariant playlists.

use super::{Kind, media::line};
use crate::cmaf::BOXES;
use lectern_contract::ledger::EndedRendition;

/// The group that every variant's sound comes from.
const AUDIO_GROUP: &str = "audio";
/// The group of the captions as WebVTT, and that of those in the pictures.
const TEXT_GROUP: &str = "text";
const CLOSED_GROUP: &str = "cc";

/// A multivariant playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multivariant<'a> {
    /// Live or VOD: decides which media playlists are named.
    pub kind: Kind,
    /// The renditions; those without a picture are sound, or captions. The first sound is the default, and video renditions come out
    /// in the order they have here (players without an estimate start with the first).
    pub renditions: &'a [EndedRendition],
}

/// The text of `playlist`, to be served as `live.m3u8` or `vod.m3u8` in the run's folder.
///
/// A variant for each video rendition (with the sound group, where there is sound), and one of sound alone, for viewers
/// whose line cannot carry the smallest picture.
///
/// Where there are captions they are named twice: as WebVTT, and as the channel CC1 in the pictures. Where there are none in a recording it
/// says `NONE`; a live one says nothing, because the lecturer may turn them on later, and who had read `NONE` by then would not look again.
pub fn multivariant(playlist: &Multivariant<'_>) -> String {
    let file = playlist.kind.file();
    let (text, media): (Vec<_>, Vec<_>) = playlist.renditions.iter().partition(|rendition| rendition.is_text());
    let (video, audio): (Vec<_>, Vec<_>) = media.into_iter().partition(|rendition| rendition.picture.is_some());
    let mut out = String::with_capacity(1024);
    line(&mut out, format_args!("#EXTM3U"));
    line(&mut out, format_args!("#EXT-X-VERSION:8"));
    line(&mut out, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    for (at, sound) in audio.iter().enumerate() {
        let default = if at == 0 { "YES" } else { "NO" };
        line(
            &mut out,
            format_args!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{AUDIO_GROUP}\",NAME=\"{name}\",DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"2\",URI=\"{name}/{file}\"",
                name = sound.name
            ),
        );
    }
    for captions in &text {
        line(
            &mut out,
            format_args!(
                "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"{TEXT_GROUP}\",NAME=\"Captions\",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI=\"{}/{file}\"",
                captions.name
            ),
        );
        line(
            &mut out,
            format_args!(
                "#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"{CLOSED_GROUP}\",NAME=\"CC1\",DEFAULT=NO,AUTOSELECT=YES,INSTREAM-ID=\"CC1\""
            ),
        );
    }
    let (subtitles, closed) = match (text.is_empty(), playlist.kind) {
        (false, _) => (format!(",SUBTITLES=\"{TEXT_GROUP}\""), format!(",CLOSED-CAPTIONS=\"{CLOSED_GROUP}\"")),
        (true, Kind::Vod) => (String::new(), ",CLOSED-CAPTIONS=NONE".to_owned()),
        (true, Kind::Live) => (String::new(), String::new()),
    };
    // The group's members differ in bit rate; a variant's numbers must hold with any of them (RFC 8216 §4.3.4.2).
    let loudest = audio.iter().max_by_key(|sound| sound.bitrate);
    for picture in &video {
        let Some(shape) = picture.picture else { continue };
        let sound = loudest.map_or(0, |sound| sound.bitrate);
        let codecs = match loudest {
            Some(sound) => format!("{},{}", picture.codec, sound.codec),
            None => picture.codec.clone(),
        };
        let group = if loudest.is_some() { format!(",AUDIO=\"{AUDIO_GROUP}\"") } else { String::new() };
        line(
            &mut out,
            format_args!(
                "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{codecs}\",RESOLUTION={}x{},FRAME-RATE={}.000{group}{subtitles}{closed}",
                peak(picture.bitrate, sound),
                average(picture.bitrate, sound),
                shape.width,
                shape.height,
                shape.frame_rate,
            ),
        );
        line(&mut out, format_args!("{}/{file}", picture.name));
    }
    if let Some(sound) = audio.first() {
        // NONE stands with all variants or with none (RFC 8216 §4.3.4.2), and a group of what is in pictures helps nobody here.
        let closed = if text.is_empty() { closed.as_str() } else { "" };
        line(
            &mut out,
            format_args!(
                "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\",AUDIO=\"{AUDIO_GROUP}\"{subtitles}{closed}",
                peak(0, sound.bitrate),
                average(0, sound.bitrate),
                sound.codec
            ),
        );
        line(&mut out, format_args!("{}/{file}", sound.name));
    }
    out
}

fn average(video: u64, audio: u64) -> u64 {
    let tracks = u64::from(video > 0) + u64::from(audio > 0);
    video.saturating_add(audio).saturating_add(tracks * BOXES)
}

/// The bit rate of the largest segment, which `BANDWIDTH` must not fall short of: the encoders hold one second of their
/// rate as a buffer, so a segment of two seconds may reach 1.5 times the average; AAC swings by a tenth.
fn peak(video: u64, audio: u64) -> u64 {
    average(video, audio).saturating_add(video / 2).saturating_add(audio / 10)
}
