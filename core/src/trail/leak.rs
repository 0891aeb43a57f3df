//! A key that was masked on its way into sight: where it was about to stand, and who said it; never
//! the key. Pure data, and how it becomes an incident. Many of the same statement are one incident
//! (DESIGN §6).

use super::incident::{Incident, IncidentType, Severity, identity};
use crate::id::IncidentId;
use crate::moment::Moment;

words! {
    /// Where a key was about to be seen.
    Channel {
        Message = "message", Detail = "detail", Hint = "hint", Context = "context", Statement = "statement",
        Names = "names", ApplicationName = "application_name", Catalog = "catalog",
    }
}

/// One key masked. `run` is a hash of the key under a secret of this server run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leak {
    /// 0: the process served no database.
    pub database: u32,
    pub backend_pid: i32,
    pub role: u32,
    pub channel: Channel,
    /// The one provider whose keys look like this, where there is one.
    pub provider: Option<&'static str>,
    pub kind: &'static str,
    pub run: u64,
    pub statement_start: Moment,
    pub at: Moment,
    /// How often since it was last reported.
    pub count: u32,
}

/// What a reader knows role and database by.
pub struct Names<'a> {
    pub role: Option<&'a str>,
    pub database: Option<&'a str>,
}

impl Leak {
    /// The incident this is; the same key in the same statement of the same process is the same
    /// incident.
    pub fn incident(&self, names: &Names) -> Incident {
        let stays = self.channel == Channel::Catalog;
        let parts: [&[u8]; 5] = [
            if stays { b"stored in the catalog" } else { b"masked" },
            &self.database.to_be_bytes(),
            &self.backend_pid.to_be_bytes(),
            &self.run.to_be_bytes(),
            &self.statement_start.micros().to_be_bytes(),
        ];
        let what = if stays {
            "a statement put what looks like a provider key into the catalog"
        } else {
            "what looks like a provider key was masked"
        };
        let details = serde_json::json!({
            "what": what, "channel": self.channel.word(), "provider": self.provider, "kind": self.kind,
            "count": self.count, "backend_pid": self.backend_pid, "role": names.role, "database": names.database,
        });
        Incident {
            id: identity(&parts),
            kind: IncidentType::LeakedKey,
            severity: if stays { Severity::High } else { Severity::Medium },
            project_id: None,
            provider_key_id: None,
            details: details.to_string(),
            detected_at: self.at,
        }
    }
}

/// The incident that masked keys were not all reported.
pub fn overflow(dropped: u64, identity: IncidentId, at: Moment) -> Incident {
    let what = "more keys were masked than could be reported";
    Incident {
        id: identity,
        kind: IncidentType::LeakedKey,
        severity: Severity::Medium,
        project_id: None,
        provider_key_id: None,
        details: serde_json::json!({ "what": what, "count": dropped }).to_string(),
        detected_at: at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAK: Leak = Leak {
        database: 5,
        backend_pid: 7,
        role: 10,
        channel: Channel::Message,
        provider: Some("openai"),
        kind: "project key",
        run: 0x1234_5678_9abc_def0,
        statement_start: Moment::new(1),
        at: Moment::new(2),
        count: 3,
    };
    const NAMES: Names = Names { role: None, database: Some("d") };

    #[test]
    fn a_key_is_one_incident_per_statement_and_process() {
        let id = |leak: Leak| leak.incident(&NAMES).id;
        assert_eq!(
            id(LEAK),
            id(Leak { at: Moment::new(9), count: 1, channel: Channel::Detail, ..LEAK })
        );
        for other in [
            Leak { run: 1, ..LEAK },
            Leak { statement_start: Moment::new(2), ..LEAK },
            Leak { backend_pid: 8, ..LEAK },
            Leak { channel: Channel::Catalog, ..LEAK },
        ] {
            assert_ne!(id(LEAK), id(other));
        }
    }

    #[test]
    fn the_hash_is_not_told() {
        let details = LEAK.incident(&NAMES).details;
        assert!(
            !details.contains(&LEAK.run.to_string()) && !details.contains("9abcdef0"),
            "{details}"
        );
    }
}
