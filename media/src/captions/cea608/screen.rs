//! A caption memory: 15 rows of 32 characters (ANSI/CTA-608-E).

pub const ROWS: usize = 15;
const COLUMNS: usize = 32;

/// Rows and what stands in them; nothing where nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen([[Option<char>; COLUMNS]; ROWS]);

/// A row that has something to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From the top, 0 to 14.
    pub row: usize,
    /// Of its first character, 0 to 31.
    pub column: usize,
    /// Without spaces at its ends.
    pub text: String,
}

impl Default for Screen {
    fn default() -> Self {
        Self([[None; COLUMNS]; ROWS])
    }
}

/// Where the next character goes; always within the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    row: usize,
    column: usize,
}

impl Cursor {
    /// A row and a column, brought within the screen.
    pub fn at(row: usize, column: usize) -> Self {
        Self { row: row.min(ROWS - 1), column: column.min(COLUMNS - 1) }
    }

    /// Further right by so many columns, at most to the last.
    pub fn tab(&mut self, columns: usize) {
        *self = Self::at(self.row, self.column + columns);
    }
}

impl Screen {
    /// Writes a character. In the last column the next one overwrites it.
    pub fn write(&mut self, cursor: &mut Cursor, letter: char) {
        self.0[cursor.row][cursor.column] = Some(letter);
        cursor.tab(1);
    }

    /// Takes the character before the cursor away.
    pub fn backspace(&mut self, cursor: &mut Cursor) {
        cursor.column = cursor.column.saturating_sub(1);
        self.0[cursor.row][cursor.column] = None;
    }

    /// Takes away what stands from the cursor to the end of its row.
    pub fn delete_to_end(&mut self, cursor: Cursor) {
        self.0[cursor.row][cursor.column..].fill(None);
    }

    /// Moves the rows from `top` to `base` up by one; the first is gone, the last is empty.
    pub fn roll(&mut self, top: usize, base: usize) {
        self.0[top..=base].rotate_left(1);
        self.0[base].fill(None);
    }

    /// Moves `count` rows that end at `from` to where they end at `to`; all others become empty.
    pub fn move_rows(&mut self, from: usize, to: usize, count: usize) {
        let before = std::mem::take(self);
        for back in 0..count {
            if let (Some(from), Some(to)) = (from.checked_sub(back), to.checked_sub(back)) {
                self.0[to] = before.0[from];
            }
        }
    }

    /// The rows that have something to read.
    pub fn lines(&self) -> Vec<Line> {
        let line = |(row, letters): (usize, &[Option<char>; COLUMNS])| {
            let text: String = letters.iter().map(|letter| letter.unwrap_or(' ')).collect();
            let column = text.chars().take_while(|letter| letter.is_whitespace()).count();
            let text = text.trim();
            (!text.is_empty()).then(|| Line { row, column, text: text.to_owned() })
        };
        self.0.iter().enumerate().filter_map(line).collect()
    }
}
