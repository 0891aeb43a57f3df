//! Settings that can be overridden, row by row: what the server knows of it, which values can be
//! set where, whose value holds. The test finds a row that nobody defined, checks or reads.

use postgres::Client;

use crate::keys::{code, one, rows};
use crate::writer::Vault;
use watchllm_core::overrides;
use watchllm_core::setting::{Form, MAX_AGE, Scope, Setting};

/// Two values that can be set and differ from the default and from each other. Also some that
/// cannot be set.
fn values(setting: &Setting) -> ([String; 2], Vec<String>) {
    match setting.form {
        Form::Count { least, most, .. } => {
            let wrong = vec![(i64::from(least) - 1).to_string(), (i64::from(most) + 1).to_string()];
            ([least.to_string(), most.to_string()], wrong)
        }
        Form::Age { .. } => (
            ["1min".into(), format!("{MAX_AGE}min")],
            vec!["0d".into(), "36526d".into(), "30".into()],
        ),
        Form::Words { .. } if setting.name() == "limit_basis" => {
            (["fixed".into(), "own_past".into()], vec!["fix".into(), String::new()])
        }
        Form::Words { .. } => {
            (["block".into(), "new_role=block".into()], vec!["blok".into(), String::new()])
        }
    }
}

/// As the server must know it: default, least, most, unit, and when it can change.
fn expected(setting: &Setting) -> String {
    match setting.form {
        Form::Count { default, least, most } => format!("{default}|{least}|{most}|-|sighup"),
        Form::Age { default } => format!("{default}|1|{MAX_AGE}|min|sighup"),
        Form::Words { default, .. } => format!("{}|-|-|-|sighup", default.to_str().unwrap()),
    }
}

fn set(setting: &Setting, value: &str, scope: &str) -> String {
    format!("SELECT watchllm.set_setting('{}', '{value}'{scope})", setting.name())
}

fn effective(c: &mut Client, setting: &Setting, scope: &str) -> String {
    one(c, &format!("SELECT watchllm.effective_setting('{}'{scope})", setting.name()))
}

#[test]
fn every_setting_is_the_servers_and_is_overridden_as_narrowly_as_its_row_says() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let key = vault.key("plainly-fake");
    let of_project = format!(", '{}'", vault.project);
    let of_key = format!(", provider_key_id => '{key}'");
    for setting in overrides::all() {
        let name = setting.name();
        let row = format!(
            "SELECT boot_val, min_val, max_val, unit, context FROM pg_settings WHERE name = 'watchllm_keys.{name}'"
        );
        assert_eq!(one(c, &row), expected(setting), "{name}");
        let server = one(c, &format!("SHOW watchllm_keys.{name}"));
        assert_eq!(effective(c, setting, &of_key), server, "{name}");
        let ([first, second], wrong) = values(setting);
        for wrong in wrong {
            assert_eq!(code(c, &set(setting, &wrong, "")), "22023", "{name} {wrong}");
        }
        let scopes = [(Scope::Database, ""), (Scope::Project, &of_project), (Scope::Key, &of_key)];
        for (scope, arguments) in scopes {
            if scope > setting.narrowest {
                assert_eq!(code(c, &set(setting, &first, arguments)), "22023", "{name} {scope:?}");
                let take_back = format!("SELECT watchllm.set_setting('{name}', NULL{arguments})");
                assert_eq!(code(c, &take_back), "22023", "{name} {scope:?}");
                continue;
            }
            for value in [&first, &second] {
                one(c, &set(setting, value, arguments));
                assert_eq!(effective(c, setting, arguments), *value, "{name} {scope:?}");
            }
            // a wider override does not reach a narrower one
            one(c, &set(setting, &first, arguments));
        }
        one(c, &format!("SELECT watchllm.set_setting('{name}', NULL)"));
        let narrowest = match setting.narrowest {
            Scope::Database => server.clone(),
            Scope::Project | Scope::Key => first.clone(),
        };
        assert_eq!(effective(c, setting, &of_key), narrowest, "{name}");
        assert_eq!(effective(c, setting, ""), server, "{name}");
    }
}

#[test]
fn the_lowest_of_a_setting_that_has_an_order_is_told() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let key = vault.key("plainly-fake");
    for setting in overrides::all() {
        let lowest = format!("SELECT watchllm.lowest_setting('{}')", setting.name());
        if matches!(setting.form, Form::Words { .. }) {
            assert_eq!(code(c, &lowest), "22023", "{}", setting.name());
            continue;
        }
        let server = one(c, &format!("SHOW watchllm_keys.{}", setting.name()));
        let server = setting.written(setting.number(&server).unwrap());
        assert_eq!(one(c, &lowest), server, "{}", setting.name());
        let ([low, high], _) = values(setting);
        let scope = match setting.narrowest {
            Scope::Database => String::new(),
            Scope::Project => format!(", '{}'", vault.project),
            Scope::Key => format!(", provider_key_id => '{key}'"),
        };
        one(c, &set(setting, &high, ""));
        one(c, &set(setting, &low, &scope));
        assert_eq!(one(c, &lowest), low, "{}", setting.name());
    }
}

#[test]
fn what_cannot_be_overridden_is_told_with_what_can_be() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let refused = crate::keys::refusal(c, "SELECT watchllm.set_setting('spin', '1')");
    let hint = refused.hint().unwrap_or_default();
    for setting in overrides::all() {
        assert!(hint.contains(setting.name()), "{hint}");
    }
    // exactly the settings whose row calls them overridable are so
    let told = "SELECT substr(name, 15) FROM pg_settings WHERE name LIKE 'watchllm\\_keys.%'
        AND extra_desc LIKE '%overridden%' ORDER BY 1";
    let mut numbers: Vec<&str> = overrides::all()
        .filter(|setting| !matches!(setting.form, Form::Words { .. }))
        .map(Setting::name)
        .collect();
    numbers.sort_unstable();
    assert_eq!(rows(c, told), numbers);
}
