use super::*;
use lectern_contract::StreamRef;
use proptest::prelude::*;

const FREE: Limits = Limits { streams: None, bits: None, assumed: 0 };

fn resident(uid: &str, namespace: &str, bits: Option<u64>) -> Resident {
    let stream = StreamRef { namespace: namespace.into(), name: uid.into() };
    Resident { uid: uid.into(), stream, pool: "p".into(), bits, since: 0 }
}

fn uid(uid: &str) -> Resident {
    resident(uid, "school", None)
}

fn fill(book: &Book, shards: &[Shard], streams: usize, seed: u64) -> BTreeMap<String, ShardName> {
    let names = (0..streams).map(|n| format!("{seed}-{n}"));
    names.map(|name| (name.clone(), book.place(&uid(&name), shards, &FREE, false).unwrap().shard)).collect()
}

fn loads<'a>(held: impl IntoIterator<Item = &'a ShardName>) -> BTreeMap<&'a ShardName, usize> {
    held.into_iter().fold(BTreeMap::new(), |mut loads, shard| {
        *loads.entry(shard).or_default() += 1;
        loads
    })
}

/// `count` shards, turn by turn in `zones` zones.
fn zoned(count: i32, zones: usize) -> Vec<Shard> {
    let names: Vec<Arc<str>> = (0..zones).map(|zone| Arc::from(format!("zone-{zone}"))).collect();
    let mut shards = shards_of("p", count);
    for (shard, zone) in shards.iter_mut().zip(names.iter().cycle()) {
        shard.zone = Some(zone.clone());
    }
    shards
}

fn zone_of(shards: &[Shard], name: &ShardName) -> Arc<str> {
    shards.iter().find(|shard| shard.name == *name).unwrap().zone.clone().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_shard_holds_more_than_its_bound(count in 2i32..12, streams in 1usize..600, seed: u64) {
        let held = fill(&Book::default(), &shards_of("p", count), streams, seed);
        let share = streams as f64 / f64::from(count);
        let bound = (share * 1.05).floor().max(share.ceil()) as usize;
        for (shard, load) in loads(held.values()) {
            prop_assert!(load <= bound, "{shard} holds {load} of at most {bound}");
        }
    }

    #[test]
    fn a_leaving_shard_moves_its_own_streams_only(count in 3i32..12, streams in 1usize..400, seed: u64) {
        let (book, before, after) = (Book::default(), shards_of("p", count), shards_of("p", count - 1));
        let held = fill(&book, &before, streams, seed);
        for (name, shard) in &held {
            let now = book.place(&uid(name), &after, &FREE, true).unwrap().shard;
            prop_assert!(now == *shard || *shard == before[before.len() - 1].name, "{name} moved from {shard} to {now}");
        }
    }

    #[test]
    fn a_namespaces_streams_are_spread_evenly_over_zones(zones in 2usize..4, each in 1i32..5, streams in 1usize..200, seed: u64) {
        let shards = zoned(each * zones as i32, zones);
        let held = fill(&Book::default(), &shards, streams, seed);
        let mut by_zone: BTreeMap<Arc<str>, usize> = shards.iter().map(|shard| (shard.zone.clone().unwrap(), 0)).collect();
        for shard in held.values() {
            *by_zone.get_mut(&zone_of(&shards, shard)).unwrap() += 1;
        }
        let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
        prop_assert!(most - least <= 1, "{by_zone:?}");
    }

    #[test]
    fn zones_do_not_unbalance_shards(zones in 2usize..4, namespaces in 1usize..20, streams in 1usize..400, seed: u64) {
        let (book, shards) = (Book::default(), zoned(9, zones));
        let places = (0..streams).map(|n| {
            let resident = resident(&format!("{seed}-{n}"), &format!("school-{}", n % namespaces), None);
            book.place(&resident, &shards, &FREE, false).unwrap().shard
        });
        let held: Vec<ShardName> = places.collect();
        let share = streams as f64 / 9.0;
        for (shard, load) in loads(&held) {
            prop_assert!(load as f64 <= (share * 1.05).floor().max(share.ceil()), "{shard} holds {load} of {share}");
        }
    }

    #[test]
    fn no_shard_takes_more_than_its_capacity_and_who_waits_could_go_nowhere(
        bitrates in proptest::collection::vec(proptest::option::of(1u64..9_000_000), 1..80),
        streams in proptest::option::of(1u32..12),
        megabits in 1u64..40,
        count in 1i32..6,
    ) {
        let limits = Limits { streams, bits: Some(megabits * 1_000_000), assumed: 1_000_000 };
        let (book, shards) = (Book::default(), zoned(count, 2));
        let mut taken: BTreeMap<ShardName, (u32, u64)> = BTreeMap::new();
        for (n, bits) in bitrates.into_iter().enumerate() {
            let counts = bits.unwrap_or(limits.assumed);
            let fits = |(held, load): (u32, u64)| streams.is_none_or(|most| held < most) && load + counts <= megabits * 1_000_000;
            let before = |shard: &Shard| taken.get(&shard.name).copied().unwrap_or_default();
            match book.place(&resident(&n.to_string(), "school", bits), &shards, &limits, false) {
                Ok(placed) => {
                    let shard = shards.iter().find(|shard| shard.name == placed.shard).unwrap();
                    prop_assert!(fits(before(shard)), "{:?} does not take {counts} more", before(shard));
                    let (held, load) = taken.entry(placed.shard).or_default();
                    (*held, *load) = (*held + 1, *load + counts);
                }
                Err(_) => prop_assert!(!shards.iter().any(|shard| fits(before(shard))), "there is room"),
            }
        }
    }

    #[test]
    fn two_operators_that_see_the_same_decide_the_same(streams in 1usize..100, seed: u64) {
        let shards = zoned(7, 3);
        let mut other_way_round = shards.clone();
        other_way_round.reverse();
        prop_assert_eq!(fill(&Book::default(), &shards, streams, seed), fill(&Book::default(), &other_way_round, streams, seed));
    }
}

#[test]
fn losing_one_of_a_hundred_shards_leaves_the_others_within_their_bound() {
    let (book, before, after) = (Book::default(), shards_of("p", 100), shards_of("p", 99));
    let held = fill(&book, &before, 10_000, 1);
    let now: Vec<ShardName> = held.keys().map(|name| book.place(&uid(name), &after, &FREE, true).unwrap().shard).collect();
    let mean = 10_000.0 / 99.0;
    assert!(loads(&now).values().all(|load| *load as f64 <= 1.05 * mean), "{:?}", loads(&now).values().max());
}

#[test]
fn a_shard_of_twice_the_weight_holds_twice_the_streams() {
    let mut shards = shards_of("p", 3);
    shards[0].weight = NonZeroU32::new(2).unwrap();
    let held = fill(&Book::default(), &shards, 4000, 1);
    let heavy = loads(held.values())[&shards[0].name];
    assert!((1900..=2100).contains(&heavy), "{heavy}");
}

#[test]
fn a_stream_that_ended_makes_room_and_wakes_who_has_waited_longest() {
    let (book, shards, one) = (Book::default(), shards_of("p", 1), Limits { streams: Some(1), ..FREE });
    book.place(&uid("a"), &shards, &one, false).unwrap();
    assert_eq!(book.streams("p"), 1);
    let waits = |name: &str, since| Resident { since, ..uid(name) };
    for (name, since) in [("b", 20), ("c", 10)] {
        assert!(matches!(book.place(&waits(name, since), &shards, &one, false), Err(NoPlace::NoRoom(_))));
    }
    assert_eq!(book.remove(&uid("a")), Some(uid("c").stream));
    assert_eq!(book.streams("p"), 0);
    book.place(&waits("c", 10), &shards, &one, false).unwrap();
    assert_eq!(book.remove(&waits("b", 20)), None, "one that waited and left made no room");
    assert_eq!(book.remove(&waits("c", 10)), None, "nobody waits any more");
}

#[test]
fn what_a_publisher_sends_counts_once_it_sends_it() {
    let (book, shards) = (Book::default(), shards_of("p", 1));
    let limits = Limits { bits: Some(10_000_000), assumed: 6_000_000, ..FREE };
    let first = book.place(&uid("a"), &shards, &limits, false).unwrap().shard;
    let NoPlace::NoRoom(why) = book.place(&uid("b"), &shards, &limits, false).unwrap_err() else { panic!() };
    assert!(why.contains("6 of 10 Mbit/s"), "{why}");
    book.note(&resident("a", "school", Some(2_000_000)), &first);
    book.place(&uid("b"), &shards, &limits, false).unwrap();
}

#[test]
fn a_lecture_whose_shard_leaves_is_placed_although_there_is_no_room() {
    let (book, shards, one) = (Book::default(), shards_of("p", 2), Limits { streams: Some(1), ..FREE });
    for name in ["a", "b"] {
        book.place(&uid(name), &shards, &one, false).unwrap();
    }
    let moved: Vec<Placement> = ["a", "b"].iter().filter_map(|name| book.place(&uid(name), &shards[..1], &one, true).ok()).collect();
    assert_eq!(moved.len(), 2);
    assert!(moved.iter().any(|place| place.reason.starts_with("over its capacity (1 of 1 streams)")), "{moved:?}");
}

#[test]
fn a_place_beside_the_first_choice_says_why() {
    let reasons = |shards: &[Shard], limits: &Limits| -> Vec<String> {
        let book = Book::default();
        (0..40).filter_map(|n| book.place(&uid(&n.to_string()), shards, limits, false).ok()).map(|place| place.reason).collect()
    };
    let plain = reasons(&shards_of("p", 2), &FREE);
    assert!(plain.contains(&"first choice of 2 by hash".to_owned()));
    assert!(plain.contains(&"choice 2 of 2 by hash; before it: 1 at 1.05 times their share".to_owned()), "{plain:?}");
    let zones = reasons(&zoned(4, 2), &FREE);
    assert!(zones.iter().any(|reason| reason.contains("in zones with more streams of this namespace") && reason.contains("; zone zone-")));
    let mut heavy = shards_of("p", 2);
    heavy[0].weight = NonZeroU32::new(9).unwrap();
    let full = reasons(&heavy, &Limits { streams: Some(10), ..FREE });
    assert_eq!(full.len(), 20, "all that there is room for");
    assert!(full.iter().any(|reason| reason.contains("1 full (spec.ingest.capacity of the pool)")), "{full:?}");
}

#[test]
fn a_full_pool_says_what_is_taken_and_what_to_do() {
    let (book, shards) = (Book::default(), shards_of("p", 2));
    let limits = Limits { streams: Some(1), bits: Some(20_000_000), assumed: 6_000_000 };
    let told = (0..3).find_map(|n| book.place(&uid(&n.to_string()), &shards, &limits, false).err()).unwrap();
    let NoPlace::NoRoom(why) = told else { panic!("{told:?}") };
    assert!(why.contains("2 of 2 streams and 12 of 40 Mbit/s"), "{why}");
    assert!(why.contains("spec.ingest.shards"), "{why}");
}

#[test]
fn a_pool_without_shards_places_nothing() {
    assert_eq!(place("a", None, &[], &Loads::default(), &FREE), Err(NoPlace::NoShards));
}
