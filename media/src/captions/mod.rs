//! Captions that travel inside of pictures (ANSI/CTA-708-E, ATSC A/53 part 4): what carries them, and what they say.

pub mod carriage;
mod triplet;

pub use triplet::{Kind, Pending, Triplet, triplets};
