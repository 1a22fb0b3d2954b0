// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {AssayToken} from "../src/AssayToken.sol";
import {Channels} from "../src/Channels.sol";
import {Distribution} from "../src/Distribution.sol";
import {Models} from "../src/Models.sol";
import {Parameters} from "../src/Parameters.sol";
import {Providers} from "../src/Providers.sol";
import {Receipts} from "../src/Receipts.sol";
import {Till} from "../src/Till.sol";
import {Tills} from "../src/Tills.sol";
import {Timelock} from "../src/Timelock.sol";
import {ApprovalDepositCollector} from "../src/collectors/ApprovalDepositCollector.sol";
import {DepositCollector} from "../src/collectors/DepositCollector.sol";
import {ChannelConfig, Voucher, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {Seat} from "../src/interfaces/ISeats.sol";
import {PARTS, Part} from "../src/libraries/Allocation.sol";
import {Service} from "../src/libraries/Service.sol";
import {Serve} from "../src/types/Serve.sol";
import {Base} from "./Base.sol";

/// @notice The whole suite, deployed in the real order through the CREATE2 deployer that stands on every chain, and
/// then used once from end to end.
contract DeployTest is Base {
    address private constant DEPLOYER = 0x4e59b44847b379578588920cA78FbF26c0B4956C;
    /// The deployer's code: takes salt ‖ code, answers the 20 bytes of the address, reverts if nothing stands there.
    bytes private constant DEPLOYER_CODE =
        hex"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";
    uint64 private constant START = 1_800_000_000;
    uint256 private constant DELAY = 2 days;
    /// What one transaction may use on Ethereum (EIP-7825).
    uint256 private constant TRANSACTION_GAS = 16_777_216;

    address private immutable ADMIN = makeAddr("admin");
    address private immutable TREASURY = makeAddr("treasury");
    address private immutable FEES = makeAddr("fees");
    address private immutable AIRDROP = makeAddr("airdrop");
    address private immutable VALIDATOR = makeAddr("validator");

    Timelock private timelock;
    Parameters private parameters;
    Distribution private distribution;
    AssayToken private token;
    Channels private channels;
    DepositCollector[3] private collectors;
    Receipts private receipts;
    Providers private providers;
    Tills private tills;
    Models private models;
    /// The chain before anything was deployed.
    uint256 private empty;

    function setUp() public {
        vm.warp(START);
        vm.etch(DEPLOYER, DEPLOYER_CODE);
        empty = vm.snapshotState();
        deployAll();
    }

    function test_everybody_knows_the_right_others() public view {
        assertEq(timelock.getMinDelay(), DELAY);
        assertEq(parameters.governor(), address(timelock));
        assertEq(parameters.arbiter(), address(0));
        assertEq(parameters.treasury(), TREASURY);
        assertEq(parameters.feeRecipient(), FEES);
        assertEq(address(distribution.parameters()), address(parameters));
        assertEq(address(distribution.token()), address(token));
        assertEq(token.totalSupply(), token.SUPPLY());
        assertEq(token.balanceOf(address(distribution)), token.SUPPLY());
        for (uint256 i = 0; i < collectors.length; i++) {
            assertEq(collectors[i].channels(), address(channels));
        }
        assertEq(address(providers.token()), address(token));
        assertEq(address(providers.parameters()), address(parameters));
        assertEq(providers.seats()[0].owner, VALIDATOR);
        assertEq(models.count(), 0);
    }

    function test_only_the_timelock_governs_and_only_after_its_delay() public {
        bytes32 proposer = timelock.PROPOSER_ROLE();
        assertTrue(timelock.hasRole(proposer, ADMIN));
        assertFalse(timelock.hasRole(timelock.DEFAULT_ADMIN_ROLE(), ADMIN));
        assertFalse(timelock.hasRole(timelock.DEFAULT_ADMIN_ROLE(), DEPLOYER));
        assertFalse(timelock.hasRole(timelock.DEFAULT_ADMIN_ROLE(), address(this)));

        bytes memory act = abi.encodeCall(Parameters.set, (Value.NetworkFee, 300));
        vm.prank(ADMIN);
        timelock.schedule(address(parameters), 0, act, 0, 0, DELAY);
        skip(DELAY - 1);
        vm.expectPartialRevert(TimelockController.TimelockUnexpectedOperationState.selector);
        vm.prank(ADMIN);
        timelock.execute(address(parameters), 0, act, 0, 0);
        skip(1);
        vm.prank(ADMIN);
        timelock.execute(address(parameters), 0, act, 0, 0);
        assertEq(parameters.value(Value.NetworkFee), 300);
    }

    function test_addresses_depend_on_nothing_but_code_and_arguments() public {
        address[9] memory first = addresses();
        // Twice at one place is refused, so a deployment that was interrupted can tell where it stands.
        vm.expectRevert("nothing was deployed");
        this.deploy("Channels", "Channels.sol:Channels", "");

        // Another chain, at another time.
        vm.revertToState(empty);
        assertEq(first[0].code.length, 0);
        vm.chainId(block.chainid + 1);
        vm.warp(START + 77 days);
        deployAll();
        address[9] memory second = addresses();
        for (uint256 i = 0; i < 9; i++) {
            assertEq(first[i], second[i]);
            assertTrue(second[i].code.length != 0);
        }
    }

    /// One answer is paid in ASY, from the airdrop to the provider's pocket, and a wrong one costs stake.
    function test_the_parts_work_as_a_whole() public {
        distribution.release(Part.Airdrop);
        assertEq(token.balanceOf(AIRDROP), 50_000_000e18);

        (address ada,) = makeAddrAndKey("ada");
        (address operator, uint256 operatorKey) = makeAddrAndKey("operator");
        enrol(ada, operator, operatorKey, parameters.value(Value.SeatStake));
        assertTrue(providers.active(ada));
        assertEq(providers.seats()[0].owner, ada);

        ChannelConfig memory config = pay(ada, operator, 1000e18);
        vm.prank(ada);
        receipts.appoint(operator);
        Span[] memory spans = new Span[](1);
        spans[0] = Span(channels.getChannelId(config), 0, 600e18);
        vm.prank(operator);
        receipts.post(ada, keccak256("root"), 1, spans);
        Till till = Till(tills.open(ada));
        // From here on the Till knows of the claim, and the dispute window runs.
        assertEq(till.release(config), 0);
        skip(parameters.value(Value.DisputeWindow));
        assertEq(address(till), config.receiver);
        assertEq(till.provider(), ada);
        assertEq(till.release(config), 600e18);
        assertEq(token.balanceOf(FEES), 12e18);
        assertEq(token.balanceOf(TREASURY), 30e18);
        assertEq(token.balanceOf(ada), 558e18);

        // Disputes come later, named by governance on the running chain.
        address disputes = makeAddr("disputes");
        bytes memory act = abi.encodeCall(Parameters.setArbiter, (disputes));
        vm.prank(ADMIN);
        timelock.schedule(address(parameters), 0, act, 0, 0, DELAY);
        skip(DELAY);
        vm.prank(ADMIN);
        timelock.execute(address(parameters), 0, act, 0, 0);
        vm.startPrank(disputes);
        assertEq(till.verdict(config, 600e18, 1000e18, config.payer), 400e18);
        providers.slash(ada, 1000, config.payer, "a wrong answer");
        vm.stopPrank();
        till.collect(address(token), config.payer);
        uint256 slashed = parameters.value(Value.SeatStake) / 10;
        assertEq(token.balanceOf(config.payer), 400e18 + slashed / 10);
        assertEq(token.totalSupply(), token.SUPPLY() - slashed * 9 / 10);
        assertFalse(providers.active(ada));
        assertEq(providers.seats()[0].owner, VALIDATOR);
        assertEq(token.balanceOf(address(channels)), 0);
        assertEq(token.balanceOf(address(till)), 0);
    }

    /// In the order of dependence: each constructor is told only what stands already.
    function deployAll() private {
        timelock = Timelock(payable(this.deploy("Timelock", "Timelock.sol:Timelock", abi.encode(DELAY, ADMIN))));
        bytes memory usual = abi.encode(timelock, TREASURY, FEES, new uint256[](0));
        parameters = Parameters(this.deploy("Parameters", "Parameters.sol:Parameters", usual));
        address[PARTS] memory beneficiaries;
        for (uint256 i = 1; i < PARTS; i++) {
            beneficiaries[i] = Part(i) == Part.Airdrop ? AIRDROP : TREASURY;
        }
        bytes memory allocation = abi.encode(parameters, START, beneficiaries);
        distribution = Distribution(this.deploy("Distribution", "Distribution.sol:Distribution", allocation));
        token = distribution.token();
        // The first thing that a contract creates has a known address too.
        bytes32 created = keccak256(abi.encodePacked(hex"d694", distribution, hex"01"));
        assertEq(address(token), address(uint160(uint256(created))));

        channels = Channels(this.deploy("Channels", "Channels.sol:Channels", ""));
        string[3] memory kinds = ["ApprovalDepositCollector", "ERC3009DepositCollector", "PermitDepositCollector"];
        for (uint256 i = 0; i < kinds.length; i++) {
            string memory artifact = string.concat(kinds[i], ".sol:", kinds[i]);
            collectors[i] = DepositCollector(this.deploy(kinds[i], artifact, abi.encode(channels)));
        }
        receipts = Receipts(this.deploy("Receipts", "Receipts.sol:Receipts", ""));
        Seat[] memory genesis = new Seat[](1);
        genesis[0] = Seat(keccak256("validator key"), VALIDATOR, 1, "127.0.0.1:7000");
        bytes memory stakes = abi.encode(token, parameters, genesis);
        providers = Providers(this.deploy("Providers", "Providers.sol:Providers", stakes));
        tills = Tills(this.deploy("Tills", "Tills.sol:Tills", abi.encode(channels, receipts, parameters)));
        models = Models(this.deploy("Models", "Models.sol:Models", ""));
    }

    /// Deploys one contract where its name, code and arguments say, in one transaction that every chain takes.
    function deploy(string memory name, string memory artifact, bytes memory arguments) external returns (address at) {
        bytes32 salt = keccak256(bytes.concat("assay.v1.", bytes(name)));
        bytes memory code = bytes.concat(vm.getCode(artifact), arguments);
        bytes32 place = keccak256(abi.encodePacked(hex"ff", DEPLOYER, salt, keccak256(code)));
        uint256 before = gasleft();
        (bool ok, bytes memory answer) = DEPLOYER.call(bytes.concat(salt, code));
        require(ok && answer.length == 20, "nothing was deployed");
        assertLt(before - gasleft(), TRANSACTION_GAS);
        at = address(bytes20(answer));
        assertEq(at, address(uint160(uint256(place))));
    }

    function enrol(address owner, address operator, uint256 operatorKey, uint256 amount) private {
        vm.prank(AIRDROP);
        require(token.transfer(owner, amount), "no transfer");
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(operatorKey, Service.digest(Serve({registry: address(providers), owner: owner})));
        vm.startPrank(owner);
        providers.register(operator, "https://ada.example", abi.encodePacked(r, s, v));
        token.approve(address(providers), amount);
        providers.stake(uint128(amount));
        providers.takeSeat(keccak256("ada's validator"), "ada.example:7000");
        vm.stopPrank();
    }

    /// A channel to the Till of `owner`, not opened yet, with `amount` deposited and claimed.
    function pay(address owner, address authorizer, uint128 amount) private returns (ChannelConfig memory config) {
        (address payer, uint256 key) = makeAddrAndKey("payer");
        config = ChannelConfig(payer, payer, tills.tillOf(owner), authorizer, address(token), 1 days, 0);
        vm.prank(AIRDROP);
        require(token.transfer(payer, amount), "no transfer");
        vm.startPrank(payer);
        token.approve(address(collectors[0]), amount);
        ApprovalDepositCollector(address(collectors[0])).deposit(config, amount);
        vm.stopPrank();

        bytes32 id = channels.getChannelId(config);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, channels.getVoucherDigest(id, amount));
        VoucherClaim[] memory rows = new VoucherClaim[](1);
        rows[0] = VoucherClaim(Voucher(config, amount), abi.encodePacked(r, s, v), amount);
        vm.prank(authorizer);
        channels.claim(rows);
    }

    function addresses() private view returns (address[9] memory) {
        return [
            address(timelock),
            address(parameters),
            address(distribution),
            address(token),
            address(channels),
            address(receipts),
            address(providers),
            address(tills),
            address(models)
        ];
    }
}
