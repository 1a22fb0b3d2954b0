// x402's own TypeScript client pays for answers of a network, unmodified.
//
// `cargo xtask sdk` starts the network (`assay up --x402`) and sets the variables. Money is ASY, which is
// no asset that the client knows, so its spend controls are off.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, test } from "node:test";

import { x402Client } from "@x402/core/client";
import { toClientEvmSigner } from "@x402/evm";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { decodePaymentResponseHeader, wrapFetchWithPayment } from "@x402/fetch";
import { createPublicClient, createWalletClient, http, parseAbi } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

const { ASSAY_URL, ASSAY_CHAIN_RPC, ASSAY_CONTRACTS, ASSAY_DATA_DIR } = process.env;
const missing = ASSAY_URL && ASSAY_CONTRACTS ? false : "ASSAY_URL is not set; `cargo xtask sdk` sets it";

const ASY = 10n ** 18n;
const ABI = parseAbi([
  "function transfer(address to, uint256 value) returns (bool)",
  "function balanceOf(address account) view returns (uint256)",
]);

describe("x402", { skip: missing }, () => {
  const chat = `${ASSAY_URL}/v1/chat/completions`;
  let node, network, token, admin, model;

  before(async () => {
    node = createPublicClient({ transport: http(ASSAY_CHAIN_RPC) });
    network = `eip155:${await node.getChainId()}`;
    token = JSON.parse(ASSAY_CONTRACTS).assayToken.address;
    const key = readFileSync(join(ASSAY_DATA_DIR, "admin", "key"), "utf8").trim();
    const account = privateKeyToAccount(key.startsWith("0x") ? key : `0x${key}`);
    admin = createWalletClient({ account, transport: http(ASSAY_CHAIN_RPC) });
    model = (await (await fetch(`${ASSAY_URL}/v1/models`)).json()).data[0].id;
  });

  const balance = (account) =>
    node.readContract({ address: token, abi: ABI, functionName: "balanceOf", args: [account] });

  /** An account with one ASY, and no coin for gas. */
  async function payer() {
    const account = privateKeyToAccount(generatePrivateKey());
    const call = { address: token, abi: ABI, functionName: "transfer", args: [account.address, ASY] };
    const hash = await admin.writeContract({ ...call, chain: null });
    await node.waitForTransactionReceipt({ hash });
    return account;
  }

  /** Fetches, and pays by `scheme` if asked to. */
  const paying = (scheme) =>
    wrapFetchWithPayment(fetch, new x402Client().register(network, scheme).setSpendControls(false));

  const asked = (more) => ({
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model,
      temperature: 0,
      max_tokens: 16,
      messages: [{ role: "user", content: "12+45=" }],
      ...more,
    }),
  });

  /** The text of an answer, streamed or not. */
  async function text(response, stream) {
    if (!stream) return (await response.json()).choices[0].message.content;
    const lines = (await response.text()).split("\n").filter((line) => line.startsWith("data: "));
    assert.equal(lines.at(-1), "data: [DONE]");
    const chunks = lines.slice(0, -1).map((line) => JSON.parse(line.slice(6)));
    return chunks.map((chunk) => chunk.choices?.[0]?.delta?.content ?? "").join("");
  }

  for (const stream of [false, true]) {
    test(`exact pays for ${stream ? "a stream" : "an answer"}`, async () => {
      const account = await payer();
      const response = await paying(new ExactEvmScheme(account))(chat, asked({ stream }));
      assert.equal(response.status, 200);
      assert.match(await text(response, stream), /57/);
      const settled = decodePaymentResponseHeader(response.headers.get("payment-response"));
      assert.ok(settled.success);
      const receipt = await node.getTransactionReceipt({ hash: settled.transaction });
      assert.equal(receipt.status, "success");
      assert.equal(await balance(account.address), ASY - BigInt(settled.amount));
    });
  }

  test("a channel pays for many answers and gives back the rest", async () => {
    const account = await payer();
    const scheme = new BatchSettlementEvmScheme(toClientEvmSigner(account, node));
    const pay = paying(scheme);
    let charged = 0n;
    let cost;
    for (const stream of [false, true, false]) {
      const response = await pay(chat, asked({ stream }));
      assert.equal(response.status, 200);
      assert.match(await text(response, stream), /57/);
      const { extra } = decodePaymentResponseHeader(response.headers.get("payment-response"));
      charged += BigInt(extra.chargedAmount);
      cost ??= charged;
      assert.equal(BigInt(extra.channelState.chargedCumulativeAmount), charged);
    }
    const refunded = await scheme.refund(chat);
    assert.ok(refunded.success);
    // The stream was charged its highest price; what was too much comes back, too.
    assert.equal(await balance(account.address), ASY - 3n * cost);
  });

  test("a client that forgot is corrected", async () => {
    const account = await payer();
    const fresh = () => paying(new BatchSettlementEvmScheme(toClientEvmSigner(account, node)));
    assert.equal((await fresh()(chat, asked({}))).status, 200);
    // The same voucher for the same question would be the same payment, and get the same answer.
    assert.equal((await fresh()(chat, asked({ max_tokens: 17 }))).status, 200);
  });
});
