//! Captions that travel inside of pictures (ANSI/CTA-708-E, ATSC A/53 part 4): what carries them, what they say, and when.

pub mod carriage;
pub mod cea608;
mod cues;
pub mod testing;
mod triplet;
mod webvtt;

pub use cues::{Captions, Cue};
pub use triplet::{Kind, Pending, Triplet, triplets};
pub use webvtt::webvtt;
