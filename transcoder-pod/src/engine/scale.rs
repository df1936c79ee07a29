//! Any picture in a rendition's size and 4:2:0 of 8 bits: in its own shape, progressive.

use super::fit::Fit;
use super::plain::plain;
use super::slate::Card;
use super::{EngineError, ff};
use ffmpeg_next::color::TransferCharacteristic;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame;
use ffmpeg_next::software::scaling;

/// Of limited range.
const BLACK: u8 = 16;

/// Scales pictures for one rendition.
pub struct Scaler {
    width: u32,
    height: u32,
    context: Option<scaling::Context>,
    /// What is shown instead of pictures that cannot be, and why.
    refusal: Option<(&'static str, frame::Video)>,
}

impl Scaler {
    /// For pictures of so many pixels; both are even.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, context: None, refusal: None }
    }

    /// `picture` in the rendition's size. Interlaced ones become progressive by their first field, at the same rate. High dynamic
    /// range is refused by name, in the picture: as ordinary video it would be grey and dim, and nobody would know why.
    ///
    /// # Errors
    /// libav cannot scale it.
    pub fn run(&mut self, picture: &frame::Video) -> Result<frame::Video, EngineError> {
        if let Some(why) = high_dynamic_range(picture) {
            return self.refused(why);
        }
        let pixel = picture.aspect_ratio();
        let pixel = (u32::try_from(pixel.0).unwrap_or(0), u32::try_from(pixel.1).unwrap_or(0));
        let fit = Fit::of((picture.width(), picture.height()), pixel, (self.width, self.height));
        let field = if picture.is_interlaced() && picture.height() >= 4 { Some(ff::first_field(picture).map_err(failed)?) } else { None };
        let source = field.as_ref().unwrap_or(picture);
        let is = (source.format(), source.width(), source.height());
        let scaled = if is == (Pixel::YUV420P, fit.width, fit.height) && field.is_none() {
            ff::share(source).map_err(failed)?
        } else {
            self.scaled(source, fit)?
        };
        if (fit.width, fit.height) == (self.width, self.height) { Ok(scaled) } else { self.with_bars(&scaled, fit) }
    }

    fn scaled(&mut self, source: &frame::Video, fit: Fit) -> Result<frame::Video, EngineError> {
        let from = scaling::context::Definition { format: source.format(), width: source.width(), height: source.height() };
        let to = scaling::context::Definition { format: Pixel::YUV420P, width: fit.width, height: fit.height };
        let context = match self.context.take() {
            Some(context) if (*context.input(), *context.output()) == (from, to) => context,
            _ => scaling::Context::get(from.format, from.width, from.height, to.format, to.width, to.height, scaling::Flags::BICUBIC)
                .map_err(failed)?,
        };
        let mut scaled = frame::Video::empty();
        self.context.insert(context).run(source, &mut scaled).map_err(failed)?;
        Ok(scaled)
    }

    fn with_bars(&self, scaled: &frame::Video, fit: Fit) -> Result<frame::Video, EngineError> {
        let mut whole = plain(self.width, self.height, BLACK)?;
        for (plane, share) in [(0, 1), (1, 2), (2, 2)] {
            let [left, top, width, height] = [fit.left, fit.top, fit.width, fit.height].map(|side| (side / share) as usize);
            let (stride, from) = (whole.stride(plane), scaled.stride(plane));
            let rows = whole.data_mut(plane).chunks_mut(stride).skip(top).zip(scaled.data(plane).chunks(from)).take(height);
            for (row, line) in rows {
                row[left..left + width].copy_from_slice(&line[..width]); // the fit lies within, and `scaled` is of its size
            }
        }
        Ok(whole)
    }

    fn refused(&mut self, why: &'static str) -> Result<frame::Video, EngineError> {
        let card = match self.refusal.take() {
            Some((known, card)) if known == why => card,
            _ => {
                tracing::warn!(why, "pictures are refused");
                let text = format!("{why} cannot be shown: set the encoder to SDR");
                Card { text, ..Card::default() }.draw(self.width, self.height)?
            }
        };
        let shown = ff::share(&card).map_err(failed)?;
        self.refusal = Some((why, card));
        Ok(shown)
    }
}

/// The name of a picture's high dynamic range (ITU-R BT.2100), if it has one.
fn high_dynamic_range(picture: &frame::Video) -> Option<&'static str> {
    match picture.color_transfer_characteristic() {
        TransferCharacteristic::SMPTE2084 => Some("HDR (PQ)"),
        TransferCharacteristic::ARIB_STD_B67 => Some("HDR (HLG)"),
        _ => None,
    }
}

fn failed(error: ffmpeg_next::Error) -> EngineError {
    EngineError::libav("a picture cannot be scaled")(error)
}
