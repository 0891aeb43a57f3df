//! The doctor's checks of the catalog: walls, rights, and what surrounds the vault (roles,
//! functions of others, settings that write into the log). Also checks of keys and members.
//! `store/doctor` says what each reads and when it is wrong.

use super::check::{Check, check, listed, not_looked_at};
use crate::audit::State;
use crate::error::Error;
use crate::postgres::{Owner, session};
use crate::store::doctor::{self, RowCount, Seen};

/// A check of the catalog: its name, what it counts, what holds if nothing is wrong, and what to do
/// otherwise.
struct Look {
    name: &'static str,
    seen: fn() -> Vec<Seen>,
    fine: &'static str,
    hint: &'static str,
}

/// A check with nothing to look at shows its text without a number.
const WALLS: &[Look] = &[
    Look {
        name: "row_security",
        seen: doctor::row_security,
        fine: "row-level security is enabled and forced on every table and partition",
        hint: "Run SELECT watchllm.install(); it does so for the vault's own tables. Move tables \
             of others out of the schema.",
    },
    Look {
        name: "append_only",
        seen: doctor::append_only,
        fine: "triggers refuse UPDATE, DELETE and TRUNCATE on every append-only table, also to \
             superusers",
        hint: "Find out who changed it and when, compare the trail with your exports, then run \
             SELECT watchllm.install();",
    },
    Look {
        name: "logged",
        seen: doctor::logged,
        fine: "every table is in the WAL",
        hint: "A crash empties an unlogged table, and no standby or backup has its rows: \
             ALTER TABLE … SET LOGGED; see docs/doctor.md#what-some-findings-mean.",
    },
    Look {
        name: "days_ahead",
        seen: doctor::days_ahead,
        fine: "the trail has its days of the coming week",
        hint: "Without its day every call fails. SELECT watchllm.install(); makes them now. If the \
             writer cannot (see status()), an event trigger that fires always must let it.",
    },
    Look {
        name: "missing_policies",
        seen: doctor::missing_policies,
        fine: "every role has the policies that it reads by",
        hint: "Without a policy a role reads no row. SELECT watchllm.install(); brings them back.",
    },
    Look {
        name: "views",
        seen: doctor::views,
        fine: "every view reads with the rights of its reader",
        hint: "ALTER VIEW … SET (security_invoker = true), or run SELECT watchllm.install();",
    },
];

/// Rights on what is in the schema; fine is a number.
const RIGHTS: &[Look] = &[
    Look {
        name: "owner_role",
        seen: doctor::owner_role,
        fine: "watchllm_owner has no attributes and no memberships, and owns every table and view",
        hint: "ALTER ROLE watchllm_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB \
             NOREPLICATION; revoke its memberships; give what is in the schema back to it.",
    },
    Look {
        name: "schema",
        seen: doctor::schema,
        fine: "nobody else can create in schema watchllm, or has put a function or operator there",
        hint: "A function with a name of ours can be called instead of ours and get the key. Look \
             at it, then DROP it; ALTER SCHEMA watchllm OWNER TO a superuser; REVOKE CREATE.",
    },
    Look {
        name: "missing_rights",
        seen: doctor::missing_rights,
        fine: "every role has the rights that install() gives",
        hint: "A REVOKE or DROP OWNED took them, and what needs them fails. SELECT \
             watchllm.install(); gives them back.",
    },
    Look {
        name: "public_grants",
        seen: doctor::public_grants,
        fine: "no object and no policy is for PUBLIC or anon",
        hint: "REVOKE it; the extension and install() grant nothing to either.",
    },
    Look {
        name: "write_grants",
        seen: doctor::write_grants,
        fine: "nobody but its owner may do more than read a table or column",
        hint: "REVOKE it: every change goes through a function.",
    },
    Look {
        name: "envelopes",
        seen: doctor::envelopes,
        fine: "nobody can read the tables with ciphertext",
        hint: "REVOKE the grant, DROP the policy, or take BYPASSRLS or pg_read_all_data from the \
             role. What it read is ciphertext: without the master key none of it opens.",
    },
    Look {
        name: "extension_functions",
        seen: doctor::extension_functions,
        fine: "every function has a fixed search_path, none is SECURITY DEFINER",
        hint: "Somebody altered it: DROP EXTENSION watchllm_keys CASCADE; CREATE EXTENSION \
             watchllm_keys; SELECT watchllm.install(); loses no row.",
    },
];

/// The vault's surroundings. `fine` is preceded by a number and followed by the names.
const SURROUNDINGS: &[Look] = &[
    Look {
        name: "superusers",
        seen: doctor::superusers,
        fine: "superusers can read the master key and open every key",
        hint: "",
    },
    Look {
        name: "bypassrls_roles",
        seen: doctor::bypassrls_roles,
        fine: "BYPASSRLS without being superuser, and no login",
        hint: "Row-level security is no wall for a role with BYPASSRLS: with a grant on a table it \
             reads the metadata and trail of every tenant (keys stay shut). ALTER ROLE … \
             NOBYPASSRLS, or NOLOGIN.",
    },
    Look {
        name: "replication_roles",
        seen: doctor::replication_roles,
        fine: "REPLICATION without being superuser, and no login",
        hint: "It streams every row and copies every file, ciphertext and keyring included if that \
             lies in the data directory. Keep it for standbys, with its own secret and pg_hba.conf \
             line, then accept it: SELECT watchllm.accept_finding(…).",
    },
    Look {
        name: "opening_roles",
        seen: doctor::opening_roles,
        fine: "may log in and open keys",
        hint: "REVOKE EXECUTE: rights come with the roles of the vault alone \
             (docs/security.md#roles).",
    },
    Look {
        name: "publications",
        seen: doctor::publications,
        fine: "publications send rows of the vault",
        hint: "Whoever subscribes gets ciphertext and the trail of every tenant. Publish the \
             tables that are meant instead of all, and of the vault at most the trail.",
    },
    Look {
        name: "silent_triggers",
        seen: doctor::triggers,
        fine: "triggers of the vault on the inbox and on tables, none is switched off",
        hint: "Keys are stored unmasked, or not at all, while it is off: ALTER TABLE … ENABLE \
             TRIGGER …, or for the inbox SELECT watchllm.install();",
    },
    Look {
        name: "createrole_roles",
        seen: doctor::createrole_roles,
        fine: "CREATEROLE without being superuser, harmless here",
        hint: "On PostgreSQL 15 a role with CREATEROLE can grant itself watchllm_service and open \
             every key. ALTER ROLE … NOCREATEROLE.",
    },
    Look {
        name: "predefined_roles",
        seen: doctor::predefined_roles,
        fine: "may reach all tables or the server's files, and no login",
        hint: "Members of pg_read_server_files, pg_write_server_files and \
             pg_execute_server_program can get at the master key; of pg_write_all_data and \
             pg_maintain can lock the audit trail, which stops every call; of pg_read_all_data \
             with BYPASSRLS can read ciphertext. REVOKE it.",
    },
    Look {
        name: "definer_functions",
        seen: doctor::definer_functions,
        fine: "SECURITY DEFINER functions of roles that may open keys, each with a fixed \
             search_path or for its owner alone",
        hint: "Its caller chooses what its names mean, and runs that with its owner's rights: it \
             can open every key. ALTER FUNCTION … SET search_path = pg_catalog, pg_temp, and \
             qualify its names.",
    },
    Look {
        name: "supabase_roles",
        seen: doctor::supabase_roles,
        fine: "Supabase's roles have what install() gives them",
        hint: "Run SELECT watchllm.install(); after the roles have come. REVOKE what anon has, and \
             what the others have too much.",
    },
    Look {
        name: "log_settings",
        seen: doctor::log_settings,
        fine: "nothing writes statements or parameters into the server log",
        hint: "Keys can stand in statements and parameters: set log_statement = none, \
             log_min_duration_statement = -1, log_parameter_max_length_on_error = 0 and so on in \
             postgresql.conf, then SELECT pg_reload_conf();",
    },
    Look {
        name: "log_overrides",
        seen: doctor::log_overrides,
        fine: "no role and no database has a setting of its own that does",
        hint: "ALTER ROLE … RESET, or ALTER DATABASE … RESET.",
    },
    Look {
        name: "trusted_claim_roles",
        seen: || {
            doctor::trusted_roles(
                &session::setting(c"watchllm_keys.trusted_claim_roles").unwrap_or_default(),
            )
        },
        fine: "trusted to bring JWT claims",
        hint: "Sessions of these roles say which tenant asks: each must exist, be no superuser and \
             have no rights of its own (NOINHERIT). Set watchllm_keys.trusted_claim_roles.",
    },
];

/// All of them.
pub(super) fn checks(owner: &Result<Owner, Error>, state: &State) -> Vec<Check> {
    let walls = WALLS.iter().map(|look| {
        let mut seen = (look.seen)();
        if seen.is_empty() {
            return not_looked_at(look.name, "there is nothing in schema watchllm");
        }
        // The days may all be there still, while the next one cannot be made.
        if look.name == "days_ahead"
            && let Some(problem) = &state.days_problem
        {
            seen.push(Seen { what: problem.clone(), wrong: true });
        }
        judged(look, seen, false)
    });
    let rights = RIGHTS.iter().map(|look| judged(look, (look.seen)(), false));
    let surroundings = SURROUNDINGS.iter().map(|look| judged(look, (look.seen)(), true));
    walls
        .chain(rights)
        .chain(surroundings)
        .chain([
            key_envelopes(owner),
            project_members(owner),
            adopted_tables(owner),
            adopted_rows(owner),
            trail_begins(owner),
        ])
        .collect()
}

/// Names what is wrong. If nothing is, says how many were looked at and, with `names`, which.
fn judged(look: &Look, seen: Vec<Seen>, names: bool) -> Check {
    let wrong: Vec<&str> =
        seen.iter().filter(|seen| seen.wrong).map(|seen| seen.what.as_str()).collect();
    check(look.name, (!wrong.is_empty()).then(|| (listed(&wrong), look.hint)), || {
        let all: Vec<&str> = seen.iter().map(|seen| seen.what.as_str()).collect();
        match (names, all.len()) {
            (false, count) => format!("{} ({count} looked at)", look.fine),
            (true, 0) => format!("{}: none", look.fine),
            (true, _) => format!("{}: {}", look.fine, listed(&all)),
        }
    })
}

/// A live key without an envelope is lost.
fn key_envelopes(owner: &Result<Owner, Error>) -> Check {
    let hint = "These keys do not open: rotate them, or restore their rows from a backup.";
    counted(
        "key_envelopes",
        owner,
        doctor::keys,
        "live keys, each with the envelope of its active version",
        hint,
    )
}

/// A member is kept by name: the next role of that name inherits it.
fn project_members(owner: &Result<Owner, Error>) -> Check {
    let hint = "The next role of that name would be a member: SELECT \
         watchllm.remove_project_member(project_id, role_name => …);";
    counted(
        "project_members",
        owner,
        doctor::members,
        "members by database role, each role exists",
        hint,
    )
}

/// An adopted table that is not followed any more: its projects and ours drift apart.
fn adopted_tables(owner: &Result<Owner, Error>) -> Check {
    let hint = "Our triggers are gone, or the table was renamed: SELECT \
         watchllm.adopt_projects('schema.table', …); again.";
    counted(
        "adopted_tables",
        owner,
        doctor::adopted,
        "adopted projects tables, each followed by our triggers",
        hint,
    )
}

/// Rows that a tool loaded past our triggers, or that were there before somebody switched them off.
fn adopted_rows(owner: &Result<Owner, Error>) -> Check {
    let hint = "They were changed past our triggers. Adopt the table again with adopt_projects(): \
         it takes the missing rows in. delete_project() ends what has no row any more.";
    counted(
        "adopted_rows",
        owner,
        doctor::drifted,
        "rows of adopted tables, each with its project",
        hint,
    )
}

/// A trail that lost its rows begins again at 1, and its chain looks whole.
fn trail_begins(owner: &Result<Owner, Error>) -> Check {
    const NAME: &str = "trail";
    let owner = match owner {
        Ok(owner) => *owner,
        Err(error) => return not_looked_at(NAME, error.message()),
    };
    let seen = doctor::trail(owner);
    let hint = "Rows are missing from its beginning or its end: find out who removed them, and \
         restore them from a backup or your exports.";
    let wrong = seen.iter().find(|seen| seen.wrong).map(|seen| (seen.what.clone(), hint));
    check(NAME, wrong, || {
        let last = seen.first().map_or("the trail is empty", |seen| seen.what.as_str());
        format!("{last}, and has a row for each committed change")
    })
}

/// A count of our tables, where they are there.
fn counted(
    name: &'static str,
    owner: &Result<Owner, Error>,
    count: fn(Owner) -> RowCount,
    fine: &str,
    hint: &'static str,
) -> Check {
    let owner = match owner {
        Ok(owner) => *owner,
        Err(error) => return not_looked_at(name, error.message()),
    };
    let found = count(owner);
    let wrong = (found.wrong > 0).then(|| {
        let more = if found.wrong as usize > found.sample.len() { " …" } else { "" };
        (format!("{} of {}: {}{more}", found.wrong, found.all, found.sample.join(", ")), hint)
    });
    check(name, wrong, || format!("{} {fine}", found.all))
}
