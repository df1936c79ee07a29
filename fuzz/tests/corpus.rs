//! Every target over its corpus, over captured sessions of real publishers, and over noise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use lectern_fuzz::TARGETS;
use proptest::prelude::*;
use std::path::Path;

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn every_target_survives_its_corpus() {
    for (name, target) in TARGETS {
        let corpus = files(&Path::new("corpus").join(name));
        assert!(!corpus.is_empty(), "the corpus of {name} is empty");
        corpus.iter().for_each(|bytes| target(bytes));
    }
}

#[test]
fn every_target_survives_what_real_publishers_send_whole_and_cut_short() {
    let captures = files(Path::new("../ingest-pod/tests/captures"));
    let sessions: Vec<_> = captures.iter().filter(|bytes| bytes.first() == Some(&3) || bytes.first() == Some(&2)).collect();
    assert!(sessions.len() >= 8, "only {} captured sessions", sessions.len());
    for bytes in sessions {
        for (_, target) in TARGETS {
            for end in (0..bytes.len()).step_by(997).chain([bytes.len()]) {
                target(&bytes[..end]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_target_survives_noise(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }
}
