// ethers, used as its documentation shows, against the chain.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import {
  AbiCoder,
  Contract,
  ContractFactory,
  HDNodeWallet,
  JsonRpcProvider,
  NonceManager,
  Transaction,
  Wallet,
  WebSocketProvider,
  ZeroAddress,
  ZeroHash,
  hexlify,
  isError,
  keccak256,
  parseEther,
  randomBytes,
  toBeHex,
  verifyMessage,
  verifyTypedData,
} from "ethers";

import { ACCOUNTS, MNEMONIC, VALUE, artifact, awaited, chainless, rpc, slot, until, ws } from "./chain.mjs";

const SUPPLY = 10n ** 27n;
const Token = artifact("AssayToken");
const Parameters = artifact("Parameters");
const phrase = HDNodeWallet.fromPhrase(MNEMONIC, undefined, "m/44'/60'/0'/0");
const [account, other] = ACCOUNTS.ethers.map((index) => phrase.deriveChild(index));

/** The error that `promise` fails with, which must be of ethers' kind `code`. */
async function failure(code, promise) {
  const error = await promise.then(() => assert.fail(`expected ${code}, found success`), (error) => error);
  if (!isError(error, code)) throw error;
  return error;
}

/** Where a token keeps the balance of `holder`. */
function place(holder) {
  const words = [holder, slot("AssayToken", "_balances")];
  return keccak256(AbiCoder.defaultAbiCoder().encode(["address", "uint256"], words));
}

/** What a transaction says, without its hash and sender: they can be computed from the rest. */
function fields({ type, to, nonce, gasLimit, data, value, chainId, signature, ...rest }) {
  const { gasPrice, maxFeePerGas, maxPriorityFeePerGas, accessList } = rest;
  const fees = type === 2 ? { maxFeePerGas, maxPriorityFeePerGas } : { gasPrice };
  const list = type > 0 ? { accessList } : {};
  return { type, to, nonce, gasLimit, data, value, chainId, signature, ...fees, ...list };
}

describe("ethers", { skip: chainless }, () => {
  let provider, wallet, token, parameters;
  const stranger = () => Wallet.createRandom().connect(provider);

  async function deploy({ abi, bytecode }, ...args) {
    const contract = await new ContractFactory(abi, bytecode, wallet).deploy(...args);
    return contract.waitForDeployment();
  }

  before(async () => {
    // Without the cache, which would answer the second of two equal questions from memory.
    provider = new JsonRpcProvider(rpc, undefined, { cacheTimeout: -1, polling: true, pollingInterval: 50 });
    wallet = account.connect(provider);
    token = await deploy(Token);
    parameters = await deploy(Parameters, wallet.address, other.address, other.address, []);
  });

  after(() => provider?.destroy());

  test("the chain says who it is", async () => {
    const { chainId } = await provider.getNetwork();
    assert.equal(BigInt(await provider.send("net_version", [])), chainId);
    const genesis = await provider.getBlock(0);
    assert.equal((await provider.getBlock(genesis.hash)).number, 0);
    assert.equal(genesis.parentHash, ZeroHash);
    assert.equal(await provider.getBlock(0x7fffffff), null);
    assert.equal(await provider.getTransaction(ZeroHash), null);
    assert.equal(await provider.getTransactionReceipt(ZeroHash), null);
  });

  for (const type of [0, 1, 2]) {
    test(`money moves: type ${type}`, async () => {
      const [payer, to, value] = [other.connect(provider), stranger().address, parseEther("0.25")];
      const had = await provider.getBalance(payer);
      const sent = await payer.sendTransaction({ to, value, type });
      const receipt = await sent.wait();
      assert.equal(receipt.type, type);
      assert.equal(receipt.status, 1);
      assert.equal(await provider.getBalance(to), value);
      assert.equal(await provider.getBalance(payer), had - value - receipt.fee);

      const found = await provider.getTransaction(sent.hash);
      assert.equal(found.blockHash, receipt.blockHash);
      const { from, hash } = Transaction.from(fields(found));
      assert.deepEqual({ from, hash }, { from: payer.address, hash: sent.hash });
      const block = await provider.getBlock(receipt.blockHash, true);
      assert.equal(block.getPrefetchedTransaction(receipt.index).hash, sent.hash);
    });
  }

  test("transactions sent at once are mined in the order of their nonces", async () => {
    const managed = new NonceManager(wallet);
    const to = stranger().address;
    const sent = await Promise.all(Array.from({ length: 12 }, () => managed.sendTransaction({ to, value: 1n })));
    const receipts = await Promise.all(sent.map((transaction) => transaction.wait()));
    assert.equal(await provider.getBalance(to), 12n);
    const nonces = sent.map(({ nonce }, place) => [nonce, receipts[place]]).sort(([a], [b]) => a - b);
    const order = nonces.map(([, { blockNumber, index }]) => blockNumber * 2 ** 20 + index);
    assert.deepEqual(order, [...order].sort((a, b) => a - b));
    assert.equal(nonces.at(-1)[0] - nonces[0][0], 11);
  });

  test("a contract is deployed, called and read, now and as it was", async () => {
    assert.equal(await token.name(), "Assay");
    assert.equal(await token.totalSupply(), SUPPLY);
    const made = await token.deploymentTransaction().wait();
    assert.equal(made.contractAddress, await token.getAddress());
    assert.equal(await provider.getCode(token, made.blockNumber - 1), "0x");
    assert.notEqual(await token.getDeployedCode(), null);

    const to = stranger().address;
    assert.equal(await token.transfer.staticCall(to, 4n), true);
    const receipt = await (await token.transfer(to, 4n)).wait();
    assert.equal(await token.balanceOf(to), 4n);
    assert.equal(await token.balanceOf(to, { blockTag: receipt.blockNumber - 1 }), 0n);
    assert.equal(BigInt(await provider.getStorage(token, place(to))), 4n);
    const [log] = receipt.logs;
    assert.equal(log.fragment.name, "Transfer");
    assert.deepEqual(log.args.toArray(), [wallet.address, to, 4n]);
  });

  test("what a contract refuses arrives with its reason and its values", async () => {
    const nobody = stranger();
    for (const act of ["staticCall", "estimateGas"]) {
      const { data } = await failure("CALL_EXCEPTION", parameters.connect(nobody).set[act](VALUE.NetworkFee, 1n));
      const { name, args } = parameters.interface.parseError(data);
      assert.equal(name, "NotGovernor");
      assert.deepEqual([...args], [nobody.address, wallet.address]);
    }
    const outside = await failure("CALL_EXCEPTION", parameters.set.staticCall(VALUE.NetworkFee, 501n));
    assert.equal(outside.revert.name, "OutOfBounds");
    assert.deepEqual([...outside.revert.args], [BigInt(VALUE.NetworkFee), 501n, 0n, 500n]);
  });

  test("a transaction that fails is mined as failed", async () => {
    const sent = await parameters.connect(other.connect(provider)).set(VALUE.NetworkFee, 1n, { gasLimit: 90_000n });
    const { receipt } = await failure("CALL_EXCEPTION", sent.wait());
    assert.equal(receipt.status, 0);
    assert.equal(receipt.hash, sent.hash);
  });

  test("transactions that cannot be mined are refused with a reason that ethers knows", async () => {
    const [poor, payer] = [stranger(), other.connect(provider)];
    const bare = { to: ZeroAddress, gasLimit: 21_000n };
    await failure("INSUFFICIENT_FUNDS", poor.sendTransaction({ ...bare, value: 1n }));
    await failure("NONCE_EXPIRED", payer.sendTransaction({ ...bare, nonce: 0 }));
  });

  test("events are found by filter, and told while they happen", async () => {
    const heard = awaited("event");
    const { blockNumber } = await (await wallet.sendTransaction({ to: ZeroAddress })).wait();
    const to = stranger().address;
    const filter = token.filters.Transfer(null, to);
    await token.on(filter, (event) => heard.resolve(event));
    const event = await until(heard.promise, async () => (await token.transfer(to, 6n)).wait());
    await token.off(filter);
    assert.deepEqual(event.args.toArray(), [wallet.address, to, 6n]);
    const found = await token.queryFilter(filter, blockNumber);
    assert.equal(await token.balanceOf(to), 6n * BigInt(found.length));
    assert.ok(found.some((one) => one.transactionHash === event.log.transactionHash));
    assert.deepEqual(await token.queryFilter(token.filters.Transfer(null, stranger().address), 0), []);
  });

  test("blocks, events and waiting transactions are told over WebSocket", async () => {
    const socket = new WebSocketProvider(ws);
    const [block, event, pending] = [awaited("block"), awaited("event"), awaited("waiting transaction")];
    const listener = token.connect(socket);
    const to = stranger().address;
    await socket.on("block", (number) => block.resolve(number));
    await socket.on("pending", (hash) => pending.resolve(hash));
    await listener.on(listener.filters.Transfer(null, to), (found) => event.resolve(found));
    const all = Promise.all([block.promise, event.promise, pending.promise]);
    const [number, found, hash] = await until(all, async () => (await token.transfer(to, 8n)).wait());
    assert.deepEqual(found.args.toArray(), [wallet.address, to, 8n]);
    assert.ok((await socket.getBlock(number)).hash);
    assert.equal((await socket.getTransaction(hash)).hash, hash);
    await socket.destroy();
  });

  test("fees are told", async () => {
    const fees = await provider.getFeeData();
    const { baseFeePerGas } = await provider.getBlock("latest");
    assert.ok(fees.maxFeePerGas >= fees.maxPriorityFeePerGas + baseFeePerGas);
    assert.ok(fees.gasPrice > 0n);
  });

  test("a call runs over state that is only supposed", async () => {
    const holder = stranger().address;
    const call = { to: await token.getAddress(), data: token.interface.encodeFunctionData("balanceOf", [holder]) };
    const stateDiff = { [place(holder)]: toBeHex(55, 32) };
    const supposed = await provider.send("eth_call", [call, "latest", { [call.to]: { stateDiff } }]);
    assert.equal(BigInt(supposed), 55n);
    assert.equal(await token.balanceOf(holder), 0n);
  });

  test("tokens move because their owner signed it (EIP-712, ERC-3009)", async () => {
    const [owner, to] = [stranger(), stranger().address];
    await (await token.transfer(owner.address, 10n)).wait();
    const { name, version, chainId, verifyingContract } = await token.eip712Domain();
    const field = (type, name) => ({ type, name });
    const types = {
      TransferWithAuthorization: [
        field("address", "from"), field("address", "to"), field("uint256", "value"),
        field("uint256", "validAfter"), field("uint256", "validBefore"), field("bytes32", "nonce"),
      ],
    };
    const word = {
      from: owner.address, to, value: 10n, validAfter: 0n, validBefore: 2n ** 48n, nonce: hexlify(randomBytes(32)),
    };
    const signature = await owner.signTypedData({ name, version, chainId, verifyingContract }, types, word);
    const move = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)";
    const args = [...Object.values(word), signature];
    await (await token[move](...args)).wait();
    assert.equal(await token.balanceOf(to), 10n);
    const again = await failure("CALL_EXCEPTION", token[move].staticCall(...args));
    assert.equal(again.revert.name, "ERC3009UsedAuthorization");
    assert.deepEqual([...again.revert.args], [owner.address, word.nonce]);
  });

  test("the node signs for its development accounts", async () => {
    const signer = await provider.getSigner(other.address);
    assert.equal(verifyMessage("hello", await signer.signMessage("hello")), other.address);
    const domain = { name: "Assay", version: "1", chainId: (await provider.getNetwork()).chainId };
    const types = { Word: [{ type: "string", name: "text" }, { type: "uint256[]", name: "numbers" }] };
    const word = { text: "hello", numbers: [1n, 2n ** 255n] };
    const signature = await signer.signTypedData(domain, types, word);
    assert.equal(verifyTypedData(domain, types, word, signature), other.address);
    const to = stranger().address;
    const sent = await signer.sendTransaction({ to, value: 3n });
    await sent.wait();
    assert.equal(await provider.getBalance(to), 3n);
  });

  test("a transaction's calls are traced", async () => {
    const { hash } = await (await token.transfer(other.address, 1n)).wait();
    const trace = await provider.send("debug_traceTransaction", [hash, { tracer: "callTracer" }]);
    assert.equal(trace.type, "CALL");
    assert.equal(trace.from, wallet.address.toLowerCase());
    assert.equal(trace.to, (await token.getAddress()).toLowerCase());
    assert.equal(BigInt(trace.output), 1n);
  });
});
