"""``python -m tests.sites KIND …``: visit sites, print what was seen, and exit with 1 if it is not as expected."""

from __future__ import annotations

import sys

import django

from .visit import ARRIVALS, KINDS, visit


def main(*kinds: str) -> int:
    print(f"Django {django.get_version()} on Python {sys.version.partition(' ')[0]}")
    return 0 if min(map(report, kinds or KINDS)) else 1


def report(kind: str) -> bool:
    seen = visit(kind)
    print(f"\nThe site {kind!r}")
    for words, line in seen.said.items():
        print(f"  {words}: {line}")
    for where, subjects in zip(("first server", "second server", "files"), seen.arrivals, strict=True):
        print(f"  {where}: {', '.join(subjects) or 'nothing'}")
    print(f"  warnings: {len(seen.warnings)}, of mailqueue_backend: {len(seen.our_warnings)}", *seen.our_warnings)
    return seen.arrivals == ARRIVALS[kind] and not seen.our_warnings


sys.exit(main(*sys.argv[1:]))
