#!/usr/bin/env node
// Runs the tests and keeps what each entry point costs in snapshots/<Contract>.json.
//
//   node tools/gas.mjs           write the figures
//   node tools/gas.mjs --check   fail when one differs, is new or is measured no more
//
// Forge's own check passes over figures that are new or gone, and rewrites the file in passing. So the
// tests write into a folder of their own here, and the two folders are compared.
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { contracts, fail, run } from './foundry.mjs';

const kept = path.join(contracts, 'snapshots');
const measured = path.join(contracts, 'cache', 'gas');

/** All figures of a folder, as lines "Contract: entry point -> gas". */
function figures(folder) {
  const lines = new Map();
  for (const file of existsSync(folder) ? readdirSync(folder).sort() : []) {
    const entries = JSON.parse(readFileSync(path.join(folder, file), 'utf8'));
    for (const [entry, gas] of Object.entries(entries)) lines.set(`${path.basename(file, '.json')}: ${entry}`, gas);
  }
  return lines;
}

rmSync(measured, { recursive: true, force: true });
if (run('forge', ['test'], { FOUNDRY_SNAPSHOTS: path.relative(contracts, measured) }) !== 0) fail('a test failed');

if (process.argv.includes('--check')) {
  const [before, now] = [figures(kept), figures(measured)];
  const names = [...new Set([...before.keys(), ...now.keys()])];
  const moved = names.filter((name) => before.get(name) !== now.get(name));
  for (const name of moved) {
    process.stderr.write(`gas of ${name}: kept ${before.get(name) ?? 'nothing'}, found ${now.get(name) ?? 'nothing'}\n`);
  }
  if (moved.length > 0) fail('gas is not what snapshots/ says; if it should have moved, run `npm run gas` and commit');
} else {
  rmSync(kept, { recursive: true, force: true });
  mkdirSync(kept);
  for (const file of readdirSync(measured)) copyFileSync(path.join(measured, file), path.join(kept, file));
}
