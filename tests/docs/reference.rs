//! docs/reference.md against the catalog, in both directions: everything that exists has its
//! heading, and every heading names something that exists. What the page says about it (signature,
//! callers, default, range) must agree.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Catalog, Relation, Setting, written};
use crate::page::{Heading, Page};
use crate::re;
use crate::sources::Sources;

pub(crate) fn against_catalog(page: &Page, catalog: &Catalog) -> Vec<String> {
    let mut complaints = functions(page, catalog);
    complaints.extend(relations(page, "view", "Views", &catalog.views));
    complaints.extend(relations(page, "table", "Tables", &catalog.readable_tables));
    let settings = entries(page, "Settings");
    complaints.extend(both_ways("setting", &names(&catalog.settings), &settings));
    for heading in &settings {
        let setting = catalog.settings.get(&heading.text);
        let tells = setting.into_iter().flat_map(|setting| tells_setting(page, heading, setting));
        complaints.extend(tells);
    }
    complaints
}

fn names<T>(there: &BTreeMap<String, T>) -> BTreeSet<String> {
    there.keys().cloned().collect()
}

fn functions(page: &Page, catalog: &Catalog) -> Vec<String> {
    let headings = entries(page, "Functions");
    let mut complaints = both_ways("function", &names(&catalog.functions), &headings);
    for heading in &headings {
        let Some(function) = catalog.functions.get(&heading.text) else { continue };
        let of_it = page.below(heading);
        let callers = listed(&of_it, "Callers");
        complaints.extend(differs(
            heading,
            "signatures",
            &function.signatures,
            &signatures(&of_it),
        ));
        complaints.extend(differs(heading, "callers", &function.callers, &callers));
    }
    complaints
}

fn relations(
    page: &Page,
    kind: &str,
    section: &str,
    there: &BTreeMap<String, Relation>,
) -> Vec<String> {
    let headings = entries(page, section);
    let mut complaints = both_ways(kind, &names(there), &headings);
    for heading in &headings {
        let relation = there.get(&heading.text);
        let tells =
            relation.into_iter().flat_map(|relation| tells_relation(page, heading, relation));
        complaints.extend(tells);
    }
    complaints
}

pub(crate) fn against_sources(page: &Page, sources: &Sources) -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, section, words) in [
        ("access type", "Access types", &sources.access_types),
        ("failure reason", "Failure reasons", &sources.failure_reasons),
        ("incident type", "Incident types", &sources.incident_types),
    ] {
        complaints.extend(both_ways(kind, words, &entries(page, section)));
    }
    let codes = entries(page, "SQLSTATEs");
    complaints.extend(both_ways("SQLSTATE", &names(&sources.errors), &codes));
    for heading in &codes {
        complaints.extend(tells_errors(page, heading, sources));
    }
    complaints
}

/// The entries of the sections that begin so: headings of the next level, or first cells of tables.
fn entries(page: &Page, section: &str) -> Vec<Heading> {
    let sections = page
        .headings()
        .into_iter()
        .filter(|heading| heading.level == 2 && heading.text.starts_with(section));
    let mut found = Vec::new();
    for section in sections {
        let children = page.children(&section);
        if children.is_empty() {
            let word = re(r"^`([^`]+)`$");
            let first =
                |row: &Vec<String>| word.captures(row.first()?).map(|found| found[1].to_string());
            let rows = page.below(&section).rows();
            found.extend(rows.iter().filter_map(first).map(|text| Heading {
                level: 3,
                text,
                line: section.line,
            }));
        }
        found.extend(children);
    }
    found
}

fn both_ways(kind: &str, there: &BTreeSet<String>, told: &[Heading]) -> Vec<String> {
    let missing = there.iter().filter(|name| !told.iter().any(|heading| heading.text == **name));
    let mut complaints: Vec<String> =
        missing.map(|name| format!("docs/reference.md: no heading of {kind} {name}")).collect();
    for (at, heading) in told.iter().enumerate() {
        let place = format!("docs/reference.md:{}", heading.line);
        if !there.contains(&heading.text) {
            complaints.push(format!("{place}: there is no {kind} {}", heading.text));
        }
        if told[..at].iter().any(|other| other.text == heading.text) {
            complaints.push(format!("{place}: {kind} {} a second time", heading.text));
        }
    }
    complaints
}

fn differs(
    heading: &Heading,
    what: &str,
    there: &BTreeSet<String>,
    told: &BTreeSet<String>,
) -> Option<String> {
    let place = format!("docs/reference.md:{}: {what} of {}", heading.line, heading.text);
    (there != told).then(|| format!("{place} are\n  {there:?}, not\n  {told:?}"))
}

/// The blocks named `signature`. An empty line separates overloads.
fn signatures(page: &Page) -> BTreeSet<String> {
    let blocks = page.blocks().into_iter().filter(|block| block.info == "signature");
    let each = blocks
        .flat_map(|block| block.lines.join("\n").split("\n\n").map(written).collect::<Vec<_>>());
    each.collect()
}

/// A line such as `Callers: watchllm_admin, watchllm_service.`
fn listed(page: &Page, what: &str) -> BTreeSet<String> {
    let (lines, lead) = (page.prose(), format!("{what}: "));
    let told = lines.iter().filter_map(|(_, line)| line.strip_prefix(&lead));
    told.flat_map(|told| told.trim_end_matches('.').split(", ").map(String::from)).collect()
}

/// Readers, writers, and an item for each column: "- `name` type: what it is".
fn tells_relation(page: &Page, heading: &Heading, relation: &Relation) -> Vec<String> {
    let column = re(r"^- `(\w+)` ([a-z][a-z0-9 ]*(?:\[\])?)(?::|$)");
    let of_it = page.below(heading);
    let columns = of_it
        .prose()
        .iter()
        .filter_map(|(_, line)| column.captures(line).map(|c| format!("{} {}", &c[1], &c[2])))
        .collect();
    let told = [
        differs(heading, "columns", &relation.columns, &columns),
        differs(heading, "readers", &relation.readers, &listed(&of_it, "Readers")),
        differs(heading, "writers", &relation.writers, &listed(&of_it, "Writers")),
    ];
    told.into_iter().flatten().collect()
}

/// The four lines of a setting: Default, Range, Applies, Override.
fn tells_setting(page: &Page, heading: &Heading, setting: &Setting) -> Vec<String> {
    let of_it = page.below(heading);
    let lines = of_it.prose();
    let told = |what: &str| {
        let lead = format!("- {what}: ");
        lines.iter().find_map(|(_, line)| line.strip_prefix(&lead)).unwrap_or_default().to_string()
    };
    let default =
        if setting.default.is_empty() { "none".into() } else { format!("`{}`", setting.default) };
    let range = setting.range.clone().unwrap_or_default();
    let overridable = told("Override");
    let mut complaints = Vec::new();
    for (what, there) in [("Default", &default), ("Range", &range), ("Applies", &setting.applies)] {
        if told(what) != *there {
            let place = format!("docs/reference.md:{}: {}", heading.line, heading.text);
            complaints.push(format!("{place}: {what} is {there:?}, not {:?}", told(what)));
        }
    }
    if overridable.is_empty() || (overridable != "none") != setting.is_overridable {
        let is = if setting.is_overridable { "can" } else { "cannot" };
        complaints.push(format!(
            "docs/reference.md:{}: {} {is} be overridden",
            heading.line, heading.text
        ));
    }
    complaints
}

/// Below a SQLSTATE there is an item for each error, which begins with its message.
fn tells_errors(page: &Page, heading: &Heading, sources: &Sources) -> Vec<String> {
    let item = re(r"^- `(.+?)`(?:$|[ :.])");
    let of_it = page.below(heading);
    let told: Vec<String> = of_it
        .prose()
        .iter()
        .filter_map(|(_, line)| item.captures(line).map(|found| found[1].to_string()))
        .collect();
    let place = format!("docs/reference.md:{}: {}", heading.line, heading.text);
    let mut complaints = Vec::new();
    let errors = sources.errors.get(&heading.text).into_iter().flatten();
    let wanted = errors
        .filter_map(|error| sources.messages.get(error))
        .filter(|message| !told.contains(message));
    complaints
        .extend(wanted.map(|message| format!("{place}: no item with the message {message:?}")));
    let strange = told.iter().filter(|message| !sources.text.contains(message.as_str()));
    complaints.extend(strange.map(|message| format!("{place}: nothing says {message:?}")));
    if told.is_empty() {
        complaints.push(format!("{place}: no items"));
    }
    complaints
}
