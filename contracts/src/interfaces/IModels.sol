// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Manifest} from "../types/Manifest.sol";

/// @notice What an owner asks of those who use its model.
struct Terms {
    /// keccak256 of the licence's text; zero if it grants nothing.
    bytes32 licence;
    /// Least price per million prompt tokens, base units of ASY (1e-18).
    uint128 floorIn;
    /// Least price per million output tokens, base units of ASY.
    uint128 floorOut;
    /// Who is paid royalties; zero for none.
    address royaltyTo;
    /// Share of each payment for an answer of this model, bps.
    uint16 royaltyBps;
    /// Where licence, card and weights are described; at most 256 bytes, may be empty.
    string uri;
}

/// @notice Terms and since when they hold.
struct Revision {
    /// Unix seconds.
    uint64 since;
    Terms terms;
}

/// @notice The roots of a manifest that a judge opens leaves against.
struct Roots {
    bytes32 weights;
    bytes32 program;
    bytes32 rope;
    bytes32 tokenizer;
}

/// @notice A published model as others see it.
struct Model {
    address owner;
    /// Who may accept the ownership; zero for nobody.
    address heir;
    /// When it was published, unix seconds.
    uint64 published;
    Roots roots;
    /// Number of revisions, the first included.
    uint256 revisions;
}

/// @notice Which models are for sale in the open, whose they are, and on what terms.
/// @dev The id is keccak256 of the canonically encoded manifest, computed here, so a published id and its roots
/// cannot disagree. Terms are only ever added: which held at a given time stays answerable.
/// @dev Trust: who publishes an id first owns it, and publication proves no authorship; whether a licence is
/// rightly given is for people to judge. Nobody can take or change an entry but its owner.
interface IModels {
    /// The manifest is of a version that this contract does not know.
    error UnknownVersion(uint256 found, uint256 expected);
    /// Somebody was first.
    error AlreadyPublished(bytes32 id, address owner);
    /// Nobody published this id.
    error NotPublished(bytes32 id);
    /// Only the owner may do this.
    error NotOwner(address found, address expected);
    /// The ownership was not offered to the caller.
    error NotHeir(address found, address expected);
    /// A royalty is at most `most` bps.
    error RoyaltyTooHigh(uint256 found, uint256 most);
    /// A royalty needs somebody to be paid to.
    error NoRecipient(uint256 royaltyBps);
    /// A URI is at most `most` bytes long.
    error UriLength(uint256 found, uint256 most);
    /// The model was published later than the time asked for.
    error TooEarly(uint256 time, uint256 published);

    /// A model is known.
    event Published(bytes32 indexed id, address indexed owner, Roots roots);
    /// Terms hold from now on; the first revision is number 0.
    event Revised(bytes32 indexed id, uint256 indexed number, Terms terms);
    /// The owner offers the model to `heir`; zero takes an offer back.
    event Offered(bytes32 indexed id, address indexed owner, address indexed heir);
    /// The model changed hands.
    event Transferred(bytes32 indexed id, address indexed before, address indexed present);

    /// @notice Publishes a model as the caller's, on `terms`. First come, first served.
    /// @return id keccak256(abi.encode(manifest)).
    function publish(Manifest calldata manifest, Terms calldata terms) external returns (bytes32 id);

    /// @notice Replaces the terms from now on; what was agreed before is judged by the terms of its time. Owner only.
    function revise(bytes32 id, Terms calldata terms) external;

    /// @notice Offers the model to `heir`, who must `accept`; zero takes the offer back. Owner only.
    function transfer(bytes32 id, address heir) external;

    /// @notice Accepts a model that was offered to the caller. Terms, royalties included, stay until revised.
    function accept(bytes32 id) external;

    /// @notice The id that a manifest has, published or not.
    function idOf(Manifest calldata manifest) external pure returns (bytes32 id);

    /// @notice The model; fails if nobody published it.
    function model(bytes32 id) external view returns (Model memory);

    /// @notice The terms that hold now.
    function termsOf(bytes32 id) external view returns (Terms memory);

    /// @notice The terms that held at `time`, unix seconds; of several in one second, the last.
    function termsAt(bytes32 id, uint256 time) external view returns (Terms memory);

    /// @notice Revisions `from` to `from + most`, oldest first; shorter at the end.
    function history(bytes32 id, uint256 from, uint256 most) external view returns (Revision[] memory);

    /// @notice Who is paid what share of a payment now; nobody and nothing for an unknown id. Never fails, so that
    /// a payment cannot.
    /// @return to Recipient; zero exactly if `bps` is.
    /// @return bps At most 1,000.
    function royalty(bytes32 id) external view returns (address to, uint16 bps);

    /// @notice How many models were ever published.
    function count() external view returns (uint256);

    /// @notice Ids `from` to `from + most`, in the order of publication; shorter at the end.
    function ids(uint256 from, uint256 most) external view returns (bytes32[] memory);
}
