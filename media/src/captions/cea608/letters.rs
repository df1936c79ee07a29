//! The characters of CEA-608 (ANSI/CTA-608-E).

/// Two bytes of characters, special characters and extended ones have a table each; the codes are without parity.
const SPECIAL: [char; 16] = ['®', '°', '½', '¿', '™', '¢', '£', '♪', 'à', '\u{a0}', 'è', 'â', 'ê', 'î', 'ô', 'û'];
const SPANISH_AND_FRENCH: [char; 32] = [
    'Á', 'É', 'Ó', 'Ú', 'Ü', 'ü', '‘', '¡', '*', '’', '—', '©', '℠', '•', '“', '”', 'À', 'Â', 'Ç', 'È', 'Ê', 'Ë', 'ë', 'Î', 'Ï', 'ï', 'Ô',
    'Ù', 'ù', 'Û', '«', '»',
];
const PORTUGUESE_AND_GERMAN: [char; 32] = [
    'Ã', 'ã', 'Í', 'Ì', 'ì', 'Ò', 'ò', 'Õ', 'õ', '{', '}', '\\', '^', '_', '|', '~', 'Ä', 'ä', 'Ö', 'ö', 'ß', '¥', '¤', '│', 'Å', 'å', 'Ø',
    'ø', '┌', '┐', '└', '┘',
];

/// What stands for a byte whose parity is wrong: a solid block.
pub const SPOILT: char = '█';

/// A character of one byte, 0x20 to 0x7f; others are spaces.
pub fn basic(code: u8) -> char {
    match code {
        0x27 => '’',
        0x2a => 'á',
        0x5c => 'é',
        0x5e => 'í',
        0x5f => 'ó',
        0x60 => 'ú',
        0x7b => 'ç',
        0x7c => '÷',
        0x7d => 'Ñ',
        0x7e => 'ñ',
        0x7f => SPOILT,
        0x20..=0x7a => char::from(code),
        _ => ' ',
    }
}

/// A special character: the second byte of 0x11, 0x30 to 0x3f.
pub fn special(code: u8) -> char {
    SPECIAL[usize::from(code & 0x0f)]
}

/// An extended character: the second byte of 0x12 or (`second`) 0x13, 0x20 to 0x3f.
pub fn extended(second: bool, code: u8) -> char {
    let table = if second { &PORTUGUESE_AND_GERMAN } else { &SPANISH_AND_FRENCH };
    table[usize::from(code & 0x1f)]
}
