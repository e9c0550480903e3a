"""The one format of measurements: a file of JSON lines, one self-contained record an iteration.

Records come back from phones: device strings are cleaned, numbers are checked, unknown fields
are refused. A figure that a device does not tell is null, never 0. Bytes and seconds throughout.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

SCHEMA_VERSION: Literal[1] = 1
_LONGEST_TEXT = 200


def _clean(text: object) -> object:
    """Printable characters only: a phone's own strings end up on terminals and in reports."""
    if not isinstance(text, str):
        return text
    return "".join(c for c in text if c.isprintable()).strip()[:_LONGEST_TEXT]


Text = Annotated[str, BeforeValidator(_clean), Field(max_length=_LONGEST_TEXT)]


class Phase(enum.StrEnum):
    """What the runner was doing; in this order."""

    BASELINE = "baseline"
    LOADED = "loaded"
    PREFILL = "prefill"
    DECODE = "decode"
    AFTER = "after"


class DeviceKind(enum.StrEnum):
    """How a device is reached: `--on KIND[:ID]`."""

    HOST = "host"
    ANDROID = "android"
    IOS = "ios"


class Purpose(enum.StrEnum):
    """`speed`: times and memory at a depth. `slope`: memory alone, a fresh process a depth."""

    SPEED = "speed"
    SLOPE = "slope"


class ErrorKind(enum.StrEnum):
    """Why an iteration has no result."""

    USAGE = "usage"
    CORRUPT_FILE = "corrupt-file"
    VERSION_MISMATCH = "version-mismatch"
    MISSING_OPERATOR = "missing-operator"
    MISSING_LIBRARY = "missing-library"
    CONTEXT_FULL = "context-full"
    RUNTIME = "runtime"
    OUT_OF_MEMORY = "out-of-memory"
    CRASH = "crash"
    TIMEOUT = "timeout"
    WRONG_TOKENS = "wrong-tokens"
    IMPLAUSIBLE = "implausible"
    DEVICE_LOST = "device-lost"
    DEVICE_FULL = "device-full"
    INTERRUPTED = "interrupted"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MemorySplit(_Record):
    """A process at one moment.

    pss_anon, pss_file, swap: Pss_Anon, Pss_File and SwapPss of /proc/PID/smaps_rollup. gpu: what
    the device's own accounting gives to this process (never 0: a driver that says 0 says
    nothing). rss: VmRSS. phys_footprint: iOS' own figure, which its limits are on.
    """

    pss_anon: PositiveInt | None = None
    pss_file: PositiveInt | None = None
    swap: NonNegativeInt | None = None
    gpu: PositiveInt | None = None
    rss: PositiveInt | None = None
    phys_footprint: PositiveInt | None = None

    @property
    def anonymous(self) -> int | None:
        """Memory that only this process holds, resident or swapped out; without the GPU's."""
        if self.pss_anon is None or self.swap is None:
            return self.phys_footprint
        return self.pss_anon + self.swap


class PhaseRecord(_Record):
    """One phase of one iteration.

    seconds: how long it took. end: at the phase's end. peak: the sample with the
    most anonymous memory in the phase, null when nothing was sampled. high_water: the larger
    of the kernel's own VmHWM in this phase and of any sampled VmRSS + VmSwap.
    """

    phase: Phase
    seconds: NonNegativeFloat
    end: MemorySplit
    peak: MemorySplit | None = None
    high_water: PositiveInt | None = None
    samples: NonNegativeInt = 0

    @property
    def anonymous(self) -> int | None:
        """The phase's largest anonymous memory that was seen."""
        seen = [m.anonymous for m in (self.peak, self.end) if m and m.anonymous is not None]
        return max(seen, default=None)


class Speed(_Record):
    """Times of one iteration at its depth.

    ttft: from the prompt's first token to the first new token, the tokens of the depth not
    counted. decode_seconds: of each decoded token in turn.
    """

    ttft: PositiveFloat
    prefill_tokens_per_second: PositiveFloat
    decode_tokens_per_second: PositiveFloat | None = None
    decode_seconds: tuple[PositiveFloat, ...] = ()


class TokenCheck(_Record):
    """Greedy tokens beside the bundle's parity record, the record's tokens being fed.

    near_ties: other tokens where the source model's own lead is within rounding.
    """

    compared: NonNegativeInt
    equal: NonNegativeInt
    near_ties: NonNegativeInt
    passed: bool


class BundleInfo(_Record):
    """What was measured: a bundle by name and by the hash of its manifest."""

    name: Text
    manifest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    target: Text
    variant: Text
    one_tensor: bool
    weights: Text
    cache: Text
    profile: Text | None = None
    context: PositiveInt
    parameters: PositiveInt


class DeviceInfo(_Record):
    """A device as it describes itself. id: serial or UDID, `host` for this machine."""

    kind: DeviceKind
    id: Text
    manufacturer: Text | None = None
    model: Text | None = None
    system: Text | None = None
    build: Text | None = None
    cpu: Text | None = None
    cores: PositiveInt | None = None
    memory: PositiveInt | None = None


class DeviceState(_Record):
    """A device just before or after an iteration.

    thermal: the device's own word for its state. temperature: degrees Celsius, the hottest
    sensor. battery: percent.
    """

    governor: Text | None = None
    thermal: Text | None = None
    temperature: float | None = None
    battery: Annotated[int, Field(ge=0, le=100)] | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    memory_available: NonNegativeInt | None = None


class Options(_Record):
    """How an iteration was run.

    depth: tokens in the cache before the prompt. chunk: most tokens of one prefill step, null
    when it was left to the runner. sampling_ms: null when the sampler was off.
    threads: null when it was left to the runtime.
    """

    depth: NonNegativeInt
    prompt_tokens: PositiveInt
    decode_tokens: NonNegativeInt
    chunk: PositiveInt | None = None
    threads: PositiveInt | None = None
    sampling_ms: PositiveInt | None = None
    cool_down: NonNegativeFloat = 0.0

    @property
    def tokens(self) -> int:
        """Tokens in the cache at the end; the last decoded one is never fed."""
        return self.depth + self.prompt_tokens + max(0, self.decode_tokens - 1)


class PlannedMemory(_Record):
    """What the plan says of this bundle, weights_mapped being those that stay in the file.

    activations: of the longest call of the run; activations_kept: whether they stay after it, all
    but their part `scratch`. first_call: the part of `runtime` that is not there before the first
    call. cache_pieces: in how many places of memory a token's rows
    lie, each of which takes whole pages.
    """

    weights: NonNegativeInt
    weights_mapped: NonNegativeInt
    cache_per_token: PositiveInt
    cache: PositiveInt
    cache_pieces: PositiveInt = 1
    activations: NonNegativeInt | None = None
    activations_kept: bool = True
    runtime: NonNegativeInt | None = None
    first_call: NonNegativeInt = 0
    scratch: NonNegativeInt = 0


class Runner(_Record):
    """The program that measured, and the runtime in it.

    operators: the libraries of operators that it loaded; empty where the runtime's own did it all.
    """

    version: Text
    runtime: Text
    runtime_version: Text
    operators: tuple[Text, ...] = ()


class Failure(_Record):
    """Why there is no result, and the last words of whoever reported it."""

    kind: ErrorKind
    message: Annotated[str, BeforeValidator(_clean), Field(max_length=_LONGEST_TEXT)]


class Iteration(_Record):
    """One line of a result file.

    run: the same for all lines of one `onekv bench`. A warm-up is kept and marked.
    stream_read_gb_s: the device's streaming-read bandwidth just before, beside any time.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    run: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")]
    iteration: NonNegativeInt
    warm_up: bool
    purpose: Purpose = Purpose.SPEED
    started: datetime
    bundle: BundleInfo
    device: DeviceInfo
    before: DeviceState
    after: DeviceState | None = None
    options: Options
    planned: PlannedMemory | None = None
    runner: Runner | None = None
    phases: tuple[PhaseRecord, ...] = ()
    speed: Speed | None = None
    check: TokenCheck | None = None
    stream_read_gb_s: PositiveFloat | None = None
    error: Failure | None = None

    @field_validator("phases")
    @classmethod
    def _in_order(cls, phases: tuple[PhaseRecord, ...]) -> tuple[PhaseRecord, ...]:
        order = list(Phase)
        places = [order.index(entry.phase) for entry in phases]
        if places != sorted(set(places)):
            raise ValueError("phases are not in their order, each at most once")
        return phases

    @property
    def ok(self) -> bool:
        """Whether the figures count: measured, and the tokens were right."""
        return self.error is None and self.check is not None and self.check.passed

    def phase(self, phase: Phase) -> PhaseRecord | None:
        """That phase, if it was reached."""
        return next((entry for entry in self.phases if entry.phase is phase), None)
