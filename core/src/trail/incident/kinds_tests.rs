//! Walks every kind of incident: identities are those that people's databases hold already, and
//! differ; details say what happened, under the names they had.

use super::*;
use crate::anomaly::Detector;
use crate::id::{EventId, ProjectId};
use crate::trail::event::tests::event;
use std::collections::BTreeSet;

struct Text(&'static str);

impl Shown for Text {
    fn shown(&self) -> &str {
        self.0
    }
}

const AT: Moment = Moment::new(1_700_000_000_123_456);
const KEY: KeyRef =
    KeyRef { project: ProjectId::new([0x21; 16]), key: ProviderKeyId::new([0x22; 16]) };
const OURS: KeyVersion = KeyVersion { key: KEY, number: 3 };
const FINGERPRINT: [u8; 32] = [0x23; 32];
const ADDRESS: &str = "203.0.113.7";
const LEAK: Leak = Leak {
    database: 5,
    backend_pid: 7,
    role: 10,
    channel: Channel::Message,
    provider: Some("openai"),
    kind: "project key",
    key_hash: 0x1234_5678_9abc_def0,
    statement_start: Moment::new(1),
    at: Moment::new(2),
    count: 3,
};

fn masked(leak: Leak) -> Incident {
    key_masked(&leak, None, Some(&Text("d")))
}

fn in_clear(ours: Option<KeyVersion>) -> Incident {
    let found = InClear {
        source: "scan_server_log",
        place: &Text("a place"),
        provider: Some(&Text("openai")),
        kind: "project key",
        redacted: &Text("sk-proj-...[REDACTED]"),
        occurrences: 2,
        ours,
    };
    key_in_clear(in_clear_id("a place", &FINGERPRINT, ours), &found, AT)
}

fn in_column(ours: Option<KeyVersion>) -> Incident {
    let masked = MaskedColumn {
        table: &Text("public.t"),
        table_owner: &Text("somebody"),
        column: &Text("body"),
        provider: Some("openai"),
        kind: "project key",
        redacted: &Text("sk-proj-...[REDACTED]"),
        ours,
    };
    column_masked(&masked, AT)
}

fn due(stage: Stage) -> Incident {
    let (provider, version) = (&Text("openai"), OURS);
    rotation_due(&Due { version, provider, stage, days_old: 60, days_left: 30 }, AT)
}

fn found(kind: IncidentType, whom: Whom, id: IncidentId) -> Incident {
    let is_dormant = kind == IncidentType::DormantKeyUsed;
    let is_new = matches!(kind, IncidentType::NewAddress | IncidentType::NewRole);
    let found = Anomaly {
        kind,
        severity: Severity::High,
        what: "more than 100",
        whom,
        count: (!is_dormant && !is_new).then_some(("1 hour", 101, 100)),
        days_asleep: is_dormant.then_some(31),
        blocked: false,
    };
    anomaly(id, &found, AT)
}

fn opened() -> Incident {
    let event = crate::trail::Event {
        id: EventId::new([1; 16]),
        project_id: Some(KEY.project),
        provider_key_id: Some(KEY.key),
        key_version: Some(3),
        ..event()
    };
    compromised_opened(&event)
}

/// Every kind: its function, its identity as it was before this table, its details' names.
// a table: an entry for each kind
#[allow(clippy::too_many_lines)]
fn every_kind() -> Vec<(&'static str, &'static str, &'static str, Incident)> {
    use IncidentType::*;
    let key = Whom::Key(KEY);
    let caller = Whom::Caller(CallerKind::Address, ADDRESS);
    let episode = |kind, whom| found(kind, whom, episode_id(kind, whom, AT));
    let new_address = moment_id(NewAddress, KEY, Some((CallerKind::Address, ADDRESS)), AT);
    let asleep = moment_id(DormantKeyUsed, KEY, None, AT);
    let into_catalog = Leak { channel: Channel::Catalog, ..LEAK };
    let unreported = masked_unreported(4, IncidentId::new([9; 16]), AT);
    let reported = leak_reported(OURS, &FINGERPRINT, &Text("a scanner"), true, AT);
    let of_log = "backend_pid channel count database kind provider role what";
    let of_scan = "key_version kind occurrences place provider redacted source what";
    let of_column = "column key_version kind provider redacted source table table_owner what";
    let of_key = "days_left days_old key_version provider stage what";
    let counted = "blocked limit observed what window";
    let blocked = block_noted(KEY, crate::trail::AccessType::Block, EventId::new([1; 16]), AT);
    vec![
        ("key_masked", "1b00a52c-3bfe-80c0-abed-cf03374ed23b", of_log, masked(LEAK)),
        ("key_masked", "6ed29f76-33ef-8dd1-962c-dd700cb31993", of_log, masked(into_catalog)),
        ("masked_unreported", "09090909-0909-0909-0909-090909090909", "count what", unreported),
        ("key_in_clear", "754722f1-cc62-82f2-a92c-51f829036115", of_scan, in_clear(Some(OURS))),
        ("key_in_clear", "3d31bbef-8a55-84fe-aff0-b0073dc23e38", of_scan, in_clear(None)),
        (
            "more_in_clear",
            "ad1347df-c3a4-89cf-b652-62a6e9cd4970",
            "source what",
            more_in_clear("scan_server_log", AT),
        ),
        ("column_masked", "f7dda4d4-6476-8914-8f07-c3b194d53c4d", of_column, in_column(Some(OURS))),
        ("column_masked", "856fb41b-45b8-8142-ac0e-4390b1994427", of_column, in_column(None)),
        (
            "more_columns_masked",
            "522fafde-5e1a-8432-8cdf-67ce0c92bb1b",
            "most source table_owner what",
            more_columns_masked(&Text("somebody"), 100, AT),
        ),
        (
            "leak_reported",
            "42f18da8-50c2-8b61-aa52-cf04236b4831",
            "in_use key_version source what",
            reported,
        ),
        (
            "compromised_opened",
            "50a206eb-99ba-8c23-ad98-23ca7f6983ad",
            "event_id key_version what",
            opened(),
        ),
        ("block_noted", "16973fd5-bed4-8421-9901-252ee66cb320", "event_id what", blocked),
        ("rotation_due", "ad32028f-8788-8e59-af51-54215e1f44ad", of_key, due(Stage::Soon)),
        ("rotation_due", "68ab66e4-cd0d-8aa6-83e0-ff2b4ccae258", of_key, due(Stage::Required)),
        (
            "anomaly",
            "a1aea161-ce17-8eb6-879b-ddef3d7aa049",
            counted,
            episode(PotentialKeyTheft, key),
        ),
        (
            "anomaly",
            "99222d82-3a32-83b0-8798-498f530dfbaa",
            counted,
            episode(RapidAutomatedAccess, key),
        ),
        (
            "anomaly",
            "39f704ea-6d97-8ab2-8efa-88e57de667c6",
            counted,
            episode(UnusuallyHighAccess, key),
        ),
        (
            "anomaly",
            "50821993-e1b9-8649-9306-80c916cb0709",
            counted,
            episode(RepeatedFailures, key),
        ),
        (
            "anomaly",
            "717255dd-5625-8808-9873-73d8077998f7",
            "blocked kind limit observed subject what window",
            episode(MassKeyReading, caller),
        ),
        (
            "anomaly",
            "ee9e6dbd-e02e-81cd-8584-52f9ab82d152",
            "blocked what",
            found(NewAddress, key, new_address),
        ),
        (
            "anomaly",
            "930a382e-c1c1-80b6-bb5b-5710b52d795c",
            "blocked what",
            found(NewRole, key, moment_id(NewRole, KEY, Some((CallerKind::Role, "app")), AT)),
        ),
        (
            "anomaly",
            "b029f4f9-430f-839b-a32c-1bc985bbcc11",
            "blocked days_asleep what",
            found(DormantKeyUsed, key, asleep),
        ),
    ]
}

#[test]
fn every_kind_has_its_identity_and_says_what_it_is() {
    let (mut ids, mut types) = (BTreeSet::new(), BTreeSet::new());
    for (function, id, names, incident) in every_kind() {
        let what = format!("{function} {}: {}", incident.id, incident.details);
        assert_eq!(incident.id.to_string(), id, "{what}");
        assert!(ids.insert(incident.id), "another has the same identity: {what}");
        let details: serde_json::Map<String, Value> =
            serde_json::from_str(&incident.details).unwrap();
        assert!(details["what"].as_str().is_some_and(|what| !what.is_empty()), "{what}");
        let found: BTreeSet<&str> = details.keys().map(String::as_str).collect();
        assert_eq!(found, names.split(' ').collect::<BTreeSet<&str>>(), "{what}");
        types.insert(incident.kind.word());
    }
    // `anomaly` makes what any detector finds, and was walked above
    types.extend(Detector::ALL.iter().map(|detector| detector.word()));
    assert_eq!(types.len(), IncidentType::ALL.len(), "a type that no kind has: {types:?}");
}

#[test]
fn every_function_that_makes_an_incident_is_walked() {
    let product = include_str!("kinds.rs");
    let makes = |text: &&str| text.split('{').next().unwrap().contains("-> Incident ");
    let name = |text: &str| text.split('(').next().unwrap().to_owned();
    let made: BTreeSet<String> =
        product.split("\npub fn ").skip(1).filter(makes).map(name).collect();
    let walked: BTreeSet<String> =
        every_kind().iter().map(|(function, ..)| (*function).to_owned()).collect();
    assert_eq!(made, walked);
}

#[test]
fn what_is_ours_says_whose_it_is_and_is_more_urgent() {
    for (ours, foreign) in
        [(in_clear(Some(OURS)), in_clear(None)), (in_column(Some(OURS)), in_column(None))]
    {
        assert_eq!((ours.key(), foreign.key()), (Some(KEY), None));
        assert_eq!(ours.severity, Severity::High);
        assert_ne!(foreign.severity, Severity::High);
    }
    assert_eq!((opened().key(), due(Stage::Soon).key()), (Some(KEY), Some(KEY)));
}

#[test]
fn a_masked_key_is_one_incident_per_statement_and_process() {
    let id = |leak: Leak| masked(leak).id;
    assert_eq!(id(LEAK), id(Leak { at: AT, count: 1, channel: Channel::Detail, ..LEAK }));
    for other in [
        Leak { key_hash: 1, ..LEAK },
        Leak { statement_start: Moment::new(2), ..LEAK },
        Leak { backend_pid: 8, ..LEAK },
        Leak { channel: Channel::Catalog, ..LEAK },
    ] {
        assert_ne!(id(LEAK), id(other));
    }
}

#[test]
fn the_hash_of_a_masked_key_is_not_told() {
    let details = masked(LEAK).details;
    assert!(
        !details.contains(&LEAK.key_hash.to_string()) && !details.contains("9abcdef0"),
        "{details}"
    );
}
