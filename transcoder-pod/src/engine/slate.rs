//! What is shown while nothing comes from the lecturer: the pool's picture, or a card with the lecture's title, and that it goes on soon.

use super::EngineError;
use super::plain::plain;
use super::still::still;
use ffmpeg_next::frame;
use fontdue::{Font, FontSettings};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where Debian's `fonts-dejavu-core` and the transcoder's image have it. It has no glyphs of Chinese, Japanese or Korean;
/// without the file the card is empty.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
/// Limited range (ITU-R BT.709): a dark grey, and nearly white.
const BACKGROUND: u8 = 35;
const INK: u8 = 225;
/// Lines that a title may take.
const TITLE_LINES: usize = 3;

/// What stands on the card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// The lecture's title; may be empty.
    pub title: String,
    /// Below it: that the lecturer will be back.
    pub text: String,
    /// A PNG or JPEG to be shown instead; where it cannot be, the card is.
    pub picture: Option<PathBuf>,
}

impl Card {
    /// The card as a picture of so many pixels, both even.
    ///
    /// # Errors
    /// libav has no memory for it.
    pub fn draw(&self, width: u32, height: u32) -> Result<frame::Video, EngineError> {
        if let Some(path) = &self.picture {
            match still(path, width, height) {
                Ok(picture) => return Ok(picture),
                Err(why) => tracing::warn!(path = %path.display(), why, "the slate's picture cannot be shown"),
            }
        }
        let mut picture = plain(width, height, BACKGROUND)?;
        let stride = picture.stride(0);
        let mut canvas = Canvas { luma: picture.data_mut(0), stride, width: width as usize, height: height as usize };
        match font() {
            Ok(font) => canvas.card(font, self),
            Err(why) => tracing::warn!(FONT, why, "the slate is without words"),
        }
        Ok(picture)
    }
}

/// Read once: each rendition draws its own card, all at the same moment.
fn font() -> Result<&'static Font, &'static str> {
    static READ: OnceLock<Result<Font, String>> = OnceLock::new();
    let read = || {
        let bytes = std::fs::read(FONT).map_err(|error| error.to_string())?;
        Font::from_bytes(bytes, FontSettings::default()).map_err(str::to_owned)
    };
    READ.get_or_init(read).as_ref().map_err(String::as_str)
}

/// The luma plane under the pen.
struct Canvas<'a> {
    luma: &'a mut [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl Canvas<'_> {
    fn card(&mut self, font: &Font, card: &Card) {
        let (large, small) = (self.height as f32 / 10.0, self.height as f32 / 16.0);
        let room = self.width as f32 * 0.9;
        let title = wrapped(font, &card.title, large, room, TITLE_LINES);
        let text = wrapped(font, &card.text, small, room, 1);
        let lines: Vec<(&str, f32)> =
            title.iter().map(|line| (line.as_str(), large)).chain(text.iter().map(|line| (line.as_str(), small))).collect();
        let spacing = 1.4;
        let all: f32 = lines.iter().map(|(_, size)| size * spacing).sum();
        let mut top = (self.height as f32 - all) / 2.0;
        for (line, size) in lines {
            let left = (self.width as f32 - width_of(font, line, size)) / 2.0;
            self.line(font, line, size, left, top + size); // the baseline is about a size below the line's top
            top += size * spacing;
        }
    }

    fn line(&mut self, font: &Font, text: &str, size: f32, mut left: f32, baseline: f32) {
        for letter in text.chars() {
            let (shape, coverage) = font.rasterize(letter, size);
            let x = left.round() as i64 + i64::from(shape.xmin);
            let y = baseline.round() as i64 - i64::from(shape.ymin) - shape.height as i64;
            for (row, line) in coverage.chunks_exact(shape.width.max(1)).enumerate() {
                for (column, ink) in line.iter().enumerate() {
                    self.dot(x + column as i64, y + row as i64, *ink);
                }
            }
            left += shape.advance_width;
        }
    }

    fn dot(&mut self, x: i64, y: i64, ink: u8) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.width
            && y < self.height
            && let Some(pixel) = self.luma.get_mut(y * self.stride + x)
        {
            let above = u16::from(INK - BACKGROUND) * u16::from(ink) / 255;
            *pixel = (*pixel).max(BACKGROUND + above as u8); // at most INK
        }
    }
}

fn width_of(font: &Font, text: &str, size: f32) -> f32 {
    text.chars().map(|letter| font.metrics(letter, size).advance_width).sum()
}

/// `text` in at most `most` lines that fit into `room`, broken between words; what does not fit is cut with an ellipsis.
fn wrapped(font: &Font, text: &str, size: f32, room: f32, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width_of(font, &format!("{line} {word}"), size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let cut = lines.len() > most;
    lines.truncate(most);
    let last = lines.len().saturating_sub(1);
    for (at, line) in lines.iter_mut().enumerate() {
        let ellipsis = cut && at == last;
        if width_of(font, line, size) > room || ellipsis {
            while !line.is_empty() && width_of(font, &format!("{line}…"), size) > room {
                line.pop();
            }
            line.push('…');
        }
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Rows that carry ink.
    fn inked(card: &Card, width: u32, height: u32) -> Vec<usize> {
        let picture = card.draw(width, height).unwrap();
        let row = |y: usize| &picture.data(0)[y * picture.stride(0)..][..width as usize];
        (0..height as usize).filter(|y| row(*y).iter().any(|luma| *luma > 150)).collect()
    }

    #[test]
    fn the_title_stands_in_the_middle_and_the_words_below_it() {
        let card = |title: &str, text: &str| Card { title: title.into(), text: text.into(), picture: Some("/none".into()) };
        assert_eq!(inked(&card("", ""), 320, 180), Vec::<usize>::new());
        let (title, both) = (inked(&card("Algebra I", ""), 320, 180), inked(&card("Algebra I", "Back soon"), 320, 180));
        assert!(!title.is_empty() && title.iter().all(|row| (70..110).contains(row)), "{title:?}");
        assert!(both.len() > title.len() && both.last() > title.last(), "{both:?}");
        // Sizes that are nobody's, and words that have no room.
        for (width, height) in [(2, 2), (16, 16), (1920, 1080), (180, 320)] {
            card(&"Donaudampfschifffahrtsgesellschaft ".repeat(20), "Gleich geht es weiter").draw(width, height).unwrap();
        }
    }

    #[test]
    fn a_long_title_is_broken_and_cut() {
        let font = font().expect("fonts-dejavu-core; scripts/install test");
        let text =
            "An introduction to the theory of everything that moves and of all the things that do not, which are many more than one thinks"
                .to_owned();
        let lines = wrapped(font, &text, 18.0, 288.0, 3);
        assert_eq!(lines.len(), 3);
        assert!(lines[2].ends_with('…') && lines.iter().all(|line| width_of(font, line, 18.0) <= 288.0), "{lines:?}");
        assert_eq!(wrapped(font, "  Algebra  I ", 18.0, 288.0, 3), ["Algebra I"]);
        let one = wrapped(font, &"x".repeat(200), 18.0, 288.0, 3);
        assert!(one.len() == 1 && one[0].ends_with('…') && width_of(font, &one[0], 18.0) <= 288.0, "{one:?}");
    }
}
