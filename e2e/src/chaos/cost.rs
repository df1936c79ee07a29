//! What a trial has seen.

use std::collections::BTreeMap;
use std::ops::Range;

/// What a fault cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Segments that are missing in the recording.
    pub lost: usize,
    /// Times that a playlist or an MPD, at the origin or in S3, or the head went back, or gave a number again.
    pub renumbered: usize,
    /// Segments and init sections of which the origin served a part, or the whole, with other bytes than S3 holds, or with others than before.
    pub twice: usize,
    /// Pictures of the publisher's that the recording does not show, in the rendition that lacks most.
    pub frames: u32,
    /// Tenths of a second of the publisher's sound that the recording does not sound, in the rendition that lacks most.
    pub sound: u32,
    /// The longest time for which the player showed no new picture, in milliseconds, with so little in hand that the browser alone cannot have been the reason.
    pub stall: f64,
    /// How often the player had nothing left to play.
    pub waits: usize,
    /// The longest time for which a live playlist did not grow, beyond a segment's or a part's length, in milliseconds.
    pub late: f64,
    /// From when the fault struck until all live playlists grew at their pace again, in milliseconds; 0 where they never did not.
    pub recovery: f64,
    /// What else the judge found.
    pub complaints: Vec<String>,
}

impl Cost {
    /// No segment was lost, renumbered or published twice.
    pub fn is_sound(&self) -> bool {
        self.lost + self.renumbered + self.twice == 0
    }
}

/// Of what each publisher has sent, from the first that is shown, or heard, on.
pub(super) fn missing<T>(renditions: &BTreeMap<String, T>, published: &[Range<u32>], shown: impl Fn(&T) -> Vec<u32>) -> u32 {
    let of = |shown: &[u32], range: &Range<u32>| {
        let shown: Vec<u32> = shown.iter().copied().filter(|counter| range.contains(counter)).collect();
        shown.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).saturating_sub(1)).sum::<u32>()
    };
    let of_all = |shown: Vec<u32>| published.iter().map(|range| of(&shown, range)).sum();
    renditions.values().map(|rendition| of_all(shown(rendition))).max().unwrap_or(0)
}
