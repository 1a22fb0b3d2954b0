// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {AssayToken} from "./AssayToken.sol";
import {IDistribution} from "./interfaces/IDistribution.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {Allocation, PARTS, Part} from "./libraries/Allocation.sol";

/// @title The allocation of ASY, part by part and second by second.
/// @dev Makes the token itself: one deployment, and no moment at which anyone else holds the supply.
/// No guard against reentrance is needed: the token is ours and calls nobody.
contract Distribution is IDistribution {
    using SafeERC20 for AssayToken;

    /// How far from the deployment the schedules may begin, either way: a year, and a day for leap years.
    uint256 private constant START_RANGE = 366 days;

    /// @inheritdoc IDistribution
    AssayToken public immutable token;

    /// @inheritdoc IDistribution
    IParameters public immutable parameters;

    /// @inheritdoc IDistribution
    uint64 public immutable start;

    /// @inheritdoc IDistribution
    mapping(Part part => address) public beneficiary;

    /// @inheritdoc IDistribution
    mapping(Part part => uint256) public released;

    /// @param parameters_ Names the governor.
    /// @param start_ When the schedules begin, Unix seconds, at most 366 days before or after the deployment; zero is
    /// its time.
    /// @param beneficiaries Who is paid, in the order of `Part`. Only the nodes' one may be zero.
    constructor(IParameters parameters_, uint64 start_, address[PARTS] memory beneficiaries) {
        parameters = parameters_;
        start = start_ == 0 ? uint64(block.timestamp) : start_;
        uint256 earliest = block.timestamp > START_RANGE ? block.timestamp - START_RANGE : 0;
        uint256 latest = block.timestamp + START_RANGE;
        require(start >= earliest && start <= latest, StartOutOfBounds(start, earliest, latest));
        for (uint256 i = 0; i < PARTS; ++i) {
            Part part = Part(i);
            require(beneficiaries[i] != address(0) || part == Part.Nodes, NoBeneficiary(part));
            _name(part, beneficiaries[i]);
        }
        token = new AssayToken();
    }

    /// @inheritdoc IDistribution
    function release(Part part) external returns (uint256 amount) {
        address to = beneficiary[part];
        amount = due(part);
        require(to != address(0), NoBeneficiary(part));
        require(amount != 0, NothingDue(part));

        released[part] += amount;
        emit Released(part, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @inheritdoc IDistribution
    function setBeneficiary(Part part, address present) external {
        address office = part == Part.Nodes ? parameters.governor() : beneficiary[part];
        require(msg.sender == office, NotBeneficiary(part, msg.sender, office));
        require(present != address(0), NoBeneficiary(part));
        _name(part, present);
    }

    /// @inheritdoc IDistribution
    function due(Part part) public view returns (uint256) {
        // Before the start nothing is free, not even what is free at the start.
        if (block.timestamp < start) return 0;
        return Allocation.freeDown(part, block.timestamp - start) - released[part];
    }

    function _name(Part part, address present) private {
        emit BeneficiarySet(part, beneficiary[part], present);
        beneficiary[part] = present;
    }
}
