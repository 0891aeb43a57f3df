// Attempts to be somebody else: claims in the body, in headers, cookies and Prefer; tokens without
// a sub, with an empty or a strange one. Also a sub named like a role, a role hidden in metadata,
// other schemas. The tenant stays who its token says.
import { a, assert, auditor, b, check, client, done, must, newKey, randomUUID, raw, refused, service, tenant, tenantToken, token, trail, world } from './application.mjs';

const backend = service();
const foreign = must(await backend.rpc('store_provider_key', { project_id: b.project, provider: 'openai', api_key: newKey(), name: 'spoofed' }));
const ownerless = must(await backend.rpc('store_provider_key', { project_id: world.ownerless, provider: 'openai', api_key: newKey(), name: 'ownerless' }));

// Whoever this is, it neither sees nor changes the rows of b or of nobody.
async function isNobodyElse(who, why) {
  const seen = await who.from('provider_keys').select('id').in('id', [foreign, ownerless]);
  if (seen.error) assert.ok([401, 403].includes(seen.status), `${why}: ${seen.status}`);
  else assert.deepEqual(seen.data, [], why);
  const logs = await who.from('access_logs').select('id').in('project_id', [b.project, world.ownerless]);
  if (!logs.error) assert.deepEqual(logs.data, [], why);
  for (const id of [foreign, ownerless]) {
    const opened = await who.rpc('decrypt_provider_key', { provider_key_id: id });
    assert.ok(opened.error && [401, 403].includes(opened.status), `${why}: ${opened.status} ${JSON.stringify(opened.data)}`);
    const deleted = await who.rpc('delete_provider_key', { provider_key_id: id });
    assert.ok(deleted.error && [400, 401, 403].includes(deleted.status), `${why}: ${deleted.status}`);
  }
}

await check('claims in the body are arguments that no function has', async () => {
  for (const extra of [{ 'request.jwt.claims': `{"sub":"${b.sub}"}` }, { sub: b.sub }, { role: 'service_role' }, { claims_sub: b.sub }, { owner_id: b.sub }]) {
    refused(await tenant(a.sub).rpc('delete_provider_key', { provider_key_id: foreign, ...extra }), 404, 'PGRST202');
  }
});

await check('a spoof is on record under the real sub', async () => {
  const request = randomUUID();
  const spoof = tenant(a.sub, { 'x-request-id': request, 'request.jwt.claims': `{"sub":"${b.sub}"}` });
  refused(await spoof.rpc('decrypt_provider_key', { provider_key_id: foreign }), 403, '42501');
  const [row] = await trail(request);
  assert.deepEqual([row.claims_sub, row.claims_trusted, row.success], [a.sub, true, false]);
});

await check('claims in headers, cookies and Prefer change nobody', async () => {
  const claims = JSON.stringify({ role: 'service_role', sub: b.sub });
  for (const headers of [
    { 'request.jwt.claims': claims },
    { 'request.jwt.claim.sub': b.sub },
    { 'x-request.jwt.claims': claims },
    { role: 'service_role', 'x-role': 'service_role', 'x-supabase-role': 'service_role' },
    { sub: b.sub, 'x-user-id': b.sub, 'x-jwt-claims': claims },
    { cookie: `request.jwt.claims=${encodeURIComponent(claims)}; role=service_role; sub=${b.sub}` },
    { 'x-client-info': claims, 'x-forwarded-user': b.sub },
    { Prefer: 'role=service_role' },
    { Prefer: 'tx=rollback' },
    { 'x-request-id': `","sub":"${b.sub}` },
    { 'user-agent': `"},"request.jwt.claims":{"sub":"${b.sub}","role":"service_role"}` },
  ]) {
    await isNobodyElse(tenant(a.sub, headers), JSON.stringify(headers));
  }
});

await check('a second token beside the first is not looked at', async () => {
  const headers = { apikey: tenantToken(b.sub), 'x-authorization': `Bearer ${tenantToken(b.sub)}`, cookie: `sb-access-token=${tenantToken(b.sub)}` };
  await isNobodyElse(tenant(a.sub, headers), 'a second token');
});

await check('a token without a sub, with an empty or a strange one, owns nothing', async () => {
  const subs = [undefined, null, '', ' ', 'null', 0, false, true, 1e308, [b.sub], { sub: b.sub }, b.sub.toUpperCase(), ` ${b.sub}`, `${b.sub} `,
    `${b.sub}\u0000`, `${b.sub}' OR '1'='1`, `%`, `_`, `{${b.sub}}`, `${b.sub},${a.sub}`, `${b.sub}${'x'.repeat(5000)}`, b.sub.slice(0, -1),
    '\u{1f511}', '"}', 'watchllm_admin', 'watchllm_service', 'service_role', 'authenticator', 'postgres', '00000000-0000-0000-0000-000000000000'];
  for (const sub of subs) {
    const claims = { role: 'authenticated', jti: randomUUID(), ...(sub === undefined ? {} : { sub }) };
    const who = client(token(claims), undefined);
    await isNobodyElse(who, `sub ${JSON.stringify(sub)}`);
    const visible = await who.from('provider_keys').select('id');
    if (!visible.error) assert.deepEqual(visible.data, [], `sub ${JSON.stringify(sub)}`);
  }
});

await check('a sub of more than 128 bytes is not taken for its first 128', async () => {
  // world.long is the owner of a project: 128 bytes exactly
  const id = must(await backend.rpc('store_provider_key', { project_id: world.long.project, provider: 'openai', api_key: newKey() }));
  assert.deepEqual(must(await tenant(world.long.sub).from('provider_keys').select('id')), [{ id }]);
  assert.deepEqual(must(await tenant(`${world.long.sub}x`).from('provider_keys').select('id')), []);
  refused(await tenant(`${world.long.sub}x`).rpc('delete_provider_key', { provider_key_id: id }), 400, '02000');
});

await check('a role in metadata is not a role', async () => {
  for (const more of [
    { app_metadata: { role: 'service_role', sub: b.sub } },
    { user_metadata: { role: 'service_role', sub: b.sub } },
    { roles: ['service_role'], 'https://example.test/role': 'service_role' },
    { Role: 'service_role', Sub: b.sub, SUB: b.sub },
    { session_user: 'authenticator', claims_trusted: true },
  ]) {
    await isNobodyElse(client(tenantToken(a.sub, more)), JSON.stringify(more));
  }
});

await check('no other schema is within reach', async () => {
  for (const schema of ['pg_catalog', 'information_schema', 'pg_temp', 'WATCHLLM', 'watchllm, pg_catalog']) {
    for (const [method, path, profile] of [['GET', '/pg_settings', 'accept-profile'], ['POST', '/rpc/set_config', 'content-profile']]) {
      const answer = await raw(method, path, {
        bearer: tenantToken(a.sub), headers: { [profile]: schema },
        body: method === 'POST' ? { setting_name: 'request.jwt.claims', new_value: `{"sub":"${b.sub}"}`, is_local: false } : undefined,
      });
      assert.equal(answer.status, 406, `${schema}: ${answer.text}`);
    }
  }
  for (const schema of ['public', 'watchllm']) {
    const answer = await raw('POST', '/rpc/set_config', {
      bearer: tenantToken(a.sub), headers: { 'content-profile': schema },
      body: { setting_name: 'role', new_value: 'service_role', is_local: false },
    });
    assert.equal(answer.status, 404, answer.text);
  }
});

await check('an overload in public is not called for ours', async () => {
  // world's public.decrypt_provider_key(uuid) would answer 'not ours'
  const ours = await tenant(a.sub).rpc('decrypt_provider_key', { provider_key_id: foreign });
  refused(ours, 403, '42501');
  assert.equal(must(await tenant(a.sub, {}, 'public').rpc('decrypt_provider_key', { provider_key_id: foreign })), 'not ours');
});

await check('a definer function of anybody does not lend its caller\'s claims to others', async () => {
  // world's public.keys_of_my_projects() is security invoker, public.keys_as_owner() a definer of a role without rights
  assert.deepEqual(must(await tenant(a.sub, {}, 'public').rpc('keys_of_my_projects')).filter((id) => id === foreign), []);
  refused(await tenant(a.sub, {}, 'public').rpc('keys_as_owner'), 403, '42501');
});

await check('the victim lost nothing', async () => {
  const rows = must(await auditor().from('provider_keys').select('id, is_active').in('id', [foreign, ownerless]).order('id'));
  assert.deepEqual(rows, [foreign, ownerless].sort().map((id) => ({ id, is_active: true })));
});

done();
