"""web3.py, used as its documentation shows, against the chain."""

import asyncio
import json
import os
import pathlib

import pytest
import rlp
from eth_abi import decode, encode
from eth_account import Account
from eth_utils import keccak, to_checksum_address
from web3 import AsyncWeb3, Web3, WebSocketProvider
from web3.exceptions import ContractCustomError, TransactionNotFound, Web3RPCError
from web3.utils.subscriptions import LogsSubscription, NewHeadsSubscription

from merkle import header_hash, prove

RPC, WS = os.environ.get("ASSAY_CHAIN_RPC"), os.environ.get("ASSAY_CHAIN_WS")
pytestmark = pytest.mark.skipif(
    not (RPC and WS),
    reason="ASSAY_CHAIN_RPC and ASSAY_CHAIN_WS are not set; `cargo xtask sdk` sets them",
)

ARTIFACTS = pathlib.Path(__file__).parents[3] / "contracts/artifacts"
SUPPLY = 10**27
NETWORK_FEE = 0

Account.enable_unaudited_hdwallet_features()
# Each client spends from its own accounts: chain.mjs names those of the others.
MNEMONIC = "test test test test test test test test test test test junk"
OWNER, OTHER = (Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{i}") for i in (6, 7))


@pytest.fixture(scope="module")
def w3():
    found = Web3(Web3.HTTPProvider(RPC))
    assert found.is_connected()
    return found


def artifact(name):
    return json.loads((ARTIFACTS / f"{name}.json").read_text())


def send(w3, account, transaction):
    """Signs here, sends, and waits; gives the receipt of a success."""
    whole = {
        "from": account.address,
        "nonce": w3.eth.get_transaction_count(account.address),
        "chainId": w3.eth.chain_id,
        **transaction,
    }
    if "gas" not in whole:
        whole["gas"] = w3.eth.estimate_gas(whole)
    signed = account.sign_transaction({key: whole[key] for key in whole if key != "from"})
    receipt = w3.eth.wait_for_transaction_receipt(
        w3.eth.send_raw_transaction(signed.raw_transaction), timeout=30, poll_latency=0.05
    )
    assert receipt.status == 1
    return receipt


def priced(w3):
    """What a wallet pays: twice the base fee at most, and the tip that the chain proposes."""
    tip = w3.eth.max_priority_fee
    return {
        "maxFeePerGas": 2 * w3.eth.get_block("latest").baseFeePerGas + tip,
        "maxPriorityFeePerGas": tip,
    }


def act(w3, account, function):
    """Sends the call of a contract's function, or of its constructor."""
    fees = {"from": account.address, **priced(w3)}
    built = function.build_transaction(
        {**fees, "nonce": w3.eth.get_transaction_count(account.address)}
    )
    return send(w3, account, built)


def deploy(w3, name, *arguments):
    made = artifact(name)
    factory = w3.eth.contract(abi=made["abi"], bytecode=made["bytecode"])
    receipt = act(w3, OWNER, factory.constructor(*arguments))
    return w3.eth.contract(address=receipt.contractAddress, abi=made["abi"])


@pytest.fixture(scope="module")
def token(w3):
    return deploy(w3, "AssayToken")


@pytest.fixture(scope="module")
def parameters(w3):
    return deploy(w3, "Parameters", OWNER.address, OTHER.address, OTHER.address, [])


def stranger():
    return Account.create().address


def place(holder):
    """Where the token keeps a balance."""
    slots = {name: slot for slot, _, name, _ in artifact("AssayToken")["storage"]}
    return keccak(encode(["address", "uint256"], [holder, slots["_balances"]]))


def test_the_chain_says_who_it_is(w3):
    assert int(w3.net.version) == w3.eth.chain_id
    assert w3.client_version
    assert w3.eth.syncing is False
    genesis = w3.eth.get_block(0)
    assert w3.eth.get_block(genesis.hash) == genesis
    with pytest.raises(TransactionNotFound):
        w3.eth.get_transaction(b"\1" * 32)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_money_moves(w3, kind):
    to, value = stranger(), w3.to_wei("0.75", "ether")
    fees = priced(w3) if kind == 2 else {"gasPrice": w3.eth.gas_price}
    fees |= {"accessList": []} if kind == 1 else {}
    had = w3.eth.get_balance(OTHER.address)
    receipt = send(w3, OTHER, {"to": to, "value": value, **fees})
    assert receipt.type == kind
    assert w3.eth.get_balance(to) == value
    paid = receipt.gasUsed * receipt.effectiveGasPrice
    assert w3.eth.get_balance(OTHER.address) == had - value - paid
    assert w3.eth.get_transaction(receipt.transactionHash).blockHash == receipt.blockHash


def test_a_contract_is_deployed_called_and_read(w3, token):
    assert token.functions.name().call() == "Assay"
    assert token.functions.totalSupply().call() == SUPPLY
    to = stranger()
    receipt = act(w3, OWNER, token.functions.transfer(to, 4))
    balance = token.functions.balanceOf(to)
    assert balance.call() == 4
    assert balance.call(block_identifier=receipt.blockNumber - 1) == 0
    [event] = token.events.Transfer().process_receipt(receipt)
    assert dict(event.args) == {"from": OWNER.address, "to": to, "value": 4}


def refusal(function, account):
    """Selector and encoded values of the error that a call ends with."""
    for ask in (function.call, function.estimate_gas):
        with pytest.raises(ContractCustomError) as refused:
            ask({"from": account})
    data = bytes.fromhex(refused.value.data[2:])
    return data[:4], data[4:]


def test_what_a_contract_refuses_arrives_with_its_reason_and_its_values(parameters):
    nobody = stranger()
    selector, values = refusal(parameters.functions.set(NETWORK_FEE, 1), nobody)
    assert selector == keccak(text="NotGovernor(address,address)")[:4]
    assert [to_checksum_address(each) for each in decode(["address", "address"], values)] == [
        nobody,
        OWNER.address,
    ]
    selector, values = refusal(parameters.functions.set(NETWORK_FEE, 501), OWNER.address)
    assert selector == keccak(text="OutOfBounds(uint8,uint256,uint256,uint256)")[:4]
    assert decode(["uint8", "uint256", "uint256", "uint256"], values) == (NETWORK_FEE, 501, 0, 500)


def test_transactions_that_cannot_be_mined_are_refused(w3):
    poor = Account.create()
    bare = {"to": OWNER.address, "value": 1, "gas": 21_000, "gasPrice": w3.eth.gas_price}
    with pytest.raises(Web3RPCError, match="(?i)insufficient funds"):
        send(w3, poor, bare)
    with pytest.raises(Web3RPCError, match="(?i)nonce too low"):
        send(w3, OTHER, {**bare, "nonce": 0})
    with pytest.raises(Web3RPCError, match="(?i)chain.?id"):
        send(w3, OTHER, {**bare, "chainId": w3.eth.chain_id + 1})


def values(events):
    return [event.args.value for event in events]


def test_a_filter_brings_each_event_once(w3, token):
    to = stranger()
    begin = w3.eth.block_number
    watch = token.events.Transfer.create_filter(from_block=begin, argument_filters={"to": to})
    act(w3, OWNER, token.functions.transfer(to, 1))
    assert values(watch.get_new_entries()) == [1]
    act(w3, OWNER, token.functions.transfer(to, 2))
    assert values(watch.get_new_entries()) == [2]
    assert values(watch.get_new_entries()) == []
    assert values(watch.get_all_entries()) == [1, 2]
    found = token.events.Transfer().get_logs(from_block=begin, argument_filters={"to": to})
    assert values(found) == [1, 2]
    assert w3.eth.uninstall_filter(watch.filter_id)

    heads = w3.eth.filter("latest")
    receipt = act(w3, OWNER, token.functions.transfer(to, 3))
    assert receipt.blockHash in heads.get_new_entries()


def test_blocks_and_events_are_told_over_websocket(w3, token):
    to = stranger()

    async def listen():
        async with AsyncWeb3(WebSocketProvider(WS)) as socket:
            told = {"head": asyncio.Queue(), "log": asyncio.Queue()}

            def tell(kind):
                async def told_of(context):
                    await told[kind].put(context.result)

                return told_of

            topics = [token.events.Transfer().topic, None, "0x" + to[2:].lower().zfill(64)]
            await socket.subscription_manager.subscribe(
                [
                    NewHeadsSubscription(handler=tell("head")),
                    LogsSubscription(address=token.address, topics=topics, handler=tell("log")),
                ]
            )
            listening = asyncio.create_task(
                socket.subscription_manager.handle_subscriptions(run_forever=True)
            )
            try:
                transfer = token.functions.transfer(to, 9)
                receipt = await asyncio.to_thread(act, w3, OWNER, transfer)
                log = await asyncio.wait_for(told["log"].get(), 20)
                head = await asyncio.wait_for(told["head"].get(), 20)
                while head["number"] < receipt.blockNumber:
                    head = await asyncio.wait_for(told["head"].get(), 20)
            finally:
                listening.cancel()
            return receipt, head, log

    receipt, head, log = asyncio.run(listen())
    assert head["hash"] == receipt.blockHash
    assert log["transactionHash"] == receipt.transactionHash
    assert int.from_bytes(log["data"]) == 9


def test_a_header_is_what_its_hash_says(w3):
    for number in ("0x0", "latest"):
        block = w3.provider.make_request("eth_getBlockByNumber", [number, False])["result"]
        assert "0x" + header_hash(block).hex() == block["hash"]


def test_balances_and_storage_are_proved_by_the_state_root(w3, token):
    holder = stranger()
    block = act(w3, OWNER, token.functions.transfer(holder, 1234)).blockNumber
    root = bytes(w3.eth.get_block(block).stateRoot)
    known, unknown = place(holder), place(stranger())
    found = w3.eth.get_proof(token.address, [known, unknown], block)

    nonce, balance, storage, code = rlp.decode(
        prove(root, bytes.fromhex(token.address[2:]), found.accountProof)
    )
    assert int.from_bytes(nonce) == found.nonce == 1
    assert int.from_bytes(balance) == found.balance == 0
    assert storage == found.storageHash
    assert code == keccak(w3.eth.get_code(token.address, block)) == found.codeHash
    held, nothing = found.storageProof
    assert int.from_bytes(rlp.decode(prove(storage, known, held.proof))) == 1234
    assert prove(storage, unknown, nothing.proof) is None

    # The block before is proved by its own root, and does not prove this one.
    earlier = w3.eth.get_proof(token.address, [known], block - 1)
    assert prove(earlier.storageHash, known, earlier.storageProof[0].proof) is None
    with pytest.raises(AssertionError):
        prove(root, bytes.fromhex(token.address[2:]), earlier.accountProof)

    absent = stranger()
    nobody = w3.eth.get_proof(absent, [], block)
    assert prove(root, bytes.fromhex(absent[2:]), nobody.accountProof) is None


def test_fees_are_told_from_the_blocks_they_were_paid_in(w3):
    history = w3.eth.fee_history(2, "latest", [0, 50, 100])
    assert len(history.baseFeePerGas) == 3
    assert [len(rewards) for rewards in history.reward] == [3, 3]
    for place, ratio in enumerate(history.gasUsedRatio):
        block = w3.eth.get_block(history.oldestBlock + place)
        assert history.baseFeePerGas[place] == block.baseFeePerGas
        assert ratio == pytest.approx(block.gasUsed / block.gasLimit, abs=1e-6)


def test_a_call_runs_over_state_that_is_only_supposed(w3, token):
    holder = stranger()
    balance = token.functions.balanceOf(holder)
    supposed = {
        token.address: {"stateDiff": {"0x" + place(holder).hex(): "0x" + (66).to_bytes(32).hex()}}
    }
    assert balance.call(state_override=supposed) == 66
    assert balance.call() == 0


def test_requests_are_batched(w3, token):
    holders = [stranger() for _ in range(5)]
    with w3.batch_requests() as batch:
        for holder in [OWNER.address, *holders]:
            batch.add(w3.eth.get_balance(holder))
        batch.add(token.functions.totalSupply())
        owned, *rest, supply = batch.execute()
    assert owned > 0 and rest == [0] * 5 and supply == SUPPLY
