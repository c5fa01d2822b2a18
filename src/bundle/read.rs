//! Reading our own sections of config.json so that all their problems are found at once, each with its JSON pointer.
//!
//! A [`Cursor`] stands on one value. It is asked for the members of an object one by one; what is left over when the
//! object was read is unknown, and refused.

use serde_json::{Map, Value};

use super::Problem;

/// Appends one reference token to a JSON pointer (RFC 6901, section 3: `~` and `/` are escaped).
#[must_use]
pub fn pointer(at: &str, token: &str) -> String {
    format!("{at}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// Whether members that nobody asked for are refused or ignored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refused,
    Ignored,
}

/// A value of config.json and its place.
pub struct Cursor<'a> {
    at: String,
    value: &'a Value,
    asked: Vec<&'static str>,
    unknown: Unknown,
    problems: &'a mut Vec<Problem>,
}

impl Cursor<'_> {
    /// Reads `value`, whose place is `at`.
    pub fn read<T>(at: &str, value: &Value, problems: &mut Vec<Problem>, read: impl FnOnce(&mut Cursor<'_>) -> T) -> T {
        let mut cursor = Cursor { at: at.into(), value, asked: Vec::new(), unknown: Unknown::Refused, problems };
        let result = read(&mut cursor);
        cursor.refuse_unknown();
        result
    }

    /// Unknown members are ignored, as in the sections that the OCI specification defines.
    pub fn ignore_unknown(&mut self) {
        self.unknown = Unknown::Ignored;
    }

    /// Notes a problem of this value.
    pub fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem::new(self.at.clone(), what));
    }

    /// Notes a problem of a member, or of one below it: `network/addresses/0`, names of ours that need no escape.
    pub fn problem_at(&mut self, below: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(format!("{}/{below}", self.at), what));
    }

    /// Whether nothing is wrong yet with the member `name` or below it: what is compared with other members must be
    /// what the bundle's author meant, and have the index that it has in config.json.
    #[must_use]
    pub fn sound(&self, name: &str) -> bool {
        let at = pointer(&self.at, name);
        let below = |place: &str| place.strip_prefix(&at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !self.problems.iter().any(|problem| below(&problem.at))
    }

    /// The member `name` read by `read`, if it is there.
    pub fn member<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Cursor<'_>) -> Option<T>) -> Option<T> {
        self.asked.push(name);
        let whole = self.value; // copied, so that the problems can be borrowed
        let value = whole.as_object()?.get(name)?;
        Cursor::read(&pointer(&self.at, name), value, self.problems, read)
    }

    /// A member that must be there.
    pub fn required<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Cursor<'_>) -> Option<T>) -> Option<T> {
        if self.object().is_some_and(|object| !object.contains_key(name)) {
            self.problem_at(name, "is required");
        }
        self.member(name, read)
    }

    /// The array `name`, each element read by `read`; empty where it is absent.
    pub fn list<T>(&mut self, name: &'static str, mut read: impl FnMut(&mut Cursor<'_>) -> Option<T>) -> Vec<T> {
        self.member(name, |list| list.elements(&mut read)).unwrap_or_default()
    }

    fn elements<T>(&mut self, read: &mut impl FnMut(&mut Cursor<'_>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Array(items) = self.value else {
            return self.expected("an array");
        };
        let mut all = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            all.extend(Cursor::read(&pointer(&self.at, &n.to_string()), item, self.problems, &mut *read));
        }
        Some(all)
    }

    /// The text here.
    pub fn text(&mut self) -> Option<String> {
        match self.value {
            Value::String(text) if text.contains('\0') => self.wrong("contains a NUL byte"),
            Value::String(text) => Some(text.clone()),
            _ => self.expected("a string"),
        }
    }

    /// The text here, which `good` must like; otherwise `rule` is what is wrong.
    pub fn text_where(&mut self, rule: &str, good: impl FnOnce(&str) -> bool) -> Option<String> {
        let text = self.text()?;
        if good(&text) { Some(text) } else { self.wrong(format!("{text:?}: {rule}")) }
    }

    /// The truth value here.
    pub fn flag(&mut self) -> Option<bool> {
        match self.value {
            Value::Bool(flag) => Some(*flag),
            _ => self.expected("true or false"),
        }
    }

    /// The whole number here, within `range`.
    pub fn number(&mut self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        match self.value.as_u64() {
            Some(n) if range.contains(&n) => Some(n),
            _ if *range.end() == u64::MAX => self.expected(&format!("a whole number of at least {}", range.start())),
            _ => self.expected(&format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// The word here, one of `words`.
    pub fn choice<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        let found = self.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        match found {
            Some((_, meaning)) => Some(*meaning),
            None => {
                let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.expected(&format!("one of {}", all.join(", ")))
            }
        }
    }

    /// The value itself.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.value
    }

    /// Notes that something else was expected here.
    pub fn expected<T>(&mut self, what: &str) -> Option<T> {
        let got = match self.value {
            Value::Null => "null".into(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.to_string(),
            Value::String(s) => format!("{s:?}"),
            Value::Array(_) => "an array".into(),
            Value::Object(_) => "an object".into(),
        };
        self.wrong(format!("must be {what}, not {got}"))
    }

    fn wrong<T>(&mut self, what: impl Into<String>) -> Option<T> {
        self.problem(what);
        None
    }

    /// Checks that an object stands here; to be called before its members are asked for.
    pub fn is_object(&mut self) -> bool {
        self.object().is_some() || self.expected::<()>("an object").is_some()
    }

    fn object(&self) -> Option<&Map<String, Value>> {
        self.value.as_object()
    }

    fn refuse_unknown(&mut self) {
        // Where nobody asked for members, the object itself was wrong or is read whole: nothing is left to say.
        if self.unknown == Unknown::Ignored || self.asked.is_empty() {
            return;
        }
        let Some(object) = self.value.as_object() else { return };
        for name in object.keys().filter(|name| !self.asked.contains(&name.as_str())) {
            let what = format!("is not a member that potrun knows; here it knows {}", self.asked.join(", "));
            self.problems.push(Problem::new(pointer(&self.at, name), what));
        }
    }
}

/// The text here.
pub fn text(c: &mut Cursor<'_>) -> Option<String> {
    c.text()
}

/// The truth value here.
pub fn flag(c: &mut Cursor<'_>) -> Option<bool> {
    c.flag()
}
