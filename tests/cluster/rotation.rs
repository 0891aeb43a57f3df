//! Faults of rotation: keys that grow old unnoticed, dates that survive a rotation or rollback, an
//! alert that comes twice or never. Also a tenant who reads or changes others' keys. A superuser's
//! UPDATE makes a key old, so the test need not wait 60 days.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::incidents::heard;
use crate::keys::{code, decrypt, one, rows};
use crate::roles::login;
use crate::writer::Vault;

fn vault() -> (Vault, Client) {
    let vault = Vault::with("");
    let c = vault.connect();
    (vault, c)
}

/// Gives the active version this age.
fn age(c: &mut Client, id: &str, age: &str) {
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_records SET active_version_created_at = now() - interval '{age}' WHERE id = '{id}'"
        ),
    );
}

fn status(c: &mut Client, id: &str) -> String {
    one(
        c,
        &format!(
            "SELECT security_status, rotation_required FROM watchllm.provider_key_security_summary WHERE id = '{id}'"
        ),
    )
}

fn reason(c: &mut Client, id: &str) -> String {
    one(
        c,
        &format!(
            "SELECT rotation_required, reason FROM watchllm.check_key_rotation_requirements() WHERE provider_key_id = '{id}'"
        ),
    )
}

fn update(id: &str, what: &str) -> String {
    format!("SELECT watchllm.update_provider_key('{id}', {what})")
}

#[test]
fn a_key_is_secure_then_to_be_rotated_soon_then_now() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let id = &vault.key("plainly-fake").to_string();
    assert_eq!((&*status(c, id), &*reason(c, id)), ("Secure|f", ""));
    for (old, expected, why) in [
        ("59 days 23:59", "Secure|f", ""),
        ("60 days", "Rotation Soon|f", "f|Rotation soon"),
        ("89 days 23:59", "Rotation Soon|f", "f|Rotation soon"),
        ("90 days", "Rotation Required|t", "t|Rotation required by age"),
    ] {
        age(c, id, old);
        assert_eq!((&*status(c, id), &*reason(c, id)), (expected, why), "{old}");
    }
    // the key's own interval: two thirds of it, then all of it
    one(c, &update(id, "rotation_interval => '30 days'"));
    for (old, expected) in [
        ("19 days 23:59", "Secure|f"),
        ("20 days", "Rotation Soon|f"),
        ("30 days", "Rotation Required|t"),
    ] {
        age(c, id, old);
        one(c, &update(id, "rotation_interval => '30 days'")); // the date follows the version
        assert_eq!(status(c, id), expected, "{old}");
    }
    // the settings: the key's come before the project's, and those before the database's
    one(c, &update(id, "rotation_interval => '0'"));
    assert_eq!(status(c, id), "Secure|f");
    one(c, "SELECT watchllm.set_setting('rotation_warn_after', '30d')");
    assert_eq!(status(c, id), "Rotation Soon|f");
    one(
        c,
        &format!(
            "SELECT watchllm.set_setting('rotation_warn_after', '31d', provider_key_id => '{id}')"
        ),
    );
    assert_eq!(status(c, id), "Secure|f");
    let set = |value: &str, scope: &str| {
        format!("SELECT watchllm.set_setting('rotation_required_after', '{value}'{scope})")
    };
    one(c, &set("29d", ""));
    assert_eq!(status(c, id), "Rotation Required|t");
    one(c, &set("31d", &format!(", '{}'", vault.project)));
    assert_eq!(status(c, id), "Secure|f");
    one(c, &set("28d", &format!(", provider_key_id => '{id}'")));
    assert_eq!(status(c, id), "Rotation Required|t");
    // a rotation ends it
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'plainly-fake-too')"));
    assert_eq!(status(c, id), "Secure|f");
    // a date, and a leak
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_records SET rotation_required_at = now() WHERE id = '{id}'"
        ),
    );
    assert_eq!(
        (&*status(c, id), &*reason(c, id)),
        ("Rotation Required|t", "t|Rotation required by date")
    );
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'plainly-fake-3')"));
    assert_eq!(status(c, id), "Secure|f");
    one(c, "SELECT * FROM watchllm.report_leaked_key('plainly-fake-3', 'a scanner')");
    assert_eq!((&*status(c, id), &*reason(c, id)), ("Rotation Required|t", "t|Compromised"));
    one(c, &format!("SELECT watchllm.delete_provider_key('{id}')"));
    assert_eq!((&*status(c, id), &*reason(c, id)), ("", ""));
}

#[test]
fn a_date_follows_the_version_that_is_in_use() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let id = &vault.key("plainly-fake").to_string();
    let due = format!(
        "SELECT rotation_interval, rotation_required_at = active_version_created_at + rotation_interval
        FROM watchllm.provider_key_records WHERE id = '{id}'"
    );
    assert_eq!(one(c, &due), "-|-");
    one(c, &update(id, "rotation_interval => '1 mon'"));
    assert_eq!(one(c, &due), "1 mon|t");
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions SET created_at = now() - interval '9 days' WHERE provider_key_id = '{id}'"
        ),
    );
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'plainly-fake-too')"));
    assert_eq!(one(c, &due), "1 mon|t");
    one(c, &format!("SELECT watchllm.rollback_provider_key('{id}')"));
    assert_eq!(one(c, &due), "1 mon|t");
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT days_old FROM watchllm.provider_key_security_summary WHERE id = '{id}'"
            )
        ),
        "9"
    );
    one(c, &update(id, "name => 'kept'"));
    assert_eq!(one(c, &due), "1 mon|t");
    one(c, &update(id, "rotation_interval => '0'"));
    assert_eq!(one(c, &due), "-|-");
}

#[test]
fn only_ones_own_keys_are_changed_and_only_to_what_makes_sense() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let [id, named] = &[(); 2].map(|()| vault.key("plainly-fake").to_string());
    one(c, &update(named, "'taken', 7"));
    let shown = format!(
        "SELECT name, priority, rotation_interval FROM watchllm.provider_key_records WHERE id = '{id}'"
    );
    let before = one(c, &shown);
    let key = format!("'sk-proj-{}'", "Ab3".repeat(20));
    for (what, expected) in [
        ("'taken'", "23505"),
        (&*key, "22023"),
        ("''", "22023"),
        ("'x', 0", "22023"),
        ("rotation_interval => '-1 day'", "22023"),
        ("rotation_interval => '101 years'", "22023"),
    ] {
        assert_eq!(code(c, &update(id, what)), expected, "{what}");
        assert_eq!(one(c, &shown), before);
    }
    assert_eq!(code(c, "SELECT watchllm.update_provider_key(NULL, 'x')"), "22004");
    let tenant = login(c, "watchllm_tenant");
    let t = &mut vault.server.connect("postgres", &tenant);
    let all = "SELECT id FROM watchllm.provider_key_security_summary";
    assert_eq!(code(t, &update(id, "'mine'")), "02000");
    assert_eq!(rows(t, all), [""; 0]);
    assert_eq!(rows(t, "SELECT * FROM watchllm.check_key_rotation_requirements()"), [""; 0]);
    let own = one(c, "SELECT watchllm.create_project('own')");
    one(c, &format!("SELECT watchllm.add_project_member('{own}', role_name => '{tenant}')"));
    let mine =
        &one(t, &format!("SELECT watchllm.store_provider_key('{own}', 'openai', 'plainly-fake')"));
    one(t, &update(mine, "'mine', 3, '10 days'"));
    age(c, mine, "11 days");
    age(c, id, "99 days");
    assert_eq!(rows(t, all), [&**mine]);
    // '10 days' counts from the version as it was
    assert_eq!(reason(t, mine), "t|Rotation required by age");
    assert_eq!(reason(t, id), "");
    one(t, &update(mine, "'mine'")); // its own name is not taken
    let last = format!(
        "SELECT access_type, success FROM watchllm.access_logs WHERE provider_key_id = '{mine}' ORDER BY accessed_at DESC"
    );
    assert_eq!(one(t, &last), "update|t");
}

#[test]
fn counts_come_from_the_counters_and_leave_with_their_half_hour() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let id = &vault.key("plainly-fake").to_string();
    let counts = format!(
        "SELECT accesses_24h, failures_24h, failed_accesses, never_used, is_stale, days_since_last_use, has_anomaly,
            has_recent_anomaly, is_blocked FROM watchllm.provider_key_security_summary WHERE id = '{id}'"
    );
    assert_eq!(one(c, &counts), "0|0|0|t|f|-|f|f|f");
    one(c, &decrypt(id));
    let began = Instant::now();
    while one(c, &counts) != "1|0|0|f|f|0|f|f|f" {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", one(c, &counts));
        thread::sleep(Duration::from_millis(20));
    }
    // element n is the half hour (n - 1) * 30 minutes before the newest one, which lies some time
    // back
    let usage = |ago: &str| {
        format!(
            "UPDATE watchllm.provider_key_usage SET accesses = ARRAY(SELECT 2 ^ n % 1000 FROM generate_series(0, 47) n),
                failures = array_fill(1, ARRAY[48]), failure_count = 99, blocked_at = now(), last_used_at = now() - interval '31 days',
                access_anomaly_detected_at = now() - interval '25 hours',
                bucket_start = date_bin('30 minutes', now(), '2000-01-01Z') - interval '{ago}' WHERE provider_key_id = '{id}'"
        )
    };
    for (ago, accesses, failures) in [
        ("0", "SELECT sum((2 ^ n)::bigint % 1000) FROM generate_series(0, 47) n", 48),
        ("23:30", "SELECT 1", 1),
        ("24:00", "SELECT 0", 0),
        ("300 days", "SELECT 0", 0),
    ] {
        one(c, &usage(ago).replace("2 ^ n % 1000", "(2 ^ n)::bigint % 1000"));
        let accesses = one(c, accesses);
        assert_eq!(one(c, &counts), format!("{accesses}|{failures}|99|f|t|31|t|f|t"), "{ago}");
    }
    assert_eq!(reason(c, id), "f|Stale");
    let old = &vault.key("plainly-fake-2").to_string();
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_records SET created_at = now() - interval '31 days' WHERE id = '{old}'"
        ),
    );
    assert_eq!(reason(c, old), "f|Never used");
}

/// Incidents of a key's rotation: severity, stage, version.
fn alerts(c: &mut Client, id: &str) -> Vec<String> {
    rows(
        c,
        &format!(
            "SELECT severity, details->>'stage', details->>'key_version' FROM watchllm.security_incidents
         WHERE type = 'rotation_due' AND provider_key_id = '{id}' ORDER BY detected_at"
        ),
    )
}

/// Makes the writer check all keys again, by changing a setting.
fn look_again(c: &mut Client) {
    one(c, "SELECT watchllm.set_setting('max_accesses_per_day', '100000')");
    thread::sleep(Duration::from_millis(2_500));
}

#[test]
fn an_alert_comes_once_per_stage_and_version() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let [id, off, gone, young] = &[(); 4].map(|()| vault.key("plainly-fake").to_string());
    let mut listener = vault.connect();
    listener.batch_execute("LISTEN watchllm_security").unwrap();
    for id in [id, off, gone] {
        age(c, id, "61 days");
    }
    one(c, &format!("SELECT watchllm.set_provider_key_active('{off}', false)"));
    one(c, &format!("SELECT watchllm.delete_provider_key('{gone}')"));
    look_again(c);
    assert_eq!(alerts(c, id), ["low|Rotation Soon|1"]);
    let sent = format!(
        "SELECT last_rotation_alert_sent_at > now() - interval '1 minute' FROM watchllm.provider_keys WHERE id = '{id}'"
    );
    assert_eq!(one(c, &sent), "t");
    let told = heard(&mut listener, 1, Duration::from_secs(5));
    assert!(told.len() == 1 && told[0].contains("rotation_due"), "{told:?}");
    look_again(c);
    assert_eq!(alerts(c, id), ["low|Rotation Soon|1"]);
    age(c, id, "91 days");
    look_again(c);
    let both = ["low|Rotation Soon|1", "medium|Rotation Required|1"];
    assert_eq!(alerts(c, id), both);
    // a new writer knows which alerts were sent
    let pid = vault.server.writer_pid("postgres").unwrap();
    vault.server.kill_backend(pid, "TERM");
    one(c, &decrypt(id));
    look_again(c);
    assert_eq!(alerts(c, id), both);
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'plainly-fake-too')"));
    look_again(c);
    assert_eq!(alerts(c, id), both);
    one(
        c,
        &format!(
            "SELECT watchllm.set_setting('rotation_required_after', '1min', provider_key_id => '{id}')"
        ),
    );
    age(c, id, "61 seconds");
    look_again(c);
    assert_eq!(alerts(c, id)[2..], ["medium|Rotation Required|2"]);
    for id in [off, gone, young] {
        assert_eq!(alerts(c, id), [""; 0]);
    }
    let tenant = login(c, "watchllm_tenant");
    let t = &mut vault.server.connect("postgres", &tenant);
    assert_eq!(rows(t, "SELECT * FROM watchllm.open_incidents"), [""; 0]);
    // the writer warns by the setting too
    one(
        c,
        &format!(
            "SELECT watchllm.set_setting('rotation_warn_after', '1min', provider_key_id => '{young}')"
        ),
    );
    age(c, young, "61 seconds");
    look_again(c);
    assert_eq!(alerts(c, young), ["low|Rotation Soon|1"]);
}

#[test]
fn of_many_keys_that_are_due_at_once_none_is_forgotten() {
    let vault = Vault::with("watchllm_keys.incident_budget = 1000");
    let c = &mut vault.connect();
    let store = "SELECT count(watchllm.store_provider_key('{p}', 'openai', 'plainly-fake-' || n)) FROM generate_series(1, 600) n";
    assert_eq!(one(c, &store.replace("{p}", &vault.project.to_string())), "600");
    one(
        c,
        "UPDATE watchllm.provider_key_records SET active_version_created_at = now() - interval '99 days'
        WHERE get_byte(uuid_send(id), 15) % 2 = 0 OR get_byte(uuid_send(id), 0) < 128",
    );
    let due = one(
        c,
        "SELECT count(*) FROM watchllm.provider_key_security_summary WHERE rotation_required",
    );
    one(c, "SELECT watchllm.set_setting('max_accesses_per_day', '100000')");
    let found = "SELECT count(*), count(DISTINCT provider_key_id) FROM watchllm.security_incidents WHERE type = 'rotation_due'";
    let began = Instant::now();
    while one(c, found) != format!("{due}|{due}") {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of {due}", one(c, found));
        thread::sleep(Duration::from_millis(100));
    }
    look_again(c);
    assert_eq!(one(c, found), format!("{due}|{due}"));
}
