//! From when until when a certificate is good: as much of X.509 as that takes.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version of a certificate, which the oldest ones don't have.
const VERSION: u8 = 0xa0;

/// The first and the last moment, of a certificate in DER.
pub(super) fn validity(der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (tag, certificate, _) = element(der)?;
    let (inner, body, _) = element(certificate)?;
    if tag != SEQUENCE || inner != SEQUENCE {
        return None;
    }
    let (first, _, after_first) = element(body)?;
    let mut rest = if first == VERSION { after_first } else { body };
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, times, _) = element(rest)? else { return None };
    let (tag, from, rest) = element(times)?;
    let (other_tag, until, _) = element(rest)?;
    Some((time(tag, from)?, time(other_tag, until)?))
}

/// Tag, content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        // Two digits of a year: from 1950 to 2049.
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%SZ", &full).ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(until: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example.org".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1999, 2, 3);
        params.not_after = date_time_ymd(until, 11, 12);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        for (until, text) in [(2031, "2031-11-12T00:00:00Z"), (2050, "2050-11-12T00:00:00Z")] {
            let (from, last) = validity(&certificate(until)).unwrap();
            assert_eq!((from.to_string(), last.to_string()), ("1999-02-03T00:00:00Z".to_owned(), text.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(mut cut in 0_usize..400, byte in any::<u8>(), noise in any::<Vec<u8>>()) {
            let _ = validity(&noise);
            let mut der = certificate(2031);
            cut = cut.min(der.len() - 1);
            let _ = validity(&der[..cut]);
            der[cut] = byte;
            let _ = validity(&der);
        }
    }
}
