// Drives @opentdf/client for our tests: one operation a run, what went wrong on stderr.
// Its dialect is older than that of today's clients: keys by REST, one object in a request.
import { open, readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

const FAILED = 1;
const USAGE = 2;
const UNSUPPORTED = 4;
const RSA = 'rsa:2048';

const text = (fallback = '') => ({ type: 'string', default: fallback });
const { positionals, values: given } = parseArgs({
  allowPositionals: true,
  options: {
    server: text(), issuer: text(), 'client-id': text(), 'client-secret': text(),
    in: text(), out: text(), metadata: text(), algorithm: text(RSA), session: text(RSA),
    dpop: text('off'), attr: { type: 'string', multiple: true, default: [] },
    'any-kas': { type: 'boolean', default: false },
  },
});

function missing(operation) {
  if (!['encrypt', 'decrypt'].includes(operation)) return 'it opens one file a request';
  if (given.algorithm !== RSA) return 'it wraps with RSA only';
  if (given.session !== RSA) return 'it has its answers sealed to RSA keys only';
  if (given.dpop !== 'off') return 'its DPoP is that of one identity provider';
  if (given.metadata) return 'its metadata are not compared here';
  return '';
}

async function token() {
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: given['client-id'],
    client_secret: given['client-secret'],
  });
  const answer = await fetch(`${given.issuer}/token`, { method: 'POST', body });
  if (!answer.ok) throw new Error(`the issuer answered ${answer.status}`);
  return (await answer.json()).access_token;
}

async function connect() {
  // Written for pages: it looks for these while it is loaded.
  globalThis.document = { documentElement: { style: {} } };
  globalThis.location = { protocol: 'http:' };
  const { TDF3Client } = await import('@opentdf/client');
  const access = await token();
  const authProvider = {
    updateClientPublicKey: async () => {},
    withCreds: async (request) => ({
      ...request, headers: { ...request.headers, Authorization: `Bearer ${access}` },
    }),
  };
  return new TDF3Client({ kasEndpoint: given.server, authProvider });
}

async function encrypt(client) {
  const plaintext = await readFile(given.in);
  const source = new ReadableStream({
    start(controller) {
      if (plaintext.length) controller.enqueue(new Uint8Array(plaintext));
      controller.close();
    },
  });
  const attributes = given.attr.map((attribute) => ({ attribute }));
  const sealed = await client.encrypt({ offline: true, scope: { attributes, dissem: [] }, source });
  await collect(sealed);
}

async function decrypt(client) {
  const location = new Uint8Array(await readFile(given.in));
  await collect(await client.decrypt({ source: { type: 'buffer', location } }));
}

async function collect(stream) {
  const target = await open(given.out, 'w');
  const reader = (stream.stream ?? stream).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    await target.write(value);
  }
  await target.close();
}

function told(error) {
  const causes = [];
  for (let next = error; next && causes.length < 4; next = next.cause) {
    const body = next.response?.data;
    causes.push(`${next.name}: ${next.message}${body ? ` ${JSON.stringify(body)}` : ''}`);
  }
  return causes.join('; ');
}

const operations = { encrypt, decrypt };
const operation = positionals[0];
const lack = missing(operation);
if (positionals.length !== 1) {
  process.exitCode = USAGE;
} else if (lack) {
  console.error(lack);
  process.exitCode = UNSUPPORTED;
} else {
  const say = console.error;
  for (const level of ['log', 'info', 'warn', 'error']) console[level] = () => {};
  try {
    await operations[operation](await connect());
  } catch (error) {
    say(told(error));
    process.exitCode = FAILED;
  }
}
