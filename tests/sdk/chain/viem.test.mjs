// viem, used as its documentation shows, against the chain.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import {
  BaseError,
  ContractFunctionRevertedError,
  InsufficientFundsError,
  IntrinsicGasTooLowError,
  NonceTooLowError,
  concat,
  createPublicClient,
  createWalletClient,
  defineChain,
  encodeAbiParameters,
  encodeFunctionData,
  http,
  keccak256,
  numberToHex,
  parseAbi,
  parseEther,
  parseEventLogs,
  parseSignature,
  webSocket,
  zeroAddress,
} from "viem";
import { generatePrivateKey, mnemonicToAccount, privateKeyToAccount } from "viem/accounts";

import { ACCOUNTS, MNEMONIC, VALUE, artifact, awaited, chainless, rpc, slot, until, ws } from "./chain.mjs";

const SUPPLY = 10n ** 27n;
const [account, other] = ACCOUNTS.viem.map((addressIndex) => mnemonicToAccount(MNEMONIC, { addressIndex }));
const Token = artifact("AssayToken");
const Parameters = artifact("Parameters");

const stranger = () => privateKeyToAccount(generatePrivateKey());

/** Runs `act`, and gives the error of the kind `Kind` that it must fail with. */
async function failure(Kind, act) {
  try {
    await act();
  } catch (error) {
    const found = error instanceof BaseError && error.walk((cause) => cause instanceof Kind);
    if (found) return found;
    throw error;
  }
  assert.fail(`expected ${Kind.name}, found success`);
}

/** Bits of a bloom filter that one address or topic sets: three, from the first bytes of its hash. */
function bits(word) {
  const hash = BigInt(keccak256(word));
  return [240n, 224n, 208n].reduce((all, shift) => all | (1n << ((hash >> shift) & 2047n)), 0n);
}

/** The bloom filter that these logs must have. */
function bloom(logs) {
  const words = logs.flatMap((log) => [log.address, ...log.topics]);
  return numberToHex(words.reduce((all, word) => all | bits(word), 0n), { size: 256 });
}

describe("viem", { skip: chainless }, () => {
  let client, wallet, chain, token, parameters, deployed;

  async function mined(hash) {
    const receipt = await client.waitForTransactionReceipt({ hash });
    assert.equal(receipt.status, "success");
    return receipt;
  }

  async function deploy({ abi, bytecode }, args = []) {
    const receipt = await mined(await wallet.deployContract({ abi, bytecode, args }));
    return { receipt, abi, address: receipt.contractAddress };
  }

  before(async () => {
    const transport = http(rpc, { retryCount: 0 });
    const id = await createPublicClient({ transport }).getChainId();
    const nativeCurrency = { name: "Ether", symbol: "ETH", decimals: 18 };
    chain = defineChain({ id, name: "Assay", nativeCurrency, rpcUrls: { default: { http: [rpc] } } });
    client = createPublicClient({ chain, transport, pollingInterval: 50 });
    wallet = createWalletClient({ account, chain, transport });
    deployed = await deploy(Token);
    token = { address: deployed.address, abi: deployed.abi };
    const offices = [account.address, other.address, other.address, []];
    const { abi, address } = await deploy(Parameters, offices);
    parameters = { abi, address };
  });

  test("the chain says who it is", async () => {
    assert.equal(BigInt(await client.request({ method: "net_version" })), BigInt(chain.id));
    assert.ok(await client.request({ method: "web3_clientVersion" }));
    assert.equal(await client.request({ method: "eth_syncing" }), false);
    const genesis = await client.getBlock({ blockNumber: 0n });
    assert.deepEqual(await client.getBlock({ blockHash: genesis.hash }), genesis);
    for (const blockTag of ["earliest", "latest", "pending", "safe", "finalized"]) {
      assert.equal(typeof (await client.getBlock({ blockTag })).gasLimit, "bigint", blockTag);
    }
  });

  const kinds = [
    { type: "legacy" },
    { type: "eip2930", accessList: [{ address: zeroAddress, storageKeys: [numberToHex(7, { size: 32 })] }] },
    { type: "eip1559", maxFeePerGas: 20_000_000_000n, maxPriorityFeePerGas: 2_000_000_000n },
  ];
  for (const kind of kinds) {
    test(`money moves: ${kind.type}`, async () => {
      const [from, to, value] = [other.address, stranger().address, parseEther("1.5")];
      const had = await client.getBalance({ address: from });
      const hash = await wallet.sendTransaction({ account: other, to, value, ...kind });
      const receipt = await mined(hash);
      assert.equal(receipt.type, kind.type);
      assert.equal(await client.getBalance({ address: to }), value);
      const fee = receipt.gasUsed * receipt.effectiveGasPrice;
      assert.equal(await client.getBalance({ address: from }), had - value - fee);

      const sent = await client.getTransaction({ hash });
      assert.equal(sent.type, kind.type);
      assert.equal(sent.chainId, chain.id);
      assert.equal(sent.blockHash, receipt.blockHash);
      assert.deepEqual(sent.accessList ?? [], kind.accessList ?? []);
      const block = await client.getBlock({ blockHash: receipt.blockHash, includeTransactions: true });
      assert.deepEqual(block.transactions[receipt.transactionIndex], sent);
      const tipped = block.baseFeePerGas + (kind.maxPriorityFeePerGas ?? 0n);
      assert.equal(receipt.effectiveGasPrice, kind.maxFeePerGas ? tipped : sent.gasPrice);
    });
  }

  test("an account takes on code, and puts it away again (EIP-7702)", async () => {
    const authority = stranger();
    const delegate = async (contractAddress) => {
      const authorization = await wallet.prepareAuthorization({ account: authority, contractAddress });
      const authorizationList = [await authority.signAuthorization(authorization)];
      return mined(await wallet.sendTransaction({ to: zeroAddress, authorizationList }));
    };
    const receipt = await delegate(token.address);
    assert.equal(receipt.type, "eip7702");
    const code = await client.getCode({ address: authority.address });
    assert.equal(code, concat(["0xef0100", token.address]).toLowerCase());
    const asked = { ...token, address: authority.address };
    assert.equal(await client.readContract({ ...asked, functionName: "SUPPLY" }), SUPPLY);
    // The code runs over the account's own storage, where nobody holds anything.
    assert.equal(await client.readContract({ ...asked, functionName: "totalSupply" }), 0n);
    const sent = await client.getTransaction({ hash: receipt.transactionHash });
    assert.equal(sent.authorizationList.length, 1);

    await delegate(zeroAddress);
    assert.equal(await client.getCode({ address: authority.address }), undefined);
    assert.equal(await client.getTransactionCount({ address: authority.address }), 2);
  });

  test("a contract is deployed, called and read, now and as it was", async () => {
    const read = (functionName, args, more) => client.readContract({ ...token, functionName, args, ...more });
    assert.equal(await read("name"), "Assay");
    assert.equal(await read("totalSupply"), SUPPLY);
    assert.equal((await client.getCode({ address: token.address })).length, Token.deployedBytecode.length);

    const to = stranger().address;
    const { request, result } = await client.simulateContract({
      ...token, account, functionName: "transfer", args: [to, 5n],
    });
    assert.equal(result, true);
    const { blockNumber } = await mined(await wallet.writeContract(request));
    assert.equal(await read("balanceOf", [to], { blockNumber }), 5n);
    assert.equal(await read("balanceOf", [to], { blockNumber: blockNumber - 1n }), 0n);

    const place = keccak256(encodeAbiParameters(
      [{ type: "address" }, { type: "uint256" }],
      [to, slot("AssayToken", "_balances")],
    ));
    const stored = await client.getStorageAt({ address: token.address, slot: place });
    assert.equal(BigInt(stored), 5n);
  });

  test("many reads go out as one call, or in one batch", async () => {
    const names = ["name", "symbol", "decimals", "totalSupply"];
    const expected = ["Assay", "ASY", 18, SUPPLY];
    const contracts = names.map((functionName) => ({ ...token, functionName }));
    assert.deepEqual(await client.multicall({ contracts, allowFailure: false, deployless: true }), expected);

    const batched = createPublicClient({ chain, transport: http(rpc, { batch: true, retryCount: 0 }) });
    const reads = contracts.map((contract) => batched.readContract(contract));
    assert.deepEqual(await Promise.all(reads), expected);
  });

  test("what a contract refuses arrives with its reason and its values", async () => {
    const refused = async (from, args) => {
      const call = { ...parameters, account: from, functionName: "set", args };
      const calls = [() => client.simulateContract(call), () => client.estimateContractGas(call)];
      for (const act of calls) {
        const { data } = await failure(ContractFunctionRevertedError, act);
        if (act === calls.at(-1)) return data;
      }
    };
    const uncalled = await refused(other, [VALUE.NetworkFee, 1n]);
    assert.equal(uncalled.errorName, "NotGovernor");
    assert.deepEqual(uncalled.args, [other.address, account.address]);
    const outside = await refused(account, [VALUE.NetworkFee, 501n]);
    assert.equal(outside.errorName, "OutOfBounds");
    assert.deepEqual(outside.args, [VALUE.NetworkFee, 501n, 0n, 500n]);
  });

  test("a transaction that fails is mined as failed, and its fee is paid", async () => {
    const call = { ...parameters, functionName: "set", args: [VALUE.NetworkFee, 1n], gas: 100_000n };
    const hash = await wallet.writeContract({ ...call, account: other });
    const receipt = await client.waitForTransactionReceipt({ hash });
    assert.equal(receipt.status, "reverted");
    assert.ok(receipt.gasUsed > 21_000n && receipt.gasUsed < 100_000n);
    assert.deepEqual(receipt.logs, []);
    assert.equal(receipt.logsBloom, bloom([]));
  });

  test("transactions that cannot be mined are refused with a reason that viem knows", async () => {
    const [poor, to] = [stranger(), zeroAddress];
    const send = (transaction) => wallet.sendTransaction({ account: other, to, ...transaction });
    await failure(InsufficientFundsError, () => send({ account: poor, value: 1n, gas: 21_000n }));
    await failure(NonceTooLowError, () => send({ nonce: 0, value: 1n, gas: 21_000n }));
    await failure(IntrinsicGasTooLowError, () => send({ gas: 20_000n }));
  });

  test("receipts carry logs, and blooms in which they are found", async () => {
    const { receipt } = deployed;
    assert.deepEqual(
      parseEventLogs({ abi: Token.abi, logs: receipt.logs, eventName: "Transfer" }).map((log) => log.args),
      [{ from: zeroAddress, to: account.address, value: SUPPLY }],
    );
    assert.equal(receipt.logsBloom, bloom(receipt.logs));
    const block = await client.getBlock({ blockHash: receipt.blockHash });
    const logs = await client.getLogs({ blockHash: receipt.blockHash });
    assert.equal(block.logsBloom, bloom(logs));
    assert.deepEqual(
      logs.filter((log) => log.transactionHash === receipt.transactionHash).map((log) => log.logIndex),
      receipt.logs.map((log) => log.logIndex),
    );
  });

  test("a filter brings each event once", async () => {
    const { blockNumber: fromBlock } = await mined(await wallet.sendTransaction({ to: zeroAddress }));
    const filter = await client.createContractEventFilter({ ...parameters, eventName: "ValueSet", fromBlock });
    const set = async (value) =>
      mined(await wallet.writeContract({ ...parameters, functionName: "set", args: [VALUE.NetworkFee, value] }));
    const presents = (logs) => logs.map((log) => log.args.present);
    await set(201n);
    assert.deepEqual(presents(await client.getFilterChanges({ filter })), [201n]);
    await set(202n);
    assert.deepEqual(presents(await client.getFilterChanges({ filter })), [202n]);
    assert.deepEqual(presents(await client.getFilterChanges({ filter })), []);
    assert.deepEqual(presents(await client.getFilterLogs({ filter })), [201n, 202n]);
    assert.equal(await client.uninstallFilter({ filter }), true);
    await assert.rejects(client.getFilterChanges({ filter }));
    const found = await client.getContractEvents({ ...parameters, eventName: "ValueSet", fromBlock });
    assert.deepEqual(presents(found), [201n, 202n]);
  });

  test("blocks and events are told over WebSocket", async () => {
    const transport = webSocket(ws, { retryCount: 0, reconnect: false });
    const listener = createPublicClient({ chain, transport });
    const [block, event] = [awaited("block"), awaited("event")];
    const to = stranger().address;
    const next = (await client.getBlockNumber()) + 1n;
    const ends = [
      listener.watchBlocks({
        onBlock: (found) => found.number >= next && block.resolve(found),
        onError: block.reject,
      }),
      listener.watchContractEvent({
        ...token,
        eventName: "Transfer",
        args: { to },
        onLogs: (logs) => event.resolve(logs),
        onError: event.reject,
      }),
    ];
    const blocks = new Map();
    const [told, [log, ...more]] = await until(Promise.all([block.promise, event.promise]), async () => {
      const transfer = { ...token, functionName: "transfer", args: [to, 9n] };
      const receipt = await mined(await wallet.writeContract(transfer));
      blocks.set(receipt.transactionHash, receipt.blockNumber);
    });
    assert.deepEqual(told, await client.getBlock({ blockNumber: told.number }));
    assert.deepEqual(more, []);
    assert.deepEqual(log.args, { from: account.address, to, value: 9n });
    assert.equal(log.blockNumber, blocks.get(log.transactionHash));
    ends.forEach((end) => end());
    (await listener.transport.getRpcClient()).close();
  });

  test("fees are told from the blocks they were paid in", async () => {
    const history = await client.getFeeHistory({ blockCount: 3, rewardPercentiles: [10, 90] });
    assert.equal(history.baseFeePerGas.length, history.gasUsedRatio.length + 1);
    assert.equal(history.gasUsedRatio.length, 3);
    assert.ok(history.reward.every(([low, high]) => low <= high));
    for (const [place, ratio] of history.gasUsedRatio.entries()) {
      const block = await client.getBlock({ blockNumber: history.oldestBlock + BigInt(place) });
      assert.equal(history.baseFeePerGas[place], block.baseFeePerGas);
      assert.ok(Math.abs(ratio - Number(block.gasUsed) / Number(block.gasLimit)) < 1e-6);
    }
    const fees = await client.estimateFeesPerGas();
    assert.ok(fees.maxFeePerGas >= fees.maxPriorityFeePerGas);
    assert.ok(fees.maxFeePerGas >= history.baseFeePerGas.at(-1));
    // Clients that know one price only estimate with it over the newest block, which has its own.
    const price = await client.getGasPrice();
    assert.ok(price >= (await client.getBlock()).baseFeePerGas);
    assert.ok(price <= fees.maxFeePerGas * 2n);
  });

  test("a call runs over state that is only supposed", async () => {
    const holder = stranger().address;
    const place = keccak256(encodeAbiParameters(
      [{ type: "address" }, { type: "uint256" }],
      [holder, slot("AssayToken", "_balances")],
    ));
    const stateDiff = [{ slot: place, value: numberToHex(77n, { size: 32 }) }];
    const asked = { ...token, functionName: "balanceOf", args: [holder] };
    assert.equal(await client.readContract(asked), 0n);
    const supposed = await client.readContract({ ...asked, stateOverride: [{ address: token.address, stateDiff }] });
    assert.equal(supposed, 77n);
    assert.equal(await client.readContract(asked), 0n);

    // SELFBALANCE, returned; run at an address that has neither code nor money.
    const code = "0x4760005260206000f3";
    const { data } = await client.call({ to: holder, stateOverride: [{ address: holder, code, balance: 5n }] });
    assert.equal(BigInt(data), 5n);
    const value = parseEther("3");
    const gas = await client.estimateGas({
      account: holder, to: zeroAddress, value, stateOverride: [{ address: holder, balance: 2n * value }],
    });
    assert.equal(gas, 21_000n);
  });

  test("a signed permit is taken by the contract (EIP-712, ERC-2612)", async () => {
    const [owner, spender] = [stranger(), other.address];
    const [, name, version, chainId, verifyingContract] = await client.readContract({
      ...token, functionName: "eip712Domain",
    });
    const field = (type, label) => ({ type, name: label });
    const [value, nonce, deadline] = [3n, 0n, 2n ** 48n];
    const signature = await owner.signTypedData({
      domain: { name, version, chainId, verifyingContract },
      primaryType: "Permit",
      types: {
        Permit: [
          field("address", "owner"), field("address", "spender"), field("uint256", "value"),
          field("uint256", "nonce"), field("uint256", "deadline"),
        ],
      },
      message: { owner: owner.address, spender, value, nonce, deadline },
    });
    const { r, s, yParity } = parseSignature(signature);
    const args = [owner.address, spender, value, deadline, 27 + yParity, r, s];
    await mined(await wallet.writeContract({ ...token, functionName: "permit", args }));
    const allowance = { ...token, functionName: "allowance", args: [owner.address, spender] };
    assert.equal(await client.readContract(allowance), value);
  });

  test("an access list names what a call touches", async () => {
    const to = stranger().address;
    const data = encodeFunctionData({
      abi: parseAbi(["function transfer(address to, uint256 amount) returns (bool)"]),
      args: [to, 1n],
    });
    const { accessList, gasUsed } = await client.createAccessList({ account, to: token.address, data });
    const touched = accessList.find((entry) => entry.address === token.address.toLowerCase());
    const balance = (holder) => keccak256(encodeAbiParameters(
      [{ type: "address" }, { type: "uint256" }],
      [holder, slot("AssayToken", "_balances")],
    ));
    assert.ok(touched.storageKeys.includes(balance(account.address)));
    assert.ok(touched.storageKeys.includes(balance(to)));
    const receipt = await mined(await wallet.sendTransaction({ to: token.address, data, accessList }));
    assert.equal(receipt.gasUsed, gasUsed);
  });
});
