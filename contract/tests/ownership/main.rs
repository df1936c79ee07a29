//! Several owners of one run, one after the other by their own account, and everything that can come between: each freezes at any step and
//! goes on, dies, lets go between two segments or in the middle of one, ends the run, or loses an answer whose request is carried out much later, or never. All orders of all
//! steps are gone through; in none of them does what S3 shows go back, name what is not there, or change, after the end anything at all; nor does what an origin has shown
//! change, or differ from what S3 has; and nobody is left who takes the run for somebody else's while nobody has it.
//!
//! One rule is no order of steps, but a clock: who has been replaced, and does not know it, puts no segment into S3 any more (`transcoder-pod/src/supervise` stops him before
//! another may come). The model takes it for granted as a rule like the others, shows what goes wrong without it, and that all else holds all the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod owner;
mod rules;
mod store;
mod world;

use rules::{ALL, Rules};
use world::{Size, explore};

const fn size(segments: u64, owners: u8, losses: u8, to_let_go: u8) -> Size {
    Size { segments, owners, losses, to_let_go }
}

#[test]
fn whoever_freezes_or_lets_go_where_what_is_named_stays_and_goes_on() {
    for size in [size(3, 1, 2, 1), size(2, 2, 1, 0), size(2, 2, 1, 1), size(3, 2, 0, 1), size(2, 3, 0, 1)] {
        let (states, seen) = explore(size, ALL).unwrap();
        println!("{size:?}: {states} states");
        assert!(states > 500, "{size:?} has {states} states only");
        let lets_go = size.to_let_go > 0;
        assert_eq!(
            (seen.let_go, seen.followed, seen.unstored),
            (lets_go, lets_go && size.owners > 1, lets_go && size.owners > 1),
            "{size:?}"
        );
    }
}

/// What the model finds without a rule.
fn without(rules: Rules) -> String {
    explore(size(2, 2, 0, 1), rules).unwrap_err()
}

#[test]
fn without_its_rules_the_model_finds_a_list_that_goes_back() {
    let unconditional = without(Rules { conditional: false, ..ALL });
    assert!(unconditional.contains("the list reached") || unconditional.contains("after the end"), "{unconditional}");
    let short = without(Rules { reach: false, ..ALL });
    assert!(short.contains("the list reached"), "{short}");
}

#[test]
fn a_head_whose_move_was_not_answered_has_to_be_gone_on_from() {
    let gone_back = explore(size(2, 1, 2, 1), Rules { takes_up: false, ..ALL }).unwrap_err();
    assert!(gone_back.contains("the head says"), "{gone_back}");
}

#[test]
fn without_its_rules_the_model_finds_what_was_shown_and_is_no_more() {
    let without_one = without(Rules { inherits: false, ..ALL });
    assert!(without_one.contains("is shown as"), "{without_one}");
    let without_both = without(Rules { inherits: false, first_stays: false, ..ALL });
    assert!(without_both.contains("has changed"), "{without_both}");
}

#[test]
fn who_lets_go_of_what_is_not_stored_has_to_say_so() {
    let silent = without(Rules { tells: false, ..ALL });
    assert!(silent.contains("is shown as"), "{silent}");
}

#[test]
fn a_run_has_to_end_last_and_to_stay_ended() {
    let again = without(Rules { stays_ended: false, ..ALL });
    assert!(again.contains("after the end"), "{again}");
    let early = without(Rules { ends_last: false, ..ALL });
    assert!(early.contains("the head says"), "{early}");
}

/// And all else holds without it, too.
#[test]
fn the_clock_is_needed_for_one_segment_that_somebody_replaced_puts_into_s3() {
    let unfenced = Rules { fenced: false, ..ALL };
    assert!(without(unfenced).contains("is shown as"), "{}", without(unfenced));
    for size in [size(2, 2, 1, 0), size(3, 2, 0, 1)] {
        explore(size, Rules { excused: true, ..unfenced }).unwrap();
    }
}
