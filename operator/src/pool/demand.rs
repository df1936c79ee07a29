//! How many transcoder pods each class of a pool should have. Pure.
//!
//! Pods that work stay. What waits, and the slots that are to be free, is laid into what they have left and then into empty pods, one job after
//! the other, the dearest first: so many pods are wanted. A class that may not grow any more leaves the rest to the next. What was needed once
//! stays for a while ([`Peaks`]), because lectures begin and end together.

use lectern_contract::Ladder;
use lectern_contract::cost::{Budget, Class, Needs, PixelRate};
use lectern_crds::TranscoderClass;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a working pod has in hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs.
    pub jobs: usize,
    /// What they take.
    pub taken: Needs,
}

/// A pod while jobs are laid into it.
#[derive(Debug, Clone, Copy)]
struct Room {
    slots: usize,
    taken: Needs,
}

impl Room {
    /// Takes the job if there is room for it.
    fn take(&mut self, budget: &Budget, job: Needs) -> bool {
        let taken = self.taken.and(job);
        if self.slots == 0 || budget.lacks(taken).is_some() {
            return false;
        }
        *self = Self { slots: self.slots - 1, taken };
        true
    }
}

/// How many pods `class` should have, and which of the `waiting` ladders are left for the next class. `working`: its pods that work. `class` grows
/// up to `maxPods`.
pub fn wanted<'a>(class: &TranscoderClass, working: &[Load], waiting: &[&'a Ladder]) -> (usize, Vec<&'a Ladder>) {
    let (kind, budget) = (class.class(), class.budget());
    let slots = count(class.slots).max(1);
    let (least, most) = (count(class.pods), count(class.max_pods.unwrap_or(class.pods)));
    let mut rooms: Vec<Room> = working.iter().map(|load| Room { slots: slots.saturating_sub(load.jobs), taken: load.taken }).collect();
    let mut jobs: Vec<(Needs, Option<&Ladder>)> = waiting.iter().map(|ladder| (Needs::of(ladder, kind), Some(*ladder))).collect();
    jobs.sort_by_key(|(needs, _)| std::cmp::Reverse(needs.pixels));
    // Kept free last, so that it takes nothing from those who wait.
    let typical = typical(working, waiting, kind);
    jobs.extend(std::iter::repeat_n((typical, None), count(class.warm_slots)));

    let mut left = Vec::new();
    for (job, ladder) in jobs {
        if rooms.iter_mut().any(|room| room.take(&budget, job)) {
            continue;
        }
        let mut empty = Room { slots, taken: Needs::default() };
        if rooms.len() < most && empty.take(&budget, job) {
            rooms.push(empty);
        } else {
            left.extend(ladder);
        }
    }
    (rooms.len().max(least), left)
}

/// What an unannounced lecture will take: as much as those that run do on average, or the dearest of those that wait.
fn typical(working: &[Load], waiting: &[&Ladder], class: Class) -> Needs {
    let jobs = working.iter().map(|load| load.jobs as u64).sum::<u64>();
    let taken = working.iter().map(|load| load.taken).fold(Needs::default(), Needs::and);
    match jobs {
        0 => waiting.iter().map(|ladder| Needs::of(ladder, class)).max_by_key(|needs| needs.pixels).unwrap_or_default(),
        jobs => Needs {
            pixels: PixelRate(taken.pixels.0.div_ceil(jobs)),
            gpu_sessions: u64::from(taken.gpu_sessions).div_ceil(jobs) as u32, // not more than the sum, which is one
            gpu_memory_mib: taken.gpu_memory_mib.div_ceil(jobs),
        },
    }
}

/// Counts of the spec are never negative: its schema says so.
fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// How many pods each class needed of late.
#[derive(Debug, Default)]
pub struct Peaks(Mutex<HashMap<(String, String), Lately>>);

/// What was wanted when, the greatest first.
type Lately = VecDeque<(Instant, usize)>;

impl Peaks {
    /// `wanted`, or as many as a class of a pool needed at any time in the last `window`. At the first question it needed all that it has, `alive`:
    /// an operator that has just begun does not know better.
    pub fn hold(&self, (pool, class): (&str, &str), (wanted, alive): (usize, usize), window: Duration, now: Instant) -> usize {
        let mut peaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = peaks.entry((pool.to_owned(), class.to_owned())).or_insert_with(|| VecDeque::from([(now, alive)]));
        seen.retain(|(at, _)| now.duration_since(*at) < window);
        // Descending: what came earlier and was less will never be the greatest.
        while seen.back().is_some_and(|(_, before)| *before <= wanted) {
            seen.pop_back();
        }
        seen.push_back((now, wanted));
        seen.front().map_or(wanted, |(_, greatest)| *greatest)
    }

    /// When a class may need fewer at the earliest, if nothing is asked for until then.
    pub fn next_change(&self, pool: &str, windows: impl Fn(&str) -> Option<Duration>, now: Instant) -> Option<Duration> {
        let peaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_pool = peaks.iter().filter(|((of, _), seen)| of == pool && seen.len() > 1);
        let ends = of_pool.filter_map(|((_, class), seen)| Some(*seen.front().map(|(at, _)| at)? + windows(class)?));
        ends.min().map(|end| end.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::{VideoCodec, VideoRendition};
    use serde_json::json;

    fn class(more: serde_json::Value) -> TranscoderClass {
        let mut all = json!({"pods": 1, "maxPods": 10, "slots": 2});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    /// Of 37 megapixels a second with its decoding at 720p, of 4 at 180p or so.
    fn ladder(height: u32) -> Ladder {
        let (width, codec) = (height * 16 / 9, VideoCodec::H264);
        Ladder { video: vec![VideoRendition { name: "a".into(), width, height, frame_rate: 30, codec, bitrate: 1 }], audio: vec![] }
    }

    fn works(jobs: usize) -> Load {
        Load { jobs, taken: Needs::default() }
    }

    fn pods(class: &TranscoderClass, working: &[Load], waiting: usize) -> usize {
        let ladder = ladder(180);
        wanted(class, working, &vec![&ladder; waiting]).0
    }

    #[test]
    fn what_waits_goes_into_free_slots_first_and_then_into_new_pods() {
        let two_slots = class(json!({}));
        assert_eq!(pods(&two_slots, &[], 0), 1, "as many as stand ready");
        assert_eq!(pods(&two_slots, &[works(1)], 1), 1);
        assert_eq!(pods(&two_slots, &[works(1)], 2), 2);
        assert_eq!(pods(&two_slots, &[works(2), works(1)], 4), 4);
    }

    #[test]
    fn a_class_grows_up_to_its_bound_and_leaves_the_rest_to_the_next() {
        let ladder = ladder(180);
        let (pods, left) = wanted(&class(json!({"maxPods": 2})), &[works(2)], &[&ladder; 5]);
        assert_eq!((pods, left.len()), (2, 3));
        let (pods, left) = wanted(&class(json!({"maxPods": null, "pods": 3})), &[works(2)], &[&ladder; 5]);
        assert_eq!((pods, left.len()), (3, 1), "one that does not grow has its pods all the same");
    }

    #[test]
    fn warm_slots_are_kept_free_beside_what_works_and_waits() {
        let warm = class(json!({"warmSlots": 3}));
        assert_eq!(pods(&warm, &[], 0), 2);
        assert_eq!(pods(&warm, &[works(2)], 0), 3);
        assert_eq!(pods(&warm, &[works(2)], 1), 3);
        assert_eq!(pods(&class(json!({"warmSlots": 3, "maxPods": 1})), &[], 1), 1, "within the bound");
    }

    #[test]
    fn a_budget_counts_as_slots_do() {
        let (small, large) = (ladder(180), ladder(720));
        let budget = class(json!({"slots": 8, "budget": {"megapixelsPerSecond": 40}}));
        assert_eq!(wanted(&budget, &[], &[&large, &large]).0, 2);
        assert_eq!(wanted(&budget, &[], &[&small; 4]).0, 1);
        let busy = Load { jobs: 1, taken: Needs::of(&large, Class::Software) };
        assert_eq!(wanted(&budget, &[busy], &[&large]).0, 2, "a slot is free, and nothing to encode with");
        let warm = class(json!({"slots": 8, "budget": {"megapixelsPerSecond": 40}, "warmSlots": 1}));
        assert_eq!(wanted(&warm, &[busy], &[]).0, 2, "the next lecture will be like those that run");
        let poor = class(json!({"budget": {"megapixelsPerSecond": 1}}));
        let (pods, left) = wanted(&poor, &[], &[&large]);
        assert_eq!((pods, left.len()), (1, 1), "no pod of this class can carry it");
    }

    #[test]
    fn what_was_needed_stays_for_a_while() {
        let (peaks, start, window) = (Peaks::default(), Instant::now(), Duration::from_secs(100));
        let at = |seconds| start + Duration::from_secs(seconds);
        let hold = |wanted, seconds| peaks.hold(("p", "c"), (wanted, 4), window, at(seconds));
        assert_eq!(hold(1, 0), 4, "an operator that begins lets nothing go");
        assert_eq!(hold(1, 99), 4);
        assert_eq!(peaks.next_change("p", |_| Some(window), at(99)), Some(Duration::from_secs(1)));
        assert_eq!(hold(1, 100), 1);
        assert_eq!(hold(3, 110), 3, "more is wanted at once");
        assert_eq!(hold(2, 150), 3);
        assert_eq!(hold(1, 160), 3);
        assert_eq!(hold(1, 210), 2);
        assert_eq!(hold(1, 250), 1);
        assert_eq!(peaks.hold(("p", "other"), (0, 0), window, at(250)), 0);
    }
}
