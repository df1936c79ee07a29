//! AMF0 (Adobe's "Action Message Format – AMF 0").

use super::amf::{AmfError, Cursor, Limits, Value};
use super::amf3;
use bytes::{BufMut, BytesMut};

// Type markers (AMF0 §2.1).
const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const REFERENCE: u8 = 0x07;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0a;
const DATE: u8 = 0x0b;
const LONG_STRING: u8 = 0x0c;
const UNSUPPORTED: u8 = 0x0d;
const XML_DOCUMENT: u8 = 0x0f;
const TYPED_OBJECT: u8 = 0x10;
const SWITCH_TO_AMF3: u8 = 0x11;

/// Reads all values of a message.
///
/// # Errors
/// They are cut short, of an unknown type, or break a limit.
pub fn read(bytes: &[u8], limits: Limits) -> Result<Vec<Value>, AmfError> {
    let mut cursor = Cursor::new(bytes, limits)?;
    let mut values = Vec::new();
    while !cursor.is_empty() {
        values.push(value(&mut cursor)?);
    }
    Ok(values)
}

fn value(cursor: &mut Cursor<'_>) -> Result<Value, AmfError> {
    cursor.count()?;
    Ok(match cursor.u8()? {
        NUMBER => Value::Number(cursor.f64()?),
        BOOLEAN => Value::Boolean(cursor.u8()? != 0),
        STRING => Value::String(short_text(cursor)?),
        LONG_STRING | XML_DOCUMENT => {
            let length = cursor.u32()? as usize;
            Value::String(cursor.text(length)?)
        }
        OBJECT => deeper(cursor, properties)?,
        ECMA_ARRAY => {
            cursor.u32()?; // how many there are, which writers get wrong: the end marker decides
            deeper(cursor, properties)?
        }
        TYPED_OBJECT => {
            short_text(cursor)?;
            deeper(cursor, properties)?
        }
        STRICT_ARRAY => deeper(cursor, elements)?,
        DATE => {
            let millis = cursor.f64()?;
            cursor.u16()?;
            Value::Date(millis)
        }
        NULL => Value::Null,
        UNDEFINED | UNSUPPORTED => Value::Undefined,
        REFERENCE => Value::Reference(cursor.u16()?.into()),
        SWITCH_TO_AMF3 => deeper(cursor, amf3::value)?,
        marker => return Err(AmfError::Marker(marker)),
    })
}

fn deeper<'a>(cursor: &mut Cursor<'a>, read: impl FnOnce(&mut Cursor<'a>) -> Result<Value, AmfError>) -> Result<Value, AmfError> {
    cursor.enter()?;
    let value = read(cursor)?;
    cursor.leave();
    Ok(value)
}

fn short_text(cursor: &mut Cursor<'_>) -> Result<String, AmfError> {
    let length = usize::from(cursor.u16()?);
    cursor.text(length)
}

/// Names and values up to an empty name with the end marker.
fn properties(cursor: &mut Cursor<'_>) -> Result<Value, AmfError> {
    let mut properties = Vec::new();
    loop {
        let name = short_text(cursor)?;
        if name.is_empty() && cursor.peek() == Some(OBJECT_END) {
            cursor.u8()?;
            return Ok(Value::Object(properties));
        }
        properties.push((name, value(cursor)?));
    }
}

fn elements(cursor: &mut Cursor<'_>) -> Result<Value, AmfError> {
    let count = cursor.u32()?;
    let mut values = Vec::new(); // grows with what is there, not with what is claimed
    for _ in 0..count {
        values.push(value(cursor)?);
    }
    Ok(Value::Array(values))
}

/// Appends a value. References and byte arrays, which no server sends, become undefined.
pub fn write(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Number(number) => {
            out.put_u8(NUMBER);
            out.put_f64(*number);
        }
        Value::Boolean(truth) => out.put_slice(&[BOOLEAN, u8::from(*truth)]),
        Value::String(text) => write_text(out, text),
        Value::Object(properties) => {
            out.put_u8(OBJECT);
            for (name, value) in properties {
                put_name(out, name);
                write(out, value);
            }
            out.put_slice(&[0, 0, OBJECT_END]);
        }
        Value::Array(values) => {
            out.put_u8(STRICT_ARRAY);
            // A vector of 4 Gi values does not fit any memory that there is.
            out.put_u32(values.len() as u32);
            for value in values {
                write(out, value);
            }
        }
        Value::Date(millis) => {
            out.put_u8(DATE);
            out.put_f64(*millis);
            out.put_u16(0);
        }
        Value::Null => out.put_u8(NULL),
        Value::Undefined | Value::Reference(_) | Value::Bytes(_) => out.put_u8(UNDEFINED),
    }
}

/// Appends a text as a value.
pub fn write_text(out: &mut BytesMut, text: &str) {
    if text.len() > usize::from(u16::MAX) {
        out.put_u8(LONG_STRING);
        out.put_u32(text.len() as u32);
        out.put_slice(text.as_bytes());
    } else {
        out.put_u8(STRING);
        put_name(out, text);
    }
}

/// A length of two bytes and a text, which is cut where it does not fit.
fn put_name(out: &mut BytesMut, name: &str) {
    let name = &name[..name.floor_char_boundary(usize::from(u16::MAX))];
    out.put_u16(name.len() as u16);
    out.put_slice(name.as_bytes());
}
