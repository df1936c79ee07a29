//! AMF3 (Adobe's "Action Message Format – AMF 3"), which Flash puts into single values of AMF0. Reading only.

use super::amf::{AmfError, Cursor, Limits, Value};

// Type markers (AMF3 §3.1).
const UNDEFINED: u8 = 0x00;
const NULL: u8 = 0x01;
const FALSE: u8 = 0x02;
const TRUE: u8 = 0x03;
const INTEGER: u8 = 0x04;
const DOUBLE: u8 = 0x05;
const STRING: u8 = 0x06;
const XML_DOCUMENT: u8 = 0x07;
const DATE: u8 = 0x08;
const ARRAY: u8 = 0x09;
const OBJECT: u8 = 0x0a;
const XML: u8 = 0x0b;
const BYTE_ARRAY: u8 = 0x0c;
const VECTOR_INT: u8 = 0x0d;
const VECTOR_UINT: u8 = 0x0e;
const VECTOR_DOUBLE: u8 = 0x0f;
const VECTOR_OBJECT: u8 = 0x10;
const DICTIONARY: u8 = 0x11;

/// Reads all values; texts and traits may be referred to from one to the next.
///
/// # Errors
/// They are cut short, of an unknown type, refer to nothing, or break a limit.
pub fn read(bytes: &[u8], limits: Limits) -> Result<Vec<Value>, AmfError> {
    let mut reader = Reader { cursor: &mut Cursor::new(bytes, limits)?, texts: Vec::new(), traits: Vec::new() };
    let mut values = Vec::new();
    while !reader.cursor.is_empty() {
        values.push(reader.value()?);
    }
    Ok(values)
}

/// One value within AMF0: its tables are its own (AMF0 §3.1).
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<Value, AmfError> {
    Reader { cursor, texts: Vec::new(), traits: Vec::new() }.value()
}

/// A class as it was sent: the names that its objects have values for.
#[derive(Clone)]
struct Traits {
    names: Vec<String>,
    dynamic: bool,
}

/// The tables that references point into (AMF3 §2.2). That of objects is not kept: see [`Value::Reference`].
struct Reader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    texts: Vec<String>,
    traits: Vec<Traits>,
}

impl Reader<'_, '_> {
    fn value(&mut self) -> Result<Value, AmfError> {
        self.cursor.count()?;
        Ok(match self.cursor.u8()? {
            UNDEFINED => Value::Undefined,
            NULL => Value::Null,
            FALSE => Value::Boolean(false),
            TRUE => Value::Boolean(true),
            INTEGER => Value::Number(f64::from((self.u29()? << 3).cast_signed() >> 3)),
            DOUBLE => Value::Number(self.cursor.f64()?),
            STRING => Value::String(self.text()?),
            XML_DOCUMENT | XML => self.unless_reference(|reader, length| reader.cursor.text(length).map(Value::String))?,
            DATE => self.unless_reference(|reader, _| reader.cursor.f64().map(Value::Date))?,
            BYTE_ARRAY => self.unless_reference(|reader, length| {
                let bytes = reader.cursor.take(length)?.to_vec();
                reader.cursor.charge(length)?;
                Ok(Value::Bytes(bytes))
            })?,
            ARRAY => self.unless_reference(Self::array)?,
            OBJECT => self.unless_reference(Self::object)?,
            VECTOR_INT => self.vector(|reader| Ok(f64::from(reader.cursor.u32()?.cast_signed()).into()))?,
            VECTOR_UINT => self.vector(|reader| Ok(f64::from(reader.cursor.u32()?).into()))?,
            VECTOR_DOUBLE => self.vector(|reader| Ok(reader.cursor.f64()?.into()))?,
            VECTOR_OBJECT => self.unless_reference(|reader, count| {
                reader.cursor.u8()?; // whether the length is fixed
                reader.text()?; // the class of the values
                reader.values(count)
            })?,
            DICTIONARY => self.unless_reference(|reader, count| {
                reader.cursor.u8()?; // whether keys are weak
                reader.values(count.saturating_mul(2))
            })?,
            marker => return Err(AmfError::Marker(marker)),
        })
    }

    /// One to four bytes of seven bits, the fourth of eight (AMF3 §1.3.1).
    fn u29(&mut self) -> Result<u32, AmfError> {
        let mut number = 0;
        for _ in 0..3 {
            let byte = self.cursor.u8()?;
            number = number << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Ok(number << 8 | u32::from(self.cursor.u8()?))
    }

    /// A U29 whose lowest bit says whether a value follows, with the rest as its length, or is a reference; one level deeper.
    fn unless_reference(&mut self, read: impl FnOnce(&mut Self, usize) -> Result<Value, AmfError>) -> Result<Value, AmfError> {
        let head = self.u29()?;
        if head & 1 == 0 {
            return Ok(Value::Reference(head >> 1));
        }
        self.cursor.enter()?;
        let value = read(self, (head >> 1) as usize)?;
        self.cursor.leave();
        Ok(value)
    }

    /// A text, or a reference to an earlier one (AMF3 §1.3.2). A reference costs as much as the text: both are kept.
    fn text(&mut self) -> Result<String, AmfError> {
        let head = self.u29()?;
        let length = (head >> 1) as usize;
        if head & 1 == 0 {
            let text = self.texts.get(length).cloned().ok_or(AmfError::Dangling)?;
            self.cursor.charge(text.len())?;
            return Ok(text);
        }
        let text = self.cursor.text(length)?;
        if !text.is_empty() {
            self.cursor.count()?;
            self.cursor.charge(text.len())?;
            self.texts.push(text.clone());
        }
        Ok(text)
    }

    /// Named values up to an empty name, then `count` values (AMF3 §3.11).
    fn array(&mut self, count: usize) -> Result<Value, AmfError> {
        let mut properties = self.named()?;
        let values = self.values(count)?;
        if properties.is_empty() {
            return Ok(values);
        }
        if let Value::Array(values) = values {
            properties.extend(values.into_iter().enumerate().map(|(index, value)| (index.to_string(), value)));
        }
        Ok(Value::Object(properties))
    }

    /// The values of its traits, then named ones if it is dynamic (AMF3 §3.12); `head` is the U29 without its lowest bit.
    fn object(&mut self, head: usize) -> Result<Value, AmfError> {
        let traits = if head & 1 == 0 {
            self.traits.get(head >> 1).cloned().ok_or(AmfError::Dangling)?
        } else if head & 2 != 0 {
            return Err(AmfError::Externalizable);
        } else {
            self.text()?; // the class
            let mut names = Vec::new();
            for _ in 0..head >> 3 {
                self.cursor.count()?;
                names.push(self.text()?);
            }
            let traits = Traits { names, dynamic: head & 4 != 0 };
            self.cursor.count()?;
            self.traits.push(traits.clone());
            traits
        };
        self.cursor.charge(traits.names.iter().map(String::len).sum())?;
        let mut properties = Vec::new();
        for name in traits.names {
            properties.push((name, self.value()?));
        }
        if traits.dynamic {
            properties.extend(self.named()?);
        }
        Ok(Value::Object(properties))
    }

    fn named(&mut self) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        loop {
            let name = self.text()?;
            if name.is_empty() {
                return Ok(properties);
            }
            properties.push((name, self.value()?));
        }
    }

    fn values(&mut self, count: usize) -> Result<Value, AmfError> {
        let mut values = Vec::new(); // grows with what is there, not with what is claimed
        for _ in 0..count {
            values.push(self.value()?);
        }
        Ok(Value::Array(values))
    }

    /// A vector of numbers (AMF3 §3.15).
    fn vector(&mut self, number: impl Fn(&mut Self) -> Result<Value, AmfError>) -> Result<Value, AmfError> {
        self.unless_reference(|reader, count| {
            reader.cursor.u8()?; // whether the length is fixed
            let mut values = Vec::new();
            for _ in 0..count {
                reader.cursor.count()?;
                values.push(number(reader)?);
            }
            Ok(Value::Array(values))
        })
    }
}
