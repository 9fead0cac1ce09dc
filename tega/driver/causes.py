"""Why there is no connection, in words that say what to do."""

from __future__ import annotations

import os
import ssl
from typing import Final, TypeVar

_OSError = TypeVar("_OSError", bound=OSError)

# OpenSSL's codes of what is wrong with a certificate (X509_V_ERR_...).
_TIMES: Final = (9, 10)
_UNTRUSTED: Final = (18, 19, 20, 21)
_NAMES: Final = (62, 64)

#: What OpenSSL says of an answer that is no TLS.
_NO_TLS: Final = (
    "WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)  # fmt: skip


def cause(error: OSError) -> str:
    """Why there is no connection, without the address that asyncio's text names once more."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _about_certificate(error)
    if isinstance(error, ssl.SSLError):
        return _about_tls(error)
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def is_distrust(error: BaseException) -> bool:
    """Whether one end does not take the certificate of the other: trying again hardly helps."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def reworded(error: _OSError, text: str) -> _OSError:
    """The same kind of error with other words."""
    if not isinstance(error, ssl.SSLError):
        return type(error)(text)
    made = type(error)(error.errno, text)
    vars(made).update(vars(error))
    return made


def _about_certificate(error: ssl.SSLCertVerificationError) -> str:
    code, said = error.verify_code, error.verify_message.rstrip(".")
    if code in _UNTRUSTED:
        return (
            f"nobody who is trusted here has signed its certificate ({said}): give the file of "
            "its authority as ca"
        )
    if code in _NAMES:
        return f"its certificate is for another name ({said}): connect to a name that it has"
    if code in _TIMES:
        return f"its certificate cannot be used now ({said}): renew it, or set the clocks"
    return f"its certificate does not verify ({said})"


def _about_tls(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if reason in _NO_TLS:
        return "it does not speak TLS on that port: connect without TLS, or to another port"
    said = reason.lower().replace("_", " ") or error.strerror or str(error)
    if is_distrust(error):
        return f"it does not take the certificate of this client ({said})"
    if "PROTOCOL" in reason:
        return f"the two ends have no version of TLS in common ({said})"
    return f"TLS failed ({said})"
