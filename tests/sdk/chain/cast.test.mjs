// cast, as it is used in a shell, against the chain.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { before, describe, test } from "node:test";
import { promisify } from "node:util";

import { binary } from "../../../contracts/tools/foundry.mjs";
import { ACCOUNTS, MNEMONIC, VALUE, artifact, chainless, rpc } from "./chain.mjs";

const SUPPLY = 10n ** 27n;
const ETHER = 10n ** 18n;
const NOBODY = "0x0000000000000000000000000000000000000bad";

describe("cast", { skip: chainless }, () => {
  let cast, account, other, token, parameters;

  /** What a cast command prints; its failure carries what it said. */
  async function run(...args) {
    const env = { ...process.env, ETH_RPC_URL: rpc, FOUNDRY_DISABLE_NIGHTLY_WARNING: "1" };
    const { stdout } = await promisify(execFile)(cast, args.map(String), { env, maxBuffer: 2 ** 26 });
    return stdout.trim();
  }

  const json = async (...args) => JSON.parse(await run(...args, "--json"));

  /** What a cast command says when it fails, as it must. */
  async function refused(...args) {
    const said = await run(...args).then(() => undefined, (error) => error.stderr);
    assert.ok(said, `expected cast ${args[0]} to fail`);
    return said;
  }

  async function key(index) {
    const secret = await run("wallet", "private-key", MNEMONIC, index);
    return { secret, address: await run("wallet", "address", "--private-key", secret) };
  }

  async function sent(from, ...args) {
    const receipt = await json("send", "--private-key", from.secret, ...args);
    assert.equal(BigInt(receipt.status), 1n);
    return receipt;
  }

  async function fresh() {
    const [{ address, private_key: secret }] = await json("wallet", "new");
    return { address, secret };
  }

  async function deploy(name, ...encoded) {
    const code = [artifact(name).bytecode, ...encoded.map((words) => words.slice(2))].join("");
    return (await sent(account, "--create", code)).contractAddress;
  }

  before(async () => {
    cast = binary("cast");
    [account, other] = await Promise.all(ACCOUNTS.cast.map(key));
    token = await deploy("AssayToken");
    const offices = [account.address, other.address, other.address, "[]"];
    parameters = await deploy(
      "Parameters", await run("abi-encode", "c(address,address,address,uint256[])", ...offices),
    );
  });

  test("the chain says who it is", async () => {
    const id = await run("chain-id");
    assert.equal(BigInt(await json("rpc", "net_version")), BigInt(id));
    assert.ok(await run("client"));
    const block = await json("block", "0");
    assert.equal(await run("block", "0", "--field", "hash"), block.hash);
    assert.ok(BigInt(await run("gas-price")) > 0n);
    assert.ok(BigInt(await run("block-number")) >= 2n);
    assert.ok(BigInt(await run("base-fee")) >= 0n);
  });

  for (const [type, ...flags] of [[0, "--legacy"], [1, "--legacy", "--access-list"], [2]]) {
    test(`money moves: type ${type}`, async () => {
      const { address: to } = await fresh();
      const [had, nonce] = [BigInt(await run("balance", other.address)), BigInt(await run("nonce", other.address))];
      const receipt = await sent(other, to, "--value", "0.5ether", ...flags);
      assert.equal(Number(receipt.type), type);
      assert.equal(BigInt(await run("balance", to)), ETHER / 2n);
      const fee = BigInt(receipt.gasUsed) * BigInt(receipt.effectiveGasPrice);
      assert.equal(BigInt(await run("balance", other.address)), had - ETHER / 2n - fee);
      assert.equal(BigInt(await run("nonce", other.address)), nonce + 1n);
      const transaction = await json("tx", receipt.transactionHash);
      assert.equal(transaction.from.toLowerCase(), other.address.toLowerCase());
      assert.equal((await json("receipt", receipt.transactionHash)).blockHash, receipt.blockHash);
    });
  }

  test("an account takes on code (EIP-7702)", async () => {
    const authority = await fresh();
    await sent(account, authority.address, "--value", "1ether");
    await sent(authority, account.address, "--auth", token);
    const code = await run("code", authority.address);
    assert.equal(code.toLowerCase(), `0xef0100${token.slice(2)}`.toLowerCase());
    assert.equal(await run("call", authority.address, "name()(string)"), '""');
    assert.equal((await json("call", authority.address, "SUPPLY()(uint256)"))[0], String(SUPPLY));
  });

  test("a contract is deployed, called and read", async () => {
    assert.equal(await run("call", token, "symbol()(string)"), '"ASY"');
    const { deployedBytecode } = artifact("AssayToken");
    assert.equal(Number(await run("codesize", token)), deployedBytecode.length / 2 - 1);
    const { address: to } = await fresh();
    const transfer = [token, "transfer(address,uint256)(bool)", to, 12];
    assert.ok(BigInt(await run("estimate", ...transfer, "--from", account.address)) > 21_000n);
    const receipt = await sent(account, ...transfer);
    const slot = await run("index", "address", to, 0);
    assert.equal(BigInt(await run("storage", token, slot)), 12n);
    const before = BigInt(receipt.blockNumber) - 1n;
    assert.equal(await run("call", token, "balanceOf(address)(uint256)", to, "--block", before), "0");

    const proof = await json("proof", token, slot);
    assert.equal(BigInt(proof.storageProof[0].value), 12n);
    assert.ok(proof.accountProof.length > 0);

    const event = "Transfer(address indexed,address indexed,uint256)";
    const found = await json("logs", "--from-block", before, "--address", token, event, account.address, to);
    assert.deepEqual(found.map((log) => log.transactionHash), [receipt.transactionHash]);
    assert.equal(BigInt(found[0].data), 12n);
  });

  test("what a contract refuses arrives with its reason and its values", async () => {
    const set = [parameters, "set(uint8,uint256)", VALUE.NetworkFee];
    /** Names and values of the error in what cast said. */
    const reason = async (said, signature) => {
      const data = said.match(/data: "?(0x[0-9a-f]+)/)?.[1];
      assert.ok(data, `no error data in: ${said}`);
      return json("decode-error", "--sig", signature, data);
    };
    for (const verb of ["call", "estimate"]) {
      const uncalled = await refused(verb, ...set, 1, "--from", NOBODY);
      const [found, governor] = await reason(uncalled, "NotGovernor(address,address)");
      assert.deepEqual([BigInt(found), governor], [BigInt(NOBODY), account.address]);
    }
    const outside = await refused("call", ...set, 501, "--from", account.address);
    const values = await reason(outside, "OutOfBounds(uint8,uint256,uint256,uint256)");
    assert.deepEqual(values.map(Number), [VALUE.NetworkFee, 501, 0, 500]);
  });

  test("a transaction is run again from the state before it", async () => {
    const { transactionHash } = await sent(account, token, "transfer(address,uint256)", other.address, 1);
    const trace = await run("run", transactionHash, "--quick");
    assert.match(trace, /transfer/);
    assert.match(trace, /emit Transfer/);
    assert.match(trace, /successfully executed/);
  });
});
