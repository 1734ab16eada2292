//! What lies behind an error: the outermost of an HTTP client seldom says what happened.

use std::error::Error;

/// The error, and its causes from the outside in.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The cause behind the causes: "connection refused" rather than "error sending request".
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outside")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_innermost_is_the_last_of_the_chain() {
        let error = Outer(io::Error::other("inside"));
        let texts: Vec<String> = chain(&error).map(ToString::to_string).collect();
        assert_eq!(texts, ["outside", "inside"]);
        assert_eq!(innermost(&error), "inside");
        assert_eq!(innermost(&io::Error::other("alone")), "alone");
    }
}
