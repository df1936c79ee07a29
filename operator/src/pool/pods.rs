//! Which transcoder pods are made and which go. Pure.
//!
//! Transcoders are plain pods: a Deployment would pick its victims itself, and take busy ones.

use lectern_contract::cost::Needs;

/// A transcoder pod as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its uid: what is deleted is this pod and no namesake.
    pub uid: Option<String>,
    /// The spec that it was made of.
    pub hash: String,
    /// It is being deleted.
    pub is_going: bool,
    /// Its process has ended for good (evicted, node shut down).
    pub is_over: bool,
    /// It is ready.
    pub is_ready: bool,
    /// The jobs that it works on; `None` where it has not reported lately.
    pub jobs: Option<usize>,
    /// What they take of its budget.
    pub taken: Needs,
    /// The class that it is of.
    pub class: String,
    /// It is marked for autoscalers as one that may go.
    pub may_go: bool,
}

impl Seen {
    /// Nothing is lost with it: it says so itself, or it never came up. A ready pod that is silent may be busy.
    pub fn is_idle(&self) -> bool {
        self.jobs.map_or(!self.is_ready, |jobs| jobs == 0)
    }

    /// It is there, and nobody has asked it to go.
    pub fn is_alive(&self) -> bool {
        !self.is_over && !self.is_going
    }
}

/// The pods whose mark for autoscalers is wrong, and what it should say: whether the pod may go.
pub fn to_mark(pods: &[Seen]) -> impl Iterator<Item = (&Seen, bool)> {
    pods.iter().filter(|pod| pod.is_alive() && pod.is_idle() != pod.may_go).map(|pod| (pod, pod.is_idle()))
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// How many pods to make.
    pub create: usize,
    /// Which pods to delete.
    pub delete: Vec<Victim>,
}

/// A pod to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
    /// Why, for the log.
    pub why: &'static str,
}

impl Change {
    /// Nothing to do.
    pub fn is_steady(&self) -> bool {
        self.create == 0 && self.delete.is_empty()
    }
}

/// Brings `pods` closer to `wanted` pods of spec `hash` with `slots` each: what is over is cleared away, and of what is surplus the idle ones go; where all are busy,
/// one after the other, as soon as the rest have free slots for its jobs. What is outdated goes one at a time and only while all newer ones are ready: idle ones first;
/// then busy ones, whose jobs move to the newer ones' free slots, or to the `elsewhere` that other classes have. Where all that are outdated are busy there is one pod
/// more meanwhile, for the first jobs to move to.
pub fn change(pods: &[&Seen], wanted: usize, slots: usize, hash: &str, elsewhere: usize) -> Change {
    let victim = |pod: &Seen, why| Victim { name: pod.name.clone(), uid: pod.uid.clone(), why };
    let mut delete: Vec<Victim> =
        pods.iter().filter(|pod| pod.is_over && !pod.is_going).map(|pod| victim(pod, "its process has ended")).collect();
    let mut alive: Vec<&Seen> = pods.iter().copied().filter(|pod| pod.is_alive()).collect();
    // The outdated first, then those that never came up: the least loss first.
    alive.sort_by_key(|pod| (pod.hash == hash, pod.is_ready, pod.name.clone()));

    let (newer, outdated): (Vec<&Seen>, Vec<&Seen>) = alive.iter().partition(|pod| pod.hash == hash);
    let wanted_now = wanted + usize::from(!outdated.is_empty() && !outdated.iter().any(|pod| pod.is_idle()));
    let gone: Vec<&Seen> = alive.iter().copied().filter(|pod| pod.is_idle()).take(alive.len().saturating_sub(wanted_now)).collect();
    delete.extend(gone.iter().map(|pod| victim(pod, "the pool needs fewer")));
    alive.retain(|pod| !gone.contains(pod));

    if gone.is_empty() && newer.iter().all(|pod| pod.is_ready) && alive.len() >= wanted {
        let room = free(&newer, slots) + elsewhere;
        // One that is silent may be full; its jobs hear of it from itself, and move all the same.
        let nobody_is_going = pods.iter().all(|pod| !pod.is_going);
        let movable = |pod: &&Seen| nobody_is_going && pod.jobs.unwrap_or(slots) <= room;
        let idle = outdated.iter().find(|pod| pod.is_idle()).map(|pod| victim(pod, "its spec is outdated"));
        let busy = || outdated.iter().copied().find(movable).map(|pod| victim(pod, "its spec is outdated, and its jobs have where to go"));
        // Its own free slots are none of its jobs'.
        let fits_beside = |pod: &Seen| nobody_is_going && pod.jobs.is_some_and(|jobs| jobs <= room - free(&[pod], slots));
        let surplus = || {
            let least = newer.iter().copied().filter(|pod| outdated.is_empty() && alive.len() > wanted && fits_beside(pod));
            least.min_by_key(|pod| pod.jobs).map(|pod| victim(pod, "the pool needs fewer, and its jobs have where to go"))
        };
        delete.extend(idle.or_else(busy).or_else(surplus));
    }
    Change { create: wanted_now.saturating_sub(alive.len()), delete }
}

/// The slots that ready `pods` of so many each have left; none of one that has not reported.
pub fn free(pods: &[&Seen], slots: usize) -> usize {
    pods.iter().filter(|pod| pod.is_ready).map(|pod| pod.jobs.map_or(0, |jobs| slots.saturating_sub(jobs))).sum()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Seen;
    use lectern_contract::cost::Needs;

    pub(crate) fn pod(name: &str, hash: &str, ready: bool, jobs: Option<usize>) -> Seen {
        let (taken, class, may_go) = (Needs::default(), "default".into(), false);
        Seen {
            name: name.into(),
            uid: None,
            hash: hash.into(),
            is_going: false,
            is_over: false,
            is_ready: ready,
            jobs,
            taken,
            class,
            may_go,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::pod;
    use super::*;

    fn change(pods: &[Seen], wanted: usize, slots: usize, hash: &str) -> Change {
        super::change(&pods.iter().collect::<Vec<_>>(), wanted, slots, hash, 0)
    }

    fn deleted(change: &Change) -> Vec<&str> {
        change.delete.iter().map(|victim| victim.name.as_str()).collect()
    }

    #[test]
    fn missing_pods_are_made() {
        assert_eq!(change(&[pod("a", "new", true, Some(0))], 3, 2, "new"), Change { create: 2, delete: vec![] });
    }

    #[test]
    fn a_pod_that_is_over_or_going_is_replaced() {
        let over = Seen { is_over: true, ..pod("a", "new", false, None) };
        let going = Seen { is_going: true, ..pod("b", "new", true, Some(1)) };
        let change = change(&[over, going], 2, 2, "new");
        assert_eq!((change.create, deleted(&change)), (2, vec!["a"]));
    }

    #[test]
    fn surplus_pods_go_only_when_they_are_idle() {
        let pods = [pod("a", "new", true, Some(1)), pod("b", "new", true, Some(0)), pod("c", "new", true, None)];
        assert_eq!(deleted(&change(&pods, 1, 2, "new")), ["b"], "a works, and c is silent, so that nobody knows");
    }

    #[test]
    fn busy_surplus_pods_go_once_the_others_have_room_for_their_jobs() {
        let pods = |a, b, c| [("a", a), ("b", b), ("c", c)].map(|(name, jobs)| pod(name, "new", true, jobs));
        assert!(change(&pods(Some(2), Some(2), Some(1)), 2, 2, "new").is_steady(), "the one free slot is of the pod that would go");
        assert_eq!(deleted(&change(&pods(Some(2), Some(1), Some(1)), 2, 2, "new")), ["b"], "one for one");
        assert_eq!(deleted(&change(&pods(Some(1), Some(1), Some(1)), 1, 2, "new")), ["a"], "one after the other");
        assert!(change(&pods(Some(2), Some(1), Some(1)), 3, 2, "new").is_steady(), "none is surplus");
        let mut going = pods(Some(1), Some(1), Some(1));
        going[2].is_going = true;
        assert!(change(&going, 1, 2, "new").is_steady(), "one is on its way already");
    }

    #[test]
    fn pods_of_a_class_that_is_gone_go_once_another_class_has_room_for_their_jobs() {
        let pods = [pod("a", "gone", true, Some(2)), pod("b", "gone", true, Some(1))];
        let of_class = |elsewhere| super::change(&pods.iter().collect::<Vec<_>>(), 0, 1, "", elsewhere);
        assert!(of_class(0).is_steady());
        assert_eq!(deleted(&of_class(1)), ["b"]);
        assert_eq!(deleted(&of_class(2)), ["a"]);
        let silent = [pod("a", "gone", true, None)];
        assert!(super::change(&silent.iter().collect::<Vec<_>>(), 0, 8, "", 7).is_steady(), "it may have eight");
    }

    #[test]
    fn outdated_pods_go_one_at_a_time_and_the_idle_ones_first() {
        let pods = [pod("a", "old", true, Some(1)), pod("b", "old", true, Some(0)), pod("c", "old", true, Some(0))];
        assert_eq!(deleted(&change(&pods, 3, 2, "new")), ["b"]);
        let replaced = [pod("a", "old", true, Some(1)), pod("c", "old", true, Some(0)), pod("d", "new", false, None)];
        assert_eq!(deleted(&change(&replaced, 3, 2, "new")), [""; 0], "the new one is not up yet");
    }

    #[test]
    fn busy_outdated_pods_go_once_there_is_room_for_their_jobs() {
        let busy = [pod("a", "old", true, Some(2)), pod("b", "old", true, Some(1))];
        assert_eq!(change(&busy, 2, 2, "new"), Change { create: 1, delete: vec![] }, "one more, to have room");
        let [a, b] = busy;
        let with = |more: Seen| [a.clone(), b.clone(), more];
        assert!(change(&with(pod("c", "new", false, None)), 2, 2, "new").is_steady(), "it is not up yet");
        assert_eq!(deleted(&change(&with(pod("c", "new", true, Some(0))), 2, 2, "new")), ["a"]);
        assert_eq!(deleted(&change(&with(pod("c", "new", true, Some(1))), 2, 2, "new")), ["b"], "there is room for one job");
        assert!(change(&with(pod("c", "new", true, Some(2))), 2, 2, "new").is_steady(), "no room, and no more pods than one");
        let going = Seen { is_going: true, ..a.clone() };
        let left = [going, b.clone(), pod("c", "new", true, Some(0))];
        assert_eq!(change(&left, 2, 2, "new"), Change { create: 1, delete: vec![] }, "one after the other");
    }

    /// As one that an older operator has made, and told to report where nobody listens any more.
    #[test]
    fn an_outdated_pod_that_does_not_report_goes_once_there_is_room_for_all_it_may_have() {
        let silent = || [pod("a", "old", true, None), pod("b", "new", true, Some(1))];
        assert_eq!(change(&silent(), 2, 2, "new"), Change { create: 1, delete: vec![] });
        let [a, b] = silent();
        assert_eq!(deleted(&change(&[a.clone(), b, pod("c", "new", true, Some(0))], 2, 2, "new")), ["a"]);
        let nobody_has_reported_yet = [a, pod("b", "new", true, None), pod("c", "new", true, None)];
        assert!(change(&nobody_has_reported_yet, 2, 2, "new").is_steady());
    }

    #[test]
    fn an_outdated_pod_that_never_came_up_does_not_stand_in_the_way() {
        let pods = [pod("a", "old", false, None), pod("b", "old", true, Some(1))];
        assert_eq!(deleted(&change(&pods, 2, 2, "new")), ["a"]);
    }

    #[test]
    fn a_pool_as_it_should_be_is_left_alone() {
        assert!(change(&[pod("a", "new", true, Some(2))], 1, 2, "new").is_steady());
    }

    #[test]
    fn autoscalers_are_told_which_pods_may_go() {
        let marked = |pod: Seen| Seen { may_go: true, ..pod };
        let pods = [
            pod("idle", "new", true, Some(0)),
            marked(pod("busy", "new", true, Some(1))),
            pod("busy-too", "new", true, Some(1)),
            marked(pod("silent", "new", true, None)),
            Seen { is_going: true, ..pod("going", "new", true, Some(0)) },
        ];
        let told: Vec<_> = to_mark(&pods).map(|(pod, may_go)| (pod.name.as_str(), may_go)).collect();
        assert_eq!(told, [("idle", true), ("busy", false), ("silent", false)]);
    }
}
