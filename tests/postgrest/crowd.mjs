// A thousand requests of two tenants and the backend, twenty at a time and in any order. Each
// answer belongs to its asker, and each row of the trail names its asker. For connections that pass
// from one client to the next, as a pooler's do.
import { a, assert, auditor, b, check, done, must, newKey, randomUUID, refused, service, tenant } from './application.mjs';

const REQUESTS = 1000;
const AT_ONCE = 20;

const crowd = randomUUID();
const backend = service();
const tenants = [a, b];
for (const one of tenants) {
  one.key = newKey();
  const store = (name, key) => backend.rpc('store_provider_key', { project_id: one.project, provider: 'openai', api_key: key, name });
  one.fixed = must(await store('fixed', one.key));
  one.moving = must(await store('moving', newKey()));
}

// One request each. Its number alone says who asks.
const asTenant = (me, you) => [
  async (c) => {
    const rows = must(await c.from('provider_keys').select('id, project_id'));
    assert.deepEqual(rows.map((row) => row.id).sort(), [me.fixed, me.moving].sort());
  },
  async (c) => {
    const rows = must(await c.from('access_logs').select('project_id, claims_sub').limit(5));
    assert.ok(rows.length > 0 && rows.every((row) => row.project_id === me.project && [me.sub, null].includes(row.claims_sub)), JSON.stringify(rows));
  },
  async (c) => assert.ok(must(await c.rpc('rotate_provider_key', { provider_key_id: me.moving, new_api_key: newKey() })) > 1),
  async (c) => refused(await c.rpc('rotate_provider_key', { provider_key_id: you.moving, new_api_key: newKey() }), 400, '02000'),
  async (c) => refused(await c.rpc('store_provider_key', { project_id: you.project, provider: 'openai', api_key: newKey() }), 400, '02000'),
  async (c) => assert.ok(must(await c.rpc('key_access_history', { provider_key_id: me.fixed })).length > 0),
  async (c) => refused(await c.rpc('key_access_history', { provider_key_id: you.fixed }), 400, '02000'),
];
const asBackend = (one) => [
  async (c) => assert.equal(must(await c.rpc('decrypt_provider_key', { provider_key_id: one.fixed })), one.key),
  async (c) => assert.equal(must(await c.rpc('resolve_provider_key', { project_id: one.project, provider: 'openai' }))[0].api_key, one.key),
  async (c) => assert.equal(must(await c.rpc('decrypt_provider_keys', { provider_key_ids: [one.fixed] }))[0].api_key, one.key),
];
// Only a few, because a caller's refusals above a rate are stored as one row with a count.
const opening = (you) => async (c) => refused(await c.rpc('decrypt_provider_key', { provider_key_id: you.fixed }), 403, '42501');

const asked = [];
for (let n = 0; n < REQUESTS; n += 1) {
  const [me, you] = n % 2 ? [a, b] : [b, a];
  const headers = { 'x-request-id': `${crowd}-${n}`, 'user-agent': `asker ${n}` };
  const kind = n % 3;
  const jobs = kind === 2 ? asBackend(me) : asTenant(me, you);
  const job = n % 100 === 3 || n % 100 === 4 ? { who: me.sub, body: opening(you) } : { who: kind === 2 ? null : me.sub, body: jobs[Math.floor(n / 3) % jobs.length] };
  asked.push({ ...job, n, headers });
}
for (let i = asked.length - 1; i > 0; i -= 1) {
  const j = Math.floor(Math.random() * (i + 1));
  [asked[i], asked[j]] = [asked[j], asked[i]];
}

const wrong = [];
let next = 0;
async function worker() {
  while (next < asked.length) {
    const { who, body, n, headers } = asked[next];
    next += 1;
    try {
      await body(who === null ? service(headers) : tenant(who, headers));
    } catch (error) {
      wrong.push(`request ${n} of ${who ?? 'the backend'}: ${error.message}`);
    }
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, worker));

await check(`${REQUESTS} interleaved requests: each answer belongs to its asker`, () => {
  assert.deepEqual(wrong.slice(0, 5), [], `${wrong.length} wrong answers`);
});

await check('each row of the trail names its asker, in role, sub and context', async () => {
  const rows = must(await auditor().from('provider_key_access_logs')
    .select('request_id, user_agent, claims_sub, claims_trusted, effective_role, role_setting, project_id, success, failure_reason')
    .like('request_id', `${crowd}-%`));
  const byNumber = new Map(asked.map((one) => [one.n, one]));
  const owner = new Map(tenants.map((one) => [one.project, one.sub]));
  for (const row of rows) {
    const n = Number(row.request_id.slice(crowd.length + 1));
    const { who } = byNumber.get(n);
    const role = who === null ? 'service_role' : 'authenticated';
    assert.deepEqual([row.claims_sub, row.effective_role, row.role_setting, row.user_agent], [who, role, role, `asker ${n}`], JSON.stringify(row));
    if (who !== null) {
      assert.equal(row.claims_trusted, true);
      if (row.success) assert.equal(owner.get(row.project_id), who, JSON.stringify(row));
    }
  }
  // at least one row for each request of the backend and each change of a tenant
  const recorded = new Set(rows.map((row) => row.request_id));
  assert.ok(recorded.size > REQUESTS / 3, `${recorded.size} requests on record`);
  for (const { n, who } of asked) if (who === null) assert.ok(recorded.has(`${crowd}-${n}`), `request ${n} of the backend is not on record`);
});

await check('no row of a project names a stranger, but for refusals', async () => {
  for (const { project, sub } of tenants) {
    const rows = must(await auditor().from('access_logs').select('claims_sub, success').eq('project_id', project).eq('success', true));
    assert.ok(rows.length > 10 && rows.every((row) => [sub, null].includes(row.claims_sub)), project);
  }
});

done();
