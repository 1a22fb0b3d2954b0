// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {ChannelConfig, Voucher, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {Words} from "../src/libraries/Words.sol";
import {Order} from "../src/types/Order.sol";
import {Receipt} from "../src/types/Receipt.sol";
import {Sampler} from "../src/types/Sampler.sol";
import {Base} from "./Base.sol";

/// @notice Our hashes are the ones that eth-account, the x402 SDK and our own Rust code compute.
contract VectorsTest is Base {
    string private _json;
    string private _at;

    function uintOf(string memory field) private view returns (uint256) {
        return vm.parseJsonUint(_json, string.concat(_at, field));
    }

    function wordOf(string memory field) private view returns (bytes32) {
        return vm.parseJsonBytes32(_json, string.concat(_at, field));
    }

    function addressOf(string memory field) private view returns (address) {
        return vm.parseJsonAddress(_json, string.concat(_at, field));
    }

    function bytesOf(string memory field) private view returns (bytes memory) {
        return vm.parseJsonBytes(_json, string.concat(_at, field));
    }

    function test_channel_ids_and_digests_are_those_of_the_public_sdk() public {
        _json = vm.readFile("../tests/vectors/channels.json");
        Channels code = new Channels();
        uint256 cases;
        for (; vm.keyExistsJson(_json, string.concat(".cases[", vm.toString(cases), "]")); ++cases) {
            _at = string.concat(".cases[", vm.toString(cases), "].");
            vm.chainId(uintOf("chainId"));
            Channels channels = Channels(addressOf("contract"));
            vm.etch(address(channels), address(code).code);
            checkChannel(channels);
        }
        assertEq(cases, 3);
    }

    function checkChannel(Channels channels) private view {
        ChannelConfig memory config = ChannelConfig(
            addressOf("config.payer"),
            addressOf("config.payerAuthorizer"),
            addressOf("config.receiver"),
            addressOf("config.receiverAuthorizer"),
            addressOf("config.token"),
            uint40(uintOf("config.withdrawDelay")),
            wordOf("config.salt")
        );
        bytes32 id = channels.getChannelId(config);
        assertEq(id, wordOf("channelId"), "channel id");

        uint128 ceiling = uint128(uintOf("maxClaimableAmount"));
        assertEq(channels.getVoucherDigest(id, ceiling), wordOf("voucher"), "voucher");
        assertEq(
            channels.getRefundDigest(id, uintOf("refundNonce"), uint128(uintOf("refundAmount"))),
            wordOf("refund"),
            "refund"
        );

        VoucherClaim[] memory rows = new VoucherClaim[](1);
        rows[0] = VoucherClaim(Voucher(config, ceiling), "", uint128(uintOf("totalClaimed")));
        assertEq(channels.getClaimBatchDigest(rows), wordOf("claimBatch"), "batch of one");
        VoucherClaim[] memory twice = new VoucherClaim[](2);
        (twice[0], twice[1]) = (rows[0], rows[0]);
        assertEq(channels.getClaimBatchDigest(twice), wordOf("claimBatchTwice"), "batch of two");

        bytes memory signature = bytesOf("signature");
        bytes32 salt = bytes32(uintOf("depositSalt"));
        assertEq(keccak256(abi.encode(id, salt)), wordOf("depositNonce"), "nonce of an ERC-3009 deposit");
        assertEq(abi.encode(3, 4, salt, signature), bytesOf("collectorData"));
    }

    function test_orders_receipts_and_samplers_hash_as_wallets_hash_them() public {
        _json = vm.readFile("../tests/vectors/eip712.json");
        uint256 seen;
        for (uint256 i; vm.keyExistsJson(_json, string.concat(".cases[", vm.toString(i), "]")); ++i) {
            string memory entry = string.concat(".cases[", vm.toString(i), "].");
            bytes32 word = keccak256(bytes(vm.parseJsonString(_json, string.concat(entry, "word"))));
            bytes32 expected = vm.parseJsonBytes32(_json, string.concat(entry, "digest"));
            _at = string.concat(entry, "chainId");
            if (word != keccak256("Sampler")) vm.chainId(uintOf(""));
            _at = string.concat(entry, "message.");
            if (word == keccak256("Order")) assertEq(Words.digest(order()), expected, "order");
            else if (word == keccak256("Receipt")) assertEq(Words.digest(receipt()), expected, "receipt");
            else if (word == keccak256("Sampler")) assertEq(Words.hash(sampler()), expected, "sampler");
            else continue;
            ++seen;
        }
        assertEq(seen, 5);
    }

    function order() private view returns (Order memory o) {
        (o.buyer, o.market, o.asset) = (addressOf("buyer"), addressOf("market"), addressOf("asset"));
        (o.model, o.request, o.prompt) = (wordOf("model"), wordOf("request"), wordOf("prompt"));
        (o.promptTokens, o.maxTokens) = (uint32(uintOf("promptTokens")), uint32(uintOf("maxTokens")));
        (o.assurance, o.audit) = (uint8(uintOf("assurance")), uint8(uintOf("audit")));
        (o.maxPrice, o.deadline, o.nonce) = (uint128(uintOf("maxPrice")), uint64(uintOf("deadline")), uintOf("nonce"));
        (o.sampler, o.grant) = (wordOf("sampler"), wordOf("grant"));
    }

    function receipt() private view returns (Receipt memory r) {
        (r.order, r.output, r.text) = (wordOf("order"), wordOf("output"), wordOf("text"));
        (r.state, r.channel) = (wordOf("state"), wordOf("channel"));
        (r.provider, r.asset) = (addressOf("provider"), addressOf("asset"));
        (r.outputTokens, r.price) = (uint32(uintOf("outputTokens")), uint128(uintOf("price")));
        (r.finish, r.assurance) = (uint8(uintOf("finish")), uint8(uintOf("assurance")));
        (r.channelBefore, r.channelAfter) = (uint128(uintOf("channelBefore")), uint128(uintOf("channelAfter")));
        (r.started, r.finished) = (uint64(uintOf("started")), uint64(uintOf("finished")));
    }

    function sampler() private view returns (Sampler memory s) {
        (s.invT_q16, s.topK) = (uint32(uintOf("invT_q16")), uint32(uintOf("topK")));
        (s.topP_q16, s.minP_q16) = (uint32(uintOf("topP_q16")), uint32(uintOf("minP_q16")));
        s.rep_q16 = uint32(uintOf("rep_q16"));
        s.freq_q16 = int32(vm.parseJsonInt(_json, string.concat(_at, "freq_q16")));
        s.pres_q16 = int32(vm.parseJsonInt(_json, string.concat(_at, "pres_q16")));
        (s.stops, s.bias, s.grammar) = (wordOf("stops"), wordOf("bias"), wordOf("grammar"));
        (s.seed, s.choice) = (wordOf("seed"), uint32(uintOf("choice")));
    }
}
