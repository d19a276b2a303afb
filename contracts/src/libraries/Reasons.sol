// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Why a member is left out of an average
/// @notice 1–15 follow from the contract's own state and are checked by it. 16 and above follow from the bundle and are
/// re-run by anyone who has it (`candor-audit why`). The numbers are for ever.
library Reasons {
    uint8 internal constant ACCEPTED = 0;
    uint8 internal constant NOT_COMMITTED = 1;
    uint8 internal constant NOT_SUBMITTED = 2;
    uint8 internal constant EQUIVOCATED = 3;
    uint8 internal constant NOT_PROVED = 4;
    uint8 internal constant FIRST_OFF_CHAIN = 16;
}
