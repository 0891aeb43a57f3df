//! Lints.

use crate::server::Server;

#[test]
fn an_operator_that_waits_in_the_schema_is_not_run_by_create_extension() {
    let server = Server::init();
    server.preload_vault();
    server.start();
    server.psql("postgres", "CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory");
    let prepared = server.psql_result_as(
        "postgres",
        "mallory",
        "CREATE SCHEMA watchllm;
         CREATE FUNCTION watchllm.trap(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN ALTER ROLE mallory SUPERUSER; RETURN $1 OPERATOR(pg_catalog.=) $2::oid; END';
         CREATE OPERATOR watchllm.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = watchllm.trap)",
    );
    assert_eq!(prepared.status, 0, "{}", prepared.stderr);
    let said = server.psql_result("postgres", "CREATE EXTENSION watchllm_keys");
    assert_eq!(
        server.psql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"),
        "f",
        "{}",
        said.stderr
    );
}
