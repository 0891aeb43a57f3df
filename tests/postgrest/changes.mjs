// A tenant changes its own keys through supabase-js. Others' keys answer, to the byte, as keys that
// do not exist. Conflicts, bad input, limits and calls by GET have the HTTP status of their kind.
import { a, assert, b, check, done, must, newKey, randomUUID, raw, refused, keyToken, service, tenant, tenantToken, trail } from './application.mjs';

const own = tenant(a.sub);
const other = tenant(b.sub);
const backend = service();

async function stored(client, project, name, provider = 'openai') {
  return must(await client.rpc('store_provider_key', { project_id: project, provider, api_key: newKey(), name }));
}

const active = async (id) => must(await backend.rpc('decrypt_provider_key', { provider_key_id: id }));

await check('a tenant stores, rotates, rolls back, switches and deletes its own key', async () => {
  const [first, second] = [newKey(), newKey()];
  const id = must(await own.rpc('store_provider_key', { project_id: a.project, provider: 'openai', api_key: first, name: 'life' }));
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.equal(must(await own.rpc('rotate_provider_key', { provider_key_id: id, new_api_key: second })), 2);
  assert.equal(await active(id), second);
  assert.equal(must(await own.rpc('rollback_provider_key', { provider_key_id: id })), 1);
  assert.equal(await active(id), first);
  for (const is_active of [false, true]) {
    const switched = await own.rpc('set_provider_key_active', { provider_key_id: id, is_active });
    assert.deepEqual([switched.status, switched.error], [204, null]);
    if (!is_active) refused(await backend.rpc('decrypt_provider_key', { provider_key_id: id }), 400, '42000');
  }
  const deleted = await own.rpc('delete_provider_key', { provider_key_id: id });
  assert.deepEqual([deleted.status, deleted.error], [204, null]);
  refused(await backend.rpc('decrypt_provider_key', { provider_key_id: id }), 400, '02000');
});

await check('each change of a tenant stands in the trail under its sub', async () => {
  const marked = tenant(a.sub, { 'x-request-id': `changes-${a.sub}` });
  const id = await stored(marked, a.project, 'recorded');
  must(await marked.rpc('rotate_provider_key', { provider_key_id: id, new_api_key: newKey() }));
  must(await marked.rpc('rollback_provider_key', { provider_key_id: id }));
  must(await marked.rpc('set_provider_key_active', { provider_key_id: id, is_active: false }));
  must(await marked.rpc('set_provider_key_active', { provider_key_id: id, is_active: true }));
  must(await marked.rpc('delete_provider_key', { provider_key_id: id }));
  const rows = await trail(`changes-${a.sub}`);
  assert.deepEqual(rows.map((row) => row.access_type), ['store', 'rotate', 'rollback', 'deactivate', 'activate', 'delete']);
  for (const row of rows) {
    assert.deepEqual(
      [row.success, row.project_id, row.provider_key_id, row.claims_sub, row.claims_trusted, row.session_role, row.effective_role],
      [true, a.project, id, a.sub, true, 'authenticator', 'authenticated'],
    );
  }
});

await check('what is another\'s answers exactly as what does not exist', async () => {
  const id = await stored(own, a.project, 'taken');
  const answers = [];
  for (const [project, key] of [[a.project, id], [randomUUID(), randomUUID()]]) {
    const calls = [
      ['store_provider_key', { project_id: project, provider: 'openai', api_key: newKey(), name: 'taken' }],
      ['store_provider_key', { project_id: project, provider: 'NOT A SLUG', api_key: newKey() }],
      ['rotate_provider_key', { provider_key_id: key, new_api_key: newKey() }],
      ['rotate_provider_key', { provider_key_id: key, new_api_key: newKey(), expected_version: 7 }],
      ['rollback_provider_key', { provider_key_id: key }],
      ['rollback_provider_key', { provider_key_id: key, to_version: 9 }],
      ['set_provider_key_active', { provider_key_id: key, is_active: false }],
      ['delete_provider_key', { provider_key_id: key }],
      ['key_access_history', { provider_key_id: key }],
    ];
    const said = [];
    for (const [name, args] of calls) said.push([name, refused(await other.rpc(name, args), 400, '02000')]);
    // by hand: every byte of the body and every header but the date
    const bytes = await raw('POST', '/rpc/delete_provider_key', { bearer: tenantToken(b.sub), body: { provider_key_id: key } });
    said.push([bytes.status, bytes.text, [...bytes.headers].filter(([name]) => name !== 'date')]);
    answers.push(said);
  }
  assert.deepEqual(answers[0], answers[1]);
  assert.equal(must(await own.from('provider_keys').select('id, is_active').eq('id', id).single()).is_active, true);
  must(await own.rpc('delete_provider_key', { provider_key_id: id }));
});

await check('the backend stores and rotates for any project', async () => {
  for (const { project } of [a, b]) {
    const id = await stored(backend, project, 'by the backend');
    assert.equal(must(await backend.rpc('rotate_provider_key', { provider_key_id: id, new_api_key: newKey(), expected_version: 1 })), 2);
    must(await backend.rpc('delete_provider_key', { provider_key_id: id }));
  }
});

await check('a conflict is 409', async () => {
  const id = await stored(own, a.project, 'conflict');
  must(await own.rpc('rotate_provider_key', { provider_key_id: id, new_api_key: newKey(), expected_version: 1 }));
  refused(await own.rpc('rotate_provider_key', { provider_key_id: id, new_api_key: newKey(), expected_version: 1 }), 409, '23505');
  refused(await own.rpc('store_provider_key', { project_id: a.project, provider: 'openai', api_key: newKey(), name: 'conflict' }), 409, '23505');
  must(await own.rpc('delete_provider_key', { provider_key_id: id }));
});

await check('bad input is 400, and says nothing of the key', async () => {
  const key = newKey();
  const bad = [
    ['22023', { project_id: a.project, provider: 'NOT A SLUG', api_key: key }],
    ['22023', { project_id: a.project, provider: 'openai', api_key: `${key} ${key}` }],
    ['22023', { project_id: a.project, provider: 'openai', api_key: key, name: key }],
    ['22023', { project_id: a.project, provider: 'openai', api_key: key, priority: 0 }],
    ['22004', { project_id: a.project, provider: 'openai', api_key: null }],
    ['22004', { project_id: null, provider: 'openai', api_key: key }],
    ['22P02', { project_id: 'not a uuid', provider: 'openai', api_key: key }],
  ];
  for (const [code, args] of bad) {
    const { error } = refused(await own.rpc('store_provider_key', args), 400, code);
    assert.ok(!JSON.stringify(error).includes(key.slice(8)), JSON.stringify(error));
  }
});

await check('a function or argument that is not there is 404, and says nothing of the key', async () => {
  const key = newKey();
  for (const [name, args] of [
    ['store_provider_key', { project_id: a.project, api_key: key }],
    ['store_provider_key', { project_id: a.project, provider: 'openai', api_key: key, sub: b.sub }],
    ['no_such_function', { api_key: key }],
  ]) {
    const { error } = refused(await own.rpc(name, args), 404, 'PGRST202');
    assert.ok(!JSON.stringify(error).includes(key), JSON.stringify(error));
  }
});

await check('over a limit is 400', async () => {
  const ids = [];
  for (let i = 0; i < 3; i += 1) ids.push(await stored(own, a.project, `limit ${i}`, 'groq'));
  refused(await own.rpc('store_provider_key', { project_id: a.project, provider: 'groq', api_key: newKey() }), 400, '23514');
  for (const id of ids) must(await own.rpc('delete_provider_key', { provider_key_id: id }));
  const many = Array.from({ length: 1001 }, () => randomUUID());
  refused(await backend.rpc('decrypt_provider_keys', { provider_key_ids: many }), 400, '23514');
});

await check('nothing that opens or changes a key works by GET or HEAD: 405', async () => {
  const key = newKey();
  const id = must(await own.rpc('store_provider_key', { project_id: a.project, provider: 'xai', api_key: key }));
  const paths = [
    `/rpc/decrypt_provider_key?provider_key_id=${id}`,
    `/rpc/decrypt_provider_keys?provider_key_ids={${id}}`,
    `/rpc/resolve_provider_key?project_id=${a.project}&provider=xai`,
    `/rpc/validate_provider_key?provider_key_id=${id}`,
    `/rpc/rotate_provider_key?provider_key_id=${id}&new_api_key=k`,
    `/rpc/set_provider_key_active?provider_key_id=${id}&is_active=false`,
    `/rpc/delete_provider_key?provider_key_id=${id}`,
  ];
  for (const path of paths) {
    const got = await raw('GET', path, { bearer: keyToken('service_role') });
    assert.deepEqual([got.status, JSON.parse(got.text).code], [405, '25006'], `${path}: ${got.text}`);
    assert.ok(!got.text.includes(key));
    assert.equal((await raw('HEAD', path, { bearer: keyToken('service_role') })).status, 405, path);
  }
  assert.equal(must(await backend.rpc('decrypt_provider_key', { provider_key_id: id })), key);
  refused(await backend.rpc('decrypt_provider_key', { provider_key_id: id }, { get: true }), 405, '25006');
  must(await own.rpc('delete_provider_key', { provider_key_id: id }));
});

done();
