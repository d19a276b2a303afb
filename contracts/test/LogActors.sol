// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IAuditLog} from "../src/interfaces/IAuditLog.sol";
import {LogScene} from "./LogScene.sol";
import {Trees} from "./Trees.sol";

/// @notice Two servers that cheat whenever they can, and users who report at random. The first of the two keys signs
/// whatever it is asked to. After every accepted checkpoint the histories behind it and behind the one before are compared.
contract LogActors is LogScene {
    uint256 private constant MOST = 60;

    struct Said {
        uint64 sequence;
        uint64 dueBlock;
        bytes32 leaf;
        uint256 key;
    }

    uint256 public accepted;
    uint256 public refused;
    uint256 public answered;
    uint256 public omitted;
    uint256 public forks;
    uint256[2] private _keys;
    /// @dev The leaves behind the last accepted checkpoint, and all accepted ones: none may ever be contradicted.
    mapping(uint256 key => bytes32[]) private _truth;
    mapping(uint256 key => uint64[]) private _sizes;
    mapping(uint256 key => mapping(uint64 size => bytes32)) private _roots;
    Said[] private _said;
    mapping(bytes32 receipt => IAuditLog.Outcome) private _seen;

    function setUp() public override {
        super.setUp();
        _register(OTHER_KEY);
        _keys = [KEY, OTHER_KEY];
    }

    // ------------------------------------------------------------------------------------------------------- the servers

    /// @dev Offers a checkpoint over some history: the true one continued, or with one leaf replaced; with the proof for it,
    /// for the true one, or a mangled one.
    function offer(uint256 who, uint8 more, uint8 changed, uint8 kind, bool lie) external {
        uint256 key = _keys[who % 2];
        IAuditLog.Server memory s = log.getServer(vm.addr(key));
        bytes32[] memory leaves = _continued(key, more);
        if (leaves.length == 0) return;
        if (lie) leaves[changed % leaves.length] = keccak256(abi.encode("lie", changed, block.number));
        uint64 size = uint64(leaves.length);
        bytes32 root = Trees.root(leaves, 0, size);
        bytes32[] memory proof = _someProof(leaves, s.size, kind);
        bytes memory signature = _signCheckpoint(kind % 16 == 7 ? KEY : key, size, root);
        try log.checkpoint(vm.addr(key), size, root, proof, signature) {
            _checkAccepted(key, s, leaves, root);
        } catch {
            ++refused;
        }
    }

    function _continued(uint256 key, uint8 more) private view returns (bytes32[] memory leaves) {
        bytes32[] storage truth = _truth[key];
        uint256 size = truth.length + more % 9;
        if (more % 11 == 0 && truth.length > 0) size = truth.length - 1;
        leaves = new bytes32[](size > MOST ? MOST : size);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = i < truth.length ? truth[i] : keccak256(abi.encode(key, i));
        }
    }

    function _someProof(bytes32[] memory leaves, uint64 older, uint8 kind)
        private
        pure
        returns (bytes32[] memory proof)
    {
        if (older == 0 || older > leaves.length) {
            return new bytes32[](kind % 16 == 6 ? 1 : 0);
        }
        proof = Trees.consistency(leaves, older, 0, leaves.length, true);
        if (proof.length == 0) return proof;
        if (kind % 16 == 3) proof = Trees.cut(proof);
        if (kind % 16 == 4) proof = Trees.push(proof, proof[0]);
        if (kind % 16 == 5) proof[kind / 16 % proof.length] ^= bytes32(uint256(1));
    }

    /// @dev The rule itself: a log only grows, and nothing accepted contradicts what was accepted before.
    function _checkAccepted(uint256 key, IAuditLog.Server memory before, bytes32[] memory leaves, bytes32 root)
        private
    {
        IAuditLog.Server memory s = log.getServer(vm.addr(key));
        vm.assertGe(s.size, before.size, "grows");
        vm.assertEq(s.root, root, "is what was signed");
        vm.assertEq(s.size, leaves.length, "and covers it");
        for (uint256 i = 0; i < _sizes[key].length; ++i) {
            uint64 size = _sizes[key][i];
            vm.assertEq(Trees.root(leaves, 0, size), _roots[key][size], "agrees with every checkpoint before it");
        }
        if (s.size == before.size) return;
        delete _truth[key];
        for (uint256 i = 0; i < leaves.length; ++i) {
            _truth[key].push(leaves[i]);
        }
        _sizes[key].push(s.size);
        _roots[key][s.size] = root;
        ++accepted;
    }

    /// @dev A second statement about a size that was accepted, shown to somebody.
    function fork(uint256 who, uint8 which) external {
        uint256 key = _keys[who % 2];
        if (_sizes[key].length == 0 || log.getServer(vm.addr(key)).forkBlock != 0 || which % 4 != 0) return;
        uint64 size = _sizes[key][which % _sizes[key].length];
        bytes32 lie = keccak256("lie");
        bytes32 root = _roots[key][size];
        bytes memory signature = _signCheckpoint(key, size, lie);
        uint64 anchored = log.getServer(vm.addr(key)).size;
        if (which % 8 == 0) {
            log.reportFork(vm.addr(key), size, root, _signCheckpoint(key, size, root), lie, signature);
        } else {
            bytes32[] memory proof = size == anchored ? none : Trees.consistency(_truth[key], size, 0, anchored, true);
            log.reportRewrite(vm.addr(key), size, lie, signature, root, proof);
        }
        ++forks;
    }

    // --------------------------------------------------------------------------------------------------------- the users

    function receive_(uint256 who, uint64 sequence, uint64 delay, bool lie) external {
        uint256 key = _keys[who % 2];
        sequence = sequence % 70;
        bytes32 leaf = lie ? keccak256("lie") : keccak256(abi.encode(key, sequence));
        if (!lie && sequence < _truth[key].length) leaf = _truth[key][sequence];
        if (_said.length < 40) _said.push(Said(sequence, uint64(block.number) + delay % 20, leaf, key));
    }

    function report(uint256 which) external {
        if (_said.length == 0) return;
        Said memory said = _said[which % _said.length];
        bytes memory signature = _signReceipt(said.key, said.sequence, said.dueBlock, said.leaf);
        bool due = block.number > said.dueBlock;
        try log.reportOmission(vm.addr(said.key), said.sequence, said.dueBlock, said.leaf, signature) {
            vm.assertTrue(due, "not before it is due");
        } catch {
            vm.assertTrue(!due, "whenever it is due");
        }
    }

    function answer(uint256 which) external {
        if (_said.length == 0) return;
        Said memory said = _said[which % _said.length];
        bytes32[] memory truth = _truth[said.key];
        bytes32 receipt = log.receiptDigest(said.sequence, said.dueBlock, said.leaf);
        (IAuditLog.Outcome before,,) = log.omission(vm.addr(said.key), receipt);
        bool inside = said.sequence < truth.length;
        bytes32[] memory path = inside ? Trees.inclusion(truth, said.sequence, 0, truth.length) : none;
        bool can = before == IAuditLog.Outcome.Open && inside && truth[said.sequence] == said.leaf;
        try log.answerOmission(vm.addr(said.key), said.sequence, said.dueBlock, said.leaf, path) {
            vm.assertTrue(can || before == IAuditLog.Outcome.Answered, "only with the leaf in its place, and in time");
        } catch {
            vm.assertTrue(!can && before != IAuditLog.Outcome.Answered, "always with it");
        }
    }

    function wait(uint8 blocks) external {
        vm.roll(block.number + blocks % 40);
    }

    // ---------------------------------------------------------------------------------------------------- what must hold

    /// @dev Evidence is for ever: Answered and Omitted never change, and the counters tell how many events there are.
    function look() external {
        uint32[2] memory reports;
        uint32[2] memory answers;
        (answered, omitted) = (0, 0);
        for (uint256 i = 0; i < _said.length; ++i) {
            Said memory said = _said[i];
            bytes32 receipt = log.receiptDigest(said.sequence, said.dueBlock, said.leaf);
            bytes32 name = keccak256(abi.encode(said.key, receipt));
            (IAuditLog.Outcome outcome,,) = log.omission(vm.addr(said.key), receipt);
            IAuditLog.Outcome seen = _seen[name];
            if (seen == IAuditLog.Outcome.Answered || seen == IAuditLog.Outcome.Omitted) {
                vm.assertEq(uint256(outcome), uint256(seen), "for ever");
            }
            _seen[name] = outcome;
            if (_isRepeated(i)) continue;
            uint256 who = said.key == KEY ? 0 : 1;
            if (outcome != IAuditLog.Outcome.None) ++reports[who];
            if (outcome == IAuditLog.Outcome.Answered) (++answers[who], ++answered);
            if (outcome == IAuditLog.Outcome.Omitted) ++omitted;
        }
        for (uint256 who = 0; who < 2; ++who) {
            IAuditLog.Server memory s = log.getServer(vm.addr(_keys[who]));
            vm.assertEq(s.reports, reports[who], "reports");
            vm.assertEq(s.answers, answers[who], "answers");
        }
    }

    function _isRepeated(uint256 index) private view returns (bool) {
        for (uint256 i = 0; i < index; ++i) {
            if (keccak256(abi.encode(_said[i])) == keccak256(abi.encode(_said[index]))) return true;
        }
        return false;
    }
}
