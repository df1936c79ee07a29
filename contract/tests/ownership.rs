//! Several owners of one run, one after the other by their own account, and everything that can come between: each stands still at any step and goes on, or never; is
//! taken for dead while it lives; is asked for the run, and hands it over at a segment's end; lets go between two segments or in the middle of one; ends the run; or
//! loses an answer, or a successor its connection, whose request is carried out much later, or never. All orders of all steps are gone through. In none of them:
//!
//! - does a list in S3 go back, leave out a number, or name one twice, or one that is not stored;
//! - does a segment in S3 change, or one that an origin has shown;
//! - does the head go back, pass what is named, or have two owners of one epoch;
//! - does anything change after the end, or the run end before all of it is named;
//! - is somebody left who waits for ever, or a run that is taken for somebody's who is gone.
//!
//! **Two makers' bytes of one number.** Nor is a segment shown by origins as one owner made it and stored by S3 as another did, with one exception ([`Rules::excused`]): whoever
//! stored it had not shown it, so that its successor could not be told of it. That takes a push that no origin got (none is there, or it is cut off), or one that is replaced,
//! does not know it, and has been left by the origins already, but not by S3. Such a segment has one maker in S3 and one at origins, for ever; lists, numbers and
//! times are right, and both needed the same init section. Without those two causes nothing is excused ([`STRICT`]). What a clock promises is not modelled: that an origin comes to
//! a new owner in time (`transcoder-pod/src/publish/live.rs` waits for three seconds), and that what an origin has of others can be gone on with (else it is made anew).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

#[path = "ownership/owner.rs"]
mod owner;
#[path = "ownership/rules.rs"]
mod rules;
#[path = "ownership/store.rs"]
mod store;
#[path = "ownership/world.rs"]
mod world;

use rules::{ALL, PLANNED, Rules, STRICT, Size, size};
use std::time::Instant;
use world::{Seen, explore};

/// Goes through all of it, and nothing goes wrong: what came to pass.
fn holds(size: Size, rules: Rules) -> Seen {
    let began = Instant::now();
    let explored = explore(size, rules).unwrap();
    println!("{size:?}: {} states, {} ends, {:?}", explored.states, explored.complete, began.elapsed());
    assert!(explored.states > 500, "{size:?} has {} states only", explored.states);
    explored.seen
}

/// What goes wrong must be one of these.
fn breaks(size: Size, rules: Rules, what: &[&str]) {
    let wrong = explore(size, rules).expect_err("nothing goes wrong");
    assert!(what.iter().any(|what| wrong.contains(what)), "{wrong}");
}

#[test]
fn whoever_stands_still_lets_go_or_hands_over_where_what_is_named_stays_and_goes_on() {
    let mut seen = Seen::new();
    for size in [size(3, 1, 2, 1, 0), size(2, 2, 1, 0, 1), size(2, 2, 1, 1, 0), size(3, 2, 0, 1, 1), size(2, 3, 0, 1, 1)] {
        seen.append(&mut holds(size, ALL));
    }
    println!("{seen:#?}");
}

#[test]
fn what_was_shown_is_what_is_stored_where_it_is_shown_first_and_who_was_replaced_stops() {
    for size in [size(2, 2, 1, 1, 1), size(3, 2, 0, 1, 1), size(2, 3, 0, 1, 1)] {
        holds(size, STRICT);
    }
}

#[test]
fn both_are_needed_for_that() {
    breaks(size(2, 2, 0, 0, 0), Rules { fenced: false, ..STRICT }, &["is shown as"]);
    breaks(size(2, 2, 1, 0, 0), Rules { shown_first: false, ..STRICT }, &["is shown as"]);
}

#[test]
fn a_planned_move_makes_nothing_twice_and_leaves_nothing_behind() {
    for size in [size(3, 2, 0, 0, 1), size(3, 3, 0, 0, 2)] {
        holds(size, PLANNED);
    }
    let moves = size(3, 2, 0, 0, 1);
    breaks(moves, Rules { to_the_boundary: false, ..PLANNED }, &["is left behind"]);
    breaks(moves, Rules { moves_on_first: false, ..PLANNED }, &["is made twice"]);
    breaks(moves, Rules { closes: false, ..PLANNED }, &["waits for ever"]);
}

#[test]
fn the_model_finds_what_goes_wrong_with_the_head() {
    let two = size(2, 2, 0, 0, 0);
    breaks(two, Rules { swaps: false, ..ALL }, &["has followed", "the head says"]);
    breaks(size(2, 1, 1, 1, 0), Rules { takes_up: false, ..ALL }, &["the head says"]);
    breaks(two, Rules { named_first: false, ..ALL }, &["the head says"]);
    breaks(size(2, 1, 0, 1, 0), Rules { lets_go: false, ..ALL }, &["all are done"]);
    breaks(two, Rules { stays_ended: false, ..ALL }, &["after the end"]);
    breaks(two, Rules { ends_last: false, ..ALL }, &["the run has ended"]);
}

#[test]
fn the_model_finds_what_goes_wrong_with_lists() {
    let two = size(2, 2, 0, 0, 0);
    breaks(two, Rules { conditional: false, ..ALL }, &["the list reached", "after the end"]);
    breaks(two, Rules { reach: false, ..ALL }, &["the list reached"]);
    breaks(two, Rules { stored_first: false, ..ALL }, &["the list names"]);
    breaks(size(3, 2, 0, 1, 1), Rules { by_the_head: false, ..ALL }, &["the list reached", "the list names"]);
}

#[test]
fn the_model_finds_what_goes_wrong_with_segments() {
    let two = size(2, 2, 0, 0, 0);
    breaks(two, Rules { stores_once: false, ..ALL }, &["a segment has changed"]);
    breaks(two, Rules { inherits: false, ..STRICT }, &["is shown as"]);
    breaks(two, Rules { inherits: false, first_stays: false, ..STRICT }, &["the origin has shown has changed"]);
    breaks(size(2, 2, 0, 1, 0), Rules { tells_its_own: false, ..STRICT }, &["is shown as"]);
    breaks(size(2, 3, 0, 1, 0), Rules { tells_of_others: false, ..STRICT }, &["is shown as"]);
}
