// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Place, Said, Verdict} from "../src/interfaces/IAuditors.sol";
import {Draw} from "../src/interfaces/IBeacons.sol";
import {Filing, Phase} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Production, Showing, Stage} from "../src/interfaces/IProductions.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {Words} from "../src/libraries/Words.sol";
import {AuditFixture} from "./AuditFixture.sol";

/// @notice Auditors who do and do not do their duty, an honest provider that always answers, one that never does, and
/// canaries among what is posted, in any order; and the books of it.
contract AuditsHandler is AuditFixture {
    uint256 private constant MOST = 40;

    /// What was posted, and by whom: the receipt lies alone in its period.
    struct Post {
        address owner;
        uint256 period;
        uint256 epoch;
        uint256 filing;
    }

    /// A receipt that nobody disputes, a canary, and one that is convicted by silence.
    Filing[] private filings;
    Post[] public posts;
    address private silent;
    bytes32 private planted;
    /// Plain sums of what every call should have moved, and counts of what may happen once.
    uint256 public put;
    uint256 public funded;
    uint256 public fees;
    mapping(bytes32 once => uint256) public times;
    mapping(bytes32 what => uint256) public done;
    uint256 public timesMost;
    uint256[] private disputed;

    constructor() {
        setUp();
        answer();
        filings.push(filed);
        planted = plantCanary();
        filings.push(filed);
        answer();
        filed.receipt.text = keccak256("one that is disputed");
        resign();
        filings.push(filed);
        enrol("silent", 4 * value(Value.TierBronze));
        silent = makeAddr("silent");
        put = 9 * AUDITOR_BOND;
    }

    function note(bytes32 what, bytes32 which) private {
        uint256 now_ = ++times[keccak256(abi.encode(what, which))];
        if (now_ > timesMost) timesMost = now_;
        ++done[what];
    }

    /// One of the crew.
    function who(uint256 seed) private view returns (address) {
        return crew[seed % 3];
    }

    function pick(uint256 seed) private view returns (Post memory) {
        return posts[seed % posts.length];
    }

    function placeOf(Post memory at) private view returns (Place memory found) {
        found.provider = at.owner;
        found.period = at.period;
        found.receipt = Words.digest(filings[at.filing].receipt);
        found.proof = new bytes32[](0);
    }

    // What people do.

    function post(uint256 seed) external {
        if (posts.length == MOST) return;
        address by = seed % 3 == 0 ? silent : owner;
        uint256 filing = seed / 3 % 3;
        bytes32 leaf = leafHash(abi.encodePacked(Words.digest(filings[filing].receipt)));
        vm.prank(by);
        uint256 period = receipts.post(by, leaf, 1, new Span[](0));
        posts.push(Post(by, period, auditors.epochNow(), filing));
    }

    function wait(uint256 seed) external {
        skip(seed % EPOCH);
    }

    function join(uint256 seed) external {
        address by = who(seed);
        uint256 amount = seed % AUDITOR_BOND;
        if (auditors.auditorOf(by).release != 0 || token.balanceOf(by) < amount) return;
        vm.prank(by);
        auditors.join(uint128(amount));
        put += amount;
    }

    function leave(uint256 seed) external {
        if (seed % 16 != 0) return;
        vm.prank(who(seed / 16));
        try auditors.leave() {} catch {}
    }

    function withdraw(uint256 seed) external {
        vm.prank(who(seed));
        try auditors.withdraw() returns (uint256 amount) {
            put -= amount;
        } catch {}
    }

    /// An epoch goes by, in which each does some of its duties.
    function turn(uint256 seed) external {
        for (uint256 i; i < 3; ++i) {
            uint256 duties = seed >> (4 * i);
            // Twice as likely as not.
            if (duties % 16 > 4) _vow(crew[i]);
            if (duties % 8 > 1) _tell(crew[i]);
            if (duties % 4 > 0) _judge(crew[i], seed);
            if (duties % 32 > 6) _speak(crew[i]);
        }
        toEpoch(auditors.epochNow() + 1);
    }

    function _vow(address by) private {
        uint256 epoch = auditors.epochNow();
        bytes32 commitment = keccak256(abi.encode(secretOf(by, epoch), by, epoch));
        vm.prank(by);
        try auditors.commit(epoch, commitment) {} catch {}
    }

    function _tell(address by) private {
        uint256 epoch = auditors.epochNow() - 1;
        uint256 count = auditors.rollOf(epoch).length;
        for (uint256 i; i < count; ++i) {
            if (auditors.rollOf(epoch)[i].auditor != by) continue;
            vm.prank(by);
            try auditors.reveal(epoch, i, secretOf(by, epoch)) {
                note("reveal", keccak256(abi.encode(by, epoch)));
            } catch {}
        }
    }

    function miss(uint256 seed) external {
        uint256 epoch = auditors.epochNow() - 2;
        uint256 count = auditors.rollOf(epoch).length;
        if (count == 0) return;
        address by = auditors.rollOf(epoch)[seed % count].auditor;
        uint256 before = stakeOf(by);
        try auditors.miss(epoch, seed % count) {
            put -= before - stakeOf(by);
            note("miss", keccak256(abi.encode(by, epoch)));
        } catch {}
    }

    // What they say.

    function listOf(address by, uint256 epoch, uint256 seed) private view returns (Said[] memory list) {
        list = new Said[](posts.length);
        uint256 count;
        for (uint256 i; i < posts.length; ++i) {
            if (posts[i].epoch != epoch) continue;
            Draw memory draw = auditors.drawOf(posts[i].owner, posts[i].period, 0);
            if (draw.first != by && draw.second != by) continue;
            Verdict verdict = Verdict(1 + uint256(keccak256(abi.encode(seed, i))) % 2);
            list[count++] = Said(posts[i].owner, posts[i].period, 0, verdict);
        }
        assembly {
            mstore(list, count)
        }
    }

    /// Each is true to its word: what it reveals is what it committed to.
    mapping(address => mapping(uint256 => uint256)) private words;

    function _judge(address by, uint256 seed) private {
        uint256 epoch = auditors.epochNow() - 2;
        if (auditors.attendanceOf(by, epoch).commitment != 0) return;
        words[by][epoch] = seed;
        commitVerdicts(by, epoch, listOf(by, epoch, seed));
    }

    function _speak(address by) private {
        uint256 epoch = auditors.epochNow() - 3;
        if (auditors.attendanceOf(by, epoch).commitment == 0 || auditors.attendanceOf(by, epoch).revealed) return;
        revealVerdicts(by, epoch, listOf(by, epoch, words[by][epoch]));
    }

    // What it costs and brings.

    function fund(uint256 seed) external {
        uint256 amount = seed % (3 * FEE);
        token.approve(address(auditors), amount);
        auditors.fund(amount);
        funded += amount;
    }

    function pay(uint256 seed) external {
        if (posts.length == 0) return;
        Post memory at = pick(seed);
        address by = who(seed / 16);
        try auditors.pay(by, placeOf(at)) {
            fees += FEE;
            note("pay", keccak256(abi.encode(by, at.owner, at.period)));
        } catch {}
    }

    function absent(uint256 seed) external {
        if (posts.length == 0) return;
        Post memory at = pick(seed);
        address by = who(seed / 16);
        uint256 before = stakeOf(by);
        try auditors.absent(by, at.owner, at.period, 0) {
            put -= before - stakeOf(by);
            note("absent", keccak256(abi.encode(by, at.epoch)));
        } catch {}
    }

    function fine(uint256 seed) external {
        if (posts.length == 0) return;
        Post memory at = pick(seed);
        address by = who(seed / 16);
        Place memory found = placeOf(at);
        uint256 before = stakeOf(by);
        bytes memory call = seed / 256 % 2 == 0
            ? abi.encodeCall(auditors.careless, (by, found))
            : abi.encodeCall(auditors.mistaken, (by, found));
        (bool ok,) = address(auditors).call(call);
        if (!ok) return;
        put -= before - stakeOf(by);
        note("fine", keccak256(abi.encode(by, at.owner, at.period)));
    }

    // Productions.

    function ask(uint256 seed) external {
        for (uint256 i = posts.length; i > 0 && i + 6 > posts.length; --i) {
            vm.prank(who(seed));
            try productions.produce(posts[i - 1].owner, posts[i - 1].period, 0) {} catch {}
        }
    }

    /// The honest provider answers while it can.
    function respond(uint256 seed) external {
        for (uint256 i = seed % 2; i < posts.length; i += 2) {
            if (posts[i].owner == owner) _respond(posts[i]);
        }
    }

    function _respond(Post memory at) private {
        Production memory production = productions.productionOf(at.owner, at.period, 0);
        if (production.stage != Stage.Asked || block.timestamp - production.asked > CLOCK / 2) return;
        filed = filings[at.filing];
        Showing memory shown = showing();
        shown.proof = new bytes32[](0);
        productions.show(at.owner, at.period, 0, shown);
        (bytes memory run, bytes32[] memory neighbours) = promptRun();
        productions.supply(at.owner, at.period, 0, texts(), run, neighbours);
        (run, neighbours) = outputRun();
        productions.supply(at.owner, at.period, 0, texts(), run, neighbours);
        note("answer", keccak256(abi.encode(at.owner, at.period)));
    }

    function lapse(uint256 seed) external {
        if (posts.length == 0) return;
        Post memory at = pick(seed);
        // The honest provider is awake in its last second.
        Production memory production = productions.productionOf(at.owner, at.period, 0);
        if (at.owner == owner && production.stage == Stage.Asked) {
            uint256 now_ = block.timestamp;
            if (now_ > production.asked + CLOCK / 2) vm.warp(production.asked + CLOCK / 2);
            _respond(at);
            vm.warp(now_);
        }
        try productions.timeout(at.owner, at.period, 0) {
            note("lapse", keccak256(abi.encode(at.owner, at.period)));
        } catch {}
        try disputes.withhold(at.owner, at.period, 0) {
            note("withhold", keccak256(abi.encode(at.owner, at.period)));
        } catch {}
    }

    // Disputes.

    function dispute(uint256 seed) external {
        vm.prank(ada);
        try disputes.open(filings[1 + seed % 2]) returns (uint256 id) {
            disputed.push(id);
            if (seed % 8 != 0) _excuse(id);
        } catch {}
    }

    function _excuse(uint256 id) private {
        filed = filings[1];
        try canaries.unveil(filed.order, filed.receipt, SALT, consented) {} catch {}
        try disputes.excuse(id) {
            note("excuse", 0);
        } catch {}
    }

    function end(uint256 seed) external {
        if (disputed.length == 0) return;
        uint256 id = disputed[seed % disputed.length];
        if (seed / 64 % 2 == 0) {
            _excuse(id);
        } else {
            try disputes.timeout(id) {} catch {}
        }
        try disputes.punish(disputes.disputeOf(id).receipt) {} catch {}
        try disputes.close(id) {
            note("close", keccak256(abi.encode(id)));
        } catch {}
    }

    function recover() external {
        try canaries.recover(planted) {} catch {}
    }

    // The books.

    function stakes() external view returns (uint256 sum) {
        for (uint256 i; i < 3; ++i) {
            sum += stakeOf(crew[i]);
        }
    }

    function auditorsHold() external view returns (uint256) {
        return token.balanceOf(address(auditors));
    }

    function pool() external view returns (uint256) {
        return auditors.pool();
    }

    function askingBonds() external view returns (uint256 held, uint256 owed) {
        held = token.balanceOf(address(productions));
        for (uint256 i; i < posts.length; ++i) {
            Stage stage = productions.productionOf(posts[i].owner, posts[i].period, 0).stage;
            if (stage == Stage.Asked || stage == Stage.Supplying) owed += ASKING_BOND;
        }
    }

    function prizes() external view returns (uint256 held, uint256 owed) {
        held = token.balanceOf(address(canaries));
        owed = canaries.plantOf(planted).prize;
    }

    function bonds() external view returns (uint256 held, uint256 owed) {
        held = token.balanceOf(address(disputes));
        for (uint256 i; i < disputed.length; ++i) {
            Phase phase = disputes.disputeOf(disputed[i]).phase;
            if (phase != Phase.Forfeited && phase != Phase.Returned) owed += BOND;
        }
    }

    /// Whether the provider that always answers was ever silent, or the silent one got away with it.
    function wronged() external view returns (bool) {
        for (uint256 i; i < posts.length; ++i) {
            Stage stage = productions.productionOf(posts[i].owner, posts[i].period, 0).stage;
            if (posts[i].owner == owner && stage == Stage.Forfeited) return true;
            if (posts[i].owner == silent && stage == Stage.Answered) return true;
        }
        return false;
    }

    /// All ASY there is, and where it can be.
    function books() external view returns (uint256 supply, uint256 found) {
        supply = token.totalSupply();
        address[10] memory all = [
            address(this),
            owner,
            silent,
            ada,
            crew[0],
            crew[1],
            crew[2],
            address(auditors),
            address(productions),
            address(canaries)
        ];
        for (uint256 i; i < all.length; ++i) {
            found += token.balanceOf(all[i]);
        }
        found += token.balanceOf(address(disputes)) + token.balanceOf(address(providers));
    }
}

/// @notice What holds whatever is done.
contract AuditsInvariantTest is AuditFixture {
    AuditsHandler private handler;

    function setUp() public override {
        vm.warp(1_800_000_000);
        handler = new AuditsHandler();
        targetContract(address(handler));
        bytes4[25] memory calls = [
            AuditsHandler.post.selector,
            AuditsHandler.post.selector,
            AuditsHandler.turn.selector,
            AuditsHandler.turn.selector,
            AuditsHandler.turn.selector,
            AuditsHandler.turn.selector,
            AuditsHandler.wait.selector,
            AuditsHandler.join.selector,
            AuditsHandler.leave.selector,
            AuditsHandler.withdraw.selector,
            AuditsHandler.miss.selector,
            AuditsHandler.fund.selector,
            AuditsHandler.pay.selector,
            AuditsHandler.pay.selector,
            AuditsHandler.absent.selector,
            AuditsHandler.fine.selector,
            AuditsHandler.fine.selector,
            AuditsHandler.ask.selector,
            AuditsHandler.ask.selector,
            AuditsHandler.respond.selector,
            AuditsHandler.lapse.selector,
            AuditsHandler.lapse.selector,
            AuditsHandler.dispute.selector,
            AuditsHandler.end.selector,
            AuditsHandler.recover.selector
        ];
        bytes4[] memory moves = new bytes4[](calls.length);
        for (uint256 i; i < calls.length; ++i) {
            moves[i] = calls[i];
        }
        targetSelector(FuzzSelector(address(handler), moves));
    }

    /// What auditors have in, and no more, is their stakes, and the pool what was funded and not paid.
    function invariant_stakes_and_pool_are_kept_apart() public view {
        assertEq(handler.stakes(), handler.put());
        assertEq(handler.pool(), handler.funded() - handler.fees());
        assertEq(handler.auditorsHold(), handler.stakes() + handler.pool());
    }

    function invariant_bonds_and_prizes_are_paid_once() public view {
        (uint256 held, uint256 owed) = handler.askingBonds();
        assertEq(held, owed);
        (held, owed) = handler.prizes();
        assertEq(held, owed);
        (held, owed) = handler.bonds();
        assertEq(held, owed);
        assertLe(handler.timesMost(), 1);
    }

    /// Nothing is made, and what is gone was burned.
    function invariant_the_books_balance() public view {
        (uint256 supply, uint256 found) = handler.books();
        assertEq(supply, found);
    }

    /// Nobody convicts a provider that answers, and silence answers nothing.
    /// A long game reaches everything that the invariants are about.
    function test_a_long_game_reaches_everything() public {
        for (uint256 i; i < 600; ++i) {
            uint256 seed = uint256(keccak256(abi.encode("game", i)));
            bytes4[] memory moves = targetSelectors()[0].selectors;
            (bool ok,) = address(handler).call(abi.encodeWithSelector(moves[seed % moves.length], seed >> 16));
            assertTrue(ok);
        }
        bytes32[8] memory kinds = [bytes32("reveal"), "miss", "pay", "absent", "fine", "answer", "lapse", "excuse"];
        for (uint256 i; i < kinds.length; ++i) {
            vm.assertTrue(handler.done(kinds[i]) != 0, string(abi.encodePacked(kinds[i])));
        }
        invariant_stakes_and_pool_are_kept_apart();
        invariant_bonds_and_prizes_are_paid_once();
        invariant_the_books_balance();
        invariant_only_silence_is_silence();
    }

    function invariant_only_silence_is_silence() public view {
        assertFalse(handler.wronged());
    }
}
