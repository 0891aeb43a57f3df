//! The address that a request came from, as its caller or a proxy says. It is text, because nobody
//! vouches for it. The address that the server sees itself is another column of the trail.

use super::text::{clean, cut};
use crate::trail::Bounded;
use std::net::{IpAddr, SocketAddr};

/// How many bytes of a forwarded-for list are read for its first address.
const LONGEST_READ: usize = 16_384;

/// The address of the client behind a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAddress(String);

impl IpAddress {
    /// The most bytes that are kept.
    pub const MAX_BYTES: usize = 64;

    /// Takes the first address of a list, cleaned. It is the client's; the others are proxies.
    pub fn first_of(list: &str) -> IpAddress {
        let cleaned = clean(first_hop(list), Self::MAX_BYTES);
        IpAddress(first_hop(&cleaned).to_owned())
    }

    /// Shows what is kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes it into an event; NULL for none.
    pub fn bounded(address: Option<&IpAddress>) -> Bounded<{ Self::MAX_BYTES }> {
        Bounded::new(address.map(IpAddress::as_str))
    }
}

/// The first entry of a forwarded-for list.
fn first_hop(list: &str) -> &str {
    let nearest = cut(list, LONGEST_READ);
    nearest.split(',').next().unwrap_or(nearest).trim()
}

/// The first address of a header in its usual spelling, without a port, so that one client has one
/// spelling. Text that is no address stays as it is.
pub(super) fn usual(list: &str) -> String {
    let first = first_hop(list);
    let host = first.parse::<SocketAddr>().map(|socket| socket.ip());
    let host =
        host.or_else(|_| first.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
    host.map_or_else(|_| first.to_owned(), |host| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;
    use proptest::prelude::*;

    #[test]
    fn an_address_has_one_spelling_and_other_text_stays() {
        for (given, kept) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("unknown", "unknown"),
            ("_hidden", "_hidden"),
            ("203.0.113.999", "203.0.113.999"),
            ("", ""),
        ] {
            assert_eq!(usual(given), kept);
        }
    }

    #[test]
    fn the_first_of_a_list_is_kept() {
        let key = expand("sk-proj-<60>");
        let long = "x".repeat(100);
        for (given, kept) in [
            ("203.0.113.7", "203.0.113.7"),
            (" 203.0.113.7 , 10.0.0.1", "203.0.113.7"),
            (", 10.0.0.1", ""),
            ("", ""),
            ("a\nb", "a?b"),
            (&key, "sk-proj-...[REDACTED]"),
            (&format!("10.0.0.1, {key}"), "10.0.0.1"),
            (&long, &long[..64]),
            (&format!("{} b", &long[..63]), &long[..63]),
        ] {
            assert_eq!(IpAddress::first_of(given).as_str(), kept, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_entry(text in any::<String>()) {
            let address = IpAddress::first_of(&text);
            prop_assert!(address.as_str().len() <= IpAddress::MAX_BYTES);
            prop_assert!(!address.as_str().contains(','));
            let bounded = IpAddress::bounded(Some(&address));
            prop_assert_eq!(bounded.get(), Some(address.as_str()));
        }
    }
}
