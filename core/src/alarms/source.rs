//! A source of incidents: who raises them, in which database, by which channel. Several sources of
//! the same role are one party. All addresses are one party, because anybody can have many before
//! they log in. As four words, a source fits into a table of atomics.

use crate::trail::{Channel, Leak, Origin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who raises incidents, where, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlarmSource {
    /// Who.
    pub origin: Origin,
    /// The oid of the database; 0: none.
    pub database: u32,
    /// How.
    pub channel: Channel,
}

/// What a budget belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// One source.
    One(AlarmSource),
    /// A role in every database and channel, or all processes of a kind, or a project.
    Whole(Origin),
    /// Everybody who has not logged in.
    Strangers,
    /// Those of a class that found no place in the table.
    Others(SourceClass),
}

/// A part of the table. One class never takes the room of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceClass {
    /// Roles that have logged in, and processes of the server.
    Roles,
    /// Addresses that have not logged in.
    Addresses,
    /// Projects.
    Projects,
}

impl SourceClass {
    /// All of them, in their order.
    pub const ALL: [SourceClass; 3] =
        [SourceClass::Roles, SourceClass::Addresses, SourceClass::Projects];
}

/// How many times the budget of a source its whole party has.
const OF_A_PARTY: u32 = 4;
/// The same for everybody who has not logged in.
const OF_STRANGERS: u32 = 8;
/// Scans are run by the staff, who read the answer too.
const OF_A_SCAN: u32 = 5;

impl AlarmSource {
    /// The source of a leak.
    pub fn of(leak: &Leak) -> AlarmSource {
        AlarmSource { origin: leak.origin, database: leak.database, channel: leak.channel }
    }

    /// The part of the table it belongs to.
    pub fn class(&self) -> SourceClass {
        match self.origin {
            Origin::Role { .. } | Origin::Process(_) => SourceClass::Roles,
            Origin::Client(_) => SourceClass::Addresses,
            Origin::Project(_) => SourceClass::Projects,
        }
    }

    /// The source as budgets know it. An IPv6 network of /64 is one address: whoever has one has
    /// all of it.
    pub fn counted(self) -> AlarmSource {
        let Origin::Client(Some(IpAddr::V6(address))) = self.origin else { return self };
        let network = u128::from(address) & !u128::from(u64::MAX);
        let address = match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from(network)),
        };
        AlarmSource { origin: Origin::Client(Some(address)), ..self }
    }

    /// The party it is one of.
    pub fn party(&self) -> Party {
        match self.origin {
            Origin::Client(_) => Party::Strangers,
            // Whoever may SET ROLE to many roles is one party all the same.
            Origin::Role { session, .. } => Party::Whole(Origin::Role { session, set: session }),
            whole => Party::Whole(whole),
        }
    }

    /// How many incidents it may raise in a day.
    pub fn budget(&self, budget: u32) -> u32 {
        budget.saturating_mul(if self.is_scan() { OF_A_SCAN } else { 1 })
    }

    /// Whether it is a scan. Scans have their own budget, and take none of their party's.
    pub fn is_scan(&self) -> bool {
        matches!(self.channel, Channel::ScanTable | Channel::ScanLog | Channel::ScanDatabase)
    }
}

const ONE: u64 = 1;
const WHOLE: u64 = 2;
const STRANGERS: u64 = 3;

impl Party {
    /// How many incidents it may raise in a day, where a source has this budget.
    pub fn budget(&self, budget: u32) -> u32 {
        match self {
            Party::One(source) => source.budget(budget),
            Party::Whole(_) => budget.saturating_mul(OF_A_PARTY),
            Party::Strangers => budget.saturating_mul(OF_STRANGERS),
            Party::Others(_) => budget,
        }
    }

    /// As four words. `Others` has places of its own, and is not asked.
    pub fn words(&self) -> [u64; 4] {
        match self {
            Party::One(source) => {
                let (kind, high, low) = split(source.origin);
                let place = u64::from(source.database) << 8 | u64::from(source.channel as u8);
                [ONE << 8 | kind, high, low, place]
            }
            Party::Whole(origin) => {
                let (kind, high, low) = split(*origin);
                [WHOLE << 8 | kind, high, low, 0]
            }
            Party::Strangers | Party::Others(_) => [STRANGERS << 8, 0, 0, 0],
        }
    }

    /// What these words stand for. None: they were written only in part.
    pub fn from_words([what, high, low, place]: [u64; 4]) -> Option<Party> {
        match what >> 8 {
            STRANGERS => Some(Party::Strangers),
            WHOLE => Some(Party::Whole(join(what & 0xff, high, low)?)),
            ONE => {
                let channel = *Channel::ALL.get((place & 0xff) as usize)?;
                let (origin, database) = (join(what & 0xff, high, low)?, (place >> 8) as u32);
                Some(Party::One(AlarmSource { origin, database, channel }))
            }
            _ => None,
        }
    }
}

/// An origin as its kind and 128 bits.
fn split(origin: Origin) -> (u64, u64, u64) {
    let halves = |bits: u128| ((bits >> 64) as u64, bits as u64);
    let (kind, (high, low)) = match origin {
        Origin::Role { session, set } => (1, (u64::from(session), u64::from(set))),
        Origin::Client(None) => (2, (0, 0)),
        Origin::Client(Some(IpAddr::V4(address))) => (3, (0, u64::from(u32::from(address)))),
        Origin::Client(Some(IpAddr::V6(address))) => (4, halves(u128::from(address))),
        Origin::Process(kind) => (5, (0, u64::from(kind))),
        Origin::Project(id) => (6, halves(u128::from_be_bytes(*id.bytes()))),
    };
    (kind, high, low)
}

fn join(kind: u64, high: u64, low: u64) -> Option<Origin> {
    let bits = u128::from(high) << 64 | u128::from(low);
    Some(match kind {
        1 => Origin::Role { session: high as u32, set: low as u32 },
        2 => Origin::Client(None),
        3 => Origin::Client(Some(IpAddr::V4(Ipv4Addr::from(low as u32)))),
        4 => Origin::Client(Some(IpAddr::V6(Ipv6Addr::from(bits)))),
        5 => Origin::Process(low as u32),
        6 => Origin::Project(crate::id::ProjectId::new(bits.to_be_bytes())),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProjectId;

    fn source(origin: Origin) -> AlarmSource {
        AlarmSource { origin, database: 0xffff_fffe, channel: Channel::Catalog }
    }

    fn address(text: &str) -> Origin {
        Origin::Client(Some(text.parse().unwrap()))
    }

    #[test]
    fn a_party_is_told_by_its_words() {
        for origin in [
            Origin::Role { session: u32::MAX, set: 7 },
            Origin::Client(None),
            address("192.0.2.7"),
            address("2001:db8::1"),
            Origin::Process(4),
            Origin::Project(ProjectId::new([0xab; 16])),
        ] {
            for party in [Party::One(source(origin)), Party::Whole(origin), Party::Strangers] {
                assert_eq!(Party::from_words(party.words()), Some(party));
            }
        }
        for broken in [[0; 4], [ONE << 8 | 9, 0, 0, 0], [ONE << 8 | 1, 0, 0, 0xff], [9 << 8; 4]] {
            assert_eq!(Party::from_words(broken), None);
        }
    }

    #[test]
    fn whoever_has_many_addresses_or_roles_to_set_is_one_party() {
        let parties =
            ["192.0.2.7", "198.51.100.1", "2001:db8::1"].map(|a| source(address(a)).party());
        assert!(parties.iter().all(|party| *party == Party::Strangers));
        let role = |set| source(Origin::Role { session: 10, set });
        assert_eq!(role(11).party(), role(12).party());
        assert_ne!(role(11).party(), source(Origin::Role { session: 11, set: 11 }).party());
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let counted = |text: &str| source(address(text)).counted();
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::ffff:1"));
        assert_ne!(counted("2001:db8::1"), counted("2001:db8:0:1::1"));
        assert_eq!(counted("::ffff:192.0.2.7"), counted("192.0.2.7"));
        assert_ne!(counted("192.0.2.7"), counted("192.0.2.8"));
    }
}
