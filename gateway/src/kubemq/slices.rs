//! Batches of clients, as the broker takes them: so many items at a time.

use std::future::Future;

/// Hands items to the broker, one slice after the other, and then waits for what became of all: one result
/// each, in order.
pub async fn in_slices<I, R, B, P>(
    mut items: Vec<I>,
    items_max: usize,
    begin: impl Fn(Vec<I>) -> B,
) -> Vec<R>
where
    B: Future<Output = P>,
    P: Future<Output = Vec<R>>,
{
    let mut handed_over = Vec::new();
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(items_max.max(1)));
        handed_over.push(begin(items).await);
        items = rest;
    }
    let mut results = Vec::new();
    for slice in handed_over {
        results.extend(slice.await);
    }
    results
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn all_slices_are_handed_over_in_order_before_any_is_waited_for() {
        let steps = RefCell::new(Vec::new());
        let results = in_slices((0..7).collect(), 3, |slice: Vec<u32>| {
            steps.borrow_mut().push(format!("begin {slice:?}"));
            let steps = &steps;
            ready(async move {
                steps.borrow_mut().push(format!("wait {slice:?}"));
                slice
            })
        });
        assert_eq!(results.await, (0..7).collect::<Vec<u32>>());
        let expected = [
            "begin [0, 1, 2]",
            "begin [3, 4, 5]",
            "begin [6]",
            "wait [0, 1, 2]",
            "wait [3, 4, 5]",
            "wait [6]",
        ];
        assert_eq!(steps.into_inner(), expected);
    }
}
