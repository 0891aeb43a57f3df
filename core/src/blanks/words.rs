//! SQL's own words, which hold no value. They stay readable outside of quotes. The list need not be
//! complete: a word that is missing is blanked.

/// Sorted.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "abort", "absolute", "action", "add", "admin", "after", "aggregate", "all", "alter",
    "always", "analyze", "and", "any", "array", "as", "asc", "at", "audit", "begin", "between",
    "bigint", "bind", "boolean", "both", "by", "bytea", "call", "case", "cast", "check", "close",
    "cluster", "coalesce", "collate", "column", "columns", "comment", "commit", "committed",
    "conflict", "constraint", "copy", "copy_from", "count", "create", "cross", "csv", "current",
    "current_role", "current_user", "cursor", "cycle", "data", "database", "date", "day", "ddl",
    "deallocate", "declare", "default", "deferrable", "delete", "delimiter", "desc", "describe",
    "discard", "distinct", "do", "domain", "double", "drop", "duration", "each", "else", "elsif",
    "enable", "encoding", "end", "escape", "except", "exception", "exclude", "execute", "exists",
    "explain", "extension", "extract", "false", "fetch", "filter", "first", "following", "for",
    "foreign", "format", "forward", "from", "full", "function", "functions", "generated", "grant",
    "greatest", "group", "header", "hold", "hour", "if", "ilike", "immutable", "in", "index",
    "inherit", "inner", "inout", "insert", "instead", "int", "integer", "intersect", "interval",
    "into", "is", "isolation", "join", "json", "jsonb", "key", "language", "last", "lateral",
    "left", "level", "like", "limit", "listen", "local", "lock", "logged", "loop", "match",
    "materialized", "merge", "message", "minute", "misc", "move", "ms", "names", "natural", "new",
    "next", "no", "none", "not", "nothing", "notice", "notify", "now", "null", "nullif", "nulls",
    "numeric", "object", "of", "off", "offset", "old", "on", "only", "open", "operator", "option",
    "or", "order", "ordinality", "others", "out", "outer", "over", "owner", "parallel",
    "parameters", "parse", "partition", "perform", "plan", "plpgsql", "policy", "portal",
    "precision", "prepare", "prepared", "preserve", "primary", "prior", "privileges", "procedure",
    "public", "query", "raise", "read", "real", "record", "references", "refresh", "regclass",
    "reindex", "relative", "release", "rename", "repeatable", "replace", "reset", "restrict",
    "return", "returning", "returns", "revoke", "right", "role", "rollback", "row", "rows",
    "rule", "savepoint", "schema", "scroll", "second", "security", "select", "sequence",
    "serializable", "session", "set", "setof", "show", "similar", "some", "sql", "stable",
    "statement", "statistics", "stdin", "stdout", "strict", "subscription", "substring",
    "symmetric", "system", "table", "tables", "tablesample", "temp", "temporary", "text", "then",
    "time", "timestamp", "timestamptz", "to", "trailing", "transaction", "trigger", "trim",
    "true", "truncate", "type", "unbounded", "union", "unique", "unlisten", "unlogged", "update",
    "user", "using", "uuid", "vacuum", "valid", "values", "varchar", "variadic", "verbose",
    "view", "volatile", "when", "where", "while", "window", "with", "within", "without", "work",
    "write", "year", "zone",
];

/// Whether a word is one of SQL's.
pub(super) fn is_sql(word: &[u8]) -> bool {
    let order = |sql: &&str| sql.bytes().cmp(word.iter().map(u8::to_ascii_lowercase));
    WORDS.binary_search_by(order).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{WORDS, is_sql};

    #[test]
    fn words_are_found_in_any_case() {
        assert!(WORDS.is_sorted() && is_sql(b"Select") && !is_sql(b"selec") && !is_sql(b""));
    }
}
