//! Two sorted sequences side by side: how the plan compares whole tables, without a search for each row.

use std::cmp::Ordering;
use std::iter::Peekable;

/// Every key of `a` and `b`, which ascend, with what either has for it.
pub(super) fn join<K: Ord, A, B>(
    a: impl IntoIterator<Item = (K, A)>,
    b: impl IntoIterator<Item = (K, B)>,
) -> impl Iterator<Item = (K, Option<A>, Option<B>)> {
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    std::iter::from_fn(move || {
        let order = match (a.peek(), b.peek()) {
            (Some(a), Some(b)) => a.0.cmp(&b.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        match order {
            Ordering::Less => a.next().map(|(key, a)| (key, Some(a), None)),
            Ordering::Greater => b.next().map(|(key, b)| (key, None, Some(b))),
            Ordering::Equal => pair(&mut a, &mut b),
        }
    })
}

fn pair<K, A, B>(
    a: &mut Peekable<impl Iterator<Item = (K, A)>>,
    b: &mut Peekable<impl Iterator<Item = (K, B)>>,
) -> Option<(K, Option<A>, Option<B>)> {
    let ((key, a), (_, b)) = (a.next()?, b.next()?);
    Some((key, Some(a), Some(b)))
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn keys_of_either_and_of_both() {
        let rows: Vec<_> = join([(1, 'a'), (3, 'c')], [(0, 'x'), (3, 'y'), (4, 'z')]).collect();
        let expected = [
            (0, None, Some('x')),
            (1, Some('a'), None),
            (3, Some('c'), Some('y')),
            (4, None, Some('z')),
        ];
        assert_eq!(rows, expected);
    }
}
