//! Whose a data directory is: etcd writes the numbers of member and cluster at the beginning of each file of its log.
//!
//! A file is a row of records, each with its length before it, little-endian in 8 bytes of which the highest says how much
//! it is padded. A record is a protocol buffer: its kind, a checksum, the content.

/// Whose a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
}

/// How much of a file is enough.
pub const BEGINNING_BYTES: usize = 4096;

const METADATA: u64 = 1;
/// A checksum goes before the metadata; more than some records would be no log of etcd's.
const RECORDS_MAX: usize = 8;

/// Reads the numbers off the beginning of a log file.
#[must_use]
pub fn identity(mut bytes: &[u8]) -> Option<Identity> {
    for _ in 0..RECORDS_MAX {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        // The highest bit says that there is padding, the lowest three of the same byte how much.
        let padding = if length >> 63 == 1 { (length >> 56) & 7 } else { 0 };
        let record = rest.get(..usize::try_from(length & 0x00ff_ffff_ffff_ffff).ok()?)?;
        bytes = rest.get(record.len() + usize::try_from(padding).ok()?..)?;
        let Record { kind: Some(METADATA), content: Some(content) } = record_of(record)? else { continue };
        let (mut member_id, mut cluster_id) = (None, None);
        for field in fields(content) {
            match field? {
                (1, Value::Number(number)) => member_id = Some(number),
                (2, Value::Number(number)) => cluster_id = Some(number),
                _ => {}
            }
        }
        return Some(Identity { member_id: member_id?, cluster_id: cluster_id? });
    }
    None
}

struct Record<'a> {
    kind: Option<u64>,
    content: Option<&'a [u8]>,
}

fn record_of(bytes: &[u8]) -> Option<Record<'_>> {
    let mut record = Record { kind: None, content: None };
    for field in fields(bytes) {
        match field? {
            (1, Value::Number(kind)) => record.kind = Some(kind),
            (3, Value::Bytes(content)) => record.content = Some(content),
            _ => {}
        }
    }
    Some(record)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; `None` is one that can't be read, and the last.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = field(&mut bytes);
        if field.is_none() {
            bytes = &[];
        }
        Some(field)
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = number(bytes)?;
    let value = match tag & 7 {
        0 => Value::Number(number(bytes)?),
        2 => {
            let length = usize::try_from(number(bytes)?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Value::Bytes(content)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by etcd 3.5.16, with padding after both records
    const BEGINNING: &[u8] = &[
        0x04, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 0x04, 0x10, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0, 0, 0, 0, 0x81, 0x08, 0x01, 0x10,
        0xef, 0xc1, 0xfb, 0xb6, 0x0c, 0x1a, 0x15, 0x08, 0xa0, 0xbd, 0xdd, 0xa3, 0xb2, 0xbb, 0xac, 0x9b, 0x40, 0x10,
        0xec, 0xc7, 0x87, 0xf6, 0x86, 0x80, 0xaa, 0xe0, 0x90, 0x01, 0,
    ];

    #[test]
    fn the_numbers_of_a_real_log() {
        let identity = identity(BEGINNING).unwrap();
        assert_eq!((identity.member_id, identity.cluster_id), (4_627_081_221_937_520_288, 0x90c0_a800_6ec1_e3ec));
    }

    #[test]
    fn half_a_beginning_tells_nothing() {
        for length in 0..BEGINNING.len() - 1 {
            assert_eq!(identity(&BEGINNING[..length]), None, "{length}");
        }
        assert_eq!(identity(&[0; 4096]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..BEGINNING.len(), byte: u8) {
            let _ = identity(&bytes);
            let mut bent = BEGINNING.to_vec();
            bent[at] = byte;
            let _ = identity(&bent);
        }
    }
}
