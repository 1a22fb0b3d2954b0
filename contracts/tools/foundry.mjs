#!/usr/bin/env node
// Runs forge, cast or anvil from its npm package, without the package's installation script.
//
//   node tools/foundry.mjs forge test --match-contract Parameters
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds foundry.toml; forge runs there. */
export const contracts = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** Where the native binary of `tool` lies; fails with what to do when it does not. */
export function binary(tool) {
  const machine = `${process.platform}-${process.arch === 'x64' ? 'amd64' : process.arch}`;
  const name = `@foundry-rs/${tool}-${machine}`;
  const suffix = process.platform === 'win32' ? '.exe' : '';
  let folder;
  try {
    folder = path.dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch {
    const installed = existsSync(path.join(contracts, 'node_modules', '@foundry-rs', tool));
    fail(installed ? `${tool} has no build for this machine (${machine})` : `${tool} is missing: run \`npm ci\` in contracts/`);
  }
  return path.join(folder, 'bin', `${tool}${suffix}`);
}

/** Runs `tool` in contracts/, its output on ours, and returns its exit status. */
export function run(tool, args, environment = {}) {
  const done = spawnSync(binary(tool), args, {
    cwd: contracts,
    stdio: 'inherit',
    // Only our own tool may be asked for the compiler, and nothing is fetched.
    env: { ...process.env, FOUNDRY_OFFLINE: 'true', FOUNDRY_DISABLE_NIGHTLY_WARNING: '1', ...environment },
  });
  if (done.error) fail(`${tool} does not start: ${done.error.message}`);
  return done.status ?? 1;
}

/** Says why and stops. */
export function fail(reason) {
  process.stderr.write(`contracts: ${reason}\n`);
  process.exit(1);
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [tool, ...args] = process.argv.slice(2);
  if (!['forge', 'cast', 'anvil'].includes(tool)) fail(`expected forge, cast or anvil, found ${tool ?? 'nothing'}`);
  process.exit(run(tool, args));
}
