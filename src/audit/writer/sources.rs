//! The writer's part of budgets: what may become a row is counted for its source and day, and what
//! is held back is counted too. A source that is cut off becomes one incident a day. When the day
//! is over, an event of that incident tells how many there were.

use super::transaction::now_or_later;
use crate::alarms::source::SourceClass;
use crate::alarms::{AlarmSource, Party};
use crate::id::ProjectId;
use crate::input::{Note, ShownName};
use crate::moment::Span;
use crate::postgres::{Owner, clock, process_kind, session};
use crate::settings;
use crate::store;
use crate::trail::incident::kinds::{self, CutOff, severity_masked};
use crate::trail::{CallerKind, Notice, Origin, Severity};

/// How long what became of sources is kept.
const KEPT: i32 = 90;
/// How long after midnight a day is closed. What was held back before it has been counted then.
const LATE: Span = Span::MINUTE;

/// A source with its name, as the table has it.
pub(super) struct NamedSource {
    kind: &'static str,
    name: Note,
    database: ShownName,
    channel: &'static str,
    project: Option<ProjectId>,
    budget: u32,
    severity: Severity,
}

impl NamedSource {
    /// The source of what the log hook, a trigger or a scan found.
    pub(super) fn of_party(party: &Party) -> NamedSource {
        let budget = party.budget(settings::incident_budget());
        let of = |kind, name: &str, channel, database: u32| {
            let (name, project) = (Note::clean(name), None);
            let severity = Severity::Medium;
            NamedSource {
                kind,
                name,
                database: database_name(database),
                channel,
                project,
                budget,
                severity,
            }
        };
        match party {
            Party::One(AlarmSource { origin, database, channel }) => {
                let (kind, name) = named(origin);
                let one = of(kind, &name, channel.word(), *database);
                NamedSource { project: project(origin), severity: severity_masked(*channel), ..one }
            }
            Party::Whole(origin) => {
                let (kind, name) = named(origin);
                NamedSource { project: project(origin), ..of(kind, &name, "", 0) }
            }
            Party::Strangers => of("addresses", "all together", "", 0),
            Party::Others(SourceClass::Roles) => of("role", "others", "", 0),
            Party::Others(SourceClass::Addresses) => of("addresses", "others", "", 0),
            Party::Others(SourceClass::Projects) => of("project", "others", "", 0),
        }
    }

    /// What the writer itself finds about keys of a project.
    pub(super) fn of_project(
        id: ProjectId,
        channel: &'static str,
        severity: Severity,
    ) -> NamedSource {
        NamedSource {
            kind: "project",
            name: Note::clean(&id.to_string()),
            database: ShownName::clean(""),
            channel,
            project: Some(id),
            budget: settings::incident_budget(),
            severity,
        }
    }

    /// What the watch finds about a caller.
    pub(super) fn of_caller(
        kind: CallerKind,
        name: &str,
        channel: &'static str,
        severity: Severity,
    ) -> NamedSource {
        let of_nobody = NamedSource::of_project(ProjectId::NIL, channel, severity);
        NamedSource { kind: kind.word(), name: Note::clean(name), project: None, ..of_nobody }
    }

    fn cut_off(&self, day: i32, held_back: i64) -> CutOff<'_> {
        CutOff {
            kind: self.kind,
            name: &self.name,
            database: &self.database,
            channel: self.channel,
            project: self.project,
            budget: self.budget,
            day,
            held_back,
            severity: self.severity,
        }
    }

    /// Takes one of the source's budget of a day. False: none is left.
    pub(super) fn raise(&self, owner: Owner, day: i32) -> bool {
        store::sources::raise(owner, &self.cut_off(day, 0))
    }

    /// Counts what was held back on a day. Answers what to tell listeners, the first time.
    pub(super) fn hold(&self, owner: Owner, day: i32, count: u64) -> Option<Notice> {
        self.cut(owner, day, count, false)
    }

    /// As `hold`, with all of the day's number.
    pub(super) fn hold_in_all(&self, owner: Owner, day: i32, count: u64) -> Option<Notice> {
        self.cut(owner, day, count, true)
    }

    fn cut(&self, owner: Owner, day: i32, count: u64, is_total: bool) -> Option<Notice> {
        let now = clock::now();
        let cut = self.cut_off(day, i64::try_from(count).unwrap_or(i64::MAX));
        store::sources::hold(owner, &cut, is_total, now);
        let incident = kinds::held_back(&cut, now);
        store::incidents::write(owner, &incident).then(|| incident.notice())
    }
}

/// What a source is called: its kind, and its name within it.
fn named(origin: &Origin) -> (&'static str, String) {
    let role = |oid: u32| session::role_name(oid.into()).unwrap_or_else(|| format!("oid {oid}"));
    match origin {
        Origin::Role { session, set } if session == set => ("role", role(*session)),
        Origin::Role { session, set } => ("role", format!("{} as {}", role(*session), role(*set))),
        Origin::Client(_) => ("address", kinds::address(origin).unwrap_or_default()),
        Origin::Process(kind) => ("process", process_kind(*kind)),
        Origin::Project(id) => ("project", id.to_string()),
    }
}

fn project(origin: &Origin) -> Option<ProjectId> {
    if let Origin::Project(id) = origin { Some(*id) } else { None }
}

fn database_name(database: u32) -> ShownName {
    ShownName::clean(&session::database_name(database.into()).unwrap_or_default())
}

/// The day up to which days are closed.
#[derive(Default)]
pub(super) struct ClosedDays {
    closed: i32,
}

impl ClosedDays {
    /// Closes the days that are over, once a day.
    pub(super) fn close(&mut self) {
        let now = clock::now();
        let day = (now - LATE).day();
        if self.closed == day {
            return;
        }
        let closed = now_or_later("what was held back is told", |owner| {
            store::sources::close(owner, day, now);
            store::sources::forget(owner, day - KEPT);
        });
        if closed.is_some() {
            self.closed = day;
        }
    }
}
