//! "Did you mean": the nearest of the names in scope by Damerau-Levenshtein distance, up to a third of the length. Further away,
//! no suggestion is better than a wild one.

/// The candidate nearest to `wanted`, if any is near enough; of equals the first.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = folded(wanted);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let chars = folded(candidate);
        let limit = (wanted.len().max(chars.len()) / 3).max(1);
        if wanted.len().abs_diff(chars.len()) > limit || wanted.len() < 2 {
            continue;
        }
        let distance = distance(&wanted, &chars);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Capitals and the choice between `-` and `_` are no difference worth counting.
fn folded(text: &str) -> Vec<char> {
    text.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits (insert, delete, replace, swap neighbours) from one text to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut before_last: Vec<usize> = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    let mut previous = None;
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(width);
        row.push(i + 1);
        let mut left = None;
        for (j, &y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, j) + usize::from(x != y);
            let mut least = replaced.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if previous == Some(y) && left == Some(x) {
                least = least.min(at(&before_last, j.wrapping_sub(1)) + 1);
            }
            row.push(least);
            left = Some(y);
        }
        before_last = std::mem::replace(&mut last, row);
        previous = Some(x);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["days_silent", "silent_for", "tier", "points", "audience", "when", "id"];
        for (wanted, expected) in [
            ("day_silent", Some("days_silent")),
            ("dyas_silent", Some("days_silent")),
            ("days-silent", Some("days_silent")),
            ("whn", Some("when")),
            ("hwen", Some("when")),
            ("Tier", Some("tier")),
            ("audeince", Some("audience")),
            ("entirely_else", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, names), expected, "{wanted}");
        }
    }
}
