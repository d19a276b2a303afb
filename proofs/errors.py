"""Errors say whose fault it is, and what to do about it.

    CandorError
    ├── LocalFault   this process, its operator or its own configuration; retrying changes nothing
    │   └── PrivacyRefused   the privacy ledger cannot prove to itself that it may spend
    ├── PeerFault    the bytes, proof or message of somebody else are wrong; they stay wrong
    └── WireFault    a chain, store or gateway did not answer as it should; retrying may help

Every room derives its own errors from one of the three, and no error text carries a secret.
"""


class CandorError(Exception):
    """Root of all errors that Candor raises on purpose."""


class LocalFault(CandorError):
    """The caller's, the operator's or the configuration's fault."""


class PrivacyRefused(LocalFault):
    """Training would spend privacy that the durable ledger cannot account for."""


class PeerFault(CandorError):
    """Somebody else's data broke a rule."""


class WireFault(CandorError):
    """A transport failed; the same call may succeed later."""
