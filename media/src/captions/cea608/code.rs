//! Two bytes of CEA-608 and what they mean (ANSI/CTA-608-E).

use super::letters;

/// What a pair of bytes asks for. Channels are the two of a field: `second` is CC2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Nothing: both bytes are null, or spoilt where they had to be a command.
    Nothing,
    /// One or two characters, in the channel that spoke last.
    Letters(char, Option<char>),
    /// XDS, which belongs to no channel, until a command follows.
    Other,
    /// A command of a channel.
    Command { second: bool, command: Command },
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// RCL: pop-on captions are written where nobody sees them.
    PopOn,
    /// RU2 to RU4: as many rows roll.
    RollUp(usize),
    /// RDC: captions are painted where they are seen.
    PaintOn,
    /// TR, RTD: what follows is text, and no captions.
    Text,
    /// BS.
    Backspace,
    /// DER.
    DeleteToEnd,
    /// EDM.
    EraseDisplayed,
    /// ENM.
    EraseHidden,
    /// CR.
    Return,
    /// EOC: what was written is shown, what was shown is hidden.
    Flip,
    /// TO1 to TO3.
    Tab(usize),
    /// A preamble address code: a row from the top, and a column, both from zero.
    Place { row: usize, column: usize },
    /// A mid-row code or flash: a space with an attribute.
    Space,
    /// A special character.
    Special(char),
    /// An extended character, which takes the place of the one before it.
    Extended(char),
    /// Attributes that are not told on.
    Attribute,
}

impl Code {
    /// Reads a pair, with its parity bits.
    pub fn of(bytes: [u8; 2]) -> Self {
        let [first, second] = bytes.map(|byte| (byte & 0x7f, byte.count_ones() % 2 == 1));
        match (first, second) {
            ((0, _), (0, _)) => Self::Nothing,
            // A spoilt command is not obeyed; it comes twice.
            ((0x10..=0x1f, true), (code, true)) => Self::command(first.0, code),
            ((0x10..=0x1f, _), _) => Self::Nothing,
            ((0x01..=0x0f, _), _) => Self::Other,
            ((first, fine), second) => {
                let letter = |code, fine| if fine { letters::basic(code) } else { letters::SPOILT };
                let next = (second.0 >= 0x20).then(|| letter(second.0, second.1));
                if first >= 0x20 {
                    Self::Letters(letter(first, fine), next)
                } else {
                    next.map_or(Self::Nothing, |next| Self::Letters(next, None))
                }
            }
        }
    }

    fn command(first: u8, code: u8) -> Self {
        let command = match (first & 0x17, code) {
            (0x11, 0x20..=0x2f) => Command::Space,
            (0x11, 0x30..=0x3f) => Command::Special(letters::special(code)),
            (kind @ (0x12 | 0x13), 0x20..=0x3f) => Command::Extended(letters::extended(kind == 0x13, code)),
            // 0x15 is the second field's, and some encoders' in the first, too.
            (0x14 | 0x15, 0x20..=0x2f) => miscellaneous(code),
            (0x17, 0x21..=0x23) => Command::Tab(usize::from(code - 0x20)),
            (kind, 0x40..=0x7f) => place(kind, code),
            _ => Command::Attribute,
        };
        Self::Command { second: first & 8 != 0, command }
    }
}

fn miscellaneous(code: u8) -> Command {
    match code {
        0x20 => Command::PopOn,
        0x21 => Command::Backspace,
        0x24 => Command::DeleteToEnd,
        0x25..=0x27 => Command::RollUp(usize::from(code - 0x23)),
        0x28 => Command::Space,
        0x29 => Command::PaintOn,
        0x2a | 0x2b => Command::Text,
        0x2c => Command::EraseDisplayed,
        0x2d => Command::Return,
        0x2e => Command::EraseHidden,
        0x2f => Command::Flip,
        _ => Command::Attribute, // AOF and AON are reserved
    }
}

/// A preamble address code: the first byte and bit 5 of the second say the row.
fn place(kind: u8, code: u8) -> Command {
    const ROWS: [[usize; 2]; 8] = [[10, 10], [0, 1], [2, 3], [11, 12], [13, 14], [4, 5], [6, 7], [8, 9]];
    let row = ROWS[usize::from(kind & 7)][usize::from(code >> 5 & 1)];
    let column = if code & 0x10 != 0 { usize::from(code >> 1 & 7) * 4 } else { 0 };
    Command::Place { row, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(bytes: [u8; 2]) -> Command {
        let Code::Command { second: false, command } = Code::of(bytes) else { panic!("{bytes:x?}") };
        command
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(command([0x94, 0x20]), Command::PopOn);
        assert_eq!(command([0x94, 0x26]), Command::RollUp(3));
        assert_eq!(command([0x94, 0x2f]), Command::Flip);
        assert_eq!(command([0x97, 0xa2]), Command::Tab(2));
        assert_eq!(command([0x94, 0xe0]), Command::Place { row: 14, column: 0 });
        assert_eq!(command([0x13, 0xf4]), Command::Place { row: 12, column: 8 });
        assert_eq!(command([0x91, 0x37]), Command::Special('♪'));
        assert_eq!(command([0x92, 0xb0]), Command::Extended('À'));
        assert_eq!(command([0x13, 0x34]), Command::Extended('ß'));
        assert_eq!(Code::of([0x1c, 0x20]), Code::Command { second: true, command: Command::PopOn });
    }

    #[test]
    fn parity_decides_what_is_believed() {
        assert_eq!(Code::of([0xc8, 0xe9]), Code::Letters('H', Some('i')));
        assert_eq!(Code::of([0x48, 0xe9]), Code::Letters(letters::SPOILT, Some('i')));
        assert_eq!(Code::of([0x14, 0x20]), Code::Nothing);
        assert_eq!(Code::of([0x80, 0x80]), Code::Nothing);
        assert_eq!(Code::of([0xc8, 0x80]), Code::Letters('H', None));
        assert_eq!(Code::of([0x01, 0xe9]), Code::Other);
    }
}
