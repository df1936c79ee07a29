//! Delivery directives: what a player asks of a live playlist beside its name (draft-pantos-hls-rfc8216bis §6.2.5).

use crate::edge::Position;

/// The directives of one request. Other parts of a query are not looked at: a CDN's or a page's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    /// `_HLS_msn` and `_HLS_part`: answer once the playlist holds this.
    pub until: Option<Position>,
    /// `_HLS_skip`: a delta update will do.
    pub skip: bool,
}

impl Directives {
    /// Reads a URL's query.
    ///
    /// # Errors
    /// What is wrong, for people: a number that is none, or a part of no segment.
    pub fn parse(query: Option<&str>) -> Result<Self, &'static str> {
        let (mut msn, mut part, mut skip) = (None, None, false);
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            let number = |what| value.parse::<u64>().map(Some).map_err(|_| what);
            match name {
                "_HLS_msn" => msn = number("_HLS_msn is no number")?,
                "_HLS_part" => part = number("_HLS_part is no number")?,
                "_HLS_skip" => skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        match (msn, part) {
            (None, Some(_)) => Err("_HLS_part needs _HLS_msn"),
            (msn, part) => Ok(Self { until: msn.map(|msn| Position { msn, part }), skip }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_until_when_to_wait() {
        let until = |msn, part| Ok(Directives { until: Some(Position { msn, part }), skip: false });
        assert_eq!(Directives::parse(Some("_HLS_msn=7&_HLS_part=2")), until(7, Some(2)));
        assert_eq!(Directives::parse(Some("token=x&_HLS_msn=7")), until(7, None));
        assert_eq!(Directives::parse(Some("_HLS_skip=YES")), Ok(Directives { until: None, skip: true }));
        for none in [None, Some(""), Some("a=b&&c"), Some("_hls_msn=1")] {
            assert_eq!(Directives::parse(none), Ok(Directives::default()), "{none:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for query in ["_HLS_part=1", "_HLS_msn=", "_HLS_msn=-1", "_HLS_msn=1&_HLS_part=x", "_HLS_msn=99999999999999999999"] {
            assert!(Directives::parse(Some(query)).is_err(), "{query}");
        }
    }
}
