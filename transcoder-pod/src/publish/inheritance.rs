//! What origins have of a dead owner's segments, and S3 may not have: its successor takes it for its own.
//!
//! Students, and a CDN for as long as it likes, have what was shown once. So a successor that makes such a segment again puts out what there was of it, byte for
//! byte, and goes on behind it: with the next segment, or within one at the next part, for which the engine has made a keyframe (see
//! [`Order`](crate::engine::Order)). Pure: what to put out in the place of what was made.

use crate::body::Body;
use bytes::Bytes;
use lectern_contract::SegmentNumber;
use lectern_contract::push::Held;
use lectern_media::fragments::decode_time;
use std::collections::HashMap;

/// Segments that are taken: more than origins hold of a ladder of ten renditions.
const MOST: usize = 256;

/// Which segment.
pub(super) type Place = (String, SegmentNumber);

/// Why something cannot be gone on with, for people.
pub(super) type Unfit = &'static str;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    held: HashMap<Place, Held>,
    /// The init section with which each rendition's pictures or sounds are made here.
    inits: HashMap<String, Bytes>,
    /// Renditions that are made without a keyframe before a part.
    in_one: Vec<String>,
}

impl Inheritance {
    /// Segments of `renditions` that are not whole are not gone on with; what is of no use then.
    pub fn only_whole(&mut self, renditions: Vec<String>) -> Vec<Place> {
        self.in_one = renditions;
        let unfit = self.held.extract_if(|(of, _), held| !held.whole && self.in_one.contains(of));
        unfit.map(|(place, _)| place).collect()
    }

    /// What is made of `rendition` from now on needs `init`; what is of no use with it.
    pub fn init(&mut self, rendition: &str, init: &Bytes) -> Vec<Place> {
        // What comes later of another kind is this owner's own matter.
        if self.inits.contains_key(rendition) {
            return Vec::new();
        }
        self.inits.insert(rendition.to_owned(), init.clone());
        let unfit = self.held.extract_if(|(of, _), held| of == rendition && held.init != *init);
        unfit.map(|(place, _)| place).collect()
    }

    /// Takes what an origin holds, where it can be gone on with; `made` says what is made already of each part. Where two origins hold
    /// the same segment the first is believed.
    pub fn take(&mut self, held: Held, made: impl Fn(usize) -> Option<Body>) -> Result<Option<&Held>, Unfit> {
        let place = (held.rendition.clone(), held.number);
        if self.held.contains_key(&place) || self.held.len() == MOST {
            return Ok(None);
        }
        if self.inits.get(&held.rendition).is_some_and(|init| *init != held.init) {
            return Err("it needs another init section");
        }
        if !held.whole && self.in_one.contains(&held.rendition) {
            return Err("its encoder cannot go on within a segment");
        }
        if held.parts.iter().enumerate().any(|(at, part)| made(at).is_some_and(|made| !begin_together(part, &made))) {
            return Err("its parts begin at other times");
        }
        Ok(Some(self.held.entry(place).or_insert(held)))
    }

    /// What to put out in the place of `made`, part `index` of a segment.
    pub fn part(&mut self, (rendition, number): (&str, SegmentNumber), index: usize, made: &Body) -> Result<Option<Bytes>, Unfit> {
        if self.held.is_empty() {
            return Ok(None); // nearly always
        }
        let place = (rendition.to_owned(), number);
        let Some(part) = self.held.get(&place).and_then(|held| held.parts.get(index)).cloned() else { return Ok(None) };
        if begin_together(&part, made) {
            return Ok(Some(part));
        }
        self.held.remove(&place);
        Err("its parts begin at other times")
    }

    /// What to put out in the place of `made`, a whole segment.
    pub fn segment(&mut self, (rendition, number): (&str, SegmentNumber), made: &Body) -> Result<Option<Body>, Unfit> {
        if self.held.is_empty() {
            return Ok(None);
        }
        let place = (rendition.to_owned(), number);
        let Some(held) = self.held.get(&place) else { return Ok(None) };
        let parts = made.runs();
        let fits = if held.whole { held.parts.len() == parts } else { held.parts.len() <= parts };
        if fits && held.parts.iter().enumerate().all(|(at, part)| made.run(at).is_some_and(|made| begin_together(part, &made))) {
            return Ok(Some(made.with_first(&held.parts)));
        }
        self.held.remove(&place);
        Err("it has other parts")
    }

    /// Whether nothing is left of it that S3 does not have.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// S3 has segment `number` of `rendition`: nobody asks for it again.
    pub fn is_stored(&mut self, rendition: &str, number: SegmentNumber) {
        if !self.held.is_empty() {
            self.held.remove(&(rendition.to_owned(), number));
        }
    }
}

/// Whether two makers mean the same pictures or sounds; of captions, which have no such time, by their segment's number alone.
fn begin_together(held: &Bytes, made: &Body) -> bool {
    decode_time(held) == made.first_piece().and_then(decode_time)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::Buf as _;
    use lectern_media::cmaf::{Sample, segment_head};

    const AT: (&str, SegmentNumber) = ("a", SegmentNumber(7));

    /// A part that begins at `start`.
    fn part(start: u64, text: &'static str) -> Body {
        let sample = Sample { data: Bytes::from_static(text.as_bytes()), duration: 1, composition_offset: 0, sync: true };
        let head = segment_head(1, start, None, &[], std::slice::from_ref(&sample)).unwrap();
        Body::of(vec![head, sample.data])
    }

    fn bytes(mut body: Body) -> Bytes {
        body.copy_to_bytes(body.remaining())
    }

    fn segment(parts: &[Body]) -> Body {
        let mut whole = Body::default();
        parts.iter().for_each(|part| whole.append(part));
        whole
    }

    fn held(whole: bool, parts: &[Body]) -> Held {
        let parts = parts.iter().cloned().map(bytes).collect();
        Held { rendition: "a".into(), number: SegmentNumber(7), init: Bytes::from_static(b"moov"), whole, parts }
    }

    fn nothing(_: usize) -> Option<Body> {
        None
    }

    #[test]
    fn what_was_shown_stays_and_what_follows_is_new() {
        let (old, new) = ([part(0, "old 0"), part(1, "old 1")], [part(0, "new 0"), part(1, "new 1"), part(2, "new 2")]);
        let mut inheritance = Inheritance::default();
        assert!(inheritance.take(held(false, &old), nothing).unwrap().is_some());
        assert_eq!(inheritance.part(AT, 1, &new[1]), Ok(Some(bytes(old[1].clone()))));
        assert_eq!(inheritance.part(AT, 2, &new[2]), Ok(None));
        let whole = segment(&[old[0].clone(), old[1].clone(), new[2].clone()]);
        assert_eq!(inheritance.segment(AT, &segment(&new)).unwrap().map(bytes), Some(bytes(whole)));
        assert_eq!(inheritance.segment(("b", AT.1), &segment(&new)).unwrap().map(bytes), None);
        inheritance.is_stored("a", AT.1);
        assert_eq!(inheritance.segment(AT, &segment(&new)).unwrap().map(bytes), None);
    }

    #[test]
    fn what_is_stored_is_left_to_nobody() {
        let mut inheritance = Inheritance::default();
        assert!(inheritance.is_empty());
        inheritance.take(held(true, &[part(0, "old")]), nothing).unwrap().unwrap();
        assert!(!inheritance.is_empty(), "a successor has to hear of it as well");
        inheritance.is_stored(AT.0, AT.1);
        assert!(inheritance.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_made_anew() {
        let (old, new) = ([part(0, "old 0"), part(1, "old 1")], [part(0, "new 0"), part(5, "new 1"), part(6, "new 2")]);
        let taken = |whole| {
            let mut inheritance = Inheritance::default();
            inheritance.take(held(whole, &old), nothing).unwrap().unwrap();
            inheritance
        };
        assert!(taken(false).part(AT, 1, &new[1]).is_err(), "another time");
        assert!(taken(false).segment(AT, &segment(&new)).is_err());
        assert!(taken(true).segment(AT, &segment(&[part(0, ""), part(1, ""), part(2, "")])).is_err(), "it was whole with two");
        assert!(taken(false).segment(AT, &segment(&new[..1])).is_err(), "a part less");
        let mut inheritance = taken(true);
        assert!(inheritance.segment(AT, &segment(&new)).is_err());
        assert_eq!(inheritance.segment(AT, &segment(&old)).unwrap().map(bytes), None, "and stays so");
        let made = |at: usize| new.get(at).cloned();
        assert!(Inheritance::default().take(held(false, &old), made).is_err(), "what is made already");
    }

    #[test]
    fn an_encoder_of_another_kind_makes_its_own() {
        let old = [part(0, "old")];
        let mut inheritance = Inheritance::default();
        inheritance.take(held(false, &old), nothing).unwrap().unwrap();
        assert_eq!(inheritance.init("b", &Bytes::from_static(b"other")), []);
        assert_eq!(inheritance.init("a", &Bytes::from_static(b"other")), [("a".to_owned(), SegmentNumber(7))]);
        assert!(inheritance.take(held(false, &old), nothing).is_err());
        let mut inheritance = Inheritance::default();
        assert_eq!(inheritance.only_whole(vec!["a".into()]), []);
        assert!(inheritance.take(held(false, &old), nothing).is_err());
        assert!(inheritance.take(held(true, &old), nothing).is_ok());
        assert_eq!(inheritance.only_whole(vec!["a".into()]), [], "it is whole");
        let mut inheritance = Inheritance::default();
        inheritance.take(held(false, &old), nothing).unwrap().unwrap();
        assert_eq!(inheritance.only_whole(vec!["a".into()]), [("a".to_owned(), SegmentNumber(7))], "what is known already");
        assert!(inheritance.is_empty());
    }
}
