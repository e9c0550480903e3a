"""Records with everything that a report shows: twins, depths, phones that grow warm, failures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from onekv.bench.records import (
    BundleInfo,
    DeviceInfo,
    DeviceKind,
    DeviceState,
    ErrorKind,
    Failure,
    Iteration,
    MemorySplit,
    Options,
    Phase,
    PhaseRecord,
    PlannedMemory,
    Purpose,
    Speed,
)
from tests.bench.samples import MIB, iteration

HOSTILE = "<script>alert(1)</script>|`=cmd`"
"""A name that a phone or a bundle might give itself."""

PHONE = DeviceInfo(
    kind=DeviceKind.ANDROID,
    id="3A141FDJG000XY",
    manufacturer="Google",
    model="Pixel 9",
    system="Android 16",
    cpu="Tensor G4",
    cores=8,
    memory=12 * 2**30,
)
LIAR = DeviceInfo(kind=DeviceKind.ANDROID, id=HOSTILE, model=HOSTILE)
_START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_STATES = ("none", "none", "light", "light", "moderate", "moderate", "severe", "severe")


def bundle(name: str, one_tensor: bool) -> BundleInfo:
    """One of two twins."""
    return iteration().bundle.model_copy(
        update={
            "name": name,
            "one_tensor": one_tensor,
            "variant": "Q-GQA-2" if one_tensor else "GQA-2",
            "manifest_sha256": ("a" if one_tensor else "b") * 64,
        }
    )


def phases(tokens: int, per_token: int) -> tuple[PhaseRecord, ...]:
    """Phases whose memory grows with the cache."""
    cache = tokens * per_token
    sizes = (2 * MIB, 40 * MIB, 60 * MIB + cache, 60 * MIB + cache, 41 * MIB + cache)
    return tuple(
        PhaseRecord(
            phase=phase,
            seconds=0.5,
            end=MemorySplit(pss_anon=size, pss_file=30 * MIB, swap=3 * MIB, rss=size + 30 * MIB),
            high_water=size + 40 * MIB,
            samples=20,
        )
        for phase, size in zip(Phase, sizes)
    )


def records(
    device: DeviceInfo = PHONE, names: tuple[str, str] = ("tiny", "tiny-qkv")
) -> list[Iteration]:
    """Eight repetitions of two twins at three depths, one of them a failure, and two slopes."""
    return list(_records(device, names))


def _records(device: DeviceInfo, names: tuple[str, str]) -> Iterator[Iteration]:
    when = _START
    for number, thermal in enumerate(_STATES):
        for depth in (0, 1024, 4096):
            for name, one_tensor in zip(names, (True, False)):
                when += timedelta(seconds=7)
                yield _record(device, bundle(name, one_tensor), number, depth, thermal, when)
    for depth in (0, 2048, 4096, 8192):
        for name, one_tensor in zip(names, (True, False)):
            when += timedelta(seconds=7)
            begun = _record(device, bundle(name, one_tensor), 0, depth, "none", when)
            yield begun.model_copy(update={"purpose": Purpose.SLOPE, "warm_up": False})


def _record(
    device: DeviceInfo, of: BundleInfo, number: int, depth: int, thermal: str, when: datetime
) -> Iteration:
    per_token = 4096 if of.one_tensor else 8192
    options = Options(depth=depth, prompt_tokens=64, decode_tokens=33, sampling_ms=20)
    rate = (50 - depth / 400) * (1 if of.one_tensor else 0.95) * (1 - 0.06 * number)
    failed = number == 5 and depth == 4096 and not of.one_tensor
    killed = Failure(kind=ErrorKind.OUT_OF_MEMORY, message="lmkd: Reclaim 'onekv-runner' (2201)")
    state = DeviceState(
        governor="sched_pixel", thermal=thermal, temperature=35 + 2.5 * number, battery=90 - number
    )
    return iteration(number, depth).model_copy(
        update={
            "started": when,
            "bundle": of,
            "device": device,
            "before": state,
            "after": state,
            "options": options,
            "planned": PlannedMemory(
                weights=90 * MIB,
                weights_mapped=60 * MIB,
                cache_per_token=per_token,
                cache=8192 * per_token,
                activations=22 * MIB,
                runtime=10 * MIB,
            ),
            "phases": () if failed else phases(options.tokens, per_token),
            "speed": None
            if failed
            else Speed(
                ttft=0.1 + depth / 1e4,
                prefill_tokens_per_second=640.0,
                decode_tokens_per_second=rate,
            ),
            "check": None if failed else iteration().check,
            "error": killed if failed else None,
            "warm_up": number == 0,
        }
    )
