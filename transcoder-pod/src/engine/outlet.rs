//! Where a rendition's output goes: to the packager, and to the renditions that it stands in for.
//!
//! A rendition that is shed is put out all the same, with the access units of the one below it, and one that the source agrees with is put
//! out with the source's. Two threads make it then, and neither waits for the other: its own encoder's output and what is relayed take turns, each
//! turn closed by whoever had it.

use super::rung::Told;
use super::{Output, put};
use bytes::Bytes;
use lectern_contract::Ticks;
use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use tokio::sync::mpsc;

/// What one of the two makers of a rendition has for it, in its order.
#[derive(Debug, Clone)]
pub enum Step {
    /// The next output.
    Put(Output),
    /// The turn is over: what follows is the other's.
    Over,
}

/// Who makes a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Its own encoder.
    Own,
    /// The rendition below, or the source.
    Below,
}

/// A rendition that is stood in for.
#[derive(Debug, Clone)]
pub struct Follower {
    /// Its place in the ladder.
    pub rendition: usize,
    /// Its thread.
    pub told: SyncSender<Told>,
    /// It gets what starts at or after this time, a segment's start.
    pub from: Ticks,
    /// And before this one; `None`: on and on.
    pub until: Option<Ticks>,
    /// It has been told the parameters.
    pub begun: bool,
}

/// See the module.
pub struct Outlet {
    rendition: usize,
    out: mpsc::Sender<Output>,
    turn: Maker,
    /// What came of whoever has not the turn: own, below.
    waiting: [VecDeque<Step>; 2],
    followers: Vec<Follower>,
    /// The parameters last put out, and whose they are.
    config: Option<(usize, Bytes)>,
    is_closed: bool,
}

impl Outlet {
    /// Of number `rendition` of the ladder, which is its own encoder's turn.
    pub fn new(rendition: usize, out: mpsc::Sender<Output>) -> Self {
        let waiting = [VecDeque::new(), VecDeque::new()];
        Self { rendition, out, turn: Maker::Own, waiting, followers: Vec::new(), config: None, is_closed: false }
    }

    /// Whether nobody listens any more.
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Takes a step of `maker`'s; it waits while it is the other's turn.
    pub fn take(&mut self, maker: Maker, step: Step) {
        self.waiting[maker as usize].push_back(step);
        while let Some(step) = self.waiting[self.turn as usize].pop_front() {
            match step {
                Step::Put(output) => self.put(output),
                Step::Over => self.turn = if self.turn == Maker::Own { Maker::Below } else { Maker::Own },
            }
        }
    }

    /// Puts out what was waiting, whoever's turn it is, and that nothing follows.
    pub fn end(mut self) {
        for maker in [self.turn, Maker::Own, Maker::Below] {
            for step in std::mem::take(&mut self.waiting[maker as usize]) {
                if let Step::Put(output) = step {
                    self.put(output);
                }
            }
        }
        put(&self.out, Output::End { rendition: self.rendition });
    }

    /// From a time on, all that is put out here goes to `follower`, too.
    pub fn lead(&mut self, follower: Follower) {
        self.followers.push(follower);
    }

    /// What starts at or after `until` does not go to `rendition` any more.
    pub fn leave(&mut self, rendition: usize, until: Ticks) {
        if let Some(follower) = self.followers.iter_mut().find(|it| it.rendition == rendition && it.until.is_none()) {
            follower.until = Some(until);
        }
    }

    fn put(&mut self, output: Output) {
        if let Output::Config { of, config, .. } = &output {
            self.config = Some((*of, config.clone()));
        }
        let config = &self.config;
        self.followers.retain_mut(|follower| follower.pass_on(&output, config.as_ref()));
        self.is_closed |= !put(&self.out, output.of(self.rendition));
    }
}

impl Follower {
    /// `false` when it needs no more of it.
    fn pass_on(&mut self, output: &Output, config: Option<&(usize, Bytes)>) -> bool {
        // A thread that has died is found out by the engine.
        let tell = |step| self.told.send(Told::Relayed(step)).is_ok();
        match output {
            Output::Sample { sample, .. } if self.until.is_some_and(|until| sample.start >= until.0) => {
                tell(Step::Over);
                false
            }
            Output::Sample { sample, .. } if sample.start >= self.from.0 => {
                if !std::mem::replace(&mut self.begun, true)
                    && let Some((of, config)) = config
                {
                    tell(Step::Put(Output::Config { rendition: self.rendition, of: *of, config: config.clone() }));
                }
                tell(Step::Put(output.clone()))
            }
            Output::Config { .. } | Output::Cut { .. } if self.begun => tell(Step::Put(output.clone())),
            _ => true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Encoded;
    use super::*;
    use std::sync::mpsc::{Receiver, sync_channel};

    fn sample(start: u64, from: &'static str) -> Output {
        Output::Sample { rendition: 7, sample: Encoded { start, duration: 10, sync: true, data: Bytes::from_static(from.as_bytes()) } }
    }

    fn outlet(rendition: usize) -> (Outlet, mpsc::Receiver<Output>) {
        let (out, outputs) = mpsc::channel(100);
        (Outlet::new(rendition, out), outputs)
    }

    fn heard(outputs: &mut mpsc::Receiver<Output>) -> Vec<String> {
        std::iter::from_fn(|| outputs.try_recv().ok())
            .map(|output| match output {
                Output::Sample { rendition, sample } => format!("{rendition}@{} {}", sample.start, String::from_utf8_lossy(&sample.data)),
                Output::Config { rendition, of, .. } => format!("{rendition} like {of}"),
                Output::End { rendition } => format!("{rendition} ends"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn steps(told: &Receiver<Told>) -> Vec<Step> {
        std::iter::from_fn(|| told.try_recv().ok())
            .map(|told| match told {
                Told::Relayed(step) => step,
                _ => panic!("only steps are relayed"),
            })
            .collect()
    }

    #[test]
    fn the_two_makers_take_turns_whoever_is_first() {
        let (mut outlet, mut outputs) = outlet(0);
        outlet.take(Maker::Below, Step::Put(sample(20, "below")));
        outlet.take(Maker::Below, Step::Over);
        outlet.take(Maker::Own, Step::Put(sample(10, "own")));
        assert_eq!(heard(&mut outputs), ["0@10 own"], "the turn is not over yet");
        outlet.take(Maker::Own, Step::Over);
        outlet.take(Maker::Own, Step::Put(sample(30, "own")));
        assert_eq!(heard(&mut outputs), ["0@20 below", "0@30 own"]);
        outlet.end();
        assert_eq!(heard(&mut outputs), ["0 ends"]);
    }

    #[test]
    fn what_waits_at_the_end_is_put_out() {
        let (mut outlet, mut outputs) = outlet(0);
        outlet.take(Maker::Below, Step::Put(sample(20, "below")));
        outlet.end();
        assert_eq!(heard(&mut outputs), ["0@20 below", "0 ends"]);
    }

    #[test]
    fn a_follower_gets_parameters_first_and_no_more_than_its_time() {
        let (mut below, mut outputs) = outlet(1);
        let (told, follower) = sync_channel(100);
        below.take(Maker::Own, Step::Put(Output::Config { rendition: 1, of: 1, config: Bytes::from_static(b"c") }));
        below.lead(Follower { rendition: 0, told, from: Ticks(20), until: None, begun: false });
        for start in [10, 20, 30] {
            below.take(Maker::Own, Step::Put(sample(start, "x")));
        }
        below.leave(0, Ticks(40));
        for start in [40, 50] {
            below.take(Maker::Own, Step::Put(sample(start, "x")));
        }
        assert_eq!(heard(&mut outputs).len(), 6, "nothing is taken from the rendition itself");
        let (mut above, mut outputs) = outlet(0);
        above.take(Maker::Own, Step::Over);
        for step in steps(&follower) {
            above.take(Maker::Below, step);
        }
        above.take(Maker::Own, Step::Put(sample(40, "own")));
        assert_eq!(heard(&mut outputs), ["0 like 1", "0@20 x", "0@30 x", "0@40 own"]);
    }
}
