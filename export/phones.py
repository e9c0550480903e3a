"""What a phone lets one app hold: a small table, each figure with the place it is from.

Neither system publishes its limits. The iPhones' were read on devices by developers (Apple says
only that the entitlement raises the limit on some models, and that it may change); ask
`os_proc_available_memory` on the phone itself. Android phones are classes by their RAM.
"""

from __future__ import annotations

from dataclasses import dataclass

from onekv.errors import UsageError

_MIB, _GIB = 2**20, 2**30
_GB = 10**9


@dataclass(frozen=True)
class Limit:
    """The most bytes that one app may hold under a condition, and who says so."""

    condition: str
    bytes: int
    source: str


@dataclass(frozen=True)
class Phone:
    """`memory` is the phone's RAM in bytes; `limits` start with what an app has by default."""

    name: str
    memory: int
    limits: tuple[Limit, ...]


DEFAULT = "default"
ENTITLED = "increased-memory-limit entitlement"
LIMITER = "Android 17 memory limiter, at least"
PRACTICE = "app practice before Android 17"

_SPLIT = "stackoverflow.com/a/15200855"
_POCKETPAL = "github.com/a-ghorbani/pocketpal-ai/pull/651"
_OLMOE = "github.com/allenai/OLMoE.swift/pull/38"
_RTABMAP = "github.com/introlab/rtabmap/pull/1446"
_FOOTPRINT = "developer.apple.com/forums/thread/854762"
_IPADOS = "developer.apple.com/forums/thread/826325"
_UTM = "github.com/utmapp/UTM/pull/3318"
_AOSP = "source.android.com/docs/core/perf/memory-limiter"
_CHECK = "github.com/a-ghorbani/pocketpal-ai/pull/250"


def _apple(name: str, memory: int, default: Limit, *more: Limit) -> Phone:
    return Phone(name, memory * _GIB, (default, *more))


def _android(gib: int) -> Phone:
    """Makers are to give a visible app between a half and two thirds of the RAM.

    The limiter counts anonymous memory and throttles before it kills. Older systems have no
    limit on native memory; PocketPal warns above 65% of the RAM or all but 1.2 GB of it.
    """
    memory = gib * _GIB
    practice = min(memory * 65 // 100, memory - 12 * _GB // 10)
    limits = (Limit(LIMITER, memory // 2, _AOSP), Limit(PRACTICE, practice, _CHECK))
    return Phone(f"android-{gib}gb", memory, limits)


_TABLE = (
    _apple("iphone-xr", 3, Limit(DEFAULT, 1792 * _MIB, _SPLIT)),
    _apple("iphone-xs", 4, Limit(DEFAULT, 2040 * _MIB, _SPLIT)),
    _apple("iphone-11", 4, Limit(DEFAULT, 2068 * _MIB, _SPLIT)),
    _apple(
        "iphone-12-mini",
        4,
        Limit(DEFAULT, 21 * _GB // 10, _OLMOE),
        Limit(ENTITLED, 24 * _GB // 10, _OLMOE),
    ),
    _apple(
        "iphone-13-pro",
        6,
        Limit(DEFAULT, 312 * _GB // 100, _POCKETPAL),
        Limit(ENTITLED, 420 * _GB // 100, _POCKETPAL),
    ),
    _apple(
        "iphone-15-pro",
        8,
        Limit(DEFAULT, 3 * _GB, _RTABMAP),
        Limit(ENTITLED, 6 * _GB, _RTABMAP),
    ),
    _apple("iphone-15-pro-max", 8, Limit(ENTITLED, 6 * _GIB, _FOOTPRINT)),
    _apple(
        "ipad-8gb",
        8,
        Limit("default, iPadOS 26.4 and later", 3 * _GB, _IPADOS),
        Limit("default, iPadOS before 26.4", 6 * _GB, _IPADOS),
    ),
    _apple(
        "ipad-pro-16gb",
        16,
        Limit(DEFAULT, 5 * _GB, _UTM),
        Limit(f"{ENTITLED} and extended-virtual-addressing", 12 * _GB, _UTM),
    ),
    *(_android(gib) for gib in (4, 6, 8, 12, 16)),
)
PHONES = {phone.name: phone for phone in _TABLE}


def find_phone(name: str) -> Phone:
    """The phone of that name.

    Raises:
        UsageError: the table has none.
    """
    if name.lower() not in PHONES:
        raise UsageError(
            f"no phone {name!r} is in the table",
            f"Known: {', '.join(PHONES)}. For any other give its limit with --fits, such as 3GiB.",
        )
    return PHONES[name.lower()]
