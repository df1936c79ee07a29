//! The sound that the publisher sends: a counter that survives lossy coding, in two tones.
//!
//! Each tenth of a second (three pictures) sounds its number: its lowest six bits as one of 64 low tones, the next six as one of 64 high ones.

use crate::pattern::FRAME_RATE;
use std::f64::consts::TAU;

/// Pictures that a tenth of a second lasts.
pub const PICTURES: u32 = FRAME_RATE / 10;
/// Tones of either kind.
const TONES: u32 = 64;
/// The lowest of either kind, and what the next ones are higher by, in Hertz.
const LOW: f64 = 500.0;
const HIGH: f64 = 3_400.0;
const STEP: f64 = 40.0;
/// Samples a second of what is read.
pub const RATE: u32 = 16_000;
/// Samples that are looked at together, and from one look to the next.
const WINDOW: usize = 480;
const HOP: usize = 160;
/// A number is read where so many looks in a row agree: those that are half one tenth's and half the next one's do not.
const AGREE: usize = 4;
/// What part of a look's energy must be in its two tones.
const CLEAR: f64 = 0.6;

/// ffmpeg's `aevalsrc` that counts from the tenth of picture `first` on.
pub fn source(first: u32) -> String {
    let number = format!("(floor(10*t)+{})", first / PICTURES);
    let tone = |lowest: f64, bits: &str| format!("0.35*sin(2*PI*({lowest}+{STEP}*mod({bits},{TONES}))*t)");
    format!("aevalsrc='{}+{}':sample_rate=48000", tone(LOW, &number), tone(HIGH, &format!("floor({number}/{TONES})")))
}

/// The number that the tenth of a picture sounds: it begins anew after 4096.
pub const fn number_of(counter: u32) -> u32 {
    counter / PICTURES % (TONES * TONES)
}

/// The numbers that are heard in `samples` ([`RATE`] a second), in order, each as often as something else comes between.
pub fn heard(samples: &[i16]) -> Vec<u32> {
    let (mut heard, mut row) = (Vec::new(), (None, 0));
    for window in samples.windows(WINDOW).step_by(HOP) {
        let read = read(window);
        row = if read == row.0 { (read, row.1 + 1) } else { (read, 1) };
        if let (Some(number), AGREE) = row
            && heard.last() != Some(&number)
        {
            heard.push(number);
        }
    }
    heard
}

fn read(window: &[i16]) -> Option<u32> {
    let loudest = |lowest: f64| {
        let all = (0..TONES).map(|tone| (tone, power(window, lowest + STEP * f64::from(tone))));
        all.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
    };
    let energy: f64 = window.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let ((low, of_low), (high, of_high)) = (loudest(LOW), loudest(HIGH));
    let clear = (of_low + of_high) * 2.0 / window.len() as f64 > CLEAR * energy && energy > window.len() as f64 * 100.0;
    clear.then_some(high * TONES + low)
}

/// Goertzel's algorithm: the power at one frequency.
fn power(window: &[i16], hertz: f64) -> f64 {
    let turn = 2.0 * (TAU * hertz / f64::from(RATE)).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in window {
        (last, before) = (f64::from(*sample) + turn * last - before, last);
    }
    last * last + before * before - turn * last * before
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`source`] makes, in this module's rate.
    fn sound(numbers: impl IntoIterator<Item = u32>) -> Vec<i16> {
        let tenth = |number: u32| {
            (0..RATE / 10).map(move |at| {
                let t = f64::from(at) / f64::from(RATE);
                let tone = |lowest: f64, tone: u32| 0.35 * (TAU * (lowest + STEP * f64::from(tone)) * t).sin();
                ((tone(LOW, number % TONES) + tone(HIGH, number / TONES)) * f64::from(i16::MAX)) as i16
            })
        };
        numbers.into_iter().flat_map(tenth).collect()
    }

    #[test]
    fn each_tenth_is_heard_once() {
        let all: Vec<u32> = (50..200).collect();
        assert_eq!(heard(&sound(all.clone())), all);
        assert_eq!(heard(&sound([7, 8, 9, 12, 13, 9, 10])), [7, 8, 9, 12, 13, 9, 10], "what is missing, and what comes again");
        assert_eq!(number_of(100_000), 33_333 % 4096);
    }

    #[test]
    fn silence_and_other_sounds_are_no_number() {
        let steady: Vec<i16> = (0..RATE).map(|at| ((TAU * 880.0 * f64::from(at) / f64::from(RATE)).sin() * 3_000.0) as i16).collect();
        assert_eq!(heard(&vec![0; 16_000]), [0; 0]);
        assert_eq!(heard(&[vec![0; 8_000], sound([5, 6]), vec![0; 8_000]].concat()), [5, 6]);
        assert!(heard(&steady).is_empty(), "{:?}", heard(&steady));
    }
}
