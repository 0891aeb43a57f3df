//! Texts that a database keeps beside its tables: functions, views, comments, settings and more.
//! They are read as the caller, by constant statements. The objects are not run, only written out
//! by PostgreSQL's own functions. Each row holds the catalog, the object, its column, the words
//! before PostgreSQL's description of the object, and the text.

use super::oids::*;
use super::value;
use crate::error::Error;
use crate::postgres::{
    Failed, Row, Statement, StepMemory, attempt, attempt_or_why, each_in_schema, process, session,
};
use pgrx::pg_sys;
use std::time::Duration;

static FUNCTIONS: Written = Written::new(
    "SELECT p.tableoid, p.oid FROM pg_catalog.pg_proc p",
    "SELECT p.tableoid, p.oid, 0, '',
        pg_catalog.concat_ws(' ', p.prosrc, pg_catalog.pg_get_function_sqlbody(p.oid),
        pg_catalog.pg_get_function_arguments(p.oid), pg_catalog.array_to_string(p.proconfig, ' '))
     FROM pg_catalog.pg_proc p WHERE p.oid = ANY ($1)",
);

static VIEWS: Written = Written::new(
    "SELECT c.tableoid, c.oid FROM pg_catalog.pg_class c WHERE c.relkind IN ('v', 'm')",
    "SELECT c.tableoid, c.oid, 0, '', pg_catalog.pg_get_viewdef(c.oid)
     FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)",
);

static RULES: Written = Written::new(
    "SELECT r.tableoid, r.oid FROM pg_catalog.pg_rewrite r WHERE r.rulename <> '_RETURN'",
    "SELECT r.tableoid, r.oid, 0, '', pg_catalog.pg_get_ruledef(r.oid)
     FROM pg_catalog.pg_rewrite r WHERE r.oid = ANY ($1)",
);

static COMMENTS: Statement = Statement::new(
    "SELECT d.classoid, d.objoid, d.objsubid, 'comment on ', d.description
        FROM pg_catalog.pg_description d
     UNION ALL
     SELECT d.classoid, d.objoid, 0, 'comment on ', d.description FROM pg_catalog.pg_shdescription d
     UNION ALL
     SELECT l.classoid, l.objoid, l.objsubid, 'security label of ', l.label
         FROM pg_catalog.pg_seclabel l
     UNION ALL
     SELECT l.classoid, l.objoid, 0, 'security label of ', l.label FROM pg_catalog.pg_shseclabel l",
    &[],
);

static DEFAULTS: Written = Written::new(
    "SELECT d.tableoid, d.oid FROM pg_catalog.pg_attrdef d",
    "SELECT d.tableoid, d.oid, 0, '', pg_catalog.pg_get_expr(d.adbin, d.adrelid)
     FROM pg_catalog.pg_attrdef d WHERE d.oid = ANY ($1)",
);

static TYPE_DEFAULTS: Statement = Statement::new(
    "SELECT t.tableoid, t.oid, 0, 'default of ', t.typdefault FROM pg_catalog.pg_type t
     WHERE t.typdefault IS NOT NULL",
    &[],
);

static CONSTRAINTS: Written = Written::new(
    "SELECT c.tableoid, c.oid FROM pg_catalog.pg_constraint c WHERE c.contype IN ('c', 'x')",
    "SELECT c.tableoid, c.oid, 0, CASE WHEN c.contypid <> 0
            THEN pg_catalog.concat('type ', pg_catalog.format_type(c.contypid, NULL), ': ')
                ELSE '' END,
        pg_catalog.pg_get_constraintdef(c.oid)
     FROM pg_catalog.pg_constraint c WHERE c.oid = ANY ($1)",
);

static TRIGGERS: Written = Written::new(
    "SELECT t.tableoid, t.oid FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal",
    "SELECT t.tableoid, t.oid, 0, '', pg_catalog.pg_get_triggerdef(t.oid)
     FROM pg_catalog.pg_trigger t WHERE t.oid = ANY ($1)",
);

static POLICIES: Written = Written::new(
    "SELECT p.tableoid, p.oid FROM pg_catalog.pg_policy p",
    "SELECT p.tableoid, p.oid, 0, '',
        pg_catalog.concat_ws(' ', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
        pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
     FROM pg_catalog.pg_policy p WHERE p.oid = ANY ($1)",
);

static INDEXES: Written = Written::new(
    "SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, i.indexrelid
     FROM pg_catalog.pg_index i WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL",
    "SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, i.indexrelid, 0, '',
        pg_catalog.pg_get_indexdef(i.indexrelid)
     FROM pg_catalog.pg_index i WHERE i.indexrelid = ANY ($1)",
);

static STATISTICS_OBJECTS: Written = Written::new(
    "SELECT s.tableoid, s.oid FROM pg_catalog.pg_statistic_ext s WHERE s.stxexprs IS NOT NULL",
    "SELECT s.tableoid, s.oid, 0, '', pg_catalog.pg_get_statisticsobjdef(s.oid)
     FROM pg_catalog.pg_statistic_ext s WHERE s.oid = ANY ($1)",
);

static PUBLICATIONS: Written = Written::new(
    "SELECT p.tableoid, p.oid FROM pg_catalog.pg_publication_rel p WHERE p.prqual IS NOT NULL",
    "SELECT p.tableoid, p.oid, 0, '', pg_catalog.pg_get_expr(p.prqual, p.prrelid)
     FROM pg_catalog.pg_publication_rel p WHERE p.oid = ANY ($1)",
);

static ROLE_SETTINGS: Statement = Statement::new(
    "SELECT 0::pg_catalog.oid, 0::pg_catalog.oid, 0,
        pg_catalog.concat('setting ', pg_catalog.split_part(s.setting, '=', 1),
       ' of role ' || r.rolname, ' in database ' || d.datname), s.setting
     FROM (SELECT c.setdatabase, c.setrole, pg_catalog.unnest(c.setconfig) AS setting
           FROM pg_catalog.pg_db_role_setting c) s
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
        LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase",
    &[],
);

static SETTINGS: Statement = Statement::new(
    "SELECT 0::pg_catalog.oid, 0::pg_catalog.oid, 0, 'setting ' || s.name,
        pg_catalog.concat_ws(' ', s.setting, NULLIF(s.reset_val, s.setting))
     FROM pg_catalog.pg_settings s WHERE s.vartype = 'string'",
    &[],
);

static FOREIGN_OPTIONS: Statement = Statement::new(
    "SELECT w.tableoid, w.oid, 0, 'options of ', pg_catalog.array_to_string(w.fdwoptions, ' ')
     FROM pg_catalog.pg_foreign_data_wrapper w WHERE w.fdwoptions IS NOT NULL
     UNION ALL
     SELECT s.tableoid, s.oid, 0, 'options of ', pg_catalog.array_to_string(s.srvoptions, ' ')
     FROM pg_catalog.pg_foreign_server s WHERE s.srvoptions IS NOT NULL
     UNION ALL
     SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, t.ftrelid, 0, 'options of ',
        pg_catalog.array_to_string(t.ftoptions, ' ')
     FROM pg_catalog.pg_foreign_table t WHERE t.ftoptions IS NOT NULL
     UNION ALL
     SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, a.attrelid, a.attnum,
         'options of ',
        pg_catalog.array_to_string(a.attfdwoptions, ' ')
     FROM pg_catalog.pg_attribute a WHERE a.attfdwoptions IS NOT NULL
     UNION ALL
     SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass::pg_catalog.oid, m.srvid, 0,
        pg_catalog.concat('user mapping of ', m.usename, ' for '),
        pg_catalog.array_to_string(m.umoptions, ' ')
     FROM pg_catalog.pg_user_mappings m WHERE m.umoptions IS NOT NULL",
    &[],
);

static SUBSCRIPTIONS: Statement = Statement::new(
    "SELECT s.tableoid, s.oid, 0, 'connection of ', s.subconninfo
        FROM pg_catalog.pg_subscription s",
    &[],
);

/// Kinds of definitions that PostgreSQL writes out from a tree. Anybody may read them.
static TREES: [&Written; 10] = [
    &FUNCTIONS,
    &VIEWS,
    &RULES,
    &DEFAULTS,
    &CONSTRAINTS,
    &TRIGGERS,
    &POLICIES,
    &INDEXES,
    &STATISTICS_OBJECTS,
    &PUBLICATIONS,
];

/// Kinds that are stored as text.
static TEXTS_AS_STORED: [&Statement; 5] =
    [&COMMENTS, &TYPE_DEFAULTS, &ROLE_SETTINGS, &SETTINGS, &FOREIGN_OPTIONS];

static DESCRIBE: Statement =
    Statement::new("SELECT pg_catalog.pg_describe_object($1, $2, $3)", &[OID, OID, INT4]);

/// Whether the caller may read connection strings of subscriptions, whether there are any, and how
/// many user mappings hide their options from it.
static HIDDEN: Statement = Statement::new(
    "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'subconninfo', 'SELECT'),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription s),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_user_mappings m WHERE m.umoptions IS NULL
            AND NOT pg_catalog.has_table_privilege('pg_catalog.pg_user_mapping', 'SELECT'))",
    &[],
);

static CRON: Statement = Statement::new(
    "SELECT c.oid FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'cron' AND c.relname = 'job' AND c.relkind = 'r'",
    &[],
);

/// The schema of the extension's own function, whatever others have created under its name. Also
/// whether the caller may call it.
static STATISTICS: Statement = Statement::new(
    "SELECT n.nspname::pg_catalog.text, pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
     FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = e.tableoid AND d.refobjid = e.oid
            AND d.deptype = 'e'
        JOIN pg_catalog.pg_proc p ON d.classid = p.tableoid AND d.objid = p.oid
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE e.extname = 'pg_stat_statements' AND p.proname = 'pg_stat_statements'
         AND p.proargtypes[0] = 16
        AND p.pronargs = 1",
    &[],
);

/// Nobody else can have a function with this name and this argument in the schema.
const STATEMENT_TEXTS: &str =
    "SELECT pg_catalog.concat('statement of role ' || r.rolname, ' in database ' || d.datname),
        s.query
     FROM SCHEMA.pg_stat_statements(true) s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid
        LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid";

/// Objects whose definition PostgreSQL writes out. That fails for an object that is nested too
/// deeply or broken, and waits for one that somebody has locked. So it is done for a few at a time,
/// and one by one where that fails.
struct Written {
    /// The catalog and the oid of each.
    list: Statement,
    texts: Statement,
}

/// Objects written out at a time.
const AT_ONCE: usize = 64;
/// How long to wait for an object that somebody has locked.
const PATIENCE: Duration = Duration::from_millis(200);

impl Written {
    const fn new(list: &'static str, texts: &'static str) -> Written {
        Written { list: Statement::new(list, &[]), texts: Statement::new(texts, &[OIDS]) }
    }

    /// Calls `work` with each text. An object that cannot be written out is named to `passed_over`.
    fn each(
        &self,
        work: &mut dyn FnMut(&Defined, &str) -> Result<(), Error>,
        passed_over: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Error> {
        let memory = StepMemory::new();
        let objects: Vec<Object> =
            self.list.read_as_caller(&[], |row| (value(row, 1), value(row, 2)));
        for some in objects.chunks(AT_ONCE) {
            memory.run(|| match self.written(some) {
                Ok(texts) => texts.iter().try_for_each(|(defined, text)| work(defined, text)),
                Err(_) => some.chunks(1).try_for_each(|one| match self.written(one) {
                    Ok(texts) => texts.iter().try_for_each(|(defined, text)| work(defined, text)),
                    Err(failed) => {
                        one.iter().for_each(|one| passed_over(&name(*one), &failed.why()));
                        Ok(())
                    }
                }),
            })?;
        }
        Ok(())
    }

    /// The texts of these objects, or why one of them has none.
    fn written(&self, objects: &[Object]) -> Result<Vec<(Defined, String)>, Failed> {
        process::check_interrupts();
        let oids: Vec<pg_sys::Oid> = objects.iter().map(|(_, oid)| *oid).collect();
        let read = || Some(self.texts.read_as_caller(&[oids.into()], of_row));
        let texts = attempt_or_why(|| session::with_lock_timeout(PATIENCE, read))?;
        Ok(texts.into_iter().flatten().flatten().collect())
    }
}

/// The catalog and the oid of an object.
type Object = (pg_sys::Oid, pg_sys::Oid);

/// An object in words.
fn name((catalog, object): Object) -> String {
    Defined { catalog, object, column: 0, called: String::new() }.place()
}

/// The object that holds a text.
pub(crate) struct Defined {
    catalog: pg_sys::Oid,
    object: pg_sys::Oid,
    column: i32,
    called: String,
}

impl Defined {
    /// The place in words.
    pub(crate) fn place(&self) -> String {
        if self.catalog == pg_sys::InvalidOid {
            return self.called.clone();
        }
        let arguments = [self.catalog.into(), self.object.into(), self.column.into()];
        let described = attempt(|| {
            DESCRIBE.read_as_caller(&arguments, |row| row.get::<String>(1)).pop().flatten()
        });
        let described = described.unwrap_or_else(|| format!("object {}", self.object.to_u32()));
        format!("{}{described}", self.called)
    }
}

/// Calls `work` with every definition that the caller may read, and its text. Names to
/// `passed_over` what PostgreSQL cannot write out, and why.
pub(crate) fn each(
    mut work: impl FnMut(&Defined, &str) -> Result<(), Error>,
    mut passed_over: impl FnMut(&str, &str),
) -> Result<(), Error> {
    for kind in TREES {
        kind.each(&mut work, &mut passed_over)?;
    }
    let mut row = |row: &Row| match of_row(row) {
        Some((defined, text)) => work(&defined, &text),
        None => Ok(()),
    };
    for statement in TEXTS_AS_STORED {
        statement.each_as_caller(&mut row)?;
    }
    if !hidden().may_read_subscriptions {
        return Ok(());
    }
    SUBSCRIPTIONS.each_as_caller(&mut row)
}

/// An object and its text. None: it has none.
fn of_row(row: &Row) -> Option<(Defined, String)> {
    let text = row.get::<String>(5)?;
    let defined = Defined {
        catalog: value(row, 1),
        object: value(row, 2),
        column: value(row, 3),
        called: value(row, 4),
    };
    Some((defined, text))
}

/// What the caller may not read.
#[derive(Default)]
pub(crate) struct Hidden {
    may_read_subscriptions: bool,
    /// Connection strings of subscriptions.
    pub subscriptions: bool,
    /// Options of user mappings.
    pub mappings: bool,
}

pub(crate) fn hidden() -> Hidden {
    let of = |row: &Row| {
        let may_read_subscriptions = value::<bool>(row, 1);
        let subscriptions = !may_read_subscriptions && value::<i64>(row, 2) > 0;
        Hidden { may_read_subscriptions, subscriptions, mappings: value::<i64>(row, 3) > 0 }
    };
    HIDDEN.read_as_caller(&[], of).pop().unwrap_or_default()
}

/// pg_cron's table of jobs, or a table with its name.
pub(crate) fn cron_jobs() -> Option<pg_sys::Oid> {
    CRON.read_as_caller(&[], |row| row.get(1)).pop().flatten()
}

/// Whether there are statistics of statements, and in which schema. None inside: this caller may
/// not read them, or they are not active.
pub(crate) fn statistics() -> Option<Option<String>> {
    let found = STATISTICS
        .read_as_caller(&[], |row| (value::<String>(row, 1), value::<bool>(row, 2)))
        .pop();
    let preloaded = session::setting(c"shared_preload_libraries")
        .unwrap_or_default()
        .contains("pg_stat_statements");
    found.map(|(schema, allowed)| Some(schema).filter(|_| allowed && preloaded))
}

/// Calls `work` with the texts of statements that the caller may see. Answers whether others are
/// hidden.
pub(crate) fn each_statement(
    schema: &str,
    mut work: impl FnMut(&str, &str) -> Result<(), Error>,
) -> Result<bool, Error> {
    let mut hidden = false;
    each_in_schema(STATEMENT_TEXTS, schema, |row| {
        let text: String = row.get(2).unwrap_or_default();
        hidden |= text == "<insufficient privilege>";
        work(&row.get::<String>(1).unwrap_or_default(), &text)
    })?;
    Ok(hidden)
}
