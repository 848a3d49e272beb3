"""A ROS domain that nobody on this machine is using, for runs that must not hear one another."""

from __future__ import annotations

import os
import socket

_DOMAINS = 100
"""Up to 101 the ports are below those that Linux gives out by itself."""


def free_domain() -> int:
    """A ROS_DOMAIN_ID, 1 to 100, in which no process of this machine takes part at present.

    By the RTPS rules the first participant of domain d binds UDP port 7410 + 250 d.
    """
    candidates = [1 + (os.getpid() + step) % _DOMAINS for step in range(_DOMAINS)]
    return next((domain for domain in candidates if _is_free(7410 + 250 * domain)), candidates[0])


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
