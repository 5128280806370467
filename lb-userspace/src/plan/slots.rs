//! The order of a service's slots: smooth weighted round robin, so that a cursor alone gives every backend its share.
//!
//! The order is nginx's: at each step every backend gains its weight, the one with the most is chosen and pays the
//! sum of all weights. One turn through the slots gives each backend exactly its weight, so any run of that length
//! does, wherever it begins; with equal weights it is plain round robin.

/// Most slots of one service, unless it has more backends than this.
pub const MAX_SLOTS: usize = 1024;

/// Indexes into `weights`, one per slot.
pub fn sequence(weights: &[u16]) -> Vec<usize> {
    let weights = shares(weights);
    if weights.iter().all(|w| *w == 1) {
        return (0..weights.len()).collect();
    }
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let mut order = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            credit[index] += weight;
            if credit[index] > credit[best] {
                best = index;
            }
        }
        credit[best] -= total;
        order.push(best);
    }
    order
}

/// Number of slots for each weight: reduced by the common divisor, and scaled down where their sum would
/// be more than [`MAX_SLOTS`]; never less than one.
fn shares(weights: &[u16]) -> Vec<i64> {
    let weights = reduce(weights.iter().map(|w| i64::from(*w).max(1)).collect());
    let total: i64 = weights.iter().sum();
    let room = MAX_SLOTS as i64;
    if total <= room {
        return weights;
    }
    let scaled = |slots: i64| weights.iter().map(move |w| (w * slots / total).max(1));
    // The largest scale that fits: backends that are rounded up to one take room from the others.
    let (mut fits, mut too_many) = (0, room + 1);
    while too_many - fits > 1 {
        let middle = (fits + too_many) / 2;
        if scaled(middle).sum::<i64>() <= room {
            fits = middle
        } else {
            too_many = middle
        }
    }
    reduce(scaled(fits).collect())
}

fn reduce(mut weights: Vec<i64>) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    weights.iter_mut().for_each(|w| *w /= divisor);
    weights
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(order: &[usize], backends: usize) -> Vec<i64> {
        let mut counts = vec![0; backends];
        order.iter().for_each(|i| counts[*i] += 1);
        counts
    }

    #[test]
    fn interleaves_as_nginx_does() {
        assert_eq!(sequence(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(sequence(&[7, 7, 7]), [0, 1, 2]);
        assert_eq!(sequence(&[4, 2]), [0, 1, 0]);
        assert_eq!(sequence(&[]), [0; 0]);
        assert_eq!(sequence(&[0]), [0]);
    }

    #[test]
    fn scales_down_to_the_limit_and_starves_nobody() {
        let order = sequence(&[256, 255, 254, 253, 251, 241, 239, 233, 229, 1]);
        let counts = counts(&order, 10);
        assert!(
            order.len() <= MAX_SLOTS && order.len() > MAX_SLOTS - 10,
            "{}",
            order.len()
        );
        assert_eq!(counts[9], 1);
        assert!(counts[0] >= counts[8] && counts[8] > 90, "{counts:?}");
        assert_eq!(sequence(&[3; 5000]).len(), 5000);
        let many: Vec<u16> = (0..3000).map(|i| 1 + i % 256).collect();
        assert_eq!(sequence(&many).len(), 3000);
    }

    proptest! {
        #[test]
        fn any_window_gives_each_backend_its_weight(
            weights in prop::collection::vec(1_u16..=20, 1..12),
            start in 0_usize..1000,
        ) {
            let order = sequence(&weights);
            let window: Vec<_> = (start..start + order.len()).map(|cursor| order[cursor % order.len()]).collect();
            let divisor = weights.iter().map(|w| i64::from(*w)).fold(0, gcd);
            let expected: Vec<_> = weights.iter().map(|w| i64::from(*w) / divisor).collect();
            prop_assert_eq!(counts(&window, weights.len()), expected);
        }

        #[test]
        fn equal_weights_differ_by_one_at_most(
            backends in 1_usize..40, weight in 1_u16..=256, start in 0_usize..1000, length in 0_usize..500,
        ) {
            let order = sequence(&vec![weight; backends]);
            let run: Vec<_> = (start..start + length).map(|cursor| order[cursor % order.len()]).collect();
            let counts = counts(&run, backends);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }

        #[test]
        fn bounded_and_complete(weights in prop::collection::vec(1_u16..=256, 1..300)) {
            let order = sequence(&weights);
            prop_assert!(order.len() <= MAX_SLOTS);
            prop_assert!(counts(&order, weights.len()).iter().all(|c| *c >= 1));
        }
    }
}
