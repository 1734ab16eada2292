//! Names that nobody had before, from the operating system's random bytes.

use std::fmt::Write as _;

/// So many random bytes.
///
/// # Panics
///
/// If the operating system has none, which none does.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// So many random bytes as hexadecimal digits, two for each.
///
/// # Panics
///
/// As [`bytes()`].
#[must_use]
pub fn digits<const N: usize>() -> String {
    bytes::<N>().iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_digits_for_a_byte_and_never_the_same() {
        let (one, other) = (digits::<16>(), digits::<16>());
        assert_eq!(one.len(), 32);
        assert!(one.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }
}
