//! The picture that the publisher sends: a coded frame counter that survives scaling and lossy coding, and above it something for people.
//!
//! The lowest third holds 16 × 2 cells, black or white: 24 bits of the counter, the highest first, then CRC-8 (polynomial 0x07) of its three
//! bytes. `e2e/browser/probe.js` reads the same in a page.

/// Cells in a row of the code.
pub const COLUMNS: usize = 16;
/// Rows of the code.
pub const ROWS: usize = 2;
/// Frames a second of everything that is published here.
pub const FRAME_RATE: u32 = 30;

const BLACK: u8 = 16; // BT.601 limited range, as x264 expects of yuv420p
const WHITE: u8 = 235;
/// Background colours of the slides: Y, Cb, Cr.
const SLIDES: [[u8; 3]; 6] = [[60, 150, 110], [70, 120, 150], [75, 105, 125], [55, 140, 140], [80, 128, 128], [65, 115, 110]];
/// 3 × 5 digits, a row in three bits, and a colon.
const GLYPHS: [[u8; 5]; 11] = [
    [7, 5, 5, 5, 7],
    [2, 6, 2, 2, 7],
    [7, 1, 7, 4, 7],
    [7, 1, 7, 1, 7],
    [5, 5, 7, 1, 1],
    [7, 4, 7, 1, 7],
    [7, 4, 7, 5, 7],
    [7, 1, 1, 1, 1],
    [7, 5, 7, 5, 7],
    [7, 5, 7, 1, 7],
    [0, 2, 0, 2, 0],
];

/// The size of a picture in pixels. The height is a multiple of 6 and the width one of 32.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
}

/// The 32 bits that stand in the picture of `counter` (24 bits).
pub fn code_of(counter: u32) -> u32 {
    let counter = counter & 0xff_ffff;
    (counter << 8) | u32::from(crc8(counter))
}

/// The counter that a code stands for, unless its check fails.
pub fn counter_of(code: u32) -> Option<u32> {
    (code_of(code >> 8) == code).then_some(code >> 8)
}

/// Begun with 0xff, so that a picture that is dark all over (a slate) has no counter.
fn crc8(counter: u32) -> u8 {
    counter.to_be_bytes()[1..]
        .iter()
        .fold(0xff, |crc, byte| (0..8).fold(crc ^ byte, |crc: u8, _| (crc << 1) ^ if crc & 0x80 != 0 { 0x07 } else { 0 }))
}

/// Draws frame `counter` as planar YUV 4:2:0 into `picture`, which is given its size here.
pub fn draw(counter: u32, size: Size, picture: &mut Vec<u8>) {
    let Size { width, height } = size;
    let seconds = counter / FRAME_RATE;
    let [luma, cb, cr] = SLIDES[(seconds / 5) as usize % SLIDES.len()];
    let quarter = (width / 2) * (height / 2);
    picture.clear();
    picture.resize(width * height, luma);
    picture.resize(width * height + quarter, cb);
    picture.resize(width * height + 2 * quarter, cr);

    // A clock, and a bar that moves evenly, so that a person sees both stutter and jumps.
    let scale = width / 40;
    let clock = [seconds / 600 % 10, seconds / 60 % 10, 10, seconds / 10 % 6, seconds % 10];
    for (place, glyph) in clock.iter().enumerate() {
        for (row, bits) in GLYPHS[*glyph as usize].iter().enumerate() {
            for column in (0..3).filter(|column| bits & (4 >> column) != 0) {
                fill(picture, width, (width / 4 + (place * 4 + column) * scale, height / 6 + row * scale), (scale, scale), WHITE);
            }
        }
    }
    let across = (counter % (4 * FRAME_RATE)) as usize * (width - width / 16) / (4 * FRAME_RATE as usize);
    fill(picture, width, (across, height * 7 / 12), (width / 16, height / 24), WHITE);

    // The code, without colour.
    for plane in picture[width * height..].chunks_mut(quarter) {
        plane[quarter - quarter / 3..].fill(128);
    }
    let cell = (width / COLUMNS, height / 3 / ROWS);
    let code = code_of(counter);
    for index in 0..COLUMNS * ROWS {
        let at = ((index % COLUMNS) * cell.0, height * 2 / 3 + (index / COLUMNS) * cell.1);
        fill(picture, width, at, cell, if code & (1 << (31 - index)) != 0 { WHITE } else { BLACK });
    }
}

fn fill(picture: &mut [u8], width: usize, at: (usize, usize), size: (usize, usize), luma: u8) {
    for line in picture.chunks_mut(width).skip(at.1).take(size.1) {
        line[at.0..at.0 + size.0].fill(luma);
    }
}

/// Edge of a cell in pixels after [`STRIP_FILTER`].
pub const CELL: usize = 10;
/// ffmpeg's filters that make of a picture the strip that [`read_strip`] takes.
pub const STRIP_FILTER: &str = "crop=iw:ih/3:0:ih*2/3,scale=160:20:flags=area,format=gray";
/// The bytes of a strip.
pub const STRIP_BYTES: usize = COLUMNS * ROWS * CELL * CELL;

/// The counter in a strip of [`STRIP_BYTES`] gray pixels, unless its check fails.
pub fn read_strip(strip: &[u8]) -> Option<u32> {
    let mut code = 0;
    for index in 0..COLUMNS * ROWS {
        let (left, top) = ((index % COLUMNS) * CELL, (index / COLUMNS) * CELL);
        let sum: u32 =
            (3..7).flat_map(|y| (3..7).map(move |x| (x, y))).map(|(x, y)| u32::from(strip[(top + y) * COLUMNS * CELL + left + x])).sum();
        code = (code << 1) | u32::from(sum / 16 > 127);
    }
    counter_of(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_with_a_wrong_bit_is_not_taken() {
        assert_eq!((counter_of(0), counter_of(u32::MAX)), (None, None), "one colour all over");
        for counter in [0, 1, 4711, 0xff_ffff] {
            assert_eq!(counter_of(code_of(counter)), Some(counter));
            for bit in 0..32 {
                assert_eq!(counter_of(code_of(counter) ^ (1 << bit)), None, "bit {bit} of {counter}");
            }
        }
    }
}
