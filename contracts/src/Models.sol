// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModels, Model, Revision, Roots, Terms} from "./interfaces/IModels.sol";
import {Manifest} from "./types/Manifest.sol";

/// @notice Which models are for sale in the open, whose they are, and on what terms.
/// @dev Holds no money, calls nobody, and nothing in it can be changed by anyone but a model's owner.
contract Models is IModels {
    /// Highest royalty, bps.
    uint256 public constant ROYALTY_MAX = 1000;
    /// Longest URI, in bytes.
    uint256 public constant URI_MAX = 256;
    /// The version of manifests that is understood: arithmetic profile exact-1.
    uint16 private constant VERSION = 1;

    struct Entry {
        address owner;
        uint64 published;
        address heir;
        Roots roots;
        /// Oldest first, never empty once published.
        Revision[] history;
    }

    bytes32[] private _ids;
    mapping(bytes32 id => Entry) private _entries;

    /// @inheritdoc IModels
    function publish(Manifest calldata manifest, Terms calldata terms) external returns (bytes32 id) {
        require(manifest.version == VERSION, UnknownVersion(manifest.version, VERSION));
        id = keccak256(abi.encode(manifest));
        Entry storage entry = _entries[id];
        require(entry.owner == address(0), AlreadyPublished(id, entry.owner));

        entry.owner = msg.sender;
        entry.published = uint64(block.timestamp);
        entry.roots = Roots({
            weights: manifest.parts.weights,
            program: manifest.parts.program,
            rope: manifest.parts.rope,
            tokenizer: manifest.parts.tokenizer
        });
        _ids.push(id);
        emit Published(id, msg.sender, entry.roots);
        _revise(id, entry, terms);
    }

    /// @inheritdoc IModels
    function revise(bytes32 id, Terms calldata terms) external {
        _revise(id, _ofCaller(id), terms);
    }

    /// @inheritdoc IModels
    function transfer(bytes32 id, address heir) external {
        _ofCaller(id).heir = heir;
        emit Offered(id, msg.sender, heir);
    }

    /// @inheritdoc IModels
    function accept(bytes32 id) external {
        Entry storage entry = _published(id);
        require(msg.sender == entry.heir, NotHeir(msg.sender, entry.heir));
        emit Transferred(id, entry.owner, msg.sender);
        entry.owner = msg.sender;
        entry.heir = address(0);
    }

    /// @inheritdoc IModels
    function idOf(Manifest calldata manifest) external pure returns (bytes32 id) {
        return keccak256(abi.encode(manifest));
    }

    /// @inheritdoc IModels
    function model(bytes32 id) external view returns (Model memory) {
        Entry storage entry = _published(id);
        return Model({
            owner: entry.owner,
            heir: entry.heir,
            published: entry.published,
            roots: entry.roots,
            revisions: entry.history.length
        });
    }

    /// @inheritdoc IModels
    function termsOf(bytes32 id) external view returns (Terms memory) {
        return _latest(_published(id)).terms;
    }

    /// @inheritdoc IModels
    function termsAt(bytes32 id, uint256 time) external view returns (Terms memory) {
        Entry storage entry = _published(id);
        require(time >= entry.published, TooEarly(time, entry.published));
        // Invariant: revision `low` held at `time` or before, revision `high`, if any, only after it.
        (uint256 low, uint256 high) = (0, entry.history.length);
        while (high - low > 1) {
            uint256 middle = (low + high) / 2;
            if (entry.history[middle].since <= time) low = middle;
            else high = middle;
        }
        return entry.history[low].terms;
    }

    /// @inheritdoc IModels
    function history(bytes32 id, uint256 from, uint256 most) external view returns (Revision[] memory page) {
        Revision[] storage all = _published(id).history;
        page = new Revision[](_pageLength(all.length, from, most));
        for (uint256 i = 0; i < page.length; i++) {
            page[i] = all[from + i];
        }
    }

    /// @inheritdoc IModels
    function royalty(bytes32 id) external view returns (address to, uint16 bps) {
        Entry storage entry = _entries[id];
        if (entry.owner == address(0)) return (address(0), 0);
        Terms storage terms = _latest(entry).terms;
        bps = terms.royaltyBps;
        to = bps == 0 ? address(0) : terms.royaltyTo;
    }

    /// @inheritdoc IModels
    function count() external view returns (uint256) {
        return _ids.length;
    }

    /// @inheritdoc IModels
    function ids(uint256 from, uint256 most) external view returns (bytes32[] memory page) {
        page = new bytes32[](_pageLength(_ids.length, from, most));
        for (uint256 i = 0; i < page.length; i++) {
            page[i] = _ids[from + i];
        }
    }

    function _revise(bytes32 id, Entry storage entry, Terms calldata terms) private {
        require(terms.royaltyBps <= ROYALTY_MAX, RoyaltyTooHigh(terms.royaltyBps, ROYALTY_MAX));
        require(terms.royaltyBps == 0 || terms.royaltyTo != address(0), NoRecipient(terms.royaltyBps));
        require(bytes(terms.uri).length <= URI_MAX, UriLength(bytes(terms.uri).length, URI_MAX));
        emit Revised(id, entry.history.length, terms);
        entry.history.push(Revision(uint64(block.timestamp), terms));
    }

    function _published(bytes32 id) private view returns (Entry storage entry) {
        entry = _entries[id];
        require(entry.owner != address(0), NotPublished(id));
    }

    function _ofCaller(bytes32 id) private view returns (Entry storage entry) {
        entry = _published(id);
        require(msg.sender == entry.owner, NotOwner(msg.sender, entry.owner));
    }

    function _latest(Entry storage entry) private view returns (Revision storage) {
        return entry.history[entry.history.length - 1];
    }

    function _pageLength(uint256 length, uint256 from, uint256 most) private pure returns (uint256) {
        if (from >= length) return 0;
        uint256 left = length - from;
        return most < left ? most : left;
    }
}
