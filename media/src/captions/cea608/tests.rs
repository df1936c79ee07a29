use super::*;
use crate::captions::testing::{command, letters};
use proptest::prelude::*;

/// What stands on the screen after `pairs`: row, column, text.
fn screen(pairs: &[Vec<[u8; 2]>]) -> Vec<(usize, usize, String)> {
    let mut decoder = Cea608::default();
    pairs.iter().flatten().for_each(|pair| {
        decoder.push(*pair);
    });
    decoder.lines().into_iter().map(|line| (line.row, line.column, line.text)).collect()
}

fn line(row: usize, column: usize, text: &str) -> (usize, usize, String) {
    (row, column, text.to_owned())
}

const RCL: [u8; 2] = [0x14, 0x20];
const BS: [u8; 2] = [0x14, 0x21];
const DER: [u8; 2] = [0x14, 0x24];
const RU2: [u8; 2] = [0x14, 0x25];
const RU3: [u8; 2] = [0x14, 0x26];
const RDC: [u8; 2] = [0x14, 0x29];
const TR: [u8; 2] = [0x14, 0x2a];
const EDM: [u8; 2] = [0x14, 0x2c];
const CR: [u8; 2] = [0x14, 0x2d];
const ENM: [u8; 2] = [0x14, 0x2e];
const EOC: [u8; 2] = [0x14, 0x2f];
/// Preambles of rows 14 and 15, and of row 15 indented by eight.
const ROW_14: [u8; 2] = [0x14, 0x40];
const ROW_15: [u8; 2] = [0x14, 0x60];
const ROW_15_AT_8: [u8; 2] = [0x14, 0x74];

#[test]
fn pop_on_captions_are_seen_when_they_are_whole() {
    let written =
        [command(RCL), command(ENM), command(ROW_14), letters("Good"), command(ROW_15_AT_8), command([0x17, 0x22]), letters("morning")];
    assert_eq!(screen(&written), []);
    let shown = [written.concat(), command(EOC)];
    assert_eq!(screen(&shown), [line(13, 0, "Good"), line(14, 10, "morning")]);
    assert_eq!(screen(&[shown.concat(), command(EDM)]), []);
    // A second caption is written behind the first.
    let second = [command(ENM), command(ROW_15), letters("Next")].concat();
    assert_eq!(screen(&[shown.concat(), second.clone()]).len(), 2);
    assert_eq!(screen(&[shown.concat(), second, command(EOC)]), [line(14, 0, "Next")]);
}

#[test]
fn rolled_up_captions_move_and_the_oldest_goes() {
    let said = |text: &str| [command(CR), letters(text)].concat();
    let three = [command(RU3), said("one"), said("two"), said("three"), said("four")].concat();
    assert_eq!(screen(std::slice::from_ref(&three)), [line(12, 0, "two"), line(13, 0, "three"), line(14, 0, "four")]);
    assert_eq!(screen(&[three.clone(), command(RU2)]), [line(13, 0, "three"), line(14, 0, "four")]);
    // A preamble moves all of them.
    let moved = [three, command([0x11, 0x60])];
    assert_eq!(screen(&moved), [line(0, 0, "three"), line(1, 0, "four")], "there is no room for the first of three");
    assert_eq!(screen(&[moved.concat(), said("five")]), [line(0, 0, "four"), line(1, 0, "five")]);
}

#[test]
fn painted_captions_are_seen_at_once() {
    let painted = [command(RDC), command(ROW_15), letters("Wait"), command(BS), command(BS), letters("lk")];
    assert_eq!(screen(&painted), [line(14, 0, "Walk")]);
    assert_eq!(screen(&[painted.concat(), command(ROW_15), command([0x17, 0x22]), command(DER)]), [line(14, 0, "Wa")]);
}

#[test]
fn accents_and_notes_are_written() {
    let extended = |first: u8, second: u8| command([first, second]);
    let pairs = [
        command(RDC),
        letters("* "),
        command([0x11, 0x37]),
        letters(" Stra"),
        letters("s"),
        extended(0x13, 0x34),
        letters("e E"),
        extended(0x12, 0x30),
    ];
    assert_eq!(screen(&pairs), [line(14, 0, "á ♪ Straße À")]);
}

#[test]
fn a_command_and_its_repetition_are_one_and_a_third_is_another() {
    let once = |pair: [u8; 2]| command(pair)[..1].to_vec();
    let said = [command(RDC), letters("abcd")].concat();
    assert_eq!(screen(&[said.clone(), command(BS)]), [line(14, 0, "abc")]);
    assert_eq!(screen(&[said.clone(), once(BS)]), [line(14, 0, "abc")]);
    assert_eq!(screen(&[said.clone(), command(BS), once(BS)]), [line(14, 0, "ab")]);
    assert_eq!(screen(&[said, once(BS), vec![[0x80, 0x80]], once(BS)]), [line(14, 0, "abc")], "padding comes between");
}

#[test]
fn what_is_for_others_stays_off_the_screen() {
    let other_channel = [command([0x1c, 0x29]), letters("CC2")].concat();
    let text = [command(TR), letters("text")].concat();
    let xds = [vec![[0x01, 0x83]], letters("xds"), vec![[0x8f, 0x80]]].concat();
    let ours = [command(RDC), letters("ours")].concat();
    for foreign in [other_channel, text, xds] {
        assert_eq!(screen(&[ours.clone(), foreign.clone()]), [line(14, 0, "ours")]);
        assert_eq!(screen(&[foreign, ours.clone()]), [line(14, 0, "ours")]);
    }
}

#[test]
fn a_row_ends_where_it_ends() {
    assert_eq!(screen(&[command(RDC), letters(&"x".repeat(40)), letters("y")]), [line(14, 0, &format!("{}y", "x".repeat(31)))]);
}

proptest! {
    #[test]
    fn no_bytes_leave_the_screen(pairs in proptest::collection::vec(any::<[u8; 2]>(), 0..2000)) {
        let mut decoder = Cea608::default();
        for pair in pairs {
            decoder.push(pair);
            let lines = decoder.lines();
            prop_assert!(lines.len() <= 15 && lines.iter().all(|line| line.column + line.text.chars().count() <= 32));
        }
    }

    #[test]
    fn a_screen_changes_only_where_it_says_so(pairs in proptest::collection::vec((0x10u8..0x18, 0x20u8..0x80), 0..400)) {
        let mut decoder = Cea608::default();
        for (first, second) in pairs {
            let before = decoder.lines();
            for pair in command([first, second]) {
                if decoder.push(pair) == Change::None {
                    prop_assert_eq!(&decoder.lines(), &before);
                } else {
                    break;
                }
            }
        }
    }
}
