"""Whether an address that the vendor gave is one to upload a price file to."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from finops_relay.errors import Call, UploadRefused

UPLOAD = "{preSignedUrl}"
"""The path's template in errors and metrics: the address itself is a credential."""

_REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]+"
S3_HOST = re.compile(
    r"(?:[a-z0-9._-]+\.)?"  # a bucket
    r"s3(?:-fips|-accelerate|-accesspoint|-accesspoint-fips|-external-1)?(?:\.dualstack)?"
    rf"(?:[.-]{_REGION})?\.amazonaws\.com(?:\.cn)?"
)
"""Hosts that S3 answers on: virtual-hosted and path style, regional, dual-stack, China (S3 user guide, endpoints).

Not every name under amazonaws.com: load balancers, gateways and machines of anybody have theirs there too.
"""
HTTPS_PORT = 443


def check_upload_address(url: str, base_url: str) -> None:
    """Refuse *url* unless it is https on S3, or on the API's own host where that is not the vendor's.

    Raises UploadRefused; nothing was sent.
    """
    call = Call("PUT", UPLOAD)
    try:
        parts, own = urlsplit(url), urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        msg = "the vendor gave an upload address that is no address; nothing was sent"
        raise UploadRefused(msg, call) from None
    if "@" in parts.netloc:
        msg = "the vendor gave an upload address with credentials in it; nothing was sent"
        raise UploadRefused(msg, call)
    vendors_own = f".{own.hostname}".endswith(".infracost.io")
    if not vendors_own and host and host == own.hostname and parts.scheme in {"https", own.scheme}:
        return
    if parts.scheme != "https" or port not in {None, HTTPS_PORT} or not S3_HOST.fullmatch(host):
        msg = f"the vendor gave an upload address that is not https on S3 (host {host[:100]!r}); nothing was sent"
        raise UploadRefused(msg, call)
