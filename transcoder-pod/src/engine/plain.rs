//! Pictures of one colour, to draw on.

use super::EngineError;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame;

const NO_COLOUR: u8 = 128;

/// A 4:2:0 picture of so many pixels, both even, without colour and `luma` all over.
///
/// # Errors
/// libav has no memory for it.
pub fn plain(width: u32, height: u32, luma: u8) -> Result<frame::Video, EngineError> {
    let mut picture = frame::Video::new(Pixel::YUV420P, width, height);
    if picture.planes() < 3 {
        return Err(EngineError::Parameters(format!("no picture of {width}x{height}")));
    }
    for (plane, value) in [(0, luma), (1, NO_COLOUR), (2, NO_COLOUR)] {
        picture.data_mut(plane).fill(value);
    }
    Ok(picture)
}
