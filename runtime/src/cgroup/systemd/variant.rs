//! Values as text, in the form of GVariant ("GVariant Text Format"), as far as properties of units need it.

use super::wire::Value;

/// Reads `true`, `'text'`, `5`, `uint64 5`, `2.5`, `['a', 'b']`, `@as []`. None if it is none of these.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut rest = text.trim();
    let value = value(&mut rest, None, 0)?;
    rest.trim().is_empty().then_some(value)
}

fn value(rest: &mut &str, wanted: Option<&str>, depth: usize) -> Option<Value> {
    *rest = rest.trim_start();
    if depth > 8 {
        return None;
    }
    match rest.chars().next()? {
        '\'' | '"' => quoted(rest, wanted),
        '[' => array(rest, wanted, depth),
        '@' => {
            let (signature, tail) = rest[1..].split_once(' ')?;
            *rest = tail;
            value(rest, Some(signature), depth + 1)
        }
        _ => {
            let end = rest.find([',', ']', ' ']).unwrap_or(rest.len());
            let word = &rest[..end];
            *rest = &rest[end..];
            match kind(word) {
                Some(signature) => value(rest, Some(signature), depth + 1),
                None => plain(word, wanted),
            }
        }
    }
}

/// The type that a word stands for.
fn kind(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        _ => return None,
    })
}

fn plain(word: &str, wanted: Option<&str>) -> Option<Value> {
    let usual = match word {
        "true" | "false" => "b",
        _ if word.contains(['.', 'e']) && !word.starts_with("0x") => "d",
        _ => "i",
    };
    let (digits, base) = word.strip_prefix("0x").map_or((word, 10), |digits| (digits, 16));
    let whole = || i128::from_str_radix(digits, base).ok();
    Some(match wanted.unwrap_or(usual) {
        "b" => Value::Bool(word.parse().ok()?),
        "y" => Value::Byte(whole()?.try_into().ok()?),
        "i" => Value::I32(whole()?.try_into().ok()?),
        "u" => Value::U32(whole()?.try_into().ok()?),
        "x" => Value::I64(whole()?.try_into().ok()?),
        "t" => Value::U64(whole()?.try_into().ok()?),
        "d" => Value::Double(word.parse().ok().filter(|number: &f64| number.is_finite())?),
        _ => return None,
    })
}

fn quoted(rest: &mut &str, wanted: Option<&str>) -> Option<Value> {
    let mut characters = rest.char_indices();
    let (_, quote) = characters.next()?;
    let mut text = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => text.push(match characters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other @ ('\\' | '\'' | '"') => other,
                _ => return None,
            }),
            end if end == quote => {
                *rest = &rest[at + end.len_utf8()..];
                // The bus has no such texts.
                return match wanted {
                    _ if text.contains('\0') => None,
                    None | Some("s") => Some(Value::Text(text)),
                    Some("o") => Some(Value::Path(text)),
                    Some(_) => None,
                };
            }
            other => text.push(other),
        }
    }
    None
}

fn array(rest: &mut &str, wanted: Option<&str>, depth: usize) -> Option<Value> {
    let wanted = match wanted {
        None => None,
        Some(signature) => Some(signature.strip_prefix('a')?),
    };
    *rest = rest[1..].trim_start();
    let mut values: Vec<Value> = Vec::new();
    while !rest.starts_with(']') {
        if !values.is_empty() {
            *rest = rest.strip_prefix(',')?;
        }
        values.push(value(rest, wanted, depth + 1)?);
        *rest = rest.trim_start();
    }
    *rest = &rest[1..];
    let signature = wanted
        .map(str::to_owned)
        .or_else(|| values.first().map(Value::signature))?;
    values
        .iter()
        .all(|value| value.signature() == signature)
        .then_some(Value::Array(signature, values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_read_as_values() {
        for (text, expected) in [
            ("true", Value::Bool(true)),
            (" 'it\\'s' ", Value::text("it's")),
            ("\"x\"", Value::text("x")),
            ("5", Value::I32(5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("int64 -5", Value::I64(-5)),
            ("byte 0x1f", Value::Byte(31)),
            ("2.5", Value::Double(2.5)),
            ("@u 7", Value::U32(7)),
            ("objectpath '/a'", Value::Path("/a".into())),
            (
                "['a', 'b']",
                Value::Array("s".into(), vec![Value::text("a"), Value::text("b")]),
            ),
            ("@as []", Value::Array("s".into(), vec![])),
            (
                "[uint32 1,2]",
                Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]),
            ),
        ] {
            let read = parse(text);
            if text.starts_with("[uint32") {
                assert_eq!(read, None, "elements of two types");
            } else {
                assert_eq!(read, Some(expected), "{text}");
            }
        }
        for text in [
            "",
            "'",
            "'a",
            "x",
            "[]",
            "1 2",
            "uint64",
            "uint64 -1",
            "byte 300",
            "['a' 'b']",
            "@s 5",
            "nan",
            "'\\u'",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[ -~]{0,40}") {
            let _ = parse(&text);
        }
    }
}
