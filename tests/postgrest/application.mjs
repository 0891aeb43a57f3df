// A Supabase application as the suites play it: tokens, supabase-js clients behind a gateway, and
// checks that print a line each. The gateway does what Supabase's does: it removes /rest/v1 and
// adds a hop to x-forwarded-for. The harness passes the world in the environment, as JSON: address,
// secret, two tenants with a project each.
import assert from 'node:assert/strict';
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import http from 'node:http';
import { createClient } from '@supabase/supabase-js';

export const world = JSON.parse(process.env.WATCHLLM_WORLD);
export const { a, b } = world;

// --- what must be found nowhere ------------------------------------------------------------------------------------

// The harness searches for every line of this file in the database, in all logs and in the trail.
function secret(text) {
  appendFileSync('secrets', `${text}\n`);
  return text;
}

const someKey = () => `sk-proj-${randomBytes(32).toString('hex')}`;
export const newKey = () => secret(someKey());
// for the one place where PostgREST itself keeps it: its log has the user agent
export const keyInHeader = someKey;

// --- tokens ---------------------------------------------------------------------------------------------------------

const base64url = (value) => Buffer.from(value).toString('base64url');

export function token(claims, { secret: signingSecret = world.secret, alg = 'HS256' } = {}) {
  const signed = `${base64url(JSON.stringify({ alg, typ: 'JWT' }))}.${base64url(typeof claims === 'string' ? claims : JSON.stringify(claims))}`;
  const signature = alg === 'none' ? '' : createHmac('sha256', signingSecret).update(signed).digest('base64url');
  if (signature) secret(signature);
  return `${signed}.${signature}`;
}

const soon = () => Math.floor(Date.now() / 1000) + 3600;
export const tenantToken = (sub, more = {}) => token({ role: 'authenticated', aud: 'authenticated', sub, exp: soon(), ...more });
// a claim of its own makes each token, and so each signature, unique
export const keyToken = (role) => token({ role, iss: 'supabase', jti: randomUUID(), exp: soon() });

const anonKey = keyToken('anon');

// --- the gateway and its clients ------------------------------------------------------------------------------------

const upstream = new URL(world.url);
const agent = new http.Agent({ keepAlive: true });
const gateway = http.createServer((request, response) => {
  const headers = { ...request.headers };
  headers['x-forwarded-for'] = [headers['x-forwarded-for'], request.socket.remoteAddress].filter(Boolean).join(', ');
  const path = request.url.replace(/^\/rest\/v1/, '') || '/';
  const onward = http.request({ agent, host: upstream.hostname, port: upstream.port, method: request.method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', (error) => response.destroy(error));
  request.pipe(onward);
});
await new Promise((resolve) => gateway.listen(0, '127.0.0.1', resolve));
const address = `http://127.0.0.1:${gateway.address().port}`;

// As an application creates it: with the project's public key and the user's own token.
export function client(key, userToken, headers = {}, schema = 'watchllm') {
  return createClient(address, key, {
    db: { schema },
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    global: { headers: userToken ? { Authorization: `Bearer ${userToken}`, ...headers } : headers },
  });
}

export const tenant = (sub, headers, schema) => client(anonKey, tenantToken(sub), headers, schema);
export const service = (headers) => client(keyToken('service_role'), undefined, headers);
export const anonymous = (headers) => client(anonKey, undefined, headers);
// a database role of the harness that has watchllm_auditor
export const auditor = () => client(anonKey, token({ role: 'api_auditor', exp: soon() }));

// A request by hand, for what supabase-js would not send. Without a token it is anonymous.
export async function raw(method, path, { bearer, headers = {}, body } = {}) {
  const profile = method === 'GET' || method === 'HEAD' ? 'accept-profile' : 'content-profile';
  const response = await fetch(`${address}/rest/v1${path}`, {
    method,
    headers: {
      [profile]: 'watchllm',
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(bearer ? { authorization: `Bearer ${bearer}`, apikey: anonKey } : {}),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, text, headers: response.headers };
}

// A call past the gateway, with exactly these header lines (name, value, name, value …): repeated,
// or with other bytes.
export function lines(path, bearer, headers, body) {
  const own = ['content-type', 'application/json', 'content-profile', 'watchllm', 'authorization', `Bearer ${bearer}`, 'host', upstream.host];
  return new Promise((resolve, reject) => {
    const request = http.request({ host: upstream.hostname, port: upstream.port, method: 'POST', path, headers: [...own, ...headers] }, (answer) => {
      let text = '';
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => resolve({ status: answer.statusCode, text }));
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
}

// --- what the trail says, as an auditor reads it ---------------------------------------------------------------------

const reader = auditor();
const columns = 'seq, access_type, success, failure_reason, attempt_count, project_id, provider_key_id, claims_sub, claims_trusted, '
  + 'ip_address, user_agent, request_id, session_role, effective_role, role_setting';

export async function trail(requestId) {
  return must(await reader.from('provider_key_access_logs').select(columns).eq('request_id', requestId).order('seq'));
}

// --- expectations ---------------------------------------------------------------------------------------------------

// Data of an answer that must be a success.
export function must({ data, error, status }) {
  assert.equal(error, null, `${status}: ${JSON.stringify(error)}`);
  return data;
}

// An answer that must be a refusal with this status and SQLSTATE. It is returned whole, so that two
// can be compared.
export function refused(answer, status, code) {
  const { data, error } = answer;
  assert.ok(error, `expected ${status} ${code}, got ${answer.status} ${JSON.stringify(data)}`);
  assert.deepEqual({ status: answer.status, code: error.code }, { status, code }, JSON.stringify(error));
  assert.equal(data, null);
  return { status: answer.status, statusText: answer.statusText, error };
}

// --- checks ---------------------------------------------------------------------------------------------------------

let passed = 0;
let failed = 0;

export async function check(name, body) {
  try {
    await body();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n        ${String(error.message).split('\n').join('\n        ')}`);
  }
}

// Every suite ends with this.
export function done() {
  gateway.close();
  gateway.closeAllConnections?.();
  agent.destroy();
  if (passed + failed === 0) failed = 1;
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

export { assert, randomUUID };
