//! Who publishes a run: one publisher is heard, and one with the other key may stand by.
//!
//! A run has two seats, the lecturer's and the backup's. Whoever comes first is heard; who comes to the other seat stands by
//! and is heard as soon as the first one leaves or falls silent. Neither is preferred: a lecturer who returns stands by,
//! because to switch back would be one more cut, and can be had by ending the backup. Pure.

use super::{Closing, Media, VideoSeen};
use crate::routes::Seat;
use bytes::Bytes;
use lectern_contract::Ticks;
use lectern_contract::feed::{Codec, Track};
use lectern_crds::Takeover;
use std::time::Instant;
use tokio::sync::watch;

/// A publisher that is heard and sends nothing for so long gives way to one that stands by and sends a keyframe.
pub(super) const STALLED: Ticks = Ticks(2 * 90_000);

/// A publisher on a seat.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) seat: Seat,
    pub(super) remote: String,
    /// When it asked to publish; `None`: longer ago than this machine runs.
    pub(super) asked: Option<Instant>,
    pub(super) closing: watch::Sender<Option<Closing>>,
    pub(super) video: Option<(Codec, Bytes, VideoSeen)>,
    pub(super) audio: Option<(Codec, Bytes, String)>,
    /// Pictures before this publisher's first keyframe could not be decoded.
    pub(super) keyframe_seen: bool,
    /// When media came last.
    pub(super) last_media: Ticks,
}

impl Live {
    /// Takes note of parameters.
    pub(super) fn configure(&mut self, media: &Media) {
        match media {
            Media::Video { codec, config, seen } => self.video = Some((*codec, config.clone(), seen.clone())),
            Media::Audio { codec, config, name } => self.audio = Some((*codec, config.clone(), name.clone())),
            Media::Unit { .. } | Media::Said(_) => {}
        }
    }

    pub(super) fn is_configured(&self, track: Track) -> bool {
        match track {
            Track::Video => self.video.is_some(),
            Track::Audio => self.audio.is_some(),
        }
    }

    /// Its parameters, the picture's first.
    pub(super) fn configs(&self) -> Vec<(Track, Codec, Bytes)> {
        let video = self.video.iter().map(|(codec, config, _)| (Track::Video, *codec, config.clone()));
        video.chain(self.audio.iter().map(|(codec, config, _)| (Track::Audio, *codec, config.clone()))).collect()
    }
}

/// The seats.
#[derive(Debug, Default)]
pub(super) struct Seats {
    heard: Option<Live>,
    standby: Option<Live>,
    /// Why the last one that was heard has gone; `None` before the first.
    gone: Option<String>,
}

/// What a publisher's coming changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is heard; nobody was.
    Heard,
    /// It is heard in the place of an earlier one.
    TookOver,
    /// It stands by.
    StandsBy,
}

/// What a publisher's leaving changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// Nobody is heard now.
    Silence,
    /// The one that stood by is heard now.
    Succession,
    /// The one that stood by has left, or one that had been told to go.
    Nothing,
}

impl Seats {
    pub(super) fn heard(&self) -> Option<&Live> {
        self.heard.as_ref()
    }

    pub(super) fn heard_mut(&mut self) -> Option<&mut Live> {
        self.heard.as_mut()
    }

    pub(super) fn standby(&self) -> Option<&Live> {
        self.standby.as_ref()
    }

    /// Why nobody is heard; `None` before the first publisher, or while one is heard.
    pub(super) fn gone(&self) -> Option<&str> {
        self.gone.as_deref().filter(|_| self.heard.is_none())
    }

    /// The publisher with this number, wherever it sits.
    pub(super) fn find(&mut self, number: u64) -> Option<&mut Live> {
        [&mut self.heard, &mut self.standby].into_iter().flatten().find(|live| live.number == number)
    }

    /// Seats a newcomer.
    ///
    /// # Errors
    /// The newcomer, where its seat is taken and the first one wins, or the one there is newer.
    pub(super) fn seat(&mut self, newcomer: Live, takeover: Takeover) -> Result<Arrival, Box<Live>> {
        let place = match &self.heard {
            None => &mut self.heard,
            Some(heard) if heard.seat == newcomer.seat => &mut self.heard,
            Some(_) => &mut self.standby,
        };
        if let Some(there) = place
            && there.remote != newcomer.remote // the same connection, whose old way is not known to be lost yet, is no other publisher
            && (takeover == Takeover::FirstWins || newcomer.asked < there.asked)
        {
            return Err(Box::new(newcomer));
        }
        let number = newcomer.number;
        let previous = place.replace(newcomer);
        if let Some(previous) = &previous {
            previous.closing.send_replace(Some(Closing::TakenOver));
        }
        let is_heard = self.heard.as_ref().is_some_and(|heard| heard.number == number);
        Ok(match (is_heard, previous.is_some()) {
            (true, false) => Arrival::Heard,
            (true, true) => Arrival::TookOver,
            (false, _) => Arrival::StandsBy,
        })
    }

    /// The publisher with this number has gone.
    pub(super) fn leave(&mut self, number: u64, reason: &str) -> Departure {
        if self.standby.as_ref().is_some_and(|live| live.number == number) {
            self.standby = None;
            return Departure::Nothing;
        }
        if self.heard.as_ref().is_none_or(|live| live.number != number) {
            return Departure::Nothing;
        }
        self.gone = Some(reason.to_owned());
        self.heard = self.standby.take();
        if self.heard.is_some() { Departure::Succession } else { Departure::Silence }
    }

    /// Whether the one with this number stands by, and the one that is heard has said nothing for too long.
    pub(super) fn should_swap(&self, number: u64, now: Ticks) -> bool {
        let stands_by = self.standby.as_ref().is_some_and(|live| live.number == number);
        stands_by && self.heard.as_ref().is_some_and(|heard| now.since(heard.last_media) > STALLED)
    }

    /// The one that stood by is heard, and the other one stands by.
    pub(super) fn swap(&mut self) {
        std::mem::swap(&mut self.heard, &mut self.standby);
        if let Some(standby) = &mut self.standby {
            standby.keyframe_seen = false;
        }
    }

    /// Everybody has to go.
    pub(super) fn close(&mut self, closing: &Closing) {
        for live in [self.heard.take(), self.standby.take()].into_iter().flatten() {
            live.closing.send_replace(Some(closing.clone()));
            self.gone = Some(closing.to_string());
        }
    }

    /// Nobody publishes, for this reason.
    pub(super) fn explain(&mut self, reason: &str) -> bool {
        let news = self.heard.is_none() && self.gone.as_deref() != Some(reason);
        if news {
            self.gone = Some(reason.to_owned());
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(number: u64, seat: Seat) -> Live {
        let (closing, _) = watch::channel(None);
        let remote = format!("192.0.2.{number}:1");
        Live {
            number,
            seat,
            remote,
            asked: Some(Instant::now()),
            closing,
            video: None,
            audio: None,
            keyframe_seen: false,
            last_media: Ticks(0),
        }
    }

    fn heard(seats: &Seats) -> Option<u64> {
        seats.heard().map(|live| live.number)
    }

    #[test]
    fn the_newest_with_the_same_key_wins_or_is_refused_as_the_stream_says() {
        let mut seats = Seats::default();
        assert_eq!(seats.seat(live(1, Seat::Primary), Takeover::NewestWins).unwrap(), Arrival::Heard);
        let told = seats.heard().unwrap().closing.subscribe();
        assert!(seats.seat(live(2, Seat::Primary), Takeover::FirstWins).is_err());
        assert_eq!(heard(&seats), Some(1));
        assert_eq!(seats.seat(live(3, Seat::Primary), Takeover::NewestWins).unwrap(), Arrival::TookOver);
        assert_eq!((heard(&seats), told.borrow().clone()), (Some(3), Some(Closing::TakenOver)));
        assert_eq!(seats.leave(1, "it was told to go"), Departure::Nothing);
    }

    /// Held while its owner was away, perhaps hung up since: it must not drive out who came in its place, whichever of them finds the owner first.
    #[test]
    fn of_two_that_have_lost_their_way_the_one_that_asked_later_is_heard() {
        let (first, second) = (live(1, Seat::Primary), live(2, Seat::Primary));
        let again = |live: &Live, number| {
            let asked = live.asked;
            Live { number, asked, remote: live.remote.clone(), ..self::live(0, Seat::Primary) }
        };
        assert!(first.asked < second.asked);
        let mut seats = Seats::default();
        assert_eq!(seats.seat(again(&first, 3), Takeover::NewestWins).unwrap(), Arrival::Heard);
        assert_eq!(seats.seat(again(&first, 4), Takeover::FirstWins).unwrap(), Arrival::TookOver, "it is the same one");
        assert_eq!(seats.seat(again(&second, 5), Takeover::NewestWins).unwrap(), Arrival::TookOver);
        assert!(seats.seat(again(&first, 6), Takeover::NewestWins).is_err());
        assert_eq!(heard(&seats), Some(5));
        let mut seats = Seats::default();
        assert_eq!(seats.seat(again(&second, 7), Takeover::NewestWins).unwrap(), Arrival::Heard);
        assert!(seats.seat(again(&first, 8), Takeover::NewestWins).is_err());
        assert_eq!(heard(&seats), Some(7));
    }

    #[test]
    fn the_backup_stands_by_and_follows_the_lecturer() {
        let mut seats = Seats::default();
        seats.seat(live(1, Seat::Primary), Takeover::NewestWins).unwrap();
        assert_eq!(seats.seat(live(2, Seat::Backup), Takeover::FirstWins).unwrap(), Arrival::StandsBy);
        assert_eq!(seats.leave(1, "left"), Departure::Succession);
        assert_eq!(heard(&seats), Some(2));
        // Back again, the lecturer stands by.
        assert_eq!(seats.seat(live(3, Seat::Primary), Takeover::NewestWins).unwrap(), Arrival::StandsBy);
        assert_eq!(seats.leave(3, "left"), Departure::Nothing);
        assert_eq!(seats.leave(2, "left"), Departure::Silence);
        assert_eq!(seats.gone(), Some("left"));
    }

    #[test]
    fn a_publisher_that_hangs_gives_way_and_stands_by() {
        let mut seats = Seats::default();
        seats.seat(live(1, Seat::Primary), Takeover::NewestWins).unwrap();
        seats.seat(live(2, Seat::Backup), Takeover::NewestWins).unwrap();
        assert!(!seats.should_swap(2, STALLED));
        assert!(!seats.should_swap(1, STALLED.plus(Ticks(1))));
        assert!(seats.should_swap(2, STALLED.plus(Ticks(1))));
        seats.swap();
        assert_eq!((heard(&seats), seats.standby().map(|live| live.number)), (Some(2), Some(1)));
    }
}
