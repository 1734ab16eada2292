//! The `Authorization` header: exactly `token T` or `Bearer JWT`, and nothing like it.

use axum::http::{HeaderMap, header};

/// What a caller shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// `token T`, the way of configurable-http-proxy.
    Token(&'a str),
    /// `Bearer T`, a JSON Web Token.
    Bearer(&'a str),
}

/// Reads the only `Authorization` header, or says for the log why there is none to read.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials<'_>, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        // Not `to_str`, which takes a tab for unreadable.
        (Some(value), None) => {
            std::str::from_utf8(value.as_bytes()).map_err(|_| "the Authorization header is not plain text")?
        }
        (None, _) => return Err("there is no Authorization header"),
        (Some(_), Some(_)) => return Err("there are several Authorization headers"),
    };
    parse(value).ok_or("the Authorization header is not of the form 'token ...' or 'Bearer ...'")
}

/// The whole value must be scheme, blanks, and one word; blanks at the end are forgiven.
fn parse(value: &str) -> Option<Credentials<'_>> {
    let blank = [' ', '\t'];
    let (scheme, rest) = value.split_once(blank)?;
    let word = rest.trim_matches(blank);
    // A word is what `\S+` means in JavaScript: Unicode's white space ends it as well.
    if word.is_empty() || word.contains(char::is_whitespace) {
        return None;
    }
    match scheme {
        "token" => Some(Credentials::Token(word)),
        "Bearer" => Some(Credentials::Bearer(word)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("token T")]
    #[case("token   T")]
    #[case("token\tT")]
    #[case("token \t T")]
    #[case("token T ")]
    #[case("token T\t ")]
    fn accepted(#[case] value: &str) {
        assert_eq!(parse(value), Some(Credentials::Token("T")), "{value:?}");
    }

    #[rstest]
    #[case("")]
    #[case("T")]
    #[case("token")]
    #[case("token ")]
    #[case("tokenT")]
    #[case(" token T")]
    #[case("Token T")]
    #[case("TOKEN T")]
    #[case("xtoken T")]
    #[case("x token T")]
    #[case("bearer token T")]
    #[case("bearer T")]
    #[case("token T junk")]
    #[case("token T, token U")]
    #[case("Basic T")]
    #[case("token\nT")]
    #[case("\"token T\"")]
    fn refused(#[case] value: &str) {
        assert_eq!(parse(value), None, "{value:?}");
    }

    proptest! {
        #[test]
        fn only_the_exact_form_is_accepted(value in "[tokenBar \t]{0,12}[a-zA-Z0-9 \t.]{0,12}|(token|Bearer)[ \t]{0,3}\\S{0,6}[ \t]{0,3}.{0,3}") {
            // Built from the other end: a value is good if some scheme, blanks, word and blanks spell it.
            let good = |scheme: &str| {
                value.strip_prefix(scheme).and_then(|rest| {
                    let word = rest.trim_start_matches([' ', '\t']);
                    let blanks = rest.len() - word.len();
                    let word = word.trim_end_matches([' ', '\t']);
                    (blanks > 0 && !word.is_empty() && word.chars().all(|c| !c.is_whitespace())).then_some(word)
                })
            };
            let expected = match (good("token"), good("Bearer")) {
                (Some(word), _) => Some(Credentials::Token(word)),
                (_, Some(word)) => Some(Credentials::Bearer(word)),
                _ => None,
            };
            prop_assert_eq!(parse(&value), expected);
        }
    }
}
