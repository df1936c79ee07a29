//! Captions on their way from an encoder to the server: ffmpeg 5 has no filter that makes any.

use crate::pattern::FRAME_RATE;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use lectern_contract::VideoCodec;
use lectern_media::captions::testing::{command, letters};
use lectern_media::captions::{Triplet, carriage};
use std::io::{ErrorKind, Read, Write};

/// Pictures that a caption lasts.
pub const LASTS: u32 = 2 * FRAME_RATE;
/// `FLV`, its version, what is in it, the header's length, and the length of the tag before the first.
const FILE_HEADER: usize = 9 + 4;
/// A tag's kind, its length (3 bytes), time (4), stream (3).
const TAG_HEADER: usize = 11;
const VIDEO: u8 = 9;
/// Of a tag with a coded picture in H.264: kind of frame and codec, 1 for NAL units, composition time (Adobe's FLV specification 10.1, E.4.3).
const PICTURE_HEADER: usize = 5;

/// Passes `from`, an FLV with H.264, on to `to`, each picture with its piece of `caption N` as CC1: one after the other, every [`LASTS`] pictures.
///
/// # Errors
/// Either end breaks off in the middle of a tag.
pub fn pass_on(mut from: impl Read, mut to: impl Write) -> Result<()> {
    let mut header = [0; FILE_HEADER];
    from.read_exact(&mut header)?;
    to.write_all(&header)?;
    let mut first = None;
    let mut head = [0; TAG_HEADER];
    loop {
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let mut body = vec![0; u24(&head[1..4]) as usize];
        from.read_exact(&mut body)?;
        let mut length_again = [0; 4];
        from.read_exact(&mut length_again)?;
        if head[0] == VIDEO && body.len() > PICTURE_HEADER && body[0] & 0x0f == 7 && body[1] == 1 {
            let shown = (u32::from(head[7]) << 24 | u24(&head[4..7])) + u24(&body[2..5]);
            // Of what is reordered, the first that is coded is also the first that is shown.
            let since = shown.saturating_sub(*first.get_or_insert(shown));
            let place = (since * FRAME_RATE + 500) / 1000;
            let (header, picture) = body.split_at(PICTURE_HEADER);
            body = [header, &carriage::carry(VideoCodec::H264, Bytes::copy_from_slice(picture), &said_at(place))].concat();
        }
        let length = u32::try_from(body.len()).context("a tag's length")?;
        head[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
        to.write_all(&head)?;
        to.write_all(&body)?;
        to.write_all(&(length + TAG_HEADER as u32).to_be_bytes())?;
        to.flush()?;
    }
}

/// What picture number `place` carries: resume caption loading, erase what is not displayed, the last row, the text, end of caption.
fn said_at(place: u32) -> [Triplet; 2] {
    let text = letters(&format!("caption {}", place / LASTS));
    let pairs = [command([0x14, 0x20]), command([0x14, 0x2e]), command([0x14, 0x60]), text, command([0x14, 0x2f])].concat();
    let pair = pairs.get((place % LASTS) as usize).copied().unwrap_or([0x80, 0x80]);
    [Triplet::first_field(pair), Triplet([0xfa, 0, 0])]
}

fn u24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))
}
