// Who opens a key: the backend, on record. A tenant does not: it is refused, on record under its
// sub. Nobody else does: no token, the public key, an expired or forged token, a token that names a
// role of ours.
import {
  a, anonymous, assert, auditor, b, check, client, done, must, newKey,
  randomUUID, raw, refused, service, tenant, token, trail, world, keyToken,
} from './application.mjs';

const backend = service();
const keys = {};
for (const { sub, project } of [a, b]) {
  const key = newKey();
  const id = must(await backend.rpc('store_provider_key', { project_id: project, provider: 'openai', api_key: key, name: 'opening' }));
  keys[sub] = { id, key, project };
}
const mine = keys[a.sub];
const foreign = keys[b.sub];

const opening = ({ id, project }) => [
  ['decrypt_provider_key', { provider_key_id: id }],
  ['decrypt_provider_key', { provider_key_id: id, project_id: project }],
  ['decrypt_provider_keys', { provider_key_ids: [id] }],
  ['resolve_provider_key', { project_id: project, provider: 'openai' }],
  ['validate_provider_key', { provider_key_id: id }],
];

await check('the backend opens keys of any project, each on record', async () => {
  for (const { id, key, project } of Object.values(keys)) {
    const marked = service({ 'x-request-id': `backend-${id}` });
    assert.equal(must(await marked.rpc('decrypt_provider_key', { provider_key_id: id })), key);
    assert.equal(must(await marked.rpc('decrypt_provider_key', { provider_key_id: id, project_id: project })), key);
    assert.deepEqual(must(await marked.rpc('decrypt_provider_keys', { provider_key_ids: [id] })), [{ provider_key_id: id, api_key: key, failure_reason: null }]);
    const [resolved] = must(await marked.rpc('resolve_provider_key', { project_id: project, provider: 'openai' }));
    assert.deepEqual(resolved, { provider_key_id: id, name: 'opening', priority: 1, key_version: 1, api_key: key });
    assert.equal(must(await marked.rpc('validate_provider_key', { provider_key_id: id })), true);
    const rows = await trail(`backend-${id}`);
    assert.deepEqual(rows.map((row) => row.access_type), ['decrypt', 'decrypt', 'decrypt', 'decrypt', 'validate']);
    for (const row of rows) {
      assert.deepEqual(
        [row.success, row.provider_key_id, row.session_role, row.effective_role, row.claims_sub],
        [true, id, 'authenticator', 'service_role', null],
      );
    }
  }
});

await check('the backend asks for what is not there: 400, and for a key in the wrong project too', async () => {
  refused(await backend.rpc('decrypt_provider_key', { provider_key_id: randomUUID() }), 400, '02000');
  refused(await backend.rpc('decrypt_provider_key', { provider_key_id: mine.id, project_id: b.project }), 400, '02000');
  refused(await backend.rpc('resolve_provider_key', { project_id: a.project, provider: 'mistral' }), 400, '02000');
  const [row] = must(await backend.rpc('decrypt_provider_keys', { provider_key_ids: [randomUUID()] }));
  assert.deepEqual([row.api_key, row.failure_reason], [null, 'not_found']);
});

await check('a tenant opens nothing, not even its own: 403, a refused row under its sub', async () => {
  const request = `tenant-${a.sub}`;
  const marked = tenant(a.sub, { 'x-request-id': request });
  let calls = 0;
  for (const [name, args] of opening(mine)) {
    const { error } = refused(await marked.rpc(name, args), 403, '42501');
    assert.ok(!JSON.stringify(error).includes(mine.key.slice(8)));
    calls += 1;
  }
  const rows = await trail(request);
  assert.equal(rows.length, calls);
  for (const row of rows) {
    assert.deepEqual(
      [row.success, row.failure_reason, row.claims_sub, row.claims_trusted, row.session_role, row.effective_role, row.role_setting],
      [false, 'not_authorized', a.sub, true, 'authenticator', 'authenticated', 'authenticated'],
    );
  }
});

await check('a tenant that tries to open cannot tell mine, yours and nobody\'s apart', async () => {
  const asker = tenant(a.sub);
  const answers = [];
  for (const which of [mine, foreign, { id: randomUUID(), project: randomUUID() }]) {
    const said = [];
    for (const [name, args] of opening(which)) said.push(refused(await asker.rpc(name, args), 403, '42501'));
    answers.push(said);
  }
  assert.deepEqual(answers[0], answers[1]);
  assert.deepEqual(answers[1], answers[2]);
});

await check('failing on a key does not count against the key', async () => {
  const asker = tenant(a.sub);
  for (let i = 0; i < 5; i += 1) refused(await asker.rpc('decrypt_provider_key', { provider_key_id: foreign.id }), 403, '42501');
  assert.equal(must(await backend.rpc('decrypt_provider_key', { provider_key_id: foreign.id })), foreign.key);
});

await check('past a rate refusals are counted: no flood, and none is lost', async () => {
  const flooder = randomUUID();
  const asker = tenant(flooder);
  for (let i = 0; i < 6; i += 1) {
    const calls = Array.from({ length: 10 }, () => asker.rpc('decrypt_provider_key', { provider_key_id: foreign.id }));
    for (const answer of await Promise.all(calls)) refused(answer, 403, '42501');
  }
  const recorded = async () => must(await auditor().from('access_logs').select('attempt_count, failure_reason, claims_trusted').eq('claims_sub', flooder));
  const attempts = (rows) => rows.reduce((sum, row) => sum + row.attempt_count, 0);
  let rows = await recorded();
  for (let i = 0; i < 100 && attempts(rows) < 60; i += 1) {
    await new Promise((resolve) => { setTimeout(resolve, 100); });
    rows = await recorded();
  }
  assert.equal(attempts(rows), 60);
  assert.ok(rows.length < 60, `${rows.length} rows for 60 refusals`);
  assert.ok(rows.every((row) => row.failure_reason === 'not_authorized' && row.claims_trusted));
});

// The most powerful functions with valid arguments, and every function of the schema with none.
const unheard = [
  ...opening(mine),
  ['store_provider_key', { project_id: a.project, provider: 'openai', api_key: newKey() }],
  ['rotate_provider_key', { provider_key_id: mine.id, new_api_key: newKey() }],
  ['set_provider_key_active', { provider_key_id: mine.id, is_active: false }],
  ['delete_provider_key', { provider_key_id: mine.id }],
  ['key_access_history', { provider_key_id: mine.id }],
  ...world.functions.map(({ name, arguments: names }) => [name, Object.fromEntries(names.map((argument) => [argument, null]))]),
];

async function nothingHappens(who, request, statuses) {
  const recorded = await trail(request);
  for (const [name, args] of unheard) {
    const answer = await who.rpc(name, args);
    assert.ok(statuses.includes(answer.status), `${name}: ${answer.status} ${JSON.stringify(answer.error ?? answer.data)}`);
    assert.equal(answer.data, null);
  }
  for (const relation of world.relations) {
    const answer = await who.from(relation).select();
    assert.ok(statuses.includes(answer.status), `${relation}: ${answer.status} ${JSON.stringify(answer.error ?? answer.data)}`);
  }
  assert.deepEqual(await trail(request), recorded);
}

await check('anon gets nothing: 401 for every function and table', async () => {
  await nothingHappens(anonymous({ 'x-request-id': `anon-${a.sub}` }), `anon-${a.sub}`, [401]);
  const bare = await raw('POST', '/rpc/decrypt_provider_key', { body: { provider_key_id: mine.id } });
  assert.deepEqual([bare.status, JSON.parse(bare.text).code], [401, '42501']);
});

await check('an expired token is nobody\'s: 401', async () => {
  const then = Math.floor(Date.now() / 1000) - 3600;
  for (const role of ['authenticated', 'service_role']) {
    const expired = token({ role, sub: a.sub, exp: then });
    await nothingHappens(client(expired, undefined, { 'x-request-id': `expired-${a.sub}` }), `expired-${a.sub}`, [401]);
  }
});

await check('a forged token is nobody\'s: 401', async () => {
  const claims = { role: 'service_role', sub: a.sub };
  const good = token(claims);
  const [head, , signature] = good.split('.');
  const forged = [
    token(claims, { secret: 'another-secret-of-at-least-32-characters' }),
    token(claims, { alg: 'none' }),
    `${head}.${Buffer.from(JSON.stringify({ ...claims, sub: b.sub })).toString('base64url')}.${signature}`,
    good.slice(0, -4),
    'not.a.token',
  ];
  for (const bad of forged) {
    await nothingHappens(client(bad, undefined, { 'x-request-id': `forged-${a.sub}` }), `forged-${a.sub}`, [401]);
  }
});

await check('a signed token opens no role that the authenticator was not granted', async () => {
  // watchllm_service and watchllm_tenant were granted to it, through service_role and authenticated
  for (const role of ['postgres', 'watchllm_owner', 'watchllm_admin', 'pg_read_all_data', 'none', 'authenticator', 'no_such_role', '']) {
    const request = `role-${role}-${a.sub}`;
    await nothingHappens(client(token({ role, sub: a.sub, jti: randomUUID() }), undefined, { 'x-request-id': request }), request, [400, 401, 403]);
  }
});

await check('each caller is shown only what it may call', async () => {
  const shown = async (bearer) => {
    const openapi = JSON.parse((await raw('GET', '/', { bearer })).text);
    return Object.keys(openapi.paths ?? {}).filter((path) => path.startsWith('/rpc/')).map((path) => path.slice(5)).sort();
  };
  const open = ['redact', 'redact_columns'];
  assert.deepEqual((await shown(keyToken('anon'))).filter((name) => !open.includes(name)), []);
  const tenants = await shown(token({ role: 'authenticated', sub: a.sub }));
  for (const name of ['install', 'create_project', 'add_project_member', 'reload_keyring', 'delete_project', 'security_check',
    'adopt_projects', 'import_watchllm_keys']) {
    assert.ok(!tenants.includes(name), name);
  }
  assert.ok(tenants.includes('store_provider_key'));
});

done();
