//! An id that comes as text. Read as PostgreSQL reads a uuid, without its error, which shows the
//! text: it may be a key that was given in the wrong place.

use super::Invalid;
use crate::id::Id;

/// Parses a uuid: 32 hexadecimal digits, with a hyphen after any group of four, in braces or not.
pub fn id<T: Id>(text: &str) -> Result<T, Invalid> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or(Invalid::NotUuid)?,
        None => text,
    };
    let mut bytes = [0u8; 16];
    let (mut digits, mut after_hyphen) = (0usize, true);
    for character in inner.chars() {
        if character == '-' {
            if after_hyphen || digits % 4 != 0 {
                return Err(Invalid::NotUuid);
            }
            after_hyphen = true;
            continue;
        }
        let digit = character.to_digit(16).ok_or(Invalid::NotUuid)?;
        let byte = bytes.get_mut(digits / 2).ok_or(Invalid::NotUuid)?;
        *byte = *byte << 4 | digit as u8;
        (digits, after_hyphen) = (digits + 1, false);
    }
    if digits == 32 && !after_hyphen { Ok(T::from_bytes(bytes)) } else { Err(Invalid::NotUuid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKeyId;

    #[test]
    fn what_postgresql_reads_as_a_uuid_is_read() {
        let wanted = Ok(ProviderKeyId::new(std::array::from_fn(|i| i as u8 * 0x11)));
        for text in [
            "00112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "00112233445566778899aabbccddeeff",
            "{0011-2233-4455-6677-8899-aabb-ccdd-eeff}",
            " 00112233-4455-6677-8899-aabbccddeeff\n",
        ] {
            assert_eq!(id(text), wanted, "{text:?}");
        }
        for text in [
            "",
            "{}",
            "{00112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233-4455-6677-8899-aabbccddeeff-",
            "-00112233-4455-6677-8899-aabbccddeeff",
            "001-12233-4455-6677-8899-aabbccddeeff",
            "00112233--4455-6677-8899-aabbccddeeff",
            "0011２233-4455-6677-8899-aabbccddeeff",
            "sk-not-an-id",
        ] {
            assert_eq!(id::<ProviderKeyId>(text), Err(Invalid::NotUuid), "{text:?}");
        }
    }
}
