#!/usr/bin/env node
// Analyses every contract with Slither and proves the laws of money with Halmos; `npm run proofs`.
//
//   node tools/proofs.mjs            both
//   node tools/proofs.mjs slither    only the analysis
//   node tools/proofs.mjs halmos     only the proofs
//
// Both are Python programs. The first run, and each run after requirements.txt has changed, installs
// them into .venv, which needs a package registry; all other runs are offline.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { binary, contracts, fail } from './foundry.mjs';
import { unanswered } from './slither.mjs';

const venv = path.join(contracts, '.venv');
const tool = (name) => path.join(venv, process.platform === 'win32' ? 'Scripts' : 'bin', name);

// Halmos follows loops so many rounds where their end is unknown. It says so when that was too few.
const ROUNDS = '8';
const SECONDS_PER_QUESTION = 120;

function start(program, args, options = {}) {
  const search = [path.dirname(binary('forge')), path.dirname(process.execPath), process.env.PATH];
  const env = { ...process.env, FOUNDRY_PROFILE: 'proofs', FOUNDRY_OFFLINE: 'true', PATH: search.join(path.delimiter) };
  const done = spawnSync(program, args, { cwd: contracts, env, stdio: 'inherit', ...options });
  if (done.error) fail(`${program} does not start: ${done.error.message}`);
  return done;
}

function install() {
  const wanted = readFileSync(path.join(contracts, 'requirements.txt'), 'utf8');
  const note = path.join(venv, 'installed.txt');
  if (existsSync(note) && readFileSync(note, 'utf8') === wanted) return;
  rmSync(venv, { recursive: true, force: true });
  if (start('python3', ['-m', 'venv', venv]).status !== 0) fail('python3 makes no virtual environment');
  const pip = start(tool('pip'), ['install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt']);
  if (pip.status !== 0) fail('the analyser and the prover could not be installed');
  writeFileSync(note, wanted);
}

function analyse() {
  const report = path.join(contracts, 'cache', 'slither.json');
  mkdirSync(path.dirname(report), { recursive: true });
  rmSync(report, { force: true });
  const done = start(tool('slither'), ['.', '--json', report], { stdio: ['ignore', 'ignore', 'pipe'] });
  if (!existsSync(report)) fail(`slither stopped: ${done.stderr}`);
  const found = JSON.parse(readFileSync(report, 'utf8'));
  if (!found.success) fail(`slither stopped: ${found.error}`);
  const open = unanswered(found.results.detectors ?? [], readFileSync(path.join(contracts, 'slither.md'), 'utf8'));
  for (const line of open) process.stderr.write(`${line}\n`);
  if (open.length > 0) fail('slither.md does not answer what slither found: mend the contract or write the answer');
  process.stdout.write(`contracts: slither found nothing that slither.md does not answer\n`);
}

function prove() {
  const solver = `${tool('python')} tools/solver.py`;
  const done = start(tool('halmos'), [
    '--forge-build-out', 'cache/proofs/out',
    '--loop', ROUNDS,
    '--solver-command', solver,
    // Milliseconds to see that a branch cannot be taken; less is quicker by the question, but follows dead paths.
    '--solver-timeout-branching', '100',
    '--solver-timeout-assertion', String(SECONDS_PER_QUESTION * 1000),
    '--no-status',
  ], { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  process.stdout.write(done.stdout);
  if (done.status !== 0) fail('a law is not proved');
  // A path that was cut short is not proved, whatever the sum says.
  if (/not been fully\s+explored/.test(done.stdout)) fail('halmos cut a path short: raise ROUNDS');
  if (!/\[PASS\]/.test(done.stdout)) fail('halmos found no proofs');
}

install();
const asked = process.argv[2];
if (asked === undefined || asked === 'slither') analyse();
if (asked === undefined || asked === 'halmos') prove();
