//! Playlist delta updates (draft-pantos-hls-rfc8216bis §6.2.5.1): a player that has loaded a playlist before gets its end.

/// The delta update of a playlist that `media_playlist` wrote; `None` where it offers none, or where nothing would be skipped.
///
/// Skipped are the segments that end more than `CAN-SKIP-UNTIL` before the end of the playlist, with all their tags.
pub fn delta_update(full: &str) -> Option<String> {
    let until: f64 = attribute(full.lines().find(|line| line.starts_with("#EXT-X-SERVER-CONTROL:"))?, "CAN-SKIP-UNTIL=")?;
    let durations = |tag: &'static str| full.lines().filter_map(move |line| line.strip_prefix(tag)?.split(',').next()?.parse::<f64>().ok());
    let open = full.rsplit("#EXTINF:").next()?; // what stands after the last whole segment
    let open: f64 = open.lines().filter_map(|line| attribute(line.strip_prefix("#EXT-X-PART:")?, "DURATION=")).sum();
    let mut left = durations("#EXTINF:").sum::<f64>() + open;
    let mut skipped = 0usize;
    for duration in durations("#EXTINF:") {
        left -= duration;
        if left < until {
            break;
        }
        skipped += 1;
    }
    if skipped == 0 {
        return None;
    }
    // The header is whatever stands before the first tag of a segment.
    let of_segment = |line: &&str| {
        ["#EXTINF:", "#EXT-X-MAP:", "#EXT-X-PROGRAM-DATE-TIME:", "#EXT-X-GAP", "#EXT-X-PART:"].iter().any(|tag| line.starts_with(tag))
    };
    let mut lines = full.split_inclusive('\n');
    let mut out = String::with_capacity(full.len());
    out.extend(lines.clone().take_while(|line| !of_segment(line)));
    out.push_str(&format!("#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n"));
    let mut passed = 0;
    // A segment's own line, its URI, is the last of it.
    while passed < skipped {
        passed += usize::from(!lines.next()?.starts_with('#'));
    }
    out.extend(lines);
    Some(out)
}

/// The number behind `name` in a tag's attributes.
fn attribute(line: &str, name: &str) -> Option<f64> {
    line.split(name).nth(1)?.split([',', '\r']).next()?.parse().ok()
}
