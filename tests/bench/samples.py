"""Records that the tests of this folder share."""

from __future__ import annotations

from datetime import UTC, datetime

from onekv.bench.records import (
    BundleInfo,
    DeviceInfo,
    DeviceKind,
    DeviceState,
    Iteration,
    MemorySplit,
    Options,
    Phase,
    PhaseRecord,
    PlannedMemory,
    Runner,
    Speed,
    TokenCheck,
)

MIB = 2**20


def memory(anonymous: int, file: int = 5 * MIB) -> MemorySplit:
    """A split with that much anonymous memory and nothing swapped."""
    return MemorySplit(pss_anon=anonymous, pss_file=file, swap=0, rss=anonymous + file)


def iteration(number: int = 0, depth: int = 0, **changes: object) -> Iteration:
    """A plausible record of a bundle whose cache takes 1 KiB a token."""
    options = Options(depth=depth, prompt_tokens=64, decode_tokens=17, sampling_ms=20)
    sizes = (2 * MIB, 10 * MIB, 12 * MIB, 12 * MIB + options.tokens * 1024, 12 * MIB)
    record = Iteration(
        run="0123456789abcdef",
        iteration=number,
        warm_up=False,
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        bundle=BundleInfo(
            name="tiny",
            manifest_sha256="a" * 64,
            target="onnx",
            variant="Q-GQA-2",
            one_tensor=True,
            weights="fp32",
            cache="fp32",
            context=2048,
            parameters=1_000_000,
        ),
        device=DeviceInfo(kind=DeviceKind.HOST, id="host", cores=2),
        before=DeviceState(governor="performance"),
        after=DeviceState(governor="performance"),
        options=options,
        planned=PlannedMemory(
            weights=4_000_000, weights_mapped=0, cache_per_token=1024, cache=2048 * 1024
        ),
        runner=Runner(version="0.1.0", runtime="onnxruntime", runtime_version="1.31.1"),
        phases=tuple(
            PhaseRecord(
                phase=phase, seconds=0.5, end=memory(size), high_water=size + 5 * MIB, samples=9
            )
            for phase, size in zip(Phase, sizes)
        ),
        speed=Speed(ttft=0.1, prefill_tokens_per_second=640.0, decode_tokens_per_second=50.0),
        check=TokenCheck(compared=64, equal=64, near_ties=0, passed=True),
        stream_read_gb_s=10.0,
    )
    return record.model_copy(update=changes)
