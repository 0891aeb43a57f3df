//! Our names, and where a text has one. Schema watchllm names us wherever it is spelled, also with
//! one slip. Without the schema, the names that are ours alone do. Names that others may use too
//! count only if the schema is on the search path.

use memchr::memchr3;
use std::ops::Range;

/// Stands for a letter and for anything within quotes. No kind of string begins with it.
pub(super) const LETTER: u8 = b'z';
/// The schema of everything that is ours.
pub const SCHEMA: &str = "watchllm";

/// Whatever takes a key. A longer name that contains one of these names us too: it is a wrapper's,
/// or a slip.
const TAKE_A_KEY: [&str; 5] = [
    "store_provider_key",
    "rotate_provider_key",
    "report_leaked_key",
    "provider_key_inbox",
    "find_keys",
];

/// Sorted. Nobody else has things of these names.
#[rustfmt::skip]
const OURS_ALONE: &[&str] = &[
    "acknowledge_incident", "acknowledge_incidents", "add_project_member", "adopt_projects",
    "block_provider_key", "check_key_rotation_requirements", "current_project_ids",
    "decrypt_provider_key", "decrypt_provider_key_by_name", "decrypt_provider_key_text",
    "decrypt_provider_keys", "delete_provider_key", "detect_dormant_key_used",
    "detect_mass_key_reading", "detect_new_address", "detect_new_role",
    "detect_potential_key_theft", "detect_rapid_automated_access", "detect_repeated_failures",
    "detect_unusual_key_access", "detect_unusually_high_access", "failed_access_attempts",
    "find_keys", "follow_projects", "import_watchllm_keys", "key_access_anomalies",
    "key_access_episodes", "key_access_history", "key_access_limits", "key_access_rates",
    "key_newcomers", "make_log_partition", "provider_key_access_logs", "provider_key_callers",
    "provider_key_inbox", "provider_key_records", "provider_key_security_summary",
    "provider_key_usage", "provider_key_versions", "redact_columns", "reload_keyring",
    "remove_project_member", "report_leaked_key", "resolve_provider_key", "rollback_provider_key",
    "rotate_provider_key", "scan_database_for_leaks", "scan_server_log", "scan_table_for_leaks",
    "set_provider_key_active", "store_from_inbox", "store_provider_key", "unblock_caller",
    "unblock_provider_key", "update_provider_key", "validate_provider_key",
];

/// Sorted. Others may have things of these names.
#[rustfmt::skip]
const PLAIN: &[&str] = &[
    "accept_finding", "accepted_findings", "access_logs", "adopted_tables", "audit_checkpoints",
    "audit_keys", "blocked_callers", "caller_peaks", "committed_changes", "counts_as",
    "create_project", "cut_off_sources", "database_identity", "delete_project",
    "effective_setting", "first_read", "incident_events", "incident_sources", "install",
    "install_history", "key_busiest", "key_flagged_times", "leak_marks", "lowest_setting",
    "master_keys", "open_incidents", "project_members", "projects", "provider_keys", "redact",
    "refuse_change", "security_check", "security_incidents", "set_setting", "settings", "status",
];

/// Sorted. Names of arguments and columns, which people may read in a blanked text.
#[rustfmt::skip]
const ARGUMENTS: &[&str] = &[
    "api_key", "block", "created_by", "description", "expected_version", "ip_address", "key_name",
    "name", "note", "owner", "priority", "project_id", "provider", "provider_key_id",
    "request_id", "role_name", "rotation_interval", "source", "subject", "text_column",
    "user_agent",
];

/// Whether a text names us. `on_path`: the schema is on the search path, so plain names do.
pub fn names_us(text: &[u8], on_path: bool) -> bool {
    next_mark(text, 0, text.len()).is_some() || on_path && has_plain_name(text)
}

/// Whether a word is the name of something of ours, or of an argument.
pub fn is_known(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(SCHEMA.as_bytes())
        || is_in(OURS_ALONE, word)
        || is_in(PLAIN, word)
        || is_in(ARGUMENTS, word)
}

/// Whether a byte belongs to a word of SQL.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Whether a byte belongs to one of our names. A blank does not, so that a blanked text names us as
/// it did.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() && byte != LETTER || byte == b'_' || byte >= 0x80
}

/// The next place in this part of the text that names us.
pub(super) fn next_mark(text: &[u8], from: usize, to: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(hit) = memchr3(b'_', b'w', b'W', &text[at..to]) {
        let hit = at + hit;
        let start = hit - text[at..hit].iter().rev().take_while(|byte| is_name(**byte)).count();
        let end = hit + text[hit..to].iter().take_while(|byte| is_name(**byte)).count();
        if let Some(mark) = mark_in(text, start..end) {
            return Some(mark.start..mark.end.min(to));
        }
        at = end;
    }
    None
}

fn mark_in(text: &[u8], word: Range<usize>) -> Option<Range<usize>> {
    let name = &text[word.clone()];
    if name.eq_ignore_ascii_case(SCHEMA.as_bytes()) {
        return Some(word);
    }
    if is_near(name, SCHEMA.as_bytes()) {
        let after = &text[word.end..];
        return match after {
            [b'.', ..] => Some(word.start..word.end + 1),
            [b'"', b'.', ..] => Some(word),
            _ => None,
        };
    }
    if !name.contains(&b'_') {
        return None;
    }
    if is_in(OURS_ALONE, name) {
        return Some(word);
    }
    TAKE_A_KEY.iter().find_map(|ours| {
        let same = |part: &[u8]| part.eq_ignore_ascii_case(ours.as_bytes());
        let at = word.start + name.windows(ours.len()).position(same)?;
        Some(at..at + ours.len())
    })
}

fn has_plain_name(text: &[u8]) -> bool {
    text.split(|byte| !is_name(*byte)).any(|word| is_in(PLAIN, word))
}

fn is_in(names: &[&str], word: &[u8]) -> bool {
    let order = |name: &&str| name.bytes().cmp(word.iter().map(u8::to_ascii_lowercase));
    names.binary_search_by(order).is_ok()
}

/// Whether a word is a name but for one slip: a letter left out, put in, changed, or two swapped.
fn is_near(word: &[u8], name: &[u8]) -> bool {
    let same = |a: &u8, b: &u8| a.eq_ignore_ascii_case(b);
    let first = word.iter().zip(name).take_while(|(a, b)| same(a, b)).count();
    let rest = |word_from: usize, name_from: usize| {
        matches!((word.get(word_from..), name.get(name_from..)), (Some(a), Some(b))
            if a.eq_ignore_ascii_case(b))
    };
    let swapped = || {
        let (a, b) = (word.get(first..first + 2), name.get(first..first + 2));
        matches!((a, b), (Some([a, b]), Some([c, d])) if same(a, d) && same(b, c))
            && rest(first + 2, first + 2)
    };
    rest(first, first + 1) || rest(first + 1, first) || rest(first + 1, first + 1) || swapped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_hold_no_blank() {
        for list in [OURS_ALONE, PLAIN, ARGUMENTS] {
            assert!(list.is_sorted(), "{list:?}");
            assert!(list.iter().all(|name| !name.contains('z') && !name.contains(' ')));
        }
    }

    #[test]
    fn a_text_that_names_us_is_known_wherever_it_does() {
        for text in [
            "SELECT watchllm.status()",
            "select WatchLLM . redact('x')",
            "SELECT \"watchllm\".\"redact\"('x')",
            "'watchllm'",
            "SELECT watchlm.store('x')",
            "SELECT wachllm.redact(",
            "SELECT watchlml.redact(",
            "SELECT watchllmm.redact(",
            "SELECT \"watchlm\".x(",
            "decrypt_provider_key(",
            "STORE_provider_KEY",
            "my_store_provider_keys",
            "provider_key_inbox",
            "_key_ find_keys",
            "zzwatchllmzz",
        ] {
            assert!(names_us(text.as_bytes(), false), "{text}");
        }
        for text in [
            "",
            "_",
            "w",
            "watchllm_keys.redact_server_log",
            "SET ROLE watchllm_admin",
            "SELECT watchlm FROM watchlog.t",
            "SELECT provider_key_id, store_provider_ke, redact(status) FROM provider_keys",
            "find keys",
        ] {
            assert!(!names_us(text.as_bytes(), false), "{text}");
        }
        assert!(names_us(b"SELECT redact('x')", true) && !names_us(b"SELECT red('x')", true));
    }
}
