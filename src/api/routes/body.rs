//! The body of a POST: read within limits, and parsed as configurable-http-proxy does, whatever its content type says.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Number, Value};

use super::super::answer::Answer;
use crate::causes;
use crate::route::{LEVELS_MAX, RouteData, is_too_deep};

/// What configurable-http-proxy says of a record without a target.
pub(super) const NO_TARGET: &str = "Must specify 'target' as string";

/// Reads the whole body, unless it is longer than `max` bytes or says that it will be.
pub(super) async fn read(request: Request, max: usize) -> Result<Bytes, Answer> {
    let too_long = || {
        Answer::sentence(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {max} bytes, the limit for a route"),
        )
    };
    if announced_length(request.headers()).is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    match Limited::new(request.into_body(), max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() || inner_is_limit(&*error) => Err(too_long()),
        Err(_) => Err(Answer::sentence(StatusCode::BAD_REQUEST, "the body ended early or is malformed")),
    }
}

/// The JSON object of a route. A JSON value of another kind has no target, and is refused as such.
pub(super) fn parse(bytes: &[u8]) -> Result<RouteData, Answer> {
    // As in JavaScript, bytes that aren't UTF-8 become replacement characters; outside of strings they are bad JSON.
    let text = String::from_utf8_lossy(bytes);
    object(&text).map_err(|says| match says {
        Refused::Json(error) => Answer::as_chp(StatusCode::BAD_REQUEST, format!("Body not valid JSON: {error}")),
        Refused::NoObject => no_target(),
        Refused::TooDeep => Answer::sentence(StatusCode::BAD_REQUEST, says.to_string()),
    })
}

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the record is not valid JSON: {0}")]
    Json(serde_json::Error),
    #[error("{NO_TARGET}")]
    NoObject,
    #[error("the record has more than {LEVELS_MAX} levels of lists and objects, the limit for a route")]
    TooDeep,
}

/// A JSON object, with numbers as JavaScript gives them back; no other value is a record.
pub(super) fn object(text: &str) -> Result<RouteData, Refused> {
    let value = serde_json::from_str(text).map_err(|error: serde_json::Error| {
        // The library's own limit, which is higher than ours.
        if error.to_string().starts_with("recursion limit exceeded") { Refused::TooDeep } else { Refused::Json(error) }
    })?;
    let Value::Object(data) = value else { return Err(Refused::NoObject) };
    if is_too_deep(&data) {
        return Err(Refused::TooDeep);
    }
    Ok(data.into_iter().map(|(key, value)| (key, as_javascript(value))).collect())
}

/// The target that a route's object names.
pub(super) fn target(data: &RouteData) -> Result<&str, Answer> {
    data.get("target").and_then(Value::as_str).ok_or_else(no_target)
}

fn no_target() -> Answer {
    Answer::as_chp(StatusCode::BAD_REQUEST, NO_TARGET)
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn inner_is_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    causes::chain(error).skip(1).any(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// Numbers as JavaScript gives them back: all are doubles, and a whole one is written without a fraction.
fn as_javascript(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(as_double(&number)),
        Value::Array(values) => Value::Array(values.into_iter().map(as_javascript).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, as_javascript(value))).collect()),
        other => other,
    }
}

fn as_double(number: &Number) -> Number {
    let Some(double) = number.as_f64() else { return number.clone() };
    if double == 0.0 {
        // JavaScript writes the negative zero as 0.
        return Number::from(0);
    }
    // The shortest digits that make this double, padded with zeros: JavaScript writes 2^63 as 9223372036854776000.
    let text = double.to_string();
    if let Ok(whole) = text.parse::<i64>() {
        return Number::from(whole);
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Number::from(whole);
    }
    // A fraction, or a number beyond 64 bits, which is written with an exponent: other digits, the same double.
    Number::from_f64(double).unwrap_or_else(|| number.clone())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1.0", "1")]
    #[case("1e3", "1000")]
    #[case("-0.0", "0")]
    #[case("-0", "0")]
    #[case("1.5", "1.5")]
    #[case("-7", "-7")]
    #[case("9007199254740991", "9007199254740991")]
    #[case("9007199254740993", "9007199254740992")]
    #[case("9223372036854775808", "9223372036854776000")]
    #[case("-9007199254740993", "-9007199254740992")]
    #[case("1e20", "1e+20")]
    #[case("12345678901234567890", "12345678901234567000")]
    #[case(r#"[1.0,{"a":[2.0]}]"#, r#"[1,{"a":[2]}]"#)]
    #[case(r#"["1.0",null,true,false,""]"#, r#"["1.0",null,true,false,""]"#)]
    fn numbers_are_doubles(#[case] sent: &str, #[case] back: &str) {
        let value: Value = serde_json::from_str(sent).expect("JSON");
        assert_eq!(as_javascript(value).to_string(), back);
    }
}
