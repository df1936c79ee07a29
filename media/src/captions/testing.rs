//! A writer of CEA-608 for tests: commands and characters as pairs of bytes.

/// `byte` with its parity bit, so that its ones are odd (ANSI/CTA-608-E).
pub fn with_parity(byte: u8) -> u8 {
    if byte.count_ones().is_multiple_of(2) { byte | 0x80 } else { byte }
}

/// A command, twice, as encoders send it.
pub fn command(pair: [u8; 2]) -> Vec<[u8; 2]> {
    vec![pair.map(with_parity); 2]
}

/// Characters of the basic set, which is ASCII for the most part.
pub fn letters(text: &str) -> Vec<[u8; 2]> {
    text.as_bytes().chunks(2).map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)].map(with_parity)).collect()
}
