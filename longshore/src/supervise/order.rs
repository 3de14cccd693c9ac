//! Putting containers in an order by what they need: pure.

use std::collections::{BTreeMap, BTreeSet};

/// Which need which; those that are needed and no key themselves are no part of it.
pub(super) type Needs = BTreeMap<String, BTreeSet<String>>;

/// Each after those that it needs; by name where that leaves a choice.
///
/// # Errors
/// Some that need each other in a circle, in the order of need: each needs the next, the last the first.
pub(super) fn order(needs: &Needs) -> Result<Vec<String>, Vec<String>> {
    let inside = |id: &&String| needs.contains_key(*id);
    let mut left: BTreeMap<&String, usize> = BTreeMap::new();
    let mut needed_by: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (id, all) in needs {
        left.insert(id, all.iter().filter(inside).count());
        for needed in all.iter().filter(inside) {
            needed_by.entry(needed).or_default().push(id);
        }
    }
    let mut ready: BTreeSet<&String> = left.iter().filter(|(_, left)| **left == 0).map(|(id, _)| *id).collect();
    let mut placed = Vec::with_capacity(needs.len());
    while let Some(id) = ready.pop_first() {
        left.remove(id);
        placed.push(id.clone());
        for dependent in needed_by.get(id).into_iter().flatten() {
            let count = left.get_mut(dependent).expect("it is not placed before what it needs");
            *count -= 1;
            if *count == 0 {
                ready.insert(dependent);
            }
        }
    }
    match left.keys().next() {
        None => Ok(placed),
        Some(first) => Err(circle(needs, &left, first)),
    }
}

/// Each that is left needs another that is left: who follows that comes back to where he was.
fn circle(needs: &Needs, left: &BTreeMap<&String, usize>, first: &str) -> Vec<String> {
    let mut way = vec![first.to_owned()];
    loop {
        let last = way.last().expect("it begins with one");
        let next = needs[last].iter().find(|id| left.contains_key(id));
        let next = next.expect("what needs nothing that is left is placed").clone();
        if let Some(begun) = way.iter().position(|id| *id == next) {
            return way.split_off(begun);
        }
        way.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(lines: &[(&str, &[&str])]) -> Needs {
        let line =
            |(id, needs): &(&str, &[&str])| ((*id).to_owned(), needs.iter().map(|id| (*id).to_owned()).collect());
        lines.iter().map(line).collect()
    }

    #[test]
    fn each_comes_after_what_it_needs() {
        let graph = needs(&[
            ("a", &["c", "b"]),
            ("b", &["d"]),
            ("c", &["d"]),
            ("d", &["elsewhere"]),
            ("e", &[]),
        ]);
        assert_eq!(order(&graph), Ok(["d", "b", "c", "a", "e"].map(str::to_owned).to_vec()));
        assert_eq!(order(&Needs::new()), Ok(Vec::new()));
        let long: Needs = (0..5_000)
            .map(|n| (format!("{n:05}"), BTreeSet::from([format!("{:05}", n + 1)])))
            .collect();
        let placed = order(&long).expect("a line");
        assert!(placed.windows(2).all(|pair| pair[0] > pair[1]) && placed.len() == 5_000);
    }

    #[test]
    fn circles_are_told_as_they_go() {
        for (graph, expected) in [
            (needs(&[("a", &["a"])]), &["a"][..]),
            (needs(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]), &["b", "c"]),
            (
                needs(&[("x", &["y", "free"]), ("y", &["z"]), ("z", &["x"]), ("free", &[])]),
                &["x", "y", "z"],
            ),
        ] {
            assert_eq!(order(&graph).expect_err("a circle"), expected);
        }
    }
}
