//! A thread pool for work on a list of items.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Result;
use crate::sync::ignore_poison;

/// Returns the number of CPUs that this process may use: that many threads can make progress.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Applies `work` to every item with `workers` threads, and returns the results in the order of the
/// items. After a failure no further item is started; `on_failure` is called while other threads
/// may still work, and can cancel them.
///
/// # Errors
/// The failure that came first: later ones may be its consequence.
pub fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    workers: usize,
    on_failure: &(dyn Fn() + Sync),
    work: impl Fn(&I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            let is_failure = result.is_err();
            // Stored before `on_failure` makes others fail, so that it is the first in the list.
            ignore_poison(done.lock()).push((index, result));
            if is_failure {
                next.store(items.len(), Ordering::Relaxed);
                on_failure();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let done = ignore_poison(done.into_inner());
    let done = done.into_iter().map(|(index, result)| result.map(|result| (index, result)));
    let mut done = done.collect::<Result<Vec<_>>>()?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn work_is_done_in_order_and_stops_at_an_error() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(in_parallel(&items, 3, &|| {}, |item| Ok(item * 2)).unwrap()[99], 198);
        let fail = |workers| {
            let failed = in_parallel(&items, workers, &|| {}, |item| match item {
                50.. => Err(Error::new(item.to_string())),
                item => Ok(*item),
            });
            failed.unwrap_err().to_string()
        };
        assert_eq!(fail(1), "50");
        assert!(["50", "51", "52"].contains(&fail(3).as_str()));
        assert!(in_parallel(&[0u8; 0], 3, &|| {}, |_| Ok(())).unwrap().is_empty());
    }
}
