//! Runs the SQL blocks of a page as one psql script, as a superuser on a server of its own.
//! Variables carry over from block to block. ```sql runs; ```sql error=42501 must fail with exactly
//! this SQLSTATE, and the script continues; ```sql norun is not run. The output that a page prints
//! below a block is not compared.

use crate::page::{Block, Page};
use crate::re;
use crate::server::Server;

/// The database of a page is new. A page that creates the extension itself gets one without it.
const MAKES_IT: &str = r"(?im)^\s*CREATE\s+EXTENSION\s+(IF\s+NOT\s+EXISTS\s+)?watchllm_keys\b";
const VAULT: &str = "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();";

#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Runs,
    Fails(String),
    IsRead,
}

/// The kind of a block. None: it is no SQL. Err: its info holds an unknown word.
pub(crate) fn kind(block: &Block) -> Result<Option<Kind>, String> {
    let mut words = block.info.split_whitespace();
    if words.next() != Some("sql") {
        return Ok(None);
    }
    match (words.next(), words.next()) {
        (None, _) => Ok(Some(Kind::Runs)),
        (Some("norun"), None) => Ok(Some(Kind::IsRead)),
        (Some(word), None) if re(r"^error=[0-9A-Z]{5}$").is_match(word) => {
            Ok(Some(Kind::Fails(word[6..].into())))
        }
        _ => Err(format!("```{}: after sql nothing, norun or error=SQLSTATE", block.info)),
    }
}

/// A page's script, with the same line numbers as the page, and what each block must end with.
pub(crate) struct Script {
    pub(crate) text: String,
    /// First line, last line, the SQLSTATE it must fail with.
    expected: Vec<(usize, usize, String)>,
    /// Faults of the page that are known before anything runs.
    pub(crate) complaints: Vec<String>,
    pub(crate) is_empty: bool,
}

impl Script {
    pub(crate) fn of(page: &Page) -> Script {
        let mut lines = vec![String::new(); page.text.lines().count() + 1];
        let (mut expected, mut complaints, mut is_empty) = (vec![], vec![], true);
        for block in page.blocks() {
            let kind = match kind(&block) {
                Ok(kind) => kind.filter(|kind| *kind != Kind::IsRead),
                Err(complaint) => {
                    complaints.push(format!("{}:{}: {complaint}", page.path, block.line));
                    None
                }
            };
            if let (Some(_), false) = (&kind, block.is_closed) {
                complaints.push(format!("{}:{}: the block has no end", page.path, block.line));
            }
            let Some(kind) = kind.filter(|_| block.is_closed) else { continue };
            is_empty = false;
            let end = block.line + block.lines.len() + 1;
            for (at, line) in block.lines.iter().enumerate() {
                lines[block.line + at].clone_from(line);
            }
            if let Kind::Fails(code) = kind {
                lines[block.line - 1] = "\\set ON_ERROR_STOP 0".into();
                lines[end - 1] = "\\set ON_ERROR_STOP 1".into();
                expected.push((block.line, end, code));
            }
        }
        Script { text: lines.join("\n"), expected, complaints, is_empty }
    }

    /// The differences between what psql said and what the page promises.
    pub(crate) fn judge(&self, page: &Page, status: i32, stderr: &str) -> Vec<String> {
        let mut complaints = self.complaints.clone();
        let (mut met, mut stopped) = (vec![vec![]; self.expected.len()], false);
        for (line, code, what) in errors(stderr) {
            match self.expected.iter().position(|(first, last, _)| (*first..=*last).contains(&line))
            {
                Some(at) => met[at].push(code),
                None => {
                    stopped = true;
                    complaints.push(format!("{}:{line}: {code}: {what}", page.path));
                }
            }
        }
        for ((line, _, code), met) in self.expected.iter().zip(met) {
            // the lines after the one that stopped the script never ran
            if met != [code.clone()] && !stopped {
                complaints.push(format!(
                    "{}:{line}: must fail with {code}, once; met {met:?}",
                    page.path
                ));
            }
        }
        if status != 0 && complaints.is_empty() {
            complaints.push(format!("{}: psql ended with {status}: {stderr}", page.path));
        }
        complaints
    }
}

/// Errors that psql reports, by line. Those of the server have their SQLSTATE, psql's own are
/// "psql".
fn errors(stderr: &str) -> Vec<(usize, String, String)> {
    let of_server = re(r"^psql:<stdin>:(\d+): (?:ERROR|FATAL|PANIC):  (\w{5}): (.*)");
    let of_psql = re(r"^psql:<stdin>:(\d+): (?:error: |\\)(.*)");
    let of = |line: &str| {
        let found = of_server
            .captures(line)
            .map(|f| (f[1].to_string(), f[2].to_string(), f[3].to_string()));
        let own =
            || of_psql.captures(line).map(|f| (f[1].to_string(), "psql".into(), f[2].to_string()));
        found.or_else(own).map(|(at, code, what)| (at.parse().unwrap(), code, what))
    };
    stderr.lines().filter_map(of).collect()
}

/// Runs the blocks of a page. Answers their faults.
pub(crate) fn run(page: &Page) -> Vec<String> {
    let script = Script::of(page);
    if script.is_empty {
        return script.complaints;
    }
    let server = Server::init();
    server.preload_vault();
    server.start();
    server.psql("postgres", "CREATE DATABASE docs");
    if !re(MAKES_IT).is_match(&script.text) {
        server.psql("docs", VAULT);
    }
    let mut psql = server.client("psql");
    psql.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-v",
        "VERBOSITY=verbose",
        "-d",
        "docs",
        "-f",
        "-",
    ]);
    let output = crate::commands::run_with_input(&mut psql, &script.text);
    if std::env::var_os("WATCHLLM_SHOW").is_some() {
        println!("{}\n{}", page.path, crate::commands::text(&output.stdout));
    }
    script.judge(page, output.status.code().unwrap_or(-1), &crate::commands::text(&output.stderr))
}
