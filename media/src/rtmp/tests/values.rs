//! AMF0 and AMF3.

use super::super::amf::{AmfError, Limits, Value};
use super::super::{amf0, amf3};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits { depth: 8, elements: 100, text: 1000, bytes: 4000 };

fn amf0(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    amf0::read(bytes, LIMITS)
}

fn amf3(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    amf3::read(bytes, LIMITS)
}

#[test]
fn every_type_of_amf0_is_read() {
    let date = [&[0x0b][..], &1000f64.to_be_bytes(), &[0, 0]].concat();
    assert_eq!(amf0(&date), Ok(vec![Value::Date(1000.0)]));
    assert_eq!(amf0(b"\x0c\0\0\0\x04long"), Ok(vec!["long".into()]));
    assert_eq!(amf0(b"\x0f\0\0\0\x04<a/>"), Ok(vec!["<a/>".into()]));
    let object = Value::object([("a", Value::Boolean(true))]);
    assert_eq!(amf0(b"\x03\0\x01a\x01\x01\0\0\x09"), Ok(vec![object.clone()]));
    assert_eq!(amf0(b"\x10\0\x05Class\0\x01a\x01\x01\0\0\x09"), Ok(vec![object.clone()]));
    assert_eq!(amf0(b"\x08\xff\xff\xff\xff\0\x01a\x01\x01\0\0\x09"), Ok(vec![object]), "a wrong count does not matter");
    assert_eq!(amf0(b"\x0a\0\0\0\x02\x05\x06"), Ok(vec![Value::Array(vec![Value::Null, Value::Undefined])]));
    assert_eq!(amf0(b"\x07\0\x03\x0d"), Ok(vec![Value::Reference(3), Value::Undefined]));
    assert_eq!(amf0(b"\x11\x06\x07abc\x05"), Ok(vec!["abc".into(), Value::Null]));
    assert_eq!(amf0(b"\x02\0\x02\xff\xfe"), Ok(vec!["\u{fffd}\u{fffd}".into()]));
    assert_eq!(amf0(b"\x04"), Err(AmfError::Marker(4)));
    assert_eq!(amf0(b"\x02\0\x04abc"), Err(AmfError::Short));
}

#[test]
fn every_type_of_amf3_is_read() {
    assert_eq!(amf3(b"\x00\x01\x02\x03"), Ok(vec![Value::Undefined, Value::Null, Value::Boolean(false), Value::Boolean(true)]));
    assert_eq!(amf3(b"\x04\x7f"), Ok(vec![127.0.into()]));
    assert_eq!(amf3(b"\x04\xff\xff\xff\xff"), Ok(vec![(-1.0).into()]));
    assert_eq!(amf3(&[&[5][..], &1.5f64.to_be_bytes()].concat()), Ok(vec![1.5.into()]));
    assert_eq!(amf3(b"\x06\x07abc\x06\x00"), Ok(vec!["abc".into(), "abc".into()]));
    assert_eq!(amf3(&[&[8, 1][..], &9f64.to_be_bytes()].concat()), Ok(vec![Value::Date(9.0)]));
    assert_eq!(amf3(b"\x09\x05\x01\x02\x03"), Ok(vec![Value::Array(vec![Value::Boolean(false), Value::Boolean(true)])]));
    assert_eq!(amf3(b"\x09\x03\x03k\x02\x01\x03"), Ok(vec![Value::object([("k", Value::Boolean(false)), ("0", Value::Boolean(true))])]));
    // Traits with one name, dynamic; then an object of the same traits.
    let object = Value::object([("a", Value::Null), ("b", Value::Boolean(true))]);
    assert_eq!(amf3(b"\x0a\x1b\x01\x03a\x01\x03b\x03\x01\x0a\x01\x01\x02\x03\x01"), Ok(vec![object.clone(), object]));
    assert_eq!(amf3(b"\x0c\x07abc\x0a\x00"), Ok(vec![Value::Bytes(b"abc".to_vec()), Value::Reference(0)]));
    assert_eq!(amf3(b"\x0d\x03\0\xff\xff\xff\xff"), Ok(vec![Value::Array(vec![(-1.0).into()])]));
    assert_eq!(amf3(b"\x0e\x03\0\xff\xff\xff\xff"), Ok(vec![Value::Array(vec![4_294_967_295.0.into()])]));
    assert_eq!(amf3(b"\x10\x03\0\x01\x03"), Ok(vec![Value::Array(vec![Value::Boolean(true)])]));
    assert_eq!(amf3(b"\x11\x03\0\x06\x03k\x03"), Ok(vec![Value::Array(vec!["k".into(), Value::Boolean(true)])]));
    assert_eq!(amf3(b"\x0a\x07\x01"), Err(AmfError::Externalizable));
    assert_eq!(amf3(b"\x06\x02"), Err(AmfError::Dangling));
    assert_eq!(amf3(b"\x0a\x05"), Err(AmfError::Dangling));
    assert_eq!(amf3(b"\x12"), Err(AmfError::Marker(0x12)));
}

#[test]
fn nesting_a_hundred_thousand_deep_is_an_error_and_no_stack_overflow() {
    let deep = Limits { bytes: 1 << 20, ..LIMITS };
    for (nest, name) in [(&b"\x0a\0\0\0\x01"[..], "arrays"), (b"\x03\0\x01a", "objects"), (b"\x08\0\0\0\0\0\x01a", "ECMA arrays")] {
        assert_eq!(amf0::read(&nest.repeat(100_000), deep), Err(AmfError::Depth(8)), "{name}");
    }
    assert_eq!(amf3::read(&b"\x09\x03\x01".repeat(100_000), deep), Err(AmfError::Depth(8)));
    assert_eq!(amf0::read(&[b"\x11".to_vec(), b"\x09\x03\x01".repeat(100_000)].concat(), deep), Err(AmfError::Depth(8)));
}

#[test]
fn counts_and_lengths_are_bounded_and_claims_allocate_nothing() {
    assert_eq!(amf0(b"\x0a\xff\xff\xff\xff\x05"), Err(AmfError::Short));
    assert_eq!(amf0(&[5; 101]), Err(AmfError::Elements(100)));
    assert_eq!(amf0(&[5; 4001]), Err(AmfError::Bytes(4000)));
    assert_eq!(amf0(b"\x0c\xff\xff\xff\xff"), Err(AmfError::Text(1000)));
    assert_eq!(amf3(b"\x0d\xff\xff\xff\xff\0\0\0\0\0"), Err(AmfError::Short));
}

#[test]
fn a_text_repeated_by_reference_counts_each_time() {
    let mut bytes = vec![0x06, 0x8f, 0x51]; // 1000 bytes
    bytes.extend([b'x'; 1000]);
    bytes.extend(b"\x06\x00".repeat(90));
    assert_eq!(amf3(&bytes), Err(AmfError::Bytes(4000)));
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[a-zA-Zäöü☃]{0,10}";
    let leaf = prop_oneof![
        any::<i32>().prop_map(|number| Value::Number(number.into())),
        any::<bool>().prop_map(Value::Boolean),
        text.prop_map(Value::String),
        any::<i32>().prop_map(|millis| Value::Date(millis.into())),
        Just(Value::Null),
        Just(Value::Undefined),
    ];
    leaf.prop_recursive(6, 30, 4, move |inner| {
        prop_oneof![vec((text, inner.clone()), 0..4).prop_map(Value::Object), vec(inner, 0..4).prop_map(Value::Array),]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(values in vec(value(), 0..3)) {
        let mut bytes = BytesMut::new();
        for value in &values {
            amf0::write(&mut bytes, value);
        }
        prop_assert_eq!(amf0::read(&bytes, Limits::COMMAND), Ok(values));
    }

    #[test]
    fn noise_never_panics(bytes in vec(prop_oneof![0u8..0x12, any::<u8>()], 0..300)) {
        let _ = (amf0(&bytes), amf3(&bytes));
    }
}
