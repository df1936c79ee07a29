//! The slices as they are to be, kept up to date change by change: no client, no clock.
//!
//! A route stays in its slice, also when its stream moves. A new one goes into a slice of its shard's, and a slice without routes goes. So a change
//! touches the slice that it concerns, and costs as much with ten thousand streams as with ten; and a lost shard's streams, which all change at
//! once, are in a few slices and not in nearly all.

use super::PER_SLICE;
use lectern_contract::StreamRef;
use lectern_crds::{Route, RouteSliceSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The slices of all pools by name.
pub type Slices = BTreeMap<Name, RouteSliceSpec>;

/// Of a slice: all of its streams share it.
pub type Name = Arc<str>;

/// The slices, and where in them each stream is.
#[derive(Debug, Default)]
pub struct Table {
    slices: Slices,
    /// The shard whose new streams a slice takes.
    homes: HashMap<Name, String>,
    held: HashMap<StreamRef, Name>,
}

/// What a stream should have: its pool and its route, or none.
pub type Wanted = Option<(String, Route)>;

impl Table {
    /// A table of slices as they were read, and the names of those in which a route was that another has, too: somebody stopped between two
    /// writes. It is the first that counts.
    pub fn of(slices: Slices) -> (Self, BTreeSet<Name>) {
        let (mut table, mut touched) = (Self::default(), BTreeSet::new());
        for (name, mut slice) in slices {
            let before = slice.routes.len();
            slice.routes.retain(|route| {
                let is_new = !table.held.contains_key(&stream_of(route));
                if is_new {
                    table.held.insert(stream_of(route), name.clone());
                }
                is_new
            });
            if slice.routes.len() < before || slice.routes.is_empty() {
                touched.insert(name.clone());
            }
            if let Some(home) = most_common_shard(&slice.routes) {
                table.homes.insert(name.clone(), home);
                table.slices.insert(name, slice);
            }
        }
        (table, touched)
    }

    /// The slice called so; `None` where it is to go.
    pub fn slice(&self, name: &str) -> Option<&RouteSliceSpec> {
        self.slices.get(name)
    }

    /// The streams that have a route.
    pub fn streams(&self) -> impl Iterator<Item = &StreamRef> {
        self.held.keys()
    }

    /// Brings the streams' routes to what is wanted; the names of the slices that are others now, or are to go.
    pub fn bring(&mut self, wanted: impl IntoIterator<Item = (StreamRef, Wanted)>) -> BTreeSet<Name> {
        let (mut touched, mut new) = (BTreeSet::new(), BTreeMap::new());
        for (stream, wanted) in wanted {
            match (self.held.get(&stream).cloned(), wanted) {
                (Some(slice), Some((pool, route))) if self.fits(&slice, &pool, &route) => {
                    if self.replace(&slice, route) {
                        touched.insert(slice);
                    }
                }
                (slice, wanted) => {
                    if let Some(slice) = slice {
                        self.take_out(&stream, &slice);
                        touched.insert(slice);
                    }
                    if let Some((pool, route)) = wanted {
                        new.insert((pool, route.run_id.clone()), (stream, route));
                    }
                }
            }
        }
        // What goes makes room first, and in the order of their runs those that come at once are put in, whoever told of them first.
        for ((pool, run), (stream, route)) in new {
            let name = self.room(&pool, &route.shard);
            self.homes.entry(name.clone()).or_insert_with(|| route.shard.clone());
            let empty = || RouteSliceSpec { pool_name: pool, routes: Vec::with_capacity(PER_SLICE) };
            let slice = self.slices.entry(name.clone()).or_insert_with(empty);
            let at = slice.routes.partition_point(|other| other.run_id < run);
            slice.routes.insert(at, route);
            self.held.insert(stream, name.clone());
            touched.insert(name);
        }
        touched
    }

    /// Whether the route may stay where it is.
    fn fits(&self, slice: &str, pool: &str, route: &Route) -> bool {
        self.slices.get(slice).is_some_and(|slice| slice.pool_name == pool && slice.routes.iter().any(|held| held.run_id == route.run_id))
    }

    /// Puts the route in the place of the one of its run; whether it is another.
    fn replace(&mut self, slice: &str, route: Route) -> bool {
        let before = self.slices.get_mut(slice).and_then(|slice| slice.routes.iter_mut().find(|held| held.run_id == route.run_id));
        match before {
            Some(before) if *before != route => {
                *before = route;
                true
            }
            _ => false,
        }
    }

    fn take_out(&mut self, stream: &StreamRef, from: &str) {
        self.held.remove(stream);
        if let Some(slice) = self.slices.get_mut(from) {
            slice.routes.retain(|route| (&route.namespace, &route.name) != (&stream.namespace, &stream.name));
            if slice.routes.is_empty() {
                self.slices.remove(from);
                self.homes.remove(from);
            }
        }
    }

    /// A slice of the shard's with room, or the lowest number that is free.
    fn room(&self, pool: &str, shard: &str) -> Name {
        let is_home = |name: &str| self.homes.get(name).is_some_and(|home| home == shard);
        let with_room = self.slices.iter().find(|(name, slice)| slice.routes.len() < PER_SLICE && slice.pool_name == pool && is_home(name));
        if let Some((name, _)) = with_room {
            return name.clone();
        }
        let mut number = 0usize;
        loop {
            let name = Name::from(format!("{pool}-{number}"));
            if !self.slices.contains_key(&name) {
                return name;
            }
            number += 1;
        }
    }
}

/// The shard that most of these are on, of several the first by name.
fn most_common_shard(routes: &[Route]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for route in routes {
        *counts.entry(&route.shard).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(shard, _)| shard.to_owned())
}

/// The stream of a route.
fn stream_of(route: &Route) -> StreamRef {
    StreamRef { namespace: route.namespace.clone(), name: route.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_crds::{RtspTransport, Takeover};

    fn a_route(number: usize) -> Route {
        Route {
            key_hash: String::new(),
            previous_key_hash: None,
            backup_key_hash: None,
            takeover: Takeover::default(),
            namespace: "school".into(),
            name: format!("stream-{number}"),
            run_id: format!("run-{number:04}"),
            shard: "lectern-ingest-default-0".into(),
            epoch: 1,
            anchor_millis: 0,
            ended: false,
            rtsp_url: None,
            rtsp_transport: RtspTransport::default(),
            rtsp_credentials: None,
            original_prefix: None,
        }
    }

    fn with(route: Route) -> (StreamRef, Wanted) {
        (stream_of(&route), Some(("default".into(), route)))
    }

    fn without(number: usize) -> (StreamRef, Wanted) {
        (stream_of(&a_route(number)), None)
    }

    fn full(numbers: impl IntoIterator<Item = usize>) -> Table {
        let mut table = Table::default();
        table.bring(numbers.into_iter().map(|number| with(a_route(number))));
        table
    }

    fn touched(names: BTreeSet<Name>) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_slice_holds_more_than_it_may_and_each_is_in_the_order_of_runs() {
        let table = full((0..60).rev());
        let sizes: Vec<usize> = table.slices.values().map(|slice| slice.routes.len()).collect();
        assert_eq!(sizes, [25, 25, 10]);
        assert!(table.slices.values().all(|slice| slice.routes.is_sorted_by(|a, b| a.run_id < b.run_id)));
    }

    #[test]
    fn a_route_that_goes_or_comes_touches_one_slice() {
        let mut table = full(0..60);
        assert_eq!(touched(table.bring([without(7)])), ["default-0"]);
        assert_eq!(touched(table.bring([with(a_route(60))])), ["default-0"], "it fills the hole");
    }

    #[test]
    fn a_route_that_changes_stays_where_it_is_and_one_that_does_not_touches_nothing() {
        let mut table = full(0..60);
        let moved = Route { shard: "lectern-ingest-default-1".into(), epoch: 2, ..a_route(30) };
        assert_eq!(touched(table.bring([with(moved.clone())])), ["default-1"]);
        assert!(table.slice("default-1").unwrap().routes.contains(&moved));
        assert!(table.bring([with(moved)]).is_empty());
    }

    #[test]
    fn a_slice_without_routes_goes() {
        let mut table = full(0..3);
        assert_eq!(touched(table.bring((0..3).map(without))), ["default-0"]);
        assert_eq!(table.slice("default-0"), None);
        let empty = RouteSliceSpec { pool_name: "default".into(), routes: vec![] };
        assert_eq!(touched(Table::of([("default-0".into(), empty)].into()).1), ["default-0"], "also one that was found so");
    }

    #[test]
    fn a_stream_that_was_made_anew_has_the_route_of_its_new_run_only() {
        let mut table = full(0..3);
        let anew = Route { run_id: "run-9999".into(), ..a_route(1) };
        assert_eq!(touched(table.bring([with(anew)])), ["default-0"]);
        let runs: Vec<_> = table.slice("default-0").unwrap().routes.iter().map(|route| route.run_id.as_str()).collect();
        assert_eq!(runs, ["run-0000", "run-0002", "run-9999"]);
    }

    #[test]
    fn a_route_that_is_found_twice_stays_once() {
        let mut slices = full(0..40).slices;
        slices.get_mut("default-1").unwrap().routes.insert(0, a_route(7));
        let (table, twice) = Table::of(slices);
        assert_eq!(touched(twice), ["default-1"]);
        assert_eq!(table.slices, full(0..40).slices);
    }

    #[test]
    fn what_has_been_read_is_what_was_written() {
        let slices = full(0..60).slices;
        let (mut table, twice) = Table::of(slices.clone());
        assert!(twice.is_empty());
        assert!(table.bring((0..60).map(|number| with(a_route(number)))).is_empty());
        assert_eq!(table.slices, slices);
    }

    /// A route on one of ten shards.
    fn spread(number: usize) -> Route {
        Route { shard: format!("lectern-ingest-default-{}", number % 10), ..a_route(number) }
    }

    #[test]
    fn the_streams_of_a_lost_shard_are_in_few_slices_and_stay_in_them() {
        let mut table = Table::default();
        for number in 0..1_000 {
            table.bring([with(spread(number))]);
        }
        let elsewhere = |number: usize| Route { shard: format!("lectern-ingest-default-{}", 1 + number % 9), epoch: 2, ..spread(number) };
        let lost: Vec<usize> = (0..1_000).filter(|number| number % 10 == 0).collect();
        assert_eq!(table.bring(lost.iter().map(|number| with(elsewhere(*number)))).len(), lost.len() / PER_SLICE);
    }

    #[test]
    fn a_slice_that_was_read_takes_streams_of_the_shard_that_most_of_it_is_on() {
        let mut table = Table::default();
        table.bring([2, 3, 13].map(|number| with(spread(number))));
        let (mut read, _) = Table::of(table.slices);
        assert_eq!(touched(read.bring([with(spread(23))])), ["default-1"]);
        assert_eq!(touched(read.bring([with(spread(4))])), ["default-2"]);
    }

    #[test]
    fn pools_share_no_slice() {
        let mut table = full(0..1);
        let elsewhere = a_route(1);
        table.bring([(stream_of(&elsewhere), Some(("other".into(), elsewhere)))]);
        assert_eq!(touched(table.slices.into_keys().collect()), ["default-0", "other-0"]);
    }
}
