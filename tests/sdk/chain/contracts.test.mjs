// The contracts that stand in a local network's chain from its first block, read by two clients.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import { Contract, JsonRpcProvider } from "ethers";
import { createPublicClient, getAddress, http, keccak256 } from "viem";

import { VALUE, artifact, book, bookless, rpc } from "./chain.mjs";

const NAMES = ["timelock", "parameters", "distribution", "assayToken", "channels", "receipts", "providers", "tills"];
const STRANGER = "0x0000000000000000000000000000000000000bad";

describe("contracts in the genesis", { skip: bookless }, () => {
  let client, provider;
  const address = (name) => getAddress(book[name].address);
  const read = (name, functionName, args = [], more = {}) =>
    client.readContract({ address: address(name), abi: artifact(name).abi, functionName, args, ...more });

  before(() => {
    client = createPublicClient({ transport: http(rpc, { retryCount: 0 }) });
    provider = new JsonRpcProvider(rpc);
  });

  test("all stand there from the first block", async () => {
    assert.deepEqual(NAMES.filter((name) => !book[name]), [], "the address book lacks these");
    for (const [name, { codeHash }] of Object.entries(book)) {
      const code = await client.getCode({ address: address(name), blockNumber: 0n });
      assert.ok(code, `${name} has no code`);
      assert.equal(keccak256(code), codeHash, name);
      // Immutable values are written into the code, so only its length is that of the artifact.
      assert.equal(code.length, artifact(name).deployedBytecode.length, name);
    }
  });

  test("they know each other", async () => {
    assert.equal(await read("parameters", "governor"), address("timelock"));
    assert.equal(await read("distribution", "token"), address("assayToken"));
    assert.equal(await read("assayToken", "symbol"), "ASY");
    assert.equal(await read("assayToken", "totalSupply"), 10n ** 27n);
  });

  test("their values lie within bounds, and nobody but the governor moves them", async () => {
    const [min, max] = await read("parameters", "bounds", [VALUE.NetworkFee]);
    const found = await read("parameters", "value", [VALUE.NetworkFee]);
    assert.ok(min <= found && found <= max);

    const parameters = new Contract(address("parameters"), artifact("parameters").abi, provider);
    const call = parameters.set.staticCall(VALUE.NetworkFee, found, { from: STRANGER });
    const { revert } = await call.then(() => assert.fail("a stranger set a value"), (error) => error);
    assert.equal(revert?.name, "NotGovernor");
    assert.deepEqual([...revert.args], [getAddress(STRANGER), address("timelock")]);

    const outside = parameters.set.staticCall(VALUE.NetworkFee, max + 1n, { from: address("timelock") });
    const refused = await outside.then(() => assert.fail("a value left its bounds"), (error) => error);
    assert.equal(refused.revert?.name, "OutOfBounds");
    assert.deepEqual([...refused.revert.args], [BigInt(VALUE.NetworkFee), max + 1n, min, max]);
  });
});
