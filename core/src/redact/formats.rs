//! The known formats of keys, read from `core/formats/leak_formats.json` when the tests run. The
//! corpora are made from them, independently of the rules. `formats_tests` ties both together.

use std::sync::LazyLock;

use serde_json::Value;

pub(crate) struct Format {
    pub provider: String,
    pub kind: String,
    /// A regular expression for the shape of such a key.
    pub shape: String,
    /// Its public prefix; empty where it has none.
    pub prefix: String,
    /// Names that make it a key. None if the shape alone says enough.
    pub context: Vec<String>,
}

/// All formats, in the order of the file.
pub(crate) static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let list = include_str!("../../formats/leak_formats.json");
    let list: Value = serde_json::from_str(list).expect("JSON");
    list.as_array().expect("a list").iter().map(format).collect()
});

fn format(entry: &Value) -> Format {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let names = entry["names"].as_array().into_iter().flatten();
    Format {
        provider: text("provider"),
        kind: text("kind"),
        shape: text("shape"),
        prefix: text("prefix"),
        context: names.map(|name| name.as_str().expect("a name").to_owned()).collect(),
    }
}
