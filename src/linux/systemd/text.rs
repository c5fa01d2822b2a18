//! Values in GVariant's text format (<https://docs.gtk.org/glib/gvariant-text-format.html>), in which annotations give the
//! properties of a unit, as far as these have such types: booleans, integers, texts, paths, and arrays and tuples of them.

use std::iter::Peekable;
use std::str::CharIndices;

use super::Value;

/// How deep values lie in each other at most: D-Bus allows 32 arrays and 32 tuples.
const DEPTH: usize = 32;

/// What a value is, as D-Bus has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    /// By its letter: one of `b y n q i u x t d s o`.
    Basic(char),
    Array(Box<Self>),
    Tuple(Vec<Self>),
    /// A value that carries its type.
    Variant,
}

impl Type {
    fn letters(&self) -> String {
        match self {
            Self::Basic(letter) => letter.to_string(),
            Self::Array(of) => format!("a{}", of.letters()),
            Self::Tuple(parts) => format!("({})", parts.iter().map(Self::letters).collect::<String>()),
            Self::Variant => "v".into(),
        }
    }

    /// The type that begins here.
    fn read(letters: &mut Peekable<std::str::Chars<'_>>, depth: usize) -> Option<Self> {
        if depth > DEPTH {
            return None;
        }
        Some(match letters.next()? {
            letter if "bynqiuxtdso".contains(letter) => Self::Basic(letter),
            'v' => Self::Variant,
            'a' => Self::Array(Box::new(Self::read(letters, depth + 1)?)),
            '(' => {
                let mut parts = Vec::new();
                while letters.next_if_eq(&')').is_none() {
                    parts.push(Self::read(letters, depth + 1)?);
                }
                Self::Tuple(parts)
            }
            _ => return None,
        })
    }

    fn named(word: &str) -> Option<Self> {
        if let Some(letters) = word.strip_prefix('@') {
            let mut letters = letters.chars().peekable();
            return Self::read(&mut letters, 0).filter(|_| letters.next().is_none());
        }
        let letter = match word {
            "boolean" => 'b',
            "byte" => 'y',
            "int16" => 'n',
            "uint16" => 'q',
            "int32" => 'i',
            "uint32" => 'u',
            "int64" => 'x',
            "uint64" => 't',
            "double" => 'd',
            "string" => 's',
            "objectpath" => 'o',
            _ => return None,
        };
        Some(Self::Basic(letter))
    }
}

/// What is written, whose type may follow from what is beside it.
#[derive(Clone, Debug, PartialEq)]
enum Written {
    Boolean(bool),
    Number(String),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Self>),
    Tuple(Vec<Self>),
    Variant(Box<Self>),
    Typed(Type, Box<Self>),
}

impl Written {
    /// The type that it says it has.
    fn said(&self) -> Option<Type> {
        match self {
            Self::Number(_) | Self::Text(_) => None,
            Self::Array(parts) => Some(Type::Array(Box::new(parts.iter().find_map(Self::said)?))),
            Self::Tuple(parts) => Some(Type::Tuple(parts.iter().map(Self::said).collect::<Option<_>>()?)),
            _ => self.assumed(),
        }
    }

    /// The type that it has where nothing else is said. None: that of an empty array.
    fn assumed(&self) -> Option<Type> {
        Some(match self {
            Self::Boolean(_) => Type::Basic('b'),
            Self::Number(text) if is_double(text) => Type::Basic('d'),
            Self::Number(_) => Type::Basic('i'),
            Self::Text(_) => Type::Basic('s'),
            Self::Bytes(_) => Type::Array(Box::new(Type::Basic('y'))),
            Self::Variant(_) => Type::Variant,
            Self::Typed(known, _) => known.clone(),
            Self::Array(parts) => {
                let of = parts.iter().find_map(Self::said).or_else(|| parts.iter().find_map(Self::assumed));
                Type::Array(Box::new(of?))
            }
            Self::Tuple(parts) => Type::Tuple(parts.iter().map(Self::assumed).collect::<Option<_>>()?),
        })
    }

    fn value(&self, of: &Type) -> Result<Value, String> {
        match (self, of) {
            (Self::Typed(said, inner), _) if said == of => inner.value(of),
            (Self::Boolean(yes), Type::Basic('b')) => Ok(Value::Boolean(*yes)),
            (Self::Number(text), Type::Basic(letter)) => number(text, *letter),
            (Self::Text(text), Type::Basic('s')) => Ok(Value::Text(text.clone())),
            (Self::Text(text), Type::Basic('o')) if is_path(text) => Ok(Value::Path(text.clone())),
            (Self::Bytes(bytes), Type::Array(part)) if **part == Type::Basic('y') => Ok(Value::Mask(bytes.clone())),
            (Self::Variant(inner), Type::Variant) => {
                let of = inner.assumed().ok_or("an empty array has no type of its own: @as []")?;
                Ok(Value::Variant(Box::new(inner.value(&of)?)))
            }
            (Self::Array(parts), Type::Array(part)) => {
                let all = parts.iter().map(|one| one.value(part)).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::List(part.letters(), all))
            }
            (Self::Tuple(parts), Type::Tuple(types)) if parts.len() == types.len() => {
                Ok(Value::Tuple(parts.iter().zip(types).map(|(one, of)| one.value(of)).collect::<Result<_, _>>()?))
            }
            _ => Err(format!("something in it is not of the type {}", of.letters())),
        }
    }
}

fn is_double(text: &str) -> bool {
    !text.contains(['x', 'X']) && text.contains(['.', 'e', 'E'])
}

/// D-Bus Specification, "Valid Object Paths".
fn is_path(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

/// An integer as C has it: decimal, `0x` hexadecimal, `0` octal.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => i128::from_str_radix(digits, 16),
        Some(_) => return None,
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    number.ok().map(|number| if negative { -number } else { number })
}

fn number(text: &str, letter: char) -> Result<Value, String> {
    fn fit<T: TryFrom<i128>>(number: i128) -> Option<T> {
        T::try_from(number).ok()
    }
    let wrong = || format!("{text} is not a number of the type {letter}");
    if letter == 'd' {
        // No property has this type: only seconds are given so, which end as microseconds.
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(wrong)?;
        return Ok(Value::Double(number.to_bits()));
    }
    let number = integer(text).ok_or_else(wrong)?;
    let value = match letter {
        'y' => fit(number).map(Value::Byte),
        'n' => fit(number).map(Value::Int16),
        'q' => fit(number).map(Value::Uint16),
        'i' => fit(number).map(Value::Int32),
        'u' => fit(number).map(Value::Uint32),
        'x' => fit(number).map(Value::Int64),
        't' => fit(number).map(Value::Number),
        _ => None,
    };
    value.ok_or_else(wrong)
}

/// The value that a text says.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, rest: text.char_indices().peekable() };
    let written = reader.value(0)?;
    reader.blanks();
    if let Some((at, _)) = reader.rest.peek() {
        return Err(format!("there is more behind the value: {:?}", &text[*at..]));
    }
    let of = written.assumed().ok_or("an empty array has no type of its own: @as []")?;
    written.value(&of)
}

struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while self.rest.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
    }

    /// Takes this character, after blanks, if it comes next.
    fn comes(&mut self, wanted: char) -> bool {
        self.blanks();
        self.rest.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let start = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        while self.rest.next_if(|(_, c)| belongs(*c)).is_some() {}
        let end = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        &self.text[start..end]
    }

    fn value(&mut self, depth: usize) -> Result<Written, String> {
        if depth > DEPTH {
            return Err("is too deep".into());
        }
        self.blanks();
        let Some(&(at, first)) = self.rest.peek() else { return Err("a value is missing".into()) };
        match first {
            '[' => {
                self.rest.next();
                Ok(Written::Array(self.list(']', depth)?.0))
            }
            '(' => {
                self.rest.next();
                match self.list(')', depth)? {
                    // A tuple of one has a comma: `(1,)`.
                    (one, false) if one.len() == 1 => Err("(...) around a single value".into()),
                    (parts, _) => Ok(Written::Tuple(parts)),
                }
            }
            '<' => {
                self.rest.next();
                let inner = self.value(depth + 1)?;
                if !self.comes('>') {
                    return Err("> is missing".into());
                }
                Ok(Written::Variant(Box::new(inner)))
            }
            '\'' | '"' => Ok(Written::Text(self.quoted()?)),
            'b' if self.text[at + 1..].starts_with(['\'', '"']) => {
                self.rest.next();
                self.bytes()
            }
            '0'..='9' | '+' | '-' | '.' => {
                let text = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)).to_string();
                Ok(Written::Number(text))
            }
            _ => {
                let word = self.word(|c| c.is_ascii_alphanumeric() || "@()".contains(c)).to_string();
                match (word.as_str(), Type::named(&word)) {
                    ("true", _) => Ok(Written::Boolean(true)),
                    ("false", _) => Ok(Written::Boolean(false)),
                    (_, Some(of)) => Ok(Written::Typed(of, Box::new(self.value(depth + 1)?))),
                    _ => Err(format!("{:?} is neither a value nor a type; a text is in quotes", &self.text[at..])),
                }
            }
        }
    }

    /// Values up to the closing bracket, and whether a comma stood before it.
    fn list(&mut self, end: char, depth: usize) -> Result<(Vec<Written>, bool), String> {
        let mut all = Vec::new();
        let mut comma = true;
        loop {
            if self.comes(end) {
                return Ok((all, comma));
            }
            if !comma {
                return Err(format!("a comma or {end} is missing"));
            }
            all.push(self.value(depth + 1)?);
            comma = self.comes(',');
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let open = || String::from("a text has no end");
        let (_, quote) = self.rest.next().ok_or_else(open)?;
        let mut text = String::new();
        loop {
            text.push(match self.rest.next().ok_or_else(open)?.1 {
                c if c == quote => break,
                '\\' => match self.rest.next().ok_or_else(open)?.1 {
                    '\n' => continue,
                    'u' => self.code(4)?,
                    'U' => self.code(8)?,
                    other => escaped(other),
                },
                other => other,
            });
        }
        if text.contains('\0') {
            return Err("a text with a zero".into());
        }
        Ok(text)
    }

    fn code(&mut self, digits: usize) -> Result<char, String> {
        let hex: String = self.rest.by_ref().take(digits).map(|(_, c)| c).collect();
        let number = Some(&hex).filter(|hex| hex.len() == digits && hex.chars().all(|c| c.is_ascii_hexdigit()));
        let number = number.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        number.and_then(char::from_u32).ok_or_else(|| format!("{hex:?} is not the number of a character"))
    }

    /// `b'..'`, which a zero ends; a byte may be given as an octal number.
    fn bytes(&mut self) -> Result<Written, String> {
        let open = || String::from("a text of bytes has no end");
        let (_, quote) = self.rest.next().ok_or_else(open)?;
        let mut bytes = Vec::new();
        loop {
            let one = match self.rest.next().ok_or_else(open)?.1 {
                c if c == quote => break,
                '\\' => match self.rest.next().ok_or_else(open)?.1 {
                    digit @ '0'..='7' => {
                        let mut octal = String::from(digit);
                        octal.extend(
                            std::iter::from_fn(|| self.rest.next_if(|(_, c)| c.is_digit(8))).take(2).map(|(_, c)| c),
                        );
                        bytes.push(u8::from_str_radix(&octal, 8).map_err(|_| format!("\\{octal} is not a byte"))?);
                        continue;
                    }
                    other => escaped(other),
                },
                other => other,
            };
            bytes.extend(one.encode_utf8(&mut [0; 4]).bytes());
        }
        bytes.push(0);
        Ok(Written::Bytes(bytes))
    }
}

/// What a character behind a backslash stands for.
fn escaped(c: char) -> char {
    match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<Value> {
        all.iter().map(|text| Value::Text((*text).into())).collect()
    }

    #[test]
    fn values_are_read_with_their_types() {
        for (text, value) in [
            ("true", Value::Boolean(true)),
            (" false ", Value::Boolean(false)),
            ("15", Value::Int32(15)),
            ("-1", Value::Int32(-1)),
            ("uint64 123456789", Value::Number(123_456_789)),
            ("uint64 18446744073709551615", Value::Number(u64::MAX)),
            ("uint32 0x10", Value::Uint32(16)),
            ("@q 010", Value::Uint16(8)),
            ("byte 255", Value::Byte(255)),
            ("int16 -5", Value::Int16(-5)),
            ("int64 5", Value::Int64(5)),
            ("1.5", Value::Double(1.5_f64.to_bits())),
            ("double 2", Value::Double(2.0_f64.to_bits())),
            ("'inactive-or-failed'", Value::Text("inactive-or-failed".into())),
            (r#""a'b""#, Value::Text("a'b".into())),
            (r"'\t\u00e9\'\\'", Value::Text("\t\u{e9}'\\".into())),
            ("objectpath '/a/b_1'", Value::Path("/a/b_1".into())),
            (r"b'a\101\0'", Value::Mask(vec![b'a', b'A', 0, 0])),
            ("['a.service', \"b.service\",]", Value::List("s".into(), texts(&["a.service", "b.service"]))),
            ("@as []", Value::List("s".into(), Vec::new())),
            ("[1, uint64 2]", Value::List("t".into(), vec![Value::Number(1), Value::Number(2)])),
            ("@ay [0x1, 2]", Value::List("y".into(), vec![Value::Byte(1), Value::Byte(2)])),
            (
                "[[], ['a']]",
                Value::List(
                    "as".into(),
                    vec![Value::List("s".into(), Vec::new()), Value::List("s".into(), texts(&["a"]))],
                ),
            ),
            ("[('/dev/null', 'rw')]", Value::List("(ss)".into(), vec![Value::Tuple(texts(&["/dev/null", "rw"]))])),
            ("@(st) ('a', 1)", Value::Tuple(vec![Value::Text("a".into()), Value::Number(1)])),
            ("<uint32 1>", Value::Variant(Box::new(Value::Uint32(1)))),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "inactive",
            "'open",
            "b'open",
            "12 13",
            "uint64",
            "uint64 'a'",
            "uint64 -1",
            "byte 256",
            "uint32 uint64 1",
            "0x",
            "09",
            "1e999",
            "--1",
            "[]",
            "[1, 'a']",
            "[1",
            "[1 2]",
            "(1)",
            "<1",
            "@as [1]",
            "@a []",
            "@ass []",
            "objectpath 'a'",
            "objectpath '/a/'",
            r"'\u00'",
            r"'\ud800'",
            r"'\u0000'",
            r"b'\777'",
            "{'a': 1}",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("@{}s []", "a".repeat(100_000))).is_err());
    }
}
