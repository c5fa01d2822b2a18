//! Sets of addresses or ports, kept as runs: ten thousand pots whose addresses follow each other are one of them. Finding
//! what is in a set, or the first that is not, takes one search of a tree; in text a run is `first-last`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What has a neighbour on either side.
pub trait Point: Copy + Ord + Display + FromStr {
    /// The one after, of the same family.
    fn next(self) -> Option<Self>;
    /// The one before, of the same family.
    fn previous(self) -> Option<Self>;
}

impl Point for u16 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Point for IpAddr {
    fn next(self) -> Option<Self> {
        match self {
            Self::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Self::V4(Ipv4Addr::from_bits(bits))),
            Self::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Self::V6(Ipv6Addr::from_bits(bits))),
        }
    }

    fn previous(self) -> Option<Self> {
        match self {
            Self::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Self::V4(Ipv4Addr::from_bits(bits))),
            Self::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Self::V6(Ipv6Addr::from_bits(bits))),
        }
    }
}

/// A set: first of each run to last. Two runs never touch, so what follows a run is not in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<T>(BTreeMap<T, T>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Point> Ranges<T> {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The runs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = (T, T)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// The run that `point` is in.
    fn around(&self, point: T) -> Option<(T, T)> {
        let (first, last) = self.0.range(..=point).next_back()?;
        (*last >= point).then_some((*first, *last))
    }

    /// Whether `point` is in it.
    #[must_use]
    pub fn contains(&self, point: T) -> bool {
        self.around(point).is_some()
    }

    /// `from`, or the first after it that is not in the set; none where the family ends.
    #[must_use]
    pub fn free_from(&self, from: T) -> Option<T> {
        match self.around(from) {
            None => Some(from),
            Some((_, last)) => last.next(),
        }
    }

    /// The last from `first` to `last` that is in it, or what follows it in its run.
    #[must_use]
    pub fn last_within(&self, first: T, last: T) -> Option<T> {
        let (_, end) = self.0.range(..=last).next_back()?;
        (*end >= first).then_some(*end)
    }

    /// Puts all from `first` to `last` in.
    pub fn insert(&mut self, first: T, last: T) {
        let (mut first, mut last) = (first, last);
        // A run that reaches `first`, or ends just before it.
        let touching = first.previous().unwrap_or(first);
        if let Some((before, end)) = self.around(touching).or_else(|| self.around(first)) {
            first = before;
            last = last.max(end);
        }
        // Runs that begin within, or just behind.
        let reach = last.next().unwrap_or(last);
        let swallowed: Vec<(T, T)> = self.0.range(first..=reach).map(|(a, b)| (*a, *b)).collect();
        for (begin, end) in swallowed {
            self.0.remove(&begin);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Takes one out.
    pub fn remove(&mut self, point: T) {
        let Some((first, last)) = self.around(point) else { return };
        self.0.remove(&first);
        if let Some(end) = point.previous().filter(|_| first < point) {
            self.0.insert(first, end);
        }
        if let Some(begin) = point.next().filter(|_| point < last) {
            self.0.insert(begin, last);
        }
    }

    /// The runs in words.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let word = |(first, last): (T, T)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        self.runs().map(word)
    }

    /// Reads what [`words`](Self::words) wrote.
    #[must_use]
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let run = |word: &str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last): (T, T) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let runs = words.map(run).collect::<Option<Vec<(T, T)>>>()?;
        let apart = |two: &[(T, T)]| two[0].1.next().is_none_or(|next| next < two[1].0) && two[0].1 < two[1].0;
        if runs.windows(2).all(apart) {
            return Some(Self(runs.into_iter().collect())); // built at once
        }
        let mut all = Self::default();
        runs.into_iter().for_each(|(first, last)| all.insert(first, last));
        Some(all)
    }
}

impl<T: Point> FromIterator<T> for Ranges<T> {
    fn from_iter<I: IntoIterator<Item = T>>(points: I) -> Self {
        let mut all = Self::default();
        points.into_iter().for_each(|point| all.insert(point, point));
        all
    }
}

impl<T: Point> Serialize for Ranges<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

impl<'de, T: Point> Deserialize<'de> for Ranges<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Self::parse(words.iter().map(String::as_str)).ok_or_else(|| D::Error::custom("not a run: FIRST or FIRST-LAST"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(all: &Ranges<u16>) -> String {
        all.words().collect::<Vec<_>>().join(",")
    }

    #[test]
    fn neighbours_are_one_run() {
        let mut all: Ranges<u16> = [5, 3, 9, 4, 8].into_iter().collect();
        assert_eq!(words(&all), "3-5,8-9");
        all.insert(6, 7);
        assert_eq!(words(&all), "3-9");
        all.remove(5);
        all.remove(3);
        all.remove(9);
        all.remove(100);
        assert_eq!(words(&all), "4,6-8");
        all.insert(0, 65535);
        assert_eq!((words(&all).as_str(), all.free_from(7)), ("0-65535", None));
    }

    #[test]
    fn families_do_not_touch() {
        let all: Ranges<IpAddr> =
            ["255.255.255.255", "::", "::1"].into_iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        assert_eq!(all.words().collect::<Vec<_>>(), ["255.255.255.255", "::-::1"]);
        assert_eq!(all.free_from("255.255.255.255".parse().unwrap()), None);
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Ranges<IpAddr>>(&json).unwrap(), all);
        assert!(serde_json::from_str::<Ranges<u16>>(r#"["9-3"]"#).is_err());
        let any = serde_json::from_str::<Ranges<u16>>(r#"["7", "1-3", "4", "2-6"]"#).unwrap();
        assert_eq!(words(&any), "1-7");
    }
}
