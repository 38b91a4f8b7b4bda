//! Sets of completion indexes, kept as ranges: a job may have two thousand million of them.

use std::fmt;

/// Indexes as ascending ranges that neither overlap nor touch; both ends belong to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    ranges: Vec<(i32, i32)>,
}

impl Indexes {
    fn of(mut ranges: Vec<(i32, i32)>) -> Indexes {
        ranges.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Indexes { ranges: joined }
    }

    /// Reads what [`Display`](fmt::Display) writes, such as `0-2,5,7-9`, as far as it is below `completions`. What cannot be read is
    /// left out.
    pub(super) fn parse(text: &str, completions: i32) -> Indexes {
        let read = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            let last = last.min(completions - 1);
            (0 <= first && first <= last).then_some((first, last))
        });
        Indexes::of(read.collect())
    }

    pub(super) fn union(&self, other: &Indexes) -> Indexes {
        Indexes::of([&self.ranges[..], &other.ranges].concat())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> i64 {
        self.ranges.iter().map(|&range| width(range)).sum()
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < index);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub(super) fn common(&self, other: &Indexes) -> i64 {
        let (mut mine, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        let mut common = 0;
        while let (Some(&&a), Some(&&b)) = (mine.peek(), theirs.peek()) {
            common += width((a.0.max(b.0), a.1.min(b.1))).max(0);
            match a.1 <= b.1 {
                true => mine.next(),
                false => theirs.next(),
            };
        }
        common
    }

    /// Those below `end` that are not in the set, ascending.
    pub(super) fn missing(&self, end: i32) -> impl Iterator<Item = i32> + '_ {
        let begins = std::iter::once(0).chain(self.ranges.iter().map(|(_, last)| last.saturating_add(1)));
        let ends = self.ranges.iter().map(|(first, _)| *first).chain(std::iter::once(end));
        begins.zip(ends).flat_map(move |(begin, until)| begin..until.min(end))
    }
}

fn width((first, last): (i32, i32)) -> i64 {
    i64::from(last) - i64::from(first) + 1
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Indexes {
        Indexes::of(indexes.into_iter().map(|index| (index, index)).collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Indexes;

    fn read(text: &str) -> Indexes {
        Indexes::parse(text, 100)
    }

    #[test]
    fn indexes_are_written_as_ranges_and_read_back() {
        for text in ["", "0", "0,1", "0-2", "0-2,5,7-9", "3,5,8,9"] {
            assert_eq!(read(text).to_string(), text);
        }
        for (text, kept) in [("0,x,2", "0,2"), ("95-200,300", "95-99"), ("4,5,6", "4-6"), ("7-3,-1", "")] {
            assert_eq!(read(text).to_string(), kept, "{text}");
        }
        assert_eq!(Indexes::parse("0-2147483646", i32::MAX).len(), i64::from(i32::MAX));
    }

    #[test]
    fn sets_are_joined_compared_and_their_gaps_found() {
        assert_eq!(read("0-2,7").union(&read("3,8,20")).to_string(), "0-3,7,8,20");
        assert_eq!(read("0-9,20-29").common(&read("5-24,29,50")), 5 + 5 + 1);
        assert_eq!(read("1-2,4").missing(7).collect::<Vec<_>>(), [0, 3, 5, 6]);
        assert_eq!(read("0-99").missing(5).count(), 0);
        assert_eq!(read("").missing(2).collect::<Vec<_>>(), [0, 1]);
        let set: Indexes = [5, 1, 2, 2].into_iter().collect();
        assert_eq!((set.len(), set.contains(2), set.contains(3), set.contains(5)), (3, true, false, true));
    }
}
