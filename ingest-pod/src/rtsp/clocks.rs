//! One clock for a camera's picture and sound.
//!
//! RTP counts each track from a random number, at the track's own rate. Three things say how the tracks relate, from the
//! weakest to the strongest:
//! 1. when their first frames arrive, which is off by what the network and the encoders hold back;
//! 2. `RTP-Info` of the answer to PLAY (RFC 2326 §12.33), by which `retina` counts both tracks from the same moment, if the
//!    camera gives it for both and rightly;
//! 3. sender reports (RFC 3550 §6.4.1), which give for each track a stamp and the camera's wall-clock time.
//!
//! The first two place a track when it begins, the third corrects the sound later; pictures keep their cadence.

use lectern_contract::feed::Track;

/// Beyond this a camera's `RTP-Info` is not believed: a second.
const NOT_BELIEVED: i64 = 90_000;
/// Nor are reports beyond this: 5 s. Some cameras report wall-clock times that have nothing to do with each other.
const REPORT_NOT_BELIEVED: i64 = 5 * 90_000;
/// Smaller corrections are left out, because each is a step in the sound's times: 20 ms. People see 45 ms (ITU-R BT.1359).
const TOLERANCE: i64 = 1_800;

/// The relation of the two tracks. All times are in 90 kHz ticks.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    video: Clock,
    audio: Clock,
}

#[derive(Debug, Default)]
struct Clock {
    first: Option<First>,
    /// What is added to the track's own time.
    offset: i64,
    /// The camera's wall-clock time of the track's zero, by its last report.
    zero: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    elapsed: i64,
    arrival: i64,
}

impl Clocks {
    /// The time on the common clock of a frame that the track's own clock puts at `elapsed`, and that came at `arrival` (from
    /// anywhere, the same for both tracks).
    pub(super) fn at(&mut self, track: Track, elapsed: i64, arrival: i64) -> i64 {
        let (clock, other) = match track {
            Track::Video => (&mut self.video, &self.audio),
            Track::Audio => (&mut self.audio, &self.video),
        };
        if clock.first.is_none() {
            clock.first = Some(First { elapsed, arrival });
            if let Some(first) = other.first {
                let by_arrival = (arrival - elapsed) - (first.arrival - first.elapsed);
                // Both at zero: each track is counted from its own first packet, because nothing else was known.
                let unknown = elapsed == 0 && first.elapsed == 0;
                let apart = if unknown || by_arrival.abs() > NOT_BELIEVED { by_arrival } else { 0 };
                clock.offset = other.offset + apart;
            }
        }
        elapsed + clock.offset
    }

    /// A sender report: the camera's wall-clock time was `ntp` (RFC 3550 §4: seconds since 1900, 32 bits before and after the
    /// point) when the track's own clock was at `elapsed`.
    pub(super) fn reported(&mut self, track: Track, elapsed: i64, ntp: u64) {
        if ntp == 0 {
            return; // "no wall clock" (§6.4.1)
        }
        let clock = match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        };
        let wall = (ntp >> 32) * 90_000 + (((ntp & 0xffff_ffff) * 90_000) >> 32); // below 2^49
        clock.zero = Some(wall as i64 - elapsed);
        if let (Some(video), Some(audio), Some(_)) = (self.video.zero, self.audio.zero, self.audio.first) {
            let wanted = self.video.offset + (audio - video);
            let correction = (wanted - self.audio.offset).abs();
            if correction > TOLERANCE && correction <= REPORT_NOT_BELIEVED {
                tracing::debug!(ticks = wanted - self.audio.offset, "a camera's sound is moved to its picture");
                self.audio.offset = wanted;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: i64 = 90;

    /// 2026, by the camera's wall clock.
    fn ntp(millis: u64) -> u64 {
        (3_976_000_000 << 32) + ((millis << 32) / 1000)
    }

    #[test]
    fn rtp_info_is_believed_if_it_fits_what_arrives() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.at(Track::Video, 500 * MILLI, 0), 500 * MILLI);
        assert_eq!(clocks.at(Track::Audio, 460 * MILLI, 30 * MILLI), 460 * MILLI);
    }

    #[test]
    fn without_rtp_info_the_first_arrivals_count() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.at(Track::Audio, 0, 0), 0);
        assert_eq!(clocks.at(Track::Video, 0, 300 * MILLI), 300 * MILLI);
        assert_eq!(clocks.at(Track::Video, 40 * MILLI, 900 * MILLI), 340 * MILLI, "later arrivals say nothing");
    }

    #[test]
    fn nonsense_in_rtp_info_is_not_believed() {
        let mut clocks = Clocks::default();
        clocks.at(Track::Video, 500 * MILLI, 0);
        assert_eq!(clocks.at(Track::Audio, 9_000_000 * MILLI, 20 * MILLI), 520 * MILLI);
    }

    #[test]
    fn sender_reports_move_the_sound_to_the_picture() {
        let mut clocks = Clocks::default();
        clocks.at(Track::Video, 0, 0);
        clocks.at(Track::Audio, 0, 200 * MILLI);
        clocks.reported(Track::Video, 1_000 * MILLI, ntp(1_000));
        clocks.reported(Track::Audio, 1_000 * MILLI, ntp(1_080));
        let sound = clocks.at(Track::Audio, 2_000 * MILLI, 0);
        assert!((sound - 2_080 * MILLI).abs() <= 1, "{sound}");
        assert_eq!(clocks.at(Track::Video, 2_000 * MILLI, 0), 2_000 * MILLI);
    }

    #[test]
    fn small_and_mad_corrections_are_left_out() {
        for reported in [15, 60_000] {
            let mut clocks = Clocks::default();
            clocks.at(Track::Video, 0, 0);
            clocks.at(Track::Audio, 0, 0);
            clocks.reported(Track::Audio, 0, ntp(reported));
            clocks.reported(Track::Video, 0, ntp(0));
            assert_eq!(clocks.at(Track::Audio, 100 * MILLI, 0), 100 * MILLI);
        }
    }
}
