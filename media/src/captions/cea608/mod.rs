//! CEA-608 (ANSI/CTA-608-E): pairs of bytes in, what stands on the screen out. Channel CC1: the first of the first field, which
//! nearly all captions in English are on, and which encoders of CEA-708 send beside it.
//!
//! Colours, italics and underlines are not told on.

mod code;
mod letters;
mod screen;

pub use screen::Line;

use code::{Code, Command};
use screen::{Cursor, ROWS, Screen};

/// How captions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Into the hidden memory, until it is flipped.
    PopOn,
    /// Into the last of so many rows that end at row `base`.
    RollUp { rows: usize, base: usize },
    /// Where they are seen.
    PaintOn,
}

/// What a pair of bytes did to the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that is seen.
    None,
    /// What stands there grew, or was mended: it is still the same caption.
    Grown,
    /// Another caption stands there, or none.
    Turned,
}

/// A decoder of CC1.
#[derive(Debug, Default)]
pub struct Cea608 {
    displayed: Screen,
    hidden: Screen,
    /// `None` before the first command, and in text mode: characters are not for the screen.
    mode: Option<Mode>,
    cursor: Cursor,
    /// The channel that spoke last is this one.
    ours: bool,
    /// The command before, which is not obeyed again when it is repeated.
    before: Option<[u8; 2]>,
}

impl Default for Cursor {
    fn default() -> Self {
        Self::at(ROWS - 1, 0)
    }
}

impl Cea608 {
    /// Takes two bytes of the first field, with their parity bits. Nothing that they say makes it fail.
    pub fn push(&mut self, bytes: [u8; 2]) -> Change {
        match Code::of(bytes) {
            Code::Nothing => Change::None, // also between a command and its repetition: frame rates are converted
            Code::Other => {
                (self.ours, self.before) = (false, None);
                Change::None
            }
            Code::Letters(first, second) => {
                self.before = None;
                if !self.ours {
                    return Change::None;
                }
                [Some(first), second].into_iter().flatten().for_each(|letter| self.write(letter));
                self.grown()
            }
            // A command comes twice, so that one is whole; its third is another.
            Code::Command { .. } if self.before.take_if(|before| *before == bytes).is_some() => Change::None,
            Code::Command { second, command } => {
                (self.ours, self.before) = (!second, Some(bytes));
                if second { Change::None } else { self.obey(command) }
            }
        }
    }

    /// What stands on the screen.
    pub fn lines(&self) -> Vec<Line> {
        self.displayed.lines()
    }

    /// Takes all off the screen, as receivers do that have heard nothing for long.
    pub fn erase(&mut self) {
        self.displayed = Screen::default();
    }

    fn obey(&mut self, command: Command) -> Change {
        match command {
            Command::PopOn => self.mode = Some(Mode::PopOn),
            Command::PaintOn => self.mode = Some(Mode::PaintOn),
            Command::Text => self.mode = None,
            Command::RollUp(rows) => return self.roll_up(rows),
            Command::Place { row, column } => return self.place(row, column),
            Command::Tab(columns) => self.cursor.tab(columns),
            Command::Return => return self.carriage_return(),
            Command::EraseHidden => self.hidden = Screen::default(),
            Command::EraseDisplayed => {
                self.displayed = Screen::default();
                return Change::Turned;
            }
            Command::Flip => {
                self.mode = Some(Mode::PopOn);
                std::mem::swap(&mut self.displayed, &mut self.hidden);
                return Change::Turned;
            }
            Command::Backspace => self.memory(Screen::backspace),
            Command::DeleteToEnd => self.memory(|screen, cursor| screen.delete_to_end(*cursor)),
            Command::Space => self.write(' '),
            Command::Special(letter) => self.write(letter),
            Command::Extended(letter) => {
                self.memory(Screen::backspace);
                self.write(letter);
            }
            Command::Attribute => {}
        }
        match command {
            Command::Backspace | Command::DeleteToEnd | Command::Space | Command::Special(_) | Command::Extended(_) => self.grown(),
            _ => Change::None,
        }
    }

    /// Something was written: it is seen, unless into the hidden memory.
    fn grown(&self) -> Change {
        if matches!(self.mode, Some(Mode::RollUp { .. } | Mode::PaintOn)) { Change::Grown } else { Change::None }
    }

    fn write(&mut self, letter: char) {
        self.memory(|screen, cursor| screen.write(cursor, letter));
    }

    /// Does something to the memory that is written to.
    fn memory(&mut self, act: impl FnOnce(&mut Screen, &mut Cursor)) {
        match self.mode {
            Some(Mode::PopOn) => act(&mut self.hidden, &mut self.cursor),
            Some(Mode::RollUp { .. } | Mode::PaintOn) => act(&mut self.displayed, &mut self.cursor),
            None => {}
        }
    }

    /// RU2 to RU4: from another mode they clear both memories and begin in the last row.
    fn roll_up(&mut self, rows: usize) -> Change {
        let Some(Mode::RollUp { base, .. }) = self.mode else {
            (self.displayed, self.hidden) = (Screen::default(), Screen::default());
            self.mode = Some(Mode::RollUp { rows, base: ROWS - 1 });
            self.cursor = Cursor::default();
            return Change::Turned;
        };
        let before = self.lines();
        self.displayed.move_rows(base, base, rows);
        self.mode = Some(Mode::RollUp { rows, base });
        if self.lines() == before { Change::None } else { Change::Turned }
    }

    /// A preamble: in roll-up it says where the rows end, and they go there.
    fn place(&mut self, row: usize, column: usize) -> Change {
        self.cursor = Cursor::at(row, column);
        match self.mode {
            Some(Mode::RollUp { rows, base }) if base != row => {
                self.displayed.move_rows(base, row, rows);
                self.mode = Some(Mode::RollUp { rows, base: row });
                Change::Turned
            }
            // What is painted elsewhere is another caption's.
            Some(Mode::PaintOn) => Change::Turned,
            _ => Change::None,
        }
    }

    fn carriage_return(&mut self) -> Change {
        let Some(Mode::RollUp { rows, base }) = self.mode else { return Change::None };
        self.displayed.roll((base + 1).saturating_sub(rows), base);
        self.cursor = Cursor::at(base, 0);
        Change::Turned
    }
}

#[cfg(test)]
mod tests;
