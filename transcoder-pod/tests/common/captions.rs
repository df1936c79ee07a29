//! Captions in pictures.

use lectern_contract::VideoCodec;
use lectern_contract::feed::{FeedFrame, Track};
use lectern_media::captions::testing::{command, letters};
use lectern_media::captions::{Triplet, carriage};

/// Puts captions into the pictures of `frames`, which are `rate` a second: what `captions` says, by a picture's place on the screen.
pub fn captioned(mut frames: Vec<FeedFrame>, codec: VideoCodec, rate: u64, captions: impl Fn(u64) -> Vec<Triplet>) -> Vec<FeedFrame> {
    let pts = |frame: &FeedFrame| match frame {
        FeedFrame::AccessUnit(unit) if unit.track == Track::Video => Some(unit.pts),
        _ => None,
    };
    let first = frames.iter().filter_map(pts).min().unwrap();
    for frame in &mut frames {
        let FeedFrame::AccessUnit(unit) = frame else { continue };
        if unit.track == Track::Video {
            let place = (unit.pts.since(first).0 * rate + 45_000) / 90_000;
            unit.payload = carriage::carry(codec, unit.payload.clone(), &captions(place));
        }
    }
    frames
}

/// A pop-on caption in the last row, as CC1: shown at picture `shown`, or a few later, and taken away at `gone`. Other pictures carry
/// padding.
pub fn pop_on(text: &str, shown: u64, gone: u64) -> impl Fn(u64) -> Vec<Triplet> {
    let mut pairs = [command([0x14, 0x20]), command([0x14, 0x2e]), command([0x14, 0x60]), letters(text)].concat();
    let written = pairs.len() as u64;
    pairs.extend(command([0x14, 0x2f]));
    let erase = command([0x14, 0x2c]);
    move |place| {
        let said = (place + written).checked_sub(shown).and_then(|at| pairs.get(at as usize));
        let said = said.or_else(|| erase.get(place.checked_sub(gone)? as usize));
        vec![Triplet::first_field(said.copied().unwrap_or([0x80, 0x80])), Triplet([0xfa, 0, 0])]
    }
}
