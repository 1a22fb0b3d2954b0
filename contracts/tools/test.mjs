#!/usr/bin/env node
// Everything that must hold before a change to the contracts is kept; `npm test` runs it. Offline.
import { spawnSync } from 'node:child_process';
import { contracts, fail, run } from './foundry.mjs';

const node = (...args) => spawnSync(process.execPath, args, { cwd: contracts, stdio: 'inherit' }).status ?? 1;

/** What is checked, how, and what to do when it fails. */
const steps = [
  ['the layout of the sources', () => run('forge', ['fmt', '--check']), 'run `npm run fmt`'],
  ['the build', () => run('forge', ['build', '--deny', 'warnings']), 'read the compiler above'],
  ['sizes and artifacts', () => node('tools/artifacts.mjs', '--check'), 'see the line above'],
  ['the tests, and the gas they measure', () => node('tools/gas.mjs', '--check'), 'see the line above'],
];

for (const [what, check, remedy] of steps) {
  process.stdout.write(`contracts: ${what}\n`);
  if (check() !== 0) fail(`${what} failed: ${remedy}`);
}
