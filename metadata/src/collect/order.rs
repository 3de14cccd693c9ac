//! In which order candidates go: what refers to something before what it refers to.

/// Groups of at most `most` numbers, such that no number refers to one of an earlier group. What is in a circle, and what a circle refers to, is the last group,
/// however many that are. In a group too, what refers comes before what it refers to. `edges[n]` is what `n` refers to.
///
/// Then a reference that appears between two groups can only hold what is wholly there: whatever it leads to has not been touched yet.
pub(crate) fn groups(edges: &[Vec<usize>], most: usize) -> Vec<Vec<usize>> {
    let mut referrers = vec![0_usize; edges.len()];
    for to in edges.iter().flatten() {
        referrers[*to] += 1;
    }
    let mut order: Vec<usize> = (0..edges.len()).filter(|n| referrers[*n] == 0).collect();
    let mut next = 0;
    while let Some(from) = order.get(next).copied() {
        next += 1;
        for to in &edges[from] {
            referrers[*to] -= 1;
            if referrers[*to] == 0 {
                order.push(*to);
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = order.chunks(most.max(1)).map(<[usize]>::to_vec).collect();
    let circle = reverse_postorder(edges, |n| referrers[n] > 0);
    if !circle.is_empty() {
        groups.push(circle);
    }
    groups
}

/// These numbers, each before what it refers to unless that leads back to it.
fn reverse_postorder(edges: &[Vec<usize>], wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut seen: Vec<bool> = (0..edges.len()).map(|n| !wanted(n)).collect();
    let mut order = Vec::new();
    for start in 0..edges.len() {
        let mut open = Vec::new();
        if !std::mem::replace(&mut seen[start], true) {
            open.push((start, edges[start].iter()));
        }
        while let Some((from, left)) = open.last_mut() {
            match left.next() {
                Some(to) if !std::mem::replace(&mut seen[*to], true) => open.push((*to, edges[*to].iter())),
                Some(_) => {}
                None => {
                    order.push(*from);
                    open.pop();
                }
            }
        }
    }
    order.reverse();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_go_first() {
        // 3 → 0 → 2 → 1, and 4 alone.
        let edges = [vec![2], vec![], vec![1], vec![0], vec![]];
        assert_eq!(groups(&edges, 2), [vec![3, 4], vec![0, 2], vec![1]]);
        assert_eq!(groups(&edges, 100), [vec![3, 4, 0, 2, 1]]);
        assert!(groups(&[], 2).is_empty());
    }

    #[test]
    fn a_circle_goes_at_once() {
        // 0 ⇄ 1 → 2, 3 → 0; the same edge twice, and to itself.
        let edges = [vec![1, 1], vec![0, 2], vec![], vec![0], vec![4]];
        assert_eq!(groups(&edges, 1), [vec![3], vec![4, 0, 1, 2]]);
        // 2 ⇄ 1 → 0: what hangs below a circle goes after it.
        assert_eq!(groups(&[vec![], vec![2, 0], vec![1]], 1), [vec![1, 2, 0]]);
    }
}
