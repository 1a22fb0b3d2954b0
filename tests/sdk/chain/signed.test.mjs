// Clients that hold their own key: an order is prepared, signed by viem, ethers or cast, and submitted.
//
// `cargo xtask sdk` starts the network (`assay up`) and sets the variables.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { before, describe, test } from "node:test";
import { promisify } from "node:util";

import { Wallet } from "ethers";
import { hashTypedData } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import WebSocket from "ws";

import { binary } from "../../../contracts/tools/foundry.mjs";

const { ASSAY_URL } = process.env;
const missing = ASSAY_URL ? false : "ASSAY_URL is not set; `cargo xtask sdk` sets it";

/** How each signs EIP-712 in JSON, which it is given as it came. */
const SIGNERS = {
  viem: (key, data) => privateKeyToAccount(key).signTypedData(data),
  ethers: (key, { domain, types: { EIP712Domain: _, ...types }, message }) =>
    new Wallet(key).signTypedData(domain, types, message),
  cast: async (key, data) => {
    const args = ["wallet", "sign", "--private-key", key, "--data", JSON.stringify(data)];
    return (await promisify(execFile)(binary("cast"), args)).stdout.trim();
  },
};

describe("signed orders", { skip: missing }, () => {
  let request;

  async function call(method, ...params) {
    const response = await fetch(`${ASSAY_URL}/rpc`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
    const { result, error } = await response.json();
    if (error) throw Object.assign(new Error(error.message), error.data);
    return result;
  }

  before(async () => {
    const { data } = await (await fetch(`${ASSAY_URL}/v1/models`)).json();
    const messages = [{ role: "user", content: "12+45=" }];
    request = { model: data[0].id, temperature: 0, max_tokens: 16, messages };
  });

  /** A prepared order of a new account, signed. */
  async function signed(sign) {
    const key = generatePrivateKey();
    const buyer = privateKeyToAccount(key).address;
    const prepared = await call("assay_prepare", request, { buyer });
    const { typedData, digest, maxPrice, ...order } = prepared;
    return { prepared, buyer, order: { ...order, signature: await sign(key, typedData) } };
  }

  for (const [name, sign] of Object.entries(SIGNERS)) {
    test(`${name} signs what the gateway prepared`, async () => {
      const { prepared, buyer, order } = await signed(sign);
      assert.equal(hashTypedData(prepared.typedData), prepared.digest);
      const answer = await call("assay_submit", request, order);
      assert.equal(answer.text.trim(), "57");
      assert.equal(answer.order, prepared.digest);
      assert.equal(answer.receipt.order.buyer, buyer.toLowerCase());
      const { price, channelBefore, channelAfter } = answer.receipt.receipt;
      assert.equal(BigInt(channelAfter) - BigInt(channelBefore), BigInt(price));
      const verdict = await call("assay_verify", answer.receipt);
      assert.equal(verdict.consistent, true, verdict.reason);
      assert.deepEqual(await call("assay_submit", request, order), answer);
    });
  }

  test("an answer comes piece by piece", async () => {
    const { order } = await signed(SIGNERS.viem);
    const socket = new WebSocket(`${ASSAY_URL.replace("http", "ws")}/rpc`);
    const done = new Promise((resolve, reject) => {
      let text = "";
      socket.onerror = reject;
      socket.onmessage = ({ data }) => {
        const { error, params } = JSON.parse(data);
        if (error) reject(new Error(error.message));
        const result = params?.result;
        if (result?.type === "failed") reject(new Error(result.error.message));
        if (result?.type === "text") text += result.text;
        if (result?.type === "done") resolve({ text, whole: result.text });
      };
    });
    await new Promise((open) => (socket.onopen = open));
    const params = ["submit", request, order];
    socket.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "assay_subscribe", params }));
    const { text, whole } = await done;
    assert.equal(text, whole);
    socket.close();
  });

  test("a changed order is refused with what was found", async () => {
    const { order } = await signed(SIGNERS.viem);
    const changed = { ...order, order: { ...order.order, maxPrice: "1" } };
    await assert.rejects(call("assay_submit", request, changed), { code: "wrong_signature" });
    const late = { ...request, max_tokens: 15 };
    await assert.rejects(call("assay_submit", late, order), ({ code, facts }) => {
      assert.deepEqual([code, facts.what, facts.found, facts.expected], [
        "order_mismatch",
        "maxTokens",
        "16",
        "15",
      ]);
      return true;
    });
    await assert.rejects(call("assay_submit", request, { ...order, chainId: 1 }), {
      code: "wrong_chain",
    });
  });
});
