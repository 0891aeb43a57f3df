//! The doctor: `security_check()` looks at everything the promises rest on and says what it saw, a row per check. It
//! repairs nothing, but calls the audit writer, so that the answer is of now. What each look reads: `store/doctor`.

use crate::acting_owner::{Owner, session};
use crate::audit::{self, State};
use crate::caller::{Caller, Context};
use crate::crypto::keyring::Keyring;
use crate::error::Error;
use crate::settings::{self, KeyringSource};
use crate::store::doctor::{self, Counted, Seen};
use crate::store::installed;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::path::Path;

/// Findings that a detail names; the rest are counted.
const MOST: usize = 20;

/// One row of the answer; ok is None for what could not be looked at.
struct Check {
    name: &'static str,
    ok: Option<bool>,
    detail: String,
    hint: Option<&'static str>,
}

/// A look at the catalog: the name of its check, what it counts, what is so when nothing is wrong, and what to do
/// otherwise.
struct Look {
    name: &'static str,
    seen: fn() -> Vec<Seen>,
    fine: &'static str,
    hint: &'static str,
}

/// What must be there for these to say anything.
const WALLS: &[Look] = &[
    Look {
        name: "row_security",
        seen: doctor::row_security,
        fine: "tables and partitions, row-level security is enabled and forced on each",
        hint: "Run SELECT watchllm.install(); it does so for the vault's own tables. Move tables of others out of the schema.",
    },
    Look {
        name: "append_only",
        seen: doctor::append_only,
        fine: "triggers refuse UPDATE, DELETE and TRUNCATE, also for superusers",
        hint: "Find out who changed it and when, compare the trail with your exports, then run SELECT watchllm.install();",
    },
    Look {
        name: "views",
        seen: doctor::views,
        fine: "views read with the rights of their readers",
        hint: "ALTER VIEW … SET (security_invoker = true), or run SELECT watchllm.install();",
    },
];

const RIGHTS: &[Look] = &[
    Look {
        name: "owner_role",
        seen: doctor::owner_role,
        fine: "facts of watchllm_owner are as they must be: no attributes, no memberships, and it owns every table and view",
        hint: "ALTER ROLE watchllm_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION; revoke its memberships; give what is in the schema back to it.",
    },
    Look {
        name: "public_grants",
        seen: doctor::public_grants,
        fine: "objects and policies, none for PUBLIC or anon",
        hint: "REVOKE it; the extension and install() grant nothing to either.",
    },
    Look {
        name: "write_grants",
        seen: doctor::write_grants,
        fine: "tables and columns, nobody but their owner may do more than read",
        hint: "REVOKE it: every change goes through a function.",
    },
    Look {
        name: "envelopes",
        seen: doctor::envelopes,
        fine: "tables with ciphertext, no grant, no policy, no reader",
        hint: "REVOKE the grant, DROP the policy, or take BYPASSRLS or pg_read_all_data from the role. What it read is ciphertext: without the master key none of it opens.",
    },
    Look {
        name: "extension_functions",
        seen: doctor::extension_functions,
        fine: "functions, each with a fixed search_path, none SECURITY DEFINER",
        hint: "Somebody altered it: DROP EXTENSION watchllm_keys CASCADE; CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); loses no row.",
    },
];

const SURROUNDINGS: &[Look] = &[
    Look {
        name: "superusers",
        seen: doctor::superusers,
        fine: "superusers: they can read the master key and open every key",
        hint: "",
    },
    Look {
        name: "bypassrls_roles",
        seen: doctor::bypassrls_roles,
        fine: "roles with BYPASSRLS that are no superusers",
        hint: "Row-level security is no wall for a role with BYPASSRLS: with a grant on a table it reads the metadata and trail of every tenant (keys stay shut). ALTER ROLE … NOBYPASSRLS, or NOLOGIN.",
    },
    Look {
        name: "createrole_roles",
        seen: doctor::createrole_roles,
        fine: "roles with CREATEROLE that are no superusers",
        hint: "On PostgreSQL 15 a role with CREATEROLE can grant itself watchllm_service and open every key. ALTER ROLE … NOCREATEROLE.",
    },
    Look {
        name: "predefined_roles",
        seen: doctor::predefined_roles,
        fine: "roles that may reach all tables or the server's files",
        hint: "Members of pg_read_server_files, pg_write_server_files and pg_execute_server_program can get at the master key; of pg_write_all_data and pg_maintain can lock the audit trail, which stops every call; of pg_read_all_data with BYPASSRLS can read ciphertext. REVOKE it.",
    },
    Look {
        name: "definer_functions",
        seen: doctor::definer_functions,
        fine: "SECURITY DEFINER functions of roles that may open keys, none open to others without a fixed search_path",
        hint: "Its caller chooses what its names mean, and runs that with its owner's rights: it can open every key. ALTER FUNCTION … SET search_path = pg_catalog, pg_temp, and qualify its names.",
    },
    Look {
        name: "supabase_roles",
        seen: doctor::supabase_roles,
        fine: "facts of Supabase's roles are as install() makes them",
        hint: "Run SELECT watchllm.install(); after the roles have come. REVOKE what anon has, and what the others have too much.",
    },
    Look {
        name: "log_settings",
        seen: doctor::log_settings,
        fine: "settings looked at, none writes statements or parameters into the server log",
        hint: "Keys can stand in statements and parameters: set log_statement = none, log_min_duration_statement = -1, log_parameter_max_length_on_error = 0 and so on in postgresql.conf, then SELECT pg_reload_conf();",
    },
    Look {
        name: "log_overrides",
        seen: doctor::log_overrides,
        fine: "settings of single roles or of this database that concern the log, none writes statements or parameters into it",
        hint: "ALTER ROLE … RESET, or ALTER DATABASE … RESET.",
    },
];

/// Checks everything that the vault's promises rest on: a row per check, `ok` false for what is wrong, with a hint, and
/// NULL for what could not be looked at. Works where the vault is not installed or the library not preloaded, and says
/// so. Starts the audit writer. For watchllm_admin and watchllm_auditor; 42501 for others.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn security_check() -> Result<
    TableIterator<
        'static,
        (name!(check_name, String), name!(ok, Option<bool>), name!(detail, String), name!(hint, Option<String>)),
    >,
    ErrorReport,
> {
    if !Caller::new(Context::default()).may_audit() {
        return Err(Error::NotAuthorized("check the vault").into());
    }
    let owner = installed::owner();
    // The writer and the keyring are seen at work; what is in their way is one of the rows.
    let ready = audit::ready().map(|_recorder| ());
    let state = audit::state();
    let mut checks = vec![preloaded(&state), installed_here(&owner), encoding()];
    checks.extend([master_key(&state, &ready), keyring_file(), audit_writer(&state, &ready), worker_slots()]);
    checks.extend(WALLS.iter().map(|look| looked_at(look, true)));
    checks.extend(RIGHTS.iter().chain(SURROUNDINGS).map(|look| looked_at(look, false)));
    checks.push(trusted_claim_roles());
    checks.push(key_envelopes(&owner));
    checks.push(project_members(&owner));
    Ok(TableIterator::new(checks.into_iter().map(|c| (c.name.to_owned(), c.ok, c.detail, c.hint.map(str::to_owned)))))
}

/// A check that is fine, or not.
fn check(name: &'static str, problem: Option<(String, &'static str)>, fine: impl FnOnce() -> String) -> Check {
    match problem {
        Some((detail, hint)) => Check { name, ok: Some(false), detail, hint: Some(hint) },
        None => Check { name, ok: Some(true), detail: fine(), hint: None },
    }
}

/// A check whose object is not there: another row says why.
fn not_looked_at(name: &'static str, why: impl Into<String>) -> Check {
    Check { name, ok: None, detail: format!("not looked at: {}", why.into()), hint: None }
}

/// An error as a problem.
fn problem(error: &Error) -> (String, &'static str) {
    (error.message(), error.hint().unwrap_or("See the server log."))
}

fn preloaded(state: &State) -> Check {
    let problem = (!state.preloaded).then(|| problem(&Error::NotPreloaded));
    check("preloaded", problem, || "the library is preloaded".into())
}

fn installed_here(owner: &Result<Owner, Error>) -> Check {
    check("installed", owner.as_ref().err().map(problem), || {
        format!("version {}, schema version {}", env!("CARGO_PKG_VERSION"), installed::SCHEMA_VERSION)
    })
}

fn encoding() -> Check {
    let problem = (!session::is_utf8_database()).then(|| problem(&Error::NotUtf8));
    check("encoding", problem, || "the database is UTF-8".into())
}

fn master_key(state: &State, ready: &Result<(), Error>) -> Check {
    const NAME: &str = "master_key";
    if let Err(error @ (Error::NoMasterKey(_) | Error::WrongMasterKey(_) | Error::UnknownMasterKey(_))) = ready {
        return check(NAME, Some(problem(error)), String::new);
    }
    if let Some(refused) = &state.keyring_problem {
        let hint = "Mend the file or command that the setting names, then: SELECT watchllm.reload_keyring();";
        return check(NAME, Some((refused.clone(), hint)), String::new);
    }
    match (state.active_version, ready) {
        (Some(active), _) => check(NAME, None, || {
            format!("version {active} is active; the keyring opens versions {}", listed(&state.versions))
        }),
        (None, Err(error)) => not_looked_at(NAME, error.message()),
        (None, Ok(())) => not_looked_at(NAME, "the audit writer loads it"),
    }
}

/// Owner and mode of the file are looked at anew: what was loaded at the last start says nothing of today.
fn keyring_file() -> Check {
    const NAME: &str = "keyring_file";
    let path = match settings::keyring_source() {
        KeyringSource::File(path) => path,
        KeyringSource::Command { .. } => {
            let note = "the keyring comes from a command, which nothing is known of: it should read a secret store, and its text is no place for a secret";
            return check(NAME, None, || note.into());
        }
        KeyringSource::Nothing => {
            let nothing = Error::NoMasterKey(
                "neither watchllm_keys.master_key_file nor watchllm_keys.master_key_command is set".into(),
            );
            return check(NAME, Some(problem(&nothing)), String::new);
        }
    };
    let Some(server) = session::server_uid() else { return not_looked_at(NAME, "the server's user is not known") };
    match Keyring::look_at_file(Path::new(&path), server) {
        Ok((owner, mode)) => check(NAME, None, || format!("owned by user {owner}, mode {mode:04o}")),
        Err(error) => {
            let hint = "chown it to the server's user and chmod 600; whoever could read it may have copied it.";
            check(NAME, Some((error.to_string(), hint)), String::new)
        }
    }
}

fn audit_writer(state: &State, ready: &Result<(), Error>) -> Check {
    const NAME: &str = "audit_writer";
    if !state.preloaded || session::is_standby() {
        return not_looked_at(NAME, if state.preloaded { "a hot standby has none" } else { "not preloaded" });
    }
    let hint = "See the server log, and max_worker_processes. Until it runs, every call fails closed.";
    let stuck = match (state.writer_state.as_str(), ready, &state.problem) {
        ("running", _, None) => None,
        ("running", _, Some(problem)) => Some(problem.clone()),
        (_, Err(error @ (Error::NotInstalled | Error::Restoring | Error::Refused(_) | Error::Parallel)), _) => {
            return not_looked_at(NAME, error.message());
        }
        (_, Err(error), _) => Some(error.message()),
        (other, Ok(()), _) => Some(format!("the audit writer is {other}")),
    };
    check(NAME, stuck.map(|stuck| (stuck, hint)), || {
        let last = state.writer_problem.as_deref().unwrap_or("none");
        format!("running, {} events waiting; the last problem: {last}", state.waiting)
    })
}

/// A writer that ends is replaced at once, if there is room.
fn worker_slots() -> Check {
    let (running, room) = session::worker_slots();
    let full = (running >= room).then(|| {
        let hint = "Raise max_worker_processes and restart, so that a slot stays free for each database with a vault.";
        (format!("all {room} background worker slots are taken: a writer that ends cannot be replaced"), hint)
    });
    check("worker_slots", full, || {
        format!("{} of {room} background worker slots are free (parallel queries use them too)", room - running)
    })
}

fn looked_at(look: &Look, wants_something: bool) -> Check {
    let seen = (look.seen)();
    if wants_something && seen.is_empty() {
        return not_looked_at(look.name, "there is nothing in schema watchllm");
    }
    judged(look.name, seen, look.fine, look.hint)
}

/// Names of a few, or how many of many.
fn judged(name: &'static str, seen: Vec<Seen>, fine: &str, hint: &'static str) -> Check {
    let wrong: Vec<&str> = seen.iter().filter(|seen| seen.wrong).map(|seen| seen.what.as_str()).collect();
    check(name, (!wrong.is_empty()).then(|| (listed(&wrong), hint)), || {
        let names: Vec<&str> = seen.iter().map(|seen| seen.what.as_str()).collect();
        let is_list = SURROUNDINGS.iter().any(|look| look.name == name) && !names.is_empty();
        let which = if is_list { format!(": {}", listed(&names)) } else { String::new() };
        format!("{} {fine}{which}", seen.len())
    })
}

fn trusted_claim_roles() -> Check {
    const NAME: &str = "trusted_claim_roles";
    let Some(setting) = session::setting(c"watchllm_keys.trusted_claim_roles") else {
        return check(NAME, None, || "no role is trusted to bring JWT claims".into());
    };
    let hint = "These sessions bring a tenant's claims: each must be a login role that exists, and has no rights of its own (NOINHERIT) and is no superuser.";
    let seen = doctor::trusted_roles(&setting);
    let names = listed(&seen.iter().map(|seen| seen.what.as_str()).collect::<Vec<_>>());
    let judged = judged(NAME, seen, "trusted to bring JWT claims", hint);
    if judged.ok == Some(true) { Check { detail: format!("{}: {names}", judged.detail), ..judged } } else { judged }
}

fn key_envelopes(owner: &Result<Owner, Error>) -> Check {
    let hint = "These keys do not open: rotate them, or restore their rows from a backup.";
    counted("key_envelopes", owner, doctor::keys, "live keys, each with the envelope of its active version", hint)
}

fn project_members(owner: &Result<Owner, Error>) -> Check {
    let hint = "The next role of that name would be a member: SELECT watchllm.remove_project_member(project_id, role_name => …);";
    counted("project_members", owner, doctor::members, "members by database role, each role exists", hint)
}

fn counted(
    name: &'static str,
    owner: &Result<Owner, Error>,
    count: fn(Owner) -> Counted,
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

fn listed(names: &[impl ToString]) -> String {
    let shown: Vec<String> = names.iter().take(MOST).map(ToString::to_string).collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
