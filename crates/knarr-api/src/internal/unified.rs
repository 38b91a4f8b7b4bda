//! Unified diffs as Python's `difflib` makes them, which upstream's Go port of it follows: the longest common block first, then
//! what is left and right of it, and lines that are everywhere in long texts start no block.

use std::collections::HashMap;
use std::fmt::Write as _;

const CONTEXT: usize = 3;
/// Longer texts, both together, are not compared: whoever wants to can make the time grow with the square.
const MOST_LINES: usize = 3_000;

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Equal,
    Changed,
}

#[derive(Clone, Copy)]
struct Block {
    tag: Tag,
    old: (usize, usize),
    new: (usize, usize),
}

/// The diff without file names; empty where the texts are equal, or too long to be compared.
pub fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut out = String::new();
    if old.len() + new.len() > MOST_LINES {
        return out;
    }
    for group in grouped(blocks(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let range = |from: usize, to: usize| match to - from {
            1 => format!("{}", from + 1),
            0 => format!("{from},0"),
            length => format!("{},{length}", from + 1),
        };
        let (before, after) = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        let _ = writeln!(out, "@@ -{before} +{after} @@");
        for block in &group {
            let mut lines = |sign: char, lines: &[&str]| {
                for line in lines {
                    let _ = writeln!(out, "{sign}{line}");
                }
            };
            if block.tag == Tag::Equal {
                lines(' ', &old[block.old.0..block.old.1]);
            } else {
                lines('-', &old[block.old.0..block.old.1]);
                lines('+', &new[block.new.0..block.new.1]);
            }
        }
    }
    out
}

/// The texts as blocks that are equal and blocks that are not, in turn.
fn blocks(old: &[&str], new: &[&str]) -> Vec<Block> {
    let mut matches = Vec::new();
    let places = places(new);
    let mut open = vec![(0, old.len(), 0, new.len())];
    while let Some((a, a_end, b, b_end)) = open.pop() {
        let (i, j, size) = longest(old, new, &places, (a, a_end, b, b_end));
        if size > 0 {
            matches.push((i, j, size));
            open.push((a, i, b, j));
            open.push((i + size, a_end, j + size, b_end));
        }
    }
    matches.sort_unstable();
    matches.push((old.len(), new.len(), 0));
    let mut out: Vec<Block> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (a, b, size) in matches {
        if i < a || j < b {
            out.push(Block { tag: Tag::Changed, old: (i, a), new: (j, b) });
        }
        (i, j) = (a + size, b + size);
        match out.last_mut() {
            Some(last) if size > 0 && last.tag == Tag::Equal => (last.old.1, last.new.1) = (i, j),
            _ if size > 0 => out.push(Block { tag: Tag::Equal, old: (a, i), new: (b, j) }),
            _ => {}
        }
    }
    out
}

/// Where each line stands; in long texts without those that stand everywhere.
fn places<'t>(new: &[&'t str]) -> HashMap<&'t str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(i);
    }
    if new.len() >= 200 {
        let popular = new.len() / 100 + 1;
        places.retain(|_, at| at.len() <= popular);
    }
    places
}

fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (a, a_end, b, b_end): (usize, usize, usize, usize),
) -> (usize, usize, usize) {
    let (mut i, mut j, mut size) = (a, b, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (at, line) in old.iter().enumerate().take(a_end).skip(a) {
        let mut next = HashMap::new();
        for &to in places.get(line).into_iter().flatten().filter(|to| (b..b_end).contains(*to)) {
            let length = to.checked_sub(1).and_then(|before| lengths.get(&before)).copied().unwrap_or(0) + 1;
            next.insert(to, length);
            if length > size {
                (i, j, size) = (at + 1 - length, to + 1 - length, length);
            }
        }
        lengths = next;
    }
    while i > a && j > b && old[i - 1] == new[j - 1] {
        (i, j, size) = (i - 1, j - 1, size + 1);
    }
    while i + size < a_end && j + size < b_end && old[i + size] == new[j + size] {
        size += 1;
    }
    (i, j, size)
}

/// The blocks in groups, each with a little of what is equal around it.
fn grouped(mut blocks: Vec<Block>) -> Vec<Vec<Block>> {
    if let Some(first) = blocks.first_mut().filter(|b| b.tag == Tag::Equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = blocks.last_mut().filter(|b| b.tag == Tag::Equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group: Vec<Block> = Vec::new();
    for block in blocks {
        let mut block = block;
        if block.tag == Tag::Equal && block.old.1 - block.old.0 > 2 * CONTEXT {
            let (old, new) = (block.old.0, block.new.0);
            group.push(Block { tag: Tag::Equal, old: (old, old + CONTEXT), new: (new, new + CONTEXT) });
            groups.push(std::mem::take(&mut group));
            block.old.0 = block.old.1 - CONTEXT;
            block.new.0 = block.new.1 - CONTEXT;
        }
        group.push(block);
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|block| block.tag != Tag::Equal));
    groups
}
