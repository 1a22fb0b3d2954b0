// Where the chain under test is, who pays on it, and what is put on it.
//
// `cargo xtask sdk` starts the chain and sets the variables. Any development chain with the accounts
// of the public test mnemonic will do: each client spends from its own, so the files may run at once.

import { readFileSync, readdirSync } from "node:fs";

const { ASSAY_CHAIN_RPC, ASSAY_CHAIN_WS, ASSAY_CONTRACTS } = process.env;

/** The chain's JSON-RPC over HTTP. */
export const rpc = ASSAY_CHAIN_RPC;

/** The same over WebSocket. */
export const ws = ASSAY_CHAIN_WS;

/**
 * The address book of a network whose chain has the contracts in its genesis, {name: {address}}: names
 * begin with a small letter, unlike those of the artifacts.
 */
export const book = ASSAY_CONTRACTS ? JSON.parse(ASSAY_CONTRACTS) : undefined;

/** Why tests of any chain are left out; false if they are not. */
export const chainless =
  rpc && ws ? false : "ASSAY_CHAIN_RPC and ASSAY_CHAIN_WS are not set; `cargo xtask sdk` sets them";

/** Why tests of the contracts in a genesis are left out; false if they are not. */
export const bookless =
  chainless || (book ? false : "ASSAY_CONTRACTS is not set; `cargo xtask sdk` sets it");

/** Ten accounts with money on every development chain. */
export const MNEMONIC = "test test test test test test test test test test test junk";

/** The two accounts that each client spends from, by their place in the mnemonic. */
export const ACCOUNTS = { viem: [0, 1], ethers: [2, 3], cast: [4, 5], web3: [6, 7] };

/** The first keys of `Value` in contracts/src/interfaces/IParameters.sol. */
export const VALUE = { NetworkFee: 0, GovernanceShare: 1 };

const artifacts = new URL("../../../contracts/artifacts/", import.meta.url);

/** ABI, bytecode and storage layout of one of our contracts; letters may be small or capital. */
export function artifact(name) {
  const wanted = `${name}.json`.toLowerCase();
  const file = readdirSync(artifacts).find((found) => found.toLowerCase() === wanted);
  if (!file) throw new Error(`there is no contract ${name}`);
  return JSON.parse(readFileSync(new URL(file, artifacts), "utf8"));
}

/** The slot in which a contract's variable begins. */
export function slot(contract, variable) {
  const found = artifact(contract).storage.find(([, , name]) => name === variable);
  if (!found) throw new Error(`${contract} has no variable ${variable}`);
  return BigInt(found[0]);
}

/** A promise with its ends outside, for what an event will bring; fails when nothing comes. */
export function awaited(what, milliseconds = 20_000) {
  let resolve, reject;
  const promise = new Promise((...ends) => ([resolve, reject] = ends));
  const late = setTimeout(() => reject(new Error(`no ${what} came`)), milliseconds);
  const done = () => clearTimeout(late);
  promise.then(done, done);
  return { promise, resolve, reject };
}

/**
 * Acts again and again until `promise` is kept, and gives what it brought. Clients begin to listen in
 * the background and do not say when they have.
 */
export async function until(promise, act) {
  let open = true;
  const close = () => (open = false);
  promise.then(close, close);
  while (open) {
    await act();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return promise;
}
