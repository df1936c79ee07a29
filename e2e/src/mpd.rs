//! Live MPDs (ISO/IEC 23009-1 §5), read by a parser that is not the writer's: only what the look-out asks about.

use anyhow::{Context as _, Result};
use roxmltree::{Document, Node};
use std::collections::BTreeMap;

/// A live MPD of one Period, whose segments are numbered and timed one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpd {
    /// `@availabilityStartTime`, as it stands there.
    pub begins: String,
    /// By `Representation@id`.
    pub representations: BTreeMap<String, Representation>,
}

/// What it names of a rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Representation {
    /// The URL of its initialisation section, relative to the MPD's.
    pub init: String,
    /// When each segment starts, in the rendition's ticks, by number.
    pub segments: BTreeMap<u64, u64>,
}

/// Reads an MPD.
pub fn read(text: &str) -> Result<Mpd> {
    let document = Document::parse(text)?;
    let begins = attribute(document.root_element(), "availabilityStartTime")?.to_owned();
    let mut representations = BTreeMap::new();
    for node in document.descendants().filter(|node| node.has_tag_name("Representation")) {
        let (id, named) = (attribute(node, "id")?, |name: &'static str| move |node: &Node<'_, '_>| node.has_tag_name(name));
        let Some(template) = node.descendants().find(named("SegmentTemplate")) else { continue };
        let init = attribute(template, "initialization")?.replace("$RepresentationID$", id);
        let (mut segments, mut number, mut time) = (BTreeMap::new(), attribute(template, "startNumber")?.parse::<u64>()?, 0);
        for run in template.descendants().filter(named("S")) {
            time = run.attribute("t").map(str::parse).transpose()?.unwrap_or(time);
            let (duration, more): (u64, u64) = (attribute(run, "d")?.parse()?, run.attribute("r").map_or(Ok(0), str::parse)?);
            for _ in 0..=more {
                segments.insert(number, time);
                (number, time) = (number + 1, time + duration);
            }
        }
        representations.insert(id.to_owned(), Representation { init, segments });
    }
    Ok(Mpd { begins, representations })
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str> {
    node.attribute(name).with_context(|| format!("{} has no @{name}", node.tag_name().name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_their_numbers_and_their_times() -> Result<()> {
        let mpd = read(include_str!("../../media/tests/golden/live-low.mpd"))?;
        assert_eq!(mpd.begins, "2023-11-14T22:13:20.250Z");
        let best = mpd.representations.get("720p").context("720p")?;
        assert_eq!(best.init, "720p/init-0.mp4");
        assert_eq!((best.segments.first_key_value(), best.segments.last_key_value()), (Some((&5, &900_000)), Some((&15, &2_700_000))));
        assert_eq!(mpd.representations.keys().collect::<Vec<_>>(), ["360p", "720p", "audio"]);
        Ok(())
    }
}
