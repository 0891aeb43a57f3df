//! A setting that a database, a project or a key can override: its name, its default, its allowed
//! values, and the narrowest scope it can be set in. `overrides` lists them. The server knows each
//! as `watchllm_keys.` and its name.

use std::ffi::CStr;

/// Before each name in postgresql.conf.
const PREFIX: &str = "watchllm_keys.";
/// Minutes of a day.
pub const DAY: i32 = 24 * 60;
/// An age of a hundred years is never reached.
pub const MAX_AGE: i32 = 36_525 * DAY;

/// Where a setting holds, the widest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// One value for the whole database.
    Database,
    /// A value for each project.
    Project,
    /// A value for each key.
    Key,
}

/// The fault of a value, and what the value should be.
pub type Wrong = (&'static str, &'static str);

/// What a value must be, and the default.
pub enum Form {
    /// A whole number.
    Count {
        /// Where nobody has set one.
        default: i32,
        /// The smallest that is allowed.
        least: i32,
        /// The largest that is allowed.
        most: i32,
    },
    /// A time: a whole number with its unit, d, h or min. The default is in minutes.
    Age {
        /// Minutes, where nobody has set one.
        default: i32,
    },
    /// Words that a function understands.
    Words {
        /// Where nobody has set one.
        default: &'static CStr,
        /// Says what is wrong with a value in a scope.
        check: fn(&str, Scope) -> Result<(), Wrong>,
    },
}

/// A row of the settings that can be overridden.
pub struct Setting {
    /// The server's name for it.
    pub guc: &'static CStr,
    /// What it is, in a sentence.
    pub says: &'static CStr,
    /// A second sentence.
    pub says_more: &'static CStr,
    /// What a value must be.
    pub form: Form,
    /// The narrowest scope that may have a value of its own.
    pub narrowest: Scope,
}

impl Setting {
    /// A whole number between `least` and `most`.
    pub const fn count(
        guc: &'static CStr,
        says: &'static CStr,
        default: i32,
        (least, most): (i32, i32),
        narrowest: Scope,
    ) -> Setting {
        let form = Form::Count { default, least, most };
        Setting { guc, says, says_more: overridden(narrowest), form, narrowest }
    }

    /// A time, whose default is in minutes.
    pub const fn age(
        guc: &'static CStr,
        says: &'static CStr,
        default: i32,
        narrowest: Scope,
    ) -> Setting {
        let says_more = overridden(narrowest);
        Setting { guc, says, says_more, form: Form::Age { default }, narrowest }
    }

    /// The name that people set it by.
    pub fn name(&self) -> &'static str {
        let name = self.guc.to_str().unwrap_or_default();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    /// The number that a value stands for: a count, or minutes. None if it is no number.
    pub fn number(&self, value: &str) -> Option<u32> {
        match self.form {
            Form::Count { .. } => value.parse().ok(),
            Form::Age { .. } => minutes(value),
            Form::Words { .. } => None,
        }
    }

    /// How a number is written as a value, so that `number` reads it again.
    pub fn written(&self, number: u32) -> String {
        match self.form {
            Form::Age { .. } => format!("{number}min"),
            Form::Count { .. } | Form::Words { .. } => number.to_string(),
        }
    }

    /// The default number. For words it is 0.
    pub const fn default_number(&self) -> u32 {
        match self.form {
            Form::Count { default, .. } | Form::Age { default } => default as u32,
            Form::Words { .. } => 0,
        }
    }

    /// Refuses a scope in which it would have no effect.
    pub fn check_scope(&self, scope: Scope) -> Result<(), Wrong> {
        let wrong = ("no setting of this scope", scopes(self.narrowest));
        if scope > self.narrowest { Err(wrong) } else { Ok(()) }
    }

    /// Refuses a value that it cannot have, or that would have no effect in this scope.
    pub fn check(&self, value: &str, scope: Scope) -> Result<(), Wrong> {
        self.check_scope(scope)?;
        match self.form {
            Form::Count { least, most, .. } => match self.number(value) {
                Some(count) if (least as u32..=most as u32).contains(&count) => Ok(()),
                _ => Err((
                    "the value is no count that this setting can have",
                    "A whole number within the setting's range.",
                )),
            },
            Form::Age { .. } if self.number(value).is_some() => Ok(()),
            Form::Age { .. } => {
                Err(("the value is no age", "A number with its unit: '90d', '36h' or '5min'."))
            }
            Form::Words { check, .. } => check(value, scope),
        }
    }
}

const fn overridden(narrowest: Scope) -> &'static CStr {
    match narrowest {
        Scope::Database => c"Can be overridden per database: watchllm.set_setting().",
        Scope::Project => c"Can be overridden per database or project: watchllm.set_setting().",
        Scope::Key => c"Can be overridden per database, project or key: watchllm.set_setting().",
    }
}

const fn scopes(narrowest: Scope) -> &'static str {
    match narrowest {
        Scope::Database => "It is of the whole database: set it without a project or key.",
        Scope::Project => "It is of a database or project: set it without a key.",
        Scope::Key => "It is of a database, a project or a key.",
    }
}

/// The minutes of an age. None if it is no age, or out of range.
fn minutes(age: &str) -> Option<u32> {
    let unit = age.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = age.split_at(unit);
    let minutes = match unit.trim() {
        "d" => DAY,
        "h" => 60,
        "min" => 1,
        _ => return None,
    };
    let minutes = number.parse::<i32>().ok()?.checked_mul(minutes)?;
    (1..=MAX_AGE).contains(&minutes).then_some(minutes as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Setting =
        Setting::count(c"watchllm_keys.count", c"A count.", 7, (1, 100_000), Scope::Project);
    const AGE: Setting = Setting::age(c"watchllm_keys.age", c"An age.", 30 * DAY, Scope::Key);

    #[test]
    fn a_count_out_of_its_range_is_refused() {
        for wrong in ["0", "-1", "", "100001", "1e3", "many", "NULL"] {
            assert!(COUNT.check(wrong, Scope::Project).is_err(), "{wrong}");
        }
        for right in ["1", "100", "100000"] {
            assert_eq!(COUNT.check(right, Scope::Database), Ok(()), "{right}");
        }
    }

    #[test]
    fn an_age_without_a_unit_or_of_no_time_is_refused() {
        for wrong in ["0d", "-1d", "30", "d", "30 months", "99999999999d", "30days"] {
            assert!(AGE.check(wrong, Scope::Key).is_err(), "{wrong}");
        }
        for (right, minutes) in [("30d", 43_200), ("36h", 2_160), ("5min", 5), ("1 d", 1_440)] {
            assert_eq!(AGE.number(right), Some(minutes));
        }
        assert_eq!(AGE.number(&AGE.written(1_441)), Some(1_441));
    }

    #[test]
    fn a_setting_has_the_servers_name_without_its_prefix_and_no_narrower_scope() {
        assert_eq!((COUNT.name(), COUNT.default_number()), ("count", 7));
        assert_eq!(COUNT.check("7", Scope::Key).unwrap_err().0, "no setting of this scope");
    }
}
