//! The numbers that every rendition has.

use lectern_contract::SegmentNumber;
use std::collections::BTreeSet;

/// The numbers that are in all of `renditions`; none where there is no rendition.
///
/// VOD playlists list these only: a hole must be in the same place in each, or players line up the wrong halves.
pub fn common_numbers<R>(renditions: impl IntoIterator<Item = R>) -> BTreeSet<SegmentNumber>
where
    R: IntoIterator<Item = SegmentNumber>,
{
    let mut renditions = renditions.into_iter();
    let Some(first) = renditions.next() else { return BTreeSet::new() };
    let mut common: BTreeSet<_> = first.into_iter().collect();
    for rendition in renditions {
        let numbers: BTreeSet<_> = rendition.into_iter().collect();
        common.retain(|number| numbers.contains(number));
    }
    common
}
