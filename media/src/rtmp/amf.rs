//! What AMF0 and AMF3 share: values, limits and a cursor that keeps them.

/// A value of either format. Class names are dropped: no server needs them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A double; AMF3's integers, too.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// A text; XML documents, too. What is not UTF-8 is replaced: phones send metadata in other encodings.
    String(String),
    /// Properties in their order: objects, typed objects, ECMA arrays, associative AMF3 arrays.
    Object(Vec<(String, Value)>),
    /// Values in their order: strict arrays, vectors; of a dictionary the keys and values in turn.
    Array(Vec<Value>),
    /// Milliseconds since 1970. The time zone has to be ignored (AMF0 §2.13).
    Date(f64),
    /// AMF3's byte array.
    Bytes(Vec<u8>),
    /// Null.
    Null,
    /// Undefined, or of a type that the writer could not express.
    Undefined,
    /// An object that was sent before, by its number. It stays unresolved: nothing that a server acts on is sent so, and
    /// resolving lets a hundred bytes expand to gigabytes.
    Reference(u32),
}

impl Value {
    /// A text's characters.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The property of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(properties) => properties.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// An object of these properties.
    pub fn object<const N: usize>(properties: [(&str, Self); N]) -> Self {
        Self::Object(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// What one message may make a reader hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Values within values. Publishers nest three.
    pub depth: usize,
    /// Values in all, and names of AMF3 traits.
    pub elements: usize,
    /// Bytes of one text.
    pub text: usize,
    /// Bytes of the message, and of all that is made of it: AMF3 lets a text of kilobytes be repeated in a byte.
    pub bytes: usize,
}

impl Limits {
    /// For the commands of publishers: `connect` has a dozen short properties, with those of E-RTMP three dozen.
    pub const COMMAND: Self = Self { depth: 8, elements: 1024, text: 8 << 10, bytes: 64 << 10 };
}

/// Why bytes are no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// The bytes end within a value.
    #[error("an AMF value is cut short")]
    Short,
    /// Values are nested too deep.
    #[error("AMF values are nested deeper than {0}")]
    Depth(usize),
    /// Too many values.
    #[error("more than {0} AMF values in a message")]
    Elements(usize),
    /// A text is too long.
    #[error("an AMF text is longer than {0} bytes")]
    Text(usize),
    /// Too many bytes in all.
    #[error("more than {0} bytes of AMF in a message")]
    Bytes(usize),
    /// A type that no specification knows, or that only Flash could send (movie clips, record sets).
    #[error("the AMF type {0:#04x} is unknown")]
    Marker(u8),
    /// An AMF3 reference to what was not sent.
    #[error("an AMF3 reference names nothing")]
    Dangling,
    /// An AMF3 object whose bytes only its class can read.
    #[error("an AMF3 object is externalizable")]
    Externalizable,
}

/// Bytes ahead, and what is left of the limits.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    limits: Limits,
    depth: usize,
    elements: usize,
    bytes: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8], limits: Limits) -> Result<Self, AmfError> {
        if rest.len() > limits.bytes {
            return Err(AmfError::Bytes(limits.bytes));
        }
        Ok(Self { rest, limits, depth: 0, elements: 0, bytes: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(AmfError::Short)?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, AmfError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, AmfError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, AmfError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, AmfError> {
        self.array().map(f64::from_be_bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], AmfError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(AmfError::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A text of `length` bytes.
    pub(super) fn text(&mut self, length: usize) -> Result<String, AmfError> {
        if length > self.limits.text {
            return Err(AmfError::Text(self.limits.text));
        }
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.charge(text.len())?;
        Ok(text)
    }

    /// Counts bytes of the result.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), AmfError> {
        self.bytes = self.bytes.saturating_add(bytes);
        // Replacing what is not UTF-8 makes three bytes of one.
        if self.bytes > self.limits.bytes.saturating_mul(3) { Err(AmfError::Bytes(self.limits.bytes)) } else { Ok(()) }
    }

    /// Counts a value, or a name.
    pub(super) fn count(&mut self) -> Result<(), AmfError> {
        self.elements += 1;
        if self.elements > self.limits.elements { Err(AmfError::Elements(self.limits.elements)) } else { Ok(()) }
    }

    /// One level deeper; with [`Cursor::leave`] around the only recursion there is.
    pub(super) fn enter(&mut self) -> Result<(), AmfError> {
        if self.depth >= self.limits.depth {
            return Err(AmfError::Depth(self.limits.depth));
        }
        self.depth += 1;
        Ok(())
    }

    /// One level up. An error ends the reading: it need not come back up.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }
}
