// What a dashboard reads: WatchLLM's own query unchanged, and own rows only. No forbidden column
// can be read: no ciphertext, no fingerprint, not the database identity of callers. No filter,
// order or embedding helps.
import { PostgrestClient } from '@supabase/postgrest-js';
import { a, anonymous, assert, auditor, b, check, client, done, must, newKey, raw, refused, service, tenant, tenantToken, token, world } from './application.mjs';

const backend = service();
const ids = {};
for (const { sub, project } of [a, b]) {
  const store = (name) => backend.rpc('store_provider_key', { project_id: project, provider: 'openai', api_key: newKey(), name });
  ids[sub] = [must(await store('first')), must(await store('second'))];
  must(await backend.rpc('decrypt_provider_key', { provider_key_id: ids[sub][0] }));
  must(await backend.rpc('set_provider_key_active', { provider_key_id: ids[sub][1], is_active: false }));
}
const own = tenant(a.sub);

const ciphertext = ['envelope', 'encrypted_key', 'encryption_iv', 'fingerprint', 'canary', 'salt', 'api_key'];
const identity = ['session_role', 'effective_role', 'role_setting', 'client_addr', 'backend_pid', 'application_name', 'seq', 'txid', 'hash'];

await check('WatchLLM\'s dashboard query runs unchanged', async () => {
  const supabase = client(token({ role: 'anon' }), tenantToken(a.sub), {}, 'watchllm');
  const projectId = a.project;
  const { data, error } = await supabase
    .from('provider_keys')
    .select('id, provider, name, priority, created_at, last_used_at')
    .eq('project_id', projectId)
    .eq('is_active', true)
    .order('priority', { ascending: true });
  assert.equal(error, null);
  assert.deepEqual(data.map(({ id, provider, name, priority }) => ({ id, provider, name, priority })),
    [{ id: ids[a.sub][0], provider: 'openai', name: 'first', priority: 1 }]);
  assert.deepEqual(Object.keys(data[0]).sort(), ['created_at', 'id', 'last_used_at', 'name', 'priority', 'provider']);
});

await check('the same through .schema() of a client for public, and through postgrest-js alone', async () => {
  const viaSchema = must(await tenant(a.sub, {}, 'public').schema('watchllm').from('provider_keys').select('id').eq('is_active', true));
  assert.deepEqual(viaSchema, [{ id: ids[a.sub][0] }]);
  const alone = new PostgrestClient(world.url, { schema: 'watchllm', headers: { Authorization: `Bearer ${tenantToken(a.sub)}` } });
  assert.deepEqual(must(await alone.from('provider_keys').select('id').eq('is_active', true)), [{ id: ids[a.sub][0] }]);
  refused(await tenant(a.sub, {}, 'public').from('provider_keys').select('id'), 404, '42P01');
});

await check('the list of keys holds WatchLLM\'s columns, own rows, and nothing else', async () => {
  const rows = must(await own.from('provider_keys').select());
  assert.deepEqual(rows.map((row) => row.id).sort(), [...ids[a.sub]].sort());
  for (const row of rows) {
    assert.equal(row.project_id, a.project);
    assert.deepEqual(Object.keys(row).sort(), ['access_anomaly_detected_at', 'created_at', 'id', 'is_active', 'last_rotation_alert_sent_at',
      'last_used_at', 'name', 'priority', 'project_id', 'provider', 'rotation_required_at', 'updated_at']);
  }
  assert.deepEqual(must(await own.from('provider_keys').select().eq('project_id', b.project)), []);
  assert.deepEqual(must(await own.from('provider_keys').select().in('id', ids[b.sub])), []);
  const counted = await own.from('provider_keys').select('*', { count: 'exact', head: true }).or(`project_id.eq.${b.project},project_id.eq.${a.project}`);
  assert.equal(counted.count, ids[a.sub].length);
});

await check('the audit view holds own rows without the database identity of callers', async () => {
  const rows = must(await own.from('access_logs').select().order('accessed_at'));
  assert.ok(rows.length >= 4);
  for (const row of rows) {
    assert.equal(row.project_id, a.project);
    assert.deepEqual(Object.keys(row).sort(), ['access_type', 'accessed_at', 'attempt_count', 'claims_sub', 'claims_trusted', 'committed',
      'failure_reason', 'id', 'ip_address', 'key_version', 'project_id', 'provider', 'provider_key_id', 'request_id', 'success', 'user_agent']);
    assert.equal(row.committed, true);
  }
  assert.deepEqual(must(await own.from('access_logs').select().eq('project_id', b.project)), []);
  const history = must(await own.rpc('key_access_history', { provider_key_id: ids[a.sub][0] }));
  assert.deepEqual(history.map((row) => row.access_type), ['decrypt', 'store']);
  for (const row of history) assert.deepEqual([row.session_role, row.effective_role, row.client_addr, row.application_name], [null, null, null, null]);
  refused(await own.rpc('key_access_history', { provider_key_id: ids[b.sub][0] }), 400, '02000');
});

await check('the auditor reads every project and opens none', async () => {
  const rows = must(await auditor().from('access_logs').select('project_id').in('project_id', [a.project, b.project]));
  assert.deepEqual([...new Set(rows.map((row) => row.project_id))].sort(), [a.project, b.project].sort());
  assert.equal(must(await auditor().from('provider_keys').select('id').in('id', [...ids[a.sub], ...ids[b.sub]])).length, 4);
  refused(await auditor().rpc('decrypt_provider_key', { provider_key_id: ids[a.sub][0] }), 403, '42501');
});

await check('the backend lists keys of every project', async () => {
  const rows = must(await backend.from('provider_keys').select('id').in('project_id', [a.project, b.project]));
  assert.equal(rows.length, 4);
});

await check('nobody reads the tables of ciphertext and keys', async () => {
  for (const who of [own, backend, auditor()]) {
    for (const table of ['provider_key_versions', 'master_keys', 'audit_keys']) {
      refused(await who.from(table).select(), 403, '42501');
      refused(await who.from(table).select('*', { count: 'exact' }).limit(0), 403, '42501');
    }
  }
  for (const table of ['provider_key_versions', 'provider_keys', 'access_logs']) refused(await anonymous().from(table).select(), 401, '42501');
});

await check('no relation shows a tenant more than granted columns of its own rows', async () => {
  let readable = 0;
  for (const { relation, columns } of world.columns) {
    const all = await own.from(relation).select();
    if (all.error) refused(all, 403, '42501');
    else assert.ok(all.data.every((row) => !('project_id' in row) || row.project_id === a.project), relation);
    for (const column of columns) {
      const answer = await own.from(relation).select(column);
      const hidden = ciphertext.includes(column) || (identity.includes(column) && relation !== 'security_incidents');
      if (hidden) assert.ok(answer.error, `${relation}.${column} is readable`);
      if (answer.error) {
        refused(answer, 403, '42501');
        // nor by a filter, an order or a count
        refused(await own.from(relation).select(columns[0]).not(column, 'is', null), 403, '42501');
        refused(await own.from(relation).select(columns[0]).order(column), 403, '42501');
      } else {
        readable += 1;
        if (column === 'project_id') assert.ok(answer.data.every((row) => row.project_id === a.project), relation);
      }
    }
  }
  assert.ok(readable > 20, `${readable} columns`);
});

await check('no embedding shows more', async () => {
  for (const select of [
    'id, provider_key_versions(envelope)',
    'id, provider_key_versions(*)',
    'id, provider_key_versions!inner(version)',
    'id, projects(*, provider_key_records(*, provider_key_versions(envelope, fingerprint)))',
    'id, ...provider_key_versions(envelope)',
  ]) {
    for (const relation of ['provider_key_records', 'provider_keys', 'projects']) {
      const answer = await own.from(relation).select(select);
      // not joined at all (PGRST200), or refused
      assert.ok(answer.error && [400, 403].includes(answer.status), `${relation} ${select}: ${JSON.stringify(answer.data)}`);
      assert.ok(!JSON.stringify(answer.error).includes('\\\\x'), select);
    }
  }
  const embedded = await own.from('projects').select('id, provider_key_records(id, project_id)');
  const projects = must(embedded);
  assert.deepEqual(projects.map((project) => project.id), [a.project]);
  assert.ok(projects[0].provider_key_records.every((record) => record.project_id === a.project));
});

await check('nothing is written past the functions', async () => {
  // without last_used_at, which the writer sets a moment after a use
  const state = async () => must(await auditor().from('provider_keys').select('id, name, priority, is_active, updated_at')
    .in('project_id', [a.project, b.project]).order('id'));
  const before = await state();
  assert.equal(before.length, 4);
  const row = { project_id: a.project, provider: 'openai', name: 'smuggled' };
  for (const who of [own, backend]) {
    for (const relation of world.relations) {
      for (const attempt of [
        who.from(relation).insert(row),
        who.from(relation).upsert(row),
        who.from(relation).update({ name: 'changed', is_active: true }).eq('project_id', a.project),
        who.from(relation).delete().eq('project_id', a.project),
      ]) {
        const answer = await attempt;
        assert.ok(answer.error && answer.status >= 400, `${relation}: ${answer.status}`);
      }
    }
  }
  assert.deepEqual(await state(), before);
});

await check('the description of the API names no hidden column to a tenant', async () => {
  const openapi = JSON.parse((await raw('GET', '/', { bearer: tenantToken(a.sub) })).text);
  for (const table of ['provider_key_versions', 'master_keys', 'audit_keys']) assert.ok(!(table in openapi.definitions), table);
  assert.ok('provider_keys' in openapi.definitions);
});

done();
