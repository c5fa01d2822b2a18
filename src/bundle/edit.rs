//! Changes config.json in one place, and leaves everything else as its author has written it: order, numbers, blanks.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// The members of an object in their order, each as it is written.
#[derive(Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl Members {
    /// Changes one member, or adds it.
    fn change(
        &mut self,
        name: &str,
        change: impl FnOnce(Option<&RawValue>) -> serde_json::Result<Box<RawValue>>,
    ) -> serde_json::Result<()> {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, value)) => *value = change(Some(value))?,
            None => self.0.push((name.to_owned(), change(None)?)),
        }
        Ok(())
    }
}

/// The array at `path`, members of objects, with what `change` makes of it; what is missing on the way is made.
///
/// # Errors
/// It is not JSON, or something on the way is no object, or the last no array.
pub fn array(
    config: &[u8],
    path: &[&str],
    change: impl FnOnce(&mut Vec<serde_json::Value>),
) -> serde_json::Result<Vec<u8>> {
    let text = changed(Some(serde_json::from_slice(config)?), path, change)?;
    Ok([text.get().as_bytes(), b"\n"].concat())
}

fn changed(
    here: Option<&RawValue>,
    path: &[&str],
    change: impl FnOnce(&mut Vec<serde_json::Value>),
) -> serde_json::Result<Box<RawValue>> {
    let text = here.map(RawValue::get);
    let Some((name, rest)) = path.split_first() else {
        let mut all = text.map_or_else(|| Ok(Vec::new()), serde_json::from_str)?;
        change(&mut all);
        return RawValue::from_string(serde_json::to_string_pretty(&all)?);
    };
    let mut members: Members = text.map_or_else(|| Ok(Members::default()), serde_json::from_str)?;
    members.change(name, |value| changed(value, rest, change))?;
    RawValue::from_string(serde_json::to_string_pretty(&members)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    #[test]
    fn only_the_array_changes() {
        let config = br#"{"z": 1.50,   "pot":{"b": [ 1 ], "directories": [1], "a": 2}, "a": {"x":  [1,2]}}"#;
        let changed = super::array(config, &["pot", "directories"], |all| all.push(json!(2))).unwrap();
        let text = String::from_utf8(changed).unwrap();
        for part in [r#""z": 1.50"#, r#""b": [ 1 ]"#, r#""a": {"x":  [1,2]}"#] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(
            text.find("\"z\"") < text.find("\"pot\"") && text.find("\"directories\"") < text.find("\"a\""),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["pot"]["directories"], json!([1, 2]));
        let made = super::array(b"{}", &["mounts"], |all| all.push(json!(1))).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&made).unwrap(), json!({"mounts": [1]}));
        assert!(super::array(b"[]", &["mounts"], |_| ()).is_err());
        assert!(super::array(br#"{"mounts": 1}"#, &["mounts"], |_| ()).is_err());
    }
}
