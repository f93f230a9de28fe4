//! Counts and sums over windows of a series: exact, half-open, `(t - W, t]`. While nothing new arrives, points only leave, so every
//! comparison has a flip that can be computed.

use std::collections::BTreeMap;

use super::{Found, Trouble};
use crate::engine::profile::{Point, Series};
use crate::engine::time::Timestamp;
use crate::engine::verdict::Verdict;

/// The part of a series that a window shows.
#[derive(Clone, Copy)]
pub struct View<'p> {
    pub points: &'p [Point],
    /// When the next point enters: facts are never later than `now`, except where somebody asks about the past.
    next_in: Timestamp,
    width_ms: Option<i64>,
}

impl<'p> View<'p> {
    pub fn new(series: &'p Series, now: Timestamp, width_ms: Option<i64>) -> Self {
        let all = series.points.as_slice();
        let to = match all.last() {
            Some(last) if last.at > now => all.partition_point(|p| p.at <= now),
            _ => all.len(),
        };
        let from = width_ms.map_or(0, |width| {
            let edge = now.plus_ms(-width);
            all.partition_point(|p| p.at <= edge)
        });
        let next_in = all.get(to).map_or(Timestamp::FOREVER, |p| p.at);
        View { points: all.get(from..to.max(from)).unwrap_or_default(), next_in, width_ms }
    }

    /// When a point leaves.
    pub fn leaves_at(&self, point: &Point) -> Timestamp {
        self.width_ms.map_or(Timestamp::FOREVER, |width| point.at.plus_ms(width))
    }

    /// When anything enters or leaves.
    pub fn next_change(&self) -> Timestamp {
        self.points.first().map_or(Timestamp::FOREVER, |p| self.leaves_at(p)).min(self.next_in)
    }
}

/// How many points there are, `before` of them folded away.
pub fn count(view: View<'_>, before: u64) -> (i64, Timestamp) {
    (i64::try_from(before).unwrap_or(i64::MAX).saturating_add(view.points.len() as i64), view.next_change())
}

/// `count >= edge`: stands until the `edge`-th newest leaves.
#[inline]
pub fn count_at_least(series: &Series, now: Timestamp, width_ms: i64, edge: i64) -> Verdict {
    if edge <= 0 {
        return Verdict::settled(true);
    }
    let points = &series.points;
    if points.last().is_some_and(|last| last.at > now) {
        let (count, until) = count(View::new(series, now, Some(width_ms)), 0);
        return Verdict::new(count >= edge, until);
    }
    let nth_newest = usize::try_from(edge).ok().and_then(|edge| points.len().checked_sub(edge)).and_then(|index| points.get(index));
    match nth_newest.map(|point| point.at.plus_ms(width_ms)) {
        Some(leaves_at) if leaves_at > now => Verdict::new(true, leaves_at),
        _ => Verdict::settled(false),
    }
}

/// Sum of one view less the sum of another, folded parts included.
pub fn net(plus: View<'_>, minus: Option<View<'_>>, before: i64) -> (i64, Timestamp) {
    let total = plus.points.iter().fold(before, |sum, p| sum.saturating_add(p.value));
    let total = minus.iter().flat_map(|view| view.points).fold(total, |sum, p| sum.saturating_sub(p.value));
    (total, plus.next_change().min(minus.map_or(Timestamp::FOREVER, |view| view.next_change())))
}

/// `net >= edge`: the future of the sum is known, so its next flip is searched through the points as they leave; what leaves at one
/// instant leaves together.
pub fn net_at_least(plus: View<'_>, minus: Option<View<'_>>, before: i64, edge: i64) -> Verdict {
    let (mut sum, _) = net(plus, minus, before);
    let truth = sum >= edge;
    let next_in = plus.next_in.min(minus.map_or(Timestamp::FOREVER, |view| view.next_in));
    if plus.width_ms.is_none() {
        return Verdict::new(truth, next_in);
    }
    let (mut gains, mut losses) = (plus.points, minus.map_or(&[][..], |view| view.points));
    loop {
        let at = match (gains.first(), losses.first()) {
            (Some(a), Some(b)) => a.at.min(b.at),
            (Some(a), None) => a.at,
            (None, Some(b)) => b.at,
            (None, None) => return Verdict::new(truth, next_in),
        };
        while let Some((point, rest)) = gains.split_first().filter(|(p, _)| p.at == at) {
            sum = sum.saturating_sub(point.value);
            gains = rest;
        }
        while let Some((point, rest)) = losses.split_first().filter(|(p, _)| p.at == at) {
            sum = sum.saturating_add(point.value);
            losses = rest;
        }
        if (sum >= edge) != truth {
            return Verdict::new(truth, plus.leaves_at(&Point { at, value: 0 }).min(next_in));
        }
    }
}

/// The newest point.
pub fn last(view: View<'_>) -> Found<i64> {
    let last = view.points.last().ok_or(Trouble::missing_until(view.next_in))?;
    Ok((last.value, view.leaves_at(last).min(view.next_in)))
}

/// The point greatest by `size` (the smallest, if `size` turns the order round); stands until the latest of its equals leaves.
pub fn greatest(view: View<'_>, size: impl Fn(i64) -> i64) -> Found<i64> {
    let greatest = view.points.iter().max_by_key(|p| (size(p.value), p.at)).ok_or(Trouble::missing_until(view.next_in))?;
    Ok((greatest.value, view.leaves_at(greatest).min(view.next_in)))
}

/// How many different values there are; changes when the latest point of a value leaves.
pub fn distinct(view: View<'_>) -> (i64, Timestamp) {
    let latest: BTreeMap<i64, Timestamp> = view.points.iter().map(|p| (p.value, p.at)).collect();
    let first_out = latest.values().min().map_or(Timestamp::FOREVER, |at| view.leaves_at(&Point { at: *at, value: 0 }));
    (latest.len() as i64, first_out.min(view.next_in))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::day;
    use crate::engine::time::DAY_MS;

    fn series(points: &[(i64, i64)]) -> Series {
        let mut series = Series::default();
        for (at, value) in points {
            series.insert(Point { at: day(*at), value: *value });
        }
        series
    }

    #[test]
    fn a_window_is_half_open_and_what_leaves_at_one_instant_leaves_together() {
        let orders = series(&[(0, 100), (0, 50), (10, 30), (20, 5)]);
        let refunds = series(&[(10, 40)]);
        let month = 30 * DAY_MS;
        // (now, edge) -> truth and the day of its next flip
        for (now, edge, truth, until) in [
            (29, 145, true, Some(30)),
            (30, 145, false, None),
            // 145 until day 30, then -5, and from day 40 on 5, when the refund has left: up by the clock
            (29, 0, true, Some(30)),
            (30, 0, false, Some(40)),
            (40, 0, true, None),
            (40, 1, true, Some(50)),
            (50, 1, false, None),
        ] {
            let view = |series| View::new(series, day(now), Some(month));
            let verdict = net_at_least(view(&orders), Some(view(&refunds)), 0, edge);
            let expected = Verdict::new(truth, until.map_or(Timestamp::FOREVER, day));
            assert_eq!(verdict, expected, "day {now}, at least {edge}");
        }
        assert_eq!(count_at_least(&orders, day(29), month, 3), Verdict::new(true, day(30)));
        assert_eq!(count_at_least(&orders, day(30), month, 3), Verdict::settled(false));
        assert_eq!(count_at_least(&orders, day(30), month, 2), Verdict::new(true, day(40)));
    }

    #[test]
    fn what_lies_ahead_enters() {
        let orders = series(&[(0, 1), (5, 1)]);
        assert_eq!(count_at_least(&orders, day(3), 30 * DAY_MS, 2), Verdict::new(false, day(5)));
        assert_eq!(net_at_least(View::new(&orders, day(3), None), None, 7, 9), Verdict::new(false, day(5)));
    }

    #[test]
    fn the_greatest_stands_until_the_latest_of_its_equals_leaves() {
        let points = series(&[(0, 9), (3, 9), (4, 2)]);
        let view = View::new(&points, day(5), Some(10 * DAY_MS));
        assert_eq!(greatest(view, |value| value), Ok((9, day(13))));
        assert_eq!(greatest(view, |value| !value), Ok((2, day(14))));
        assert_eq!(last(view), Ok((2, day(14))));
        assert_eq!(distinct(view), (2, day(13)));
    }
}
