//! Tables of RFC 9651: what is read, how it is written again, and what is refused where.

use super::*;

fn rewrite_list(value: &[u8]) -> Result<String, Invalid> {
    let mut out = Vec::new();
    write_list(&mut out, &parse_list(value)?).expect("what was read can be written");
    Ok(String::from_utf8(out).unwrap())
}

fn rewrite_dictionary(value: &[u8]) -> Result<String, Invalid> {
    let mut out = Vec::new();
    write_dictionary(&mut out, &parse_dictionary(value)?).expect("what was read can be written");
    Ok(String::from_utf8(out).unwrap())
}

fn item(value: &[u8]) -> Result<BareItem, Invalid> {
    parse_item(value).map(|item| item.value)
}

/// RFC 9651 §4.2.3.1: every bare type.
#[test]
fn bare_items() {
    for (text, expected) in [
        ("42", BareItem::Integer(42)),
        ("-42", BareItem::Integer(-42)),
        ("-0", BareItem::Integer(0)),
        ("0042", BareItem::Integer(42)),
        ("999999999999999", BareItem::Integer(INTEGER_MAX)),
        ("-999999999999999", BareItem::Integer(-INTEGER_MAX)),
        ("4.5", BareItem::Decimal(Decimal { thousandths: 4500 })),
        ("-0.001", BareItem::Decimal(Decimal { thousandths: -1 })),
        ("123456789012.123", BareItem::Decimal(Decimal { thousandths: 123_456_789_012_123 })),
        (r#""hello \"world\" \\""#, BareItem::String(r#"hello "world" \"#.into())),
        (r#""""#, BareItem::String(String::new())),
        ("foo123/456", BareItem::Token("foo123/456".into())),
        ("*", BareItem::Token("*".into())),
        ("a_b-c.3:d%25!#", BareItem::Token("a_b-c.3:d%25!#".into())),
        (":aGVsbG8=:", BareItem::Bytes(b"hello".to_vec())),
        (":aGVsbG8:", BareItem::Bytes(b"hello".to_vec())),
        (":iZ==:", BareItem::Bytes(vec![0x89])),
        ("::", BareItem::Bytes(vec![])),
        ("?1", BareItem::Boolean(true)),
        ("?0", BareItem::Boolean(false)),
        ("@1659578233", BareItem::Date(1_659_578_233)),
        ("@-1", BareItem::Date(-1)),
        (r#"%"f%c3%bc%c3%bc""#, BareItem::DisplayString("füü".into())),
        (r#"%"a%25%22b""#, BareItem::DisplayString("a%\"b".into())),
        ("  1  ", BareItem::Integer(1)),
    ] {
        assert_eq!(item(text.as_bytes()), Ok(expected), "{text}");
    }
}

/// The refusals, with the octet at which each is found.
#[test]
fn bare_items_refused() {
    for (text, at, why) in [
        (&b""[..], 0, Why::End),
        (b"   ", 3, Why::End),
        (b"+1", 0, Why::Item),
        (b"-", 1, Why::End),
        (b"--1", 1, Why::Number),
        (b"- 1", 1, Why::Number),
        (b"1000000000000000", 15, Why::Number),
        (b"1234567890123.1", 13, Why::Number),
        (b"1.", 2, Why::End),
        (b"1.1234", 5, Why::Number),
        (b".5", 0, Why::Item),
        (b"1.5.", 3, Why::Trailing),
        (b"1 2", 2, Why::Trailing),
        (b"\t1", 0, Why::Item),
        (b"\"abc", 4, Why::End),
        (b"\"a\\b\"", 3, Why::String),
        (b"\"a\\", 3, Why::End),
        (b"\"a\tb\"", 2, Why::String),
        (b"\"\xc3\xbc\"", 1, Why::String),
        (b"'abc'", 0, Why::Item),
        (b"\xff", 0, Why::Item),
        (b":aGVsbG8", 8, Why::End),
        (b":a b=:", 1, Why::Bytes),
        (b":a-_:", 1, Why::Bytes),
        (b"?", 1, Why::End),
        (b"?2", 1, Why::Boolean),
        (b"?true", 1, Why::Boolean),
        (b"@1.5", 4, Why::Date),
        (b"@", 1, Why::End),
        (b"@a", 1, Why::Number),
        (b"%a", 1, Why::DisplayString),
        (b"%\"a", 3, Why::End),
        (b"%\"%C3%BC\"", 2, Why::DisplayString),
        (b"%\"%c\"", 2, Why::DisplayString),
        (b"%\"%ff\"", 0, Why::DisplayString),
        (b"%\"\xc3\xbc\"", 2, Why::DisplayString),
        (b"(1)", 0, Why::Item),
        (b"1;", 2, Why::End),
        (b"1;A", 2, Why::Key),
        (b"1;a=", 4, Why::End),
        (b"1;a=(1)", 4, Why::Item),
        (b"1 ;a", 2, Why::Trailing),
    ] {
        let got = item(text);
        assert_eq!(got, Err(Invalid { at, why }), "{}", String::from_utf8_lossy(text));
    }
}

/// RFC 9651 §4.2.1 and §4.1.1.
#[test]
fn lists() {
    for (text, expected) in [
        ("", ""),
        ("   ", ""),
        ("a", "a"),
        ("a,b ,\t c", "a, b, c"),
        (r#"a;x, "b";y=2;z=?0, (c d);q=0.5, ()"#, r#"a;x, "b";y=2;z=?0, (c d);q=0.5, ()"#),
        ("( a   b )", "(a b)"),
        ("a;  x=1;x=2;y", "a;x=2;y"),
        ("1.0, 1.50, -0.10", "1.0, 1.5, -0.1"),
        ("@1;a=%\"x\"", "@1;a=%\"x\""),
    ] {
        assert_eq!(rewrite_list(text.as_bytes()).as_deref(), Ok(expected), "{text}");
    }
    for (text, at, why) in [
        ("a,", 2, Why::Trailing),
        (",a", 0, Why::Item),
        ("a,,b", 2, Why::Item),
        ("a b", 2, Why::Trailing),
        ("(a", 2, Why::End),
        ("(a b", 4, Why::End),
        ("(a,b)", 2, Why::InnerList),
        ("(a\tb)", 2, Why::InnerList),
        ("(\"a\"\"b\")", 4, Why::InnerList),
        ("((a))", 1, Why::Item),
        ("a)", 1, Why::Trailing),
        ("\ta", 0, Why::Item),
    ] {
        assert_eq!(rewrite_list(text.as_bytes()), Err(Invalid { at, why }), "{text}");
    }
}

/// RFC 9651 §4.2.2 and §4.1.2.
#[test]
fn dictionaries() {
    for (text, expected) in [
        ("", ""),
        ("a", "a"),
        ("a=?1, b=?0;x", "a, b=?0;x"),
        ("a;q=1,b=(1 2);w, c=:AA==:", "a;q=1, b=(1 2);w, c=:AA==:"),
        ("a=1, b=2, a=3", "a=3, b=2"),
        ("*k_1-2.*=tok", "*k_1-2.*=tok"),
    ] {
        assert_eq!(rewrite_dictionary(text.as_bytes()).as_deref(), Ok(expected), "{text}");
    }
    for (text, at, why) in [
        ("A=1", 0, Why::Key),
        ("1=1", 0, Why::Key),
        ("a =1", 2, Why::Trailing),
        ("a= 1", 2, Why::Item),
        ("a=", 2, Why::End),
        ("a,", 2, Why::Trailing),
        ("max-age=3600 no-store", 13, Why::Trailing),
    ] {
        assert_eq!(rewrite_dictionary(text.as_bytes()), Err(Invalid { at, why }), "{text}");
    }
    let dictionary = parse_dictionary(b"max-age=60, private=\"a, b\", x=(1)").unwrap();
    assert_eq!(dictionary.item("max-age").and_then(BareItem::integer), Some(60));
    assert_eq!(dictionary.item("private").and_then(BareItem::string), Some("a, b"));
    assert_eq!(dictionary.item("x"), None);
    assert!(dictionary.get("x").is_some() && dictionary.get("y").is_none());
}

/// What no recipient could read is not written.
#[test]
fn unwritable_values_are_refused() {
    for (value, why) in [
        (BareItem::Integer(INTEGER_MAX + 1), Why::Number),
        (BareItem::Integer(i64::MIN), Why::Number),
        (BareItem::Decimal(Decimal { thousandths: INTEGER_MAX + 1 }), Why::Number),
        (BareItem::String("a\nb".into()), Why::String),
        (BareItem::String("ü".into()), Why::String),
        (BareItem::Token(String::new()), Why::Token),
        (BareItem::Token("1a".into()), Why::Token),
        (BareItem::Token("a b".into()), Why::Token),
        (BareItem::Date(i64::MAX), Why::Date),
    ] {
        assert_eq!(write_bare(&mut Vec::new(), &value), Err(why), "{value:?}");
    }
    let list = |key: &str| Parameters(vec![(key.into(), BareItem::Boolean(true))]);
    for key in ["", "A", "1", "a b", "ü"] {
        assert_eq!(write_parameters(&mut Vec::new(), &list(key)), Err(Why::Key), "{key}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(9651),
        ..proptest::prelude::ProptestConfig::default()
    })]
    /// Whatever is read survives being written and read again; nothing panics.
    #[test]
    fn reading_and_writing_agree(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
        if let Ok(list) = parse_list(&value) {
            let mut out = Vec::new();
            write_list(&mut out, &list).unwrap();
            proptest::prop_assert_eq!(parse_list(&out), Ok(list));
        }
        if let Ok(dictionary) = parse_dictionary(&value) {
            let mut out = Vec::new();
            write_dictionary(&mut out, &dictionary).unwrap();
            proptest::prop_assert_eq!(parse_dictionary(&out), Ok(dictionary));
        }
    }

    /// As above with octets that make structure likely.
    #[test]
    fn likely_octets_agree(value in "[a-c0-9=;,() \"?%@:.-]{0,24}") {
        if let Ok(list) = parse_list(value.as_bytes()) {
            let mut out = Vec::new();
            write_list(&mut out, &list).unwrap();
            proptest::prop_assert_eq!(parse_list(&out), Ok(list));
        }
        let _ = parse_item(value.as_bytes());
        let _ = parse_dictionary(value.as_bytes());
    }
}
