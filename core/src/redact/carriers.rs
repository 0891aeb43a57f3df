//! Carriers: the texts that keys are found in, as functions of a key and of a name for it. An
//! effect that only one writer has (escapes, colours, other scripts) comes once.

pub(crate) struct Carrier {
    pub name: &'static str,
    pub carry: fn(&str, &str) -> String,
    /// Nothing is escaped, and only blanks, quotes or signs stand right beside the key.
    pub plain: bool,
}

const fn plain(name: &'static str, carry: fn(&str, &str) -> String) -> Carrier {
    Carrier { name, carry, plain: true }
}

const fn other(name: &'static str, carry: fn(&str, &str) -> String) -> Carrier {
    Carrier { name, carry, plain: false }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json_in_json(key: &str, name: &str, depth: usize) -> String {
    (0..depth).fold(format!("{{{}:{}}}", json(name), json(key)), |inner, _| {
        format!("{{\"body\":{}}}", json(&inner))
    })
}

/// Everything but unreserved characters (RFC 3986 §2.3).
fn percent(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
        .replace('=', "&#x3D;")
        .replace('/', "&#x2F;")
}

/// Some writers of JSON escape `/`, `+` and `=` too.
fn careful_json(text: &str) -> String {
    json(text).replace('/', "\\/").replace('+', "\\u002B").replace('=', "\\u003d")
}

pub(crate) const CARRIERS: &[Carrier] = &[
    plain("nothing else", |k, n| if n == "value" { k.to_owned() } else { format!("{n} {k}") }),
    plain("a sentence", |k, n| format!("The {n} is {k}, please rotate it.")),
    plain("the end of a sentence", |k, n| format!("I leaked the {n} {k}.")),
    plain("brackets", |k, n| format!("{n} ({k}) [{k}] <{k}>")),
    plain("JSON", |k, n| format!("{{{}: {}, \"ok\": true}}", json(n), json(k))),
    plain("JSON array", |k, n| format!("[{}, {}, 1, null]", json(n), json(k))),
    other("JSON in JSON", |k, n| json_in_json(k, n, 1)),
    other("JSON in JSON in JSON", |k, n| json_in_json(k, n, 2)),
    other("JSON, deep", |k, n| json_in_json(k, n, 4)),
    other("JSON with escaped signs", |k, n| format!("{{{}:{}}}", json(n), careful_json(k))),
    plain("env", |k, n| format!("{}={k}\n", n.to_uppercase().replace(['.', '-'], "_"))),
    plain("env, quoted", |k, n| {
        format!("export {}_VALUE=\"{k}\"", n.to_uppercase().replace(['.', '-'], "_"))
    }),
    plain("dotenv file", |k, n| format!("A=1\nB=two\n{n}={k}\nC=3\n")),
    plain("YAML", |k, n| format!("{n}:\n  value: {k}\n  other: 1\n")),
    plain("YAML list", |k, n| format!("{n}:\n  - {k}\n")),
    plain("TOML", |k, n| format!("[{n}]\nvalue = '{k}'\n")),
    plain("INI", |k, n| format!("; settings\n[{n}]\nvalue={k}\r\nmore=1\r\n")),
    plain("XML", |k, n| format!("<entry name=\"{n}\"><value>{k}</value></entry>")),
    other("HTML", |k, n| format!("<td>{n}</td><td>&quot;{}&quot;</td>", html(k))),
    plain("HTML attribute", |k, n| format!("<input name=\"{n}\" value=\"{k}\">")),
    plain("header", |k, n| format!("POST / HTTP/1.1\r\nX-{n}: {k}\r\nAccept: */*\r\n\r\n")),
    plain("curl", |k, n| format!("curl -s -H 'X-{n}: {k}' https://api.example.com/v1")),
    plain("command line", |k, n| format!("tool --{n} {k} --verbose")),
    plain("command line with =", |k, n| format!("tool --{n}={k} --verbose")),
    plain("SQL", |k, n| format!("INSERT INTO settings (name, value) VALUES ('{n}', '{k}');")),
    plain("SQL update", |k, n| format!("UPDATE t SET {n} = '{k}' WHERE n = 1 -- {k}")),
    plain("server log", |k, n| {
        format!(
            "2026-01-31 12:34:56.789 UTC [4242] ERROR:  22P02: invalid {n}: \"{k}\" at character 8"
        )
    }),
    plain("traceback", |k, n| {
        format!(
            "Traceback (most recent call last):\n  File \"/app/main.py\", line 3, in f\n\
             ValueError: bad {n} {k}\n"
        )
    }),
    plain("Python", |k, n| format!("client = Client({}='{k}')", n.replace(['.', '-'], "_"))),
    plain("Python repr", |k, n| format!("{{'{n}': '{k}', 'n': None}}")),
    plain("JavaScript", |k, n| format!("const x = {{ '{n}': `{k}` }};")),
    plain("Go struct", |k, n| format!("&{{Name:{n} Value:{k} N:0}}")),
    plain("Rust debug", |k, n| format!("Config {{ name: \"{n}\", value: Some(\"{k}\") }}")),
    plain("CSV", |k, n| format!("id,name,value\n1,{n},{k}\n")),
    plain("CSV, quoted", |k, n| format!("\"1\",\"{n}\",\"{k}\"\r\n")),
    plain("TSV", |k, n| format!("1\t{n}\t{k}\t\\N\n")),
    plain("markdown", |k, n| format!("* **{n}**: `{k}`\n")),
    plain("markdown table", |k, n| format!("| {n} | {k} |\n|---|---|\n")),
    plain("logfmt", |k, n| format!("level=info msg=\"sent\" {n}={k} status=200")),
    other("colours", |k, n| format!("\u{1b}[36m{n}\u{1b}[0m=\u{1b}[35m{k}\u{1b}[0m done")),
    other("colours, escaped", |k, n| {
        format!("\\u001b[36m{n}\\u001b[0m \\u001b[31m{k}\\u001b[39m done")
    }),
    plain("CRLF", |k, n| format!("{n}\r\n{k}\r\n")),
    other("escaped line break", |k, n| format!("\"{n}\\n{k}\\nnext line\"")),
    other("escaped tab", |k, n| format!("{n}\\t{k}\\tnext")),
    other("Unicode escape", |k, n| format!("{n}\\u003d{k}\\u0026x=1")),
    other("percent-encoded form", |k, n| format!("a=1%26{n}%3D{}%26b=2", percent(k))),
    other("address", |k, n| format!("https://example.com/v1?n={n}&v={}&x=1", percent(k))),
    other("Chinese around", |k, n| format!("密钥{n}是{k}请尽快更换")),
    other("Japanese quotes", |k, n| format!("{n}「{k}」です")),
    other("curly quotes", |k, n| format!("the {n} “{k}” and ‘{k}’")),
    other("French quotes", |k, n| format!("{n} «{k}»…")),
    other("emoji around", |k, n| format!("{n} 🔑{k}🔑")),
    other("after an underscore", |k, n| format!("{n} _{k} ")),
    other("adjacent keys", |k, n| format!("{n} {k},{k};{k}|{k}")),
    other("a long line", |k, n| {
        format!("{} {n}={k} {}", "lorem ipsum dolor ".repeat(500), "sit amet 42 ".repeat(500))
    }),
    other("NUL and control characters", |k, n| format!("\u{1}{n}\0{k}\0\u{7f}")),
    other("zero-width space", |k, n| format!("{n}\u{200b}{k}\u{200b}")),
    other("no-break space", |k, n| format!("{n}\u{a0}{k}\u{a0}x")),
    other("full-width colon", |k, n| format!("{n}：{k}。")),
    other("C escapes", |k, n| format!("\"{n}\\x3d{k}\\x00\"")),
    other("quoted-printable", |k, n| format!("{n}=3D{k} soft")),
    plain("composite type", |k, n| format!("({n},\"{k}\",t)")),
    plain("array literal", |k, n| format!("{{{n},{k},NULL}}")),
    plain("parameters of a statement", |k, n| {
        format!("DETAIL:  parameters: $1 = '{n}', $2 = '{k}', $3 = NULL")
    }),
    plain("failing row", |k, n| format!("DETAIL:  Failing row contains (7, {n}, {k}, null).")),
    plain("unique violation", |k, n| format!("DETAIL:  Key ({n})=({k}) already exists.")),
];
