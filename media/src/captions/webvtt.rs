//! Cues as a segment of a WebVTT rendition (W3C WebVTT §4, RFC 8216 §3.5).

use super::Cue;
use super::cea608::Line;
use lectern_contract::Ticks;
use std::fmt::{self, Write};

/// The text of a segment, its header included; without cues it is only that.
///
/// Times are the run's: its zero is MPEG-2's zero, so that the stamps of the other renditions' samples, which are 90 kHz ticks of the run,
/// and these times are one clock. `MPEGTS` has 33 bits, a day; counted from there it needs none of them. It is said of the first
/// millisecond and not of zero: hls.js 1.7 takes `MPEGTS:0` for none where it does not know the media's own stamps yet, and puts cues after a
/// recording's hole to the wrong time.
pub fn webvtt(cues: &[Cue]) -> String {
    let mut out = "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.001,MPEGTS:90\n".to_owned();
    for cue in cues.iter().filter(|cue| cue.start.as_millis() < cue.end.as_millis()) {
        // Rows that stand apart are blocks of their own.
        for block in cue.lines.chunk_by(|above, below| above.row + 1 == below.row) {
            let _ = write!(out, "\n{} --> {}{}\n", Time(cue.start), Time(cue.end), Place(block)); // a String takes all
            block.iter().for_each(|line| escaped(&mut out, &line.text));
        }
    }
    out
}

/// Hours, at least two digits of them, to milliseconds, rounded down.
struct Time(Ticks);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (seconds, minutes, hours) = (millis / 1000 % 60, millis / 60_000 % 60, millis / 3_600_000);
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{:03}", millis % 1000)
    }
}

/// Where a block stands: the 15 rows and 32 columns fill the middle four fifths of the picture (ANSI/CTA-608-E).
struct Place<'a>(&'a [Line]);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0.first().map_or(0, |line| line.row);
        let column = self.0.iter().map(|line| line.column).min().unwrap_or_default();
        write!(f, " line:{:.2}% position:{:.2}% align:start", 10.0 + row as f64 * 80.0 / 15.0, 10.0 + column as f64 * 80.0 / 32.0)
    }
}

fn escaped(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter => out.push(letter),
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(row: usize, column: usize, text: &str) -> Line {
        Line { row, column, text: text.to_owned() }
    }

    #[test]
    fn a_cue_has_its_time_its_place_and_its_text() {
        let cue = Cue {
            start: Ticks::from_millis(3_599_900),
            end: Ticks::from_millis(360_061_002),
            lines: vec![line(0, 4, ">> Where a < b & c"), line(13, 0, "Two"), line(14, 8, "lines")],
        };
        assert_eq!(
            webvtt(&[cue]),
            "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.001,MPEGTS:90\n\
             \n00:59:59.900 --> 100:01:01.002 line:10.00% position:20.00% align:start\n&gt;&gt; Where a &lt; b &amp; c\n\
             \n00:59:59.900 --> 100:01:01.002 line:79.33% position:10.00% align:start\nTwo\nlines\n"
        );
    }

    #[test]
    fn nothing_said_is_a_header_and_a_moment_is_nothing() {
        let moment = Cue { start: Ticks(90), end: Ticks(100), lines: vec![line(14, 0, "a")] };
        assert_eq!(webvtt(&[moment]), webvtt(&[]));
        assert_eq!(webvtt(&[]), "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.001,MPEGTS:90\n");
    }
}
