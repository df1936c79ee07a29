//! Single byte ranges (RFC 9110 §14).

use std::ops::Range;

/// What a `Range` header asks of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// All of it: no range, several, or one that makes no sense (RFC 9110 §14.2 lets a server ignore those).
    All,
    /// These bytes.
    Part(Range<usize>),
    /// Bytes that it does not have.
    Outside,
}

/// What `header` asks of an object of `length` bytes.
pub fn asked(header: Option<&str>, length: usize) -> Asked {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Asked::All };
    let Some((first, last)) = spec.split_once('-') else { return Asked::All };
    let number = |text: &str| text.trim().parse::<usize>();
    match (first.trim().is_empty(), last.trim().is_empty(), number(first), number(last)) {
        (true, false, _, Ok(0)) => Asked::Outside,
        (true, false, _, Ok(_)) if length == 0 => Asked::Outside,
        (true, false, _, Ok(tail)) => Asked::Part(length.saturating_sub(tail)..length),
        (false, true, Ok(first), _) if first < length => Asked::Part(first..length),
        (false, false, Ok(first), Ok(last)) if first > last => Asked::All,
        (false, false, Ok(first), Ok(last)) if first < length => Asked::Part(first..last.saturating_add(1).min(length)),
        (false, true, Ok(_), _) | (false, false, Ok(_), Ok(_)) => Asked::Outside,
        _ => Asked::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_object() {
        for (header, wanted) in [
            ("bytes=0-3", Asked::Part(0..4)),
            ("bytes=4-", Asked::Part(4..10)),
            ("bytes=-4", Asked::Part(6..10)),
            ("bytes=-40", Asked::Part(0..10)),
            ("bytes=8-99", Asked::Part(8..10)),
            ("bytes=10-", Asked::Outside),
            ("bytes=10-12", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-4", Asked::All),
            ("bytes=0-1,4-5", Asked::All),
            ("bytes=18446744073709551615-", Asked::Outside),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
            ("bytes=a-b", Asked::All),
            ("lines=1-2", Asked::All),
        ] {
            assert_eq!(asked(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(asked(None, 10), Asked::All);
        assert_eq!(asked(Some("bytes=-4"), 0), Asked::Outside);
    }
}
