//! Waiting for a condition, with a deadline that says what was seen last.

use std::time::{Duration, Instant};

/// Asks again and again until the answer is `Ok`, and gives it.
pub(crate) async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let give_up = Instant::now() + patience;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < give_up, "{what}: not within {patience:?}; seen last: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Fails a test that takes longer than anybody would wait.
pub(crate) async fn within(limit: Duration, test: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(limit, Box::pin(test)).await.is_ok(), "the test didn't end within {limit:?}");
}
