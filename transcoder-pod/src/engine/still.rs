//! A picture from a file, PNG or JPEG, in a rendition's size.

use super::scale::Scaler;
use super::{EngineError, ff};
use ffmpeg_next::codec::{self, Id, decoder};
use ffmpeg_next::{Packet, frame};
use std::path::Path;

/// Of a file, in bytes, and of a side, in pixels: what is larger is no slate, and takes memory that streams need.
const MAX_BYTES: u64 = 8 << 20;
const MAX_SIDE: u32 = 8192;

/// The picture of the file, as large as it can be in so many pixels (both even), with bars around it. What is transparent shows the colour below.
///
/// # Errors
/// The file cannot be read, is too large, or is no picture; in words.
pub fn still(path: &Path, width: u32, height: u32) -> Result<frame::Video, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("it has {size} bytes, and {MAX_BYTES} are taken"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let id = match bytes[..] {
        [0x89, b'P', b'N', b'G', ..] => Id::PNG,
        [0xff, 0xd8, ..] => Id::MJPEG,
        _ => return Err("it is neither PNG nor JPEG".to_owned()),
    };
    let picture = decode(id, &bytes).map_err(|error| format!("it cannot be decoded: {error}"))?;
    Scaler::new(width, height).run(&picture).map_err(|error: EngineError| error.to_string())
}

fn decode(id: Id, bytes: &[u8]) -> Result<frame::Video, ffmpeg_next::Error> {
    let decoder = decoder::find(id).ok_or(ffmpeg_next::Error::DecoderNotFound)?;
    let mut context = codec::Context::new_with_codec(decoder);
    ff::limit_pixels(&mut context, i64::from(MAX_SIDE) * i64::from(MAX_SIDE));
    let mut decoder = context.decoder().open_as(decoder)?.video()?;
    decoder.send_packet(&Packet::copy(bytes))?;
    decoder.send_eof()?;
    let mut picture = frame::Video::empty();
    decoder.receive_frame(&mut picture)?;
    Ok(picture)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The luma in the middle of the picture's left, middle and right third.
    fn thirds(picture: &frame::Video) -> [u8; 3] {
        let (stride, row) = (picture.stride(0), picture.height() as usize / 2);
        [1, 3, 5].map(|sixth| picture.data(0)[row * stride + picture.width() as usize * sixth / 6])
    }

    #[test]
    fn a_picture_is_shown_in_its_own_shape() {
        let folder = std::env::temp_dir().join(format!("lectern-still-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["still.png", "still.jpg"] {
            let path = folder.join(name);
            let made = Command::new("ffmpeg")
                .args(["-v", "error", "-y", "-f", "lavfi", "-i", "color=white:size=300x300", "-frames:v", "1"])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
            let picture = still(&path, 320, 180).unwrap();
            assert_eq!((picture.width(), picture.height()), (320, 180), "{name}");
            let [left, middle, right] = thirds(&picture);
            assert!(left < 30 && right < 30 && middle > 220, "{name}: {left} {middle} {right}, white of a square between bars");
        }
        let broken = folder.join("broken.png");
        std::fs::write(&broken, b"\x89PNG and no more").unwrap();
        assert!(still(&broken, 320, 180).err().unwrap().contains("decoded"));
        std::fs::write(&broken, b"GIF89a").unwrap();
        assert!(still(&broken, 320, 180).err().unwrap().contains("neither"));
        assert!(still(&folder.join("none.png"), 320, 180).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
