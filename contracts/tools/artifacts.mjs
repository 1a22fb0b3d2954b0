#!/usr/bin/env node
// Writes artifacts/<Contract>.json for every contract that src/ can deploy, from what forge built.
//
//   node tools/artifacts.mjs           write them
//   node tools/artifacts.mjs --check   fail when one is missing, stale or left over
//
// The files are committed, so that whoever deploys, binds or verifies needs no compiler. They hold
// nothing that depends on the machine or on the order of compilation: equal sources, equal bytes.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { contracts, fail, run } from './foundry.mjs';

const folder = path.join(contracts, 'artifacts');

// What Ethereum takes: bytes of code at an address (EIP-170), and of the code that deploys it (EIP-3860).
const CODE_MAX = 24_576;
const INIT_MAX = 49_152;

/** Every `contract Name` below src/ that is not abstract, as [file, name]. */
function deployable() {
  const files = readdirSync(path.join(contracts, 'src'), { recursive: true }).filter((file) => file.endsWith('.sol'));
  return files.sort().flatMap((file) => {
    const text = readFileSync(path.join(contracts, 'src', file), 'utf8');
    return [...text.matchAll(/^contract (\w+)/gm)].map((found) => [file, found[1]]);
  });
}

function built(file, name) {
  const json = JSON.parse(readFileSync(path.join(contracts, 'out', path.basename(file), `${name}.json`), 'utf8'));
  const links = [json.bytecode, json.deployedBytecode].flatMap((code) => Object.keys(code.linkReferences ?? {}));
  if (links.length > 0) fail(`${name} must be linked with ${links}: libraries here are internal`);
  check(name, 'code', json.deployedBytecode.object, CODE_MAX);
  check(name, 'deploying code', json.bytecode.object, INIT_MAX);
  return json;
}

function check(name, what, hex, most) {
  const found = (hex.length - 2) / 2;
  if (found > most) fail(`${name} has ${found} bytes of ${what}, at most ${most} can be deployed`);
}

/** Where constructor arguments lie in the deployed code: [first byte, length], in order. */
function immutables(json) {
  const places = Object.values(json.deployedBytecode.immutableReferences ?? {}).flat();
  return places.map(({ start, length }) => [start, length]).sort((a, b) => a[0] - b[0]);
}

// Numbers of syntax nodes, which shift with any change anywhere, stand behind names of types.
const stable = (type) => type.replace(/\)\d+/g, ')');

/** What lies in storage: [slot, byte within it, name, type]. */
function storage(json) {
  return json.storageLayout.storage.map(({ slot, offset, label, type }) => [Number(slot), offset, label, stable(type)]);
}

const list = (values) => (values.length === 0 ? '[]' : `[\n${values.map((v) => `    ${JSON.stringify(v)}`).join(',\n')}\n  ]`);

/** The artifact as text: one line per entry of a list, so that a change shows where it is. */
function render(file, name) {
  const json = built(file, name);
  const fields = {
    contract: JSON.stringify(name),
    source: JSON.stringify(`src/${file.split(path.sep).join('/')}`),
    abi: list(json.abi),
    bytecode: JSON.stringify(json.bytecode.object),
    deployedBytecode: JSON.stringify(json.deployedBytecode.object),
    immutables: JSON.stringify(immutables(json)),
    storage: list(storage(json)),
  };
  return `{\n${Object.entries(fields).map(([key, text]) => `  "${key}": ${text}`).join(',\n')}\n}\n`;
}

function read(file) {
  try {
    return readFileSync(path.join(folder, file), 'utf8');
  } catch {
    return undefined;
  }
}

if (run('forge', ['build', '--quiet']) !== 0) fail('the contracts do not compile');
const fresh = new Map();
for (const [file, name] of deployable()) {
  if (fresh.has(`${name}.json`)) fail(`two contracts are called ${name}`);
  fresh.set(`${name}.json`, render(file, name));
}
mkdirSync(folder, { recursive: true });
const leftOver = readdirSync(folder).filter((file) => !fresh.has(file));

if (process.argv.includes('--check')) {
  const stale = [...fresh].filter(([file, text]) => read(file) !== text).map(([file]) => file);
  const wrong = [...stale, ...leftOver];
  if (wrong.length > 0) fail(`not what src/ compiles to: artifacts/${wrong.join(', artifacts/')}; run \`npm run artifacts\``);
} else {
  for (const file of leftOver) rmSync(path.join(folder, file));
  for (const [file, text] of fresh) writeFileSync(path.join(folder, file), text);
}
