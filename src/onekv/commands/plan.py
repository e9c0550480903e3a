"""onekv plan"""

from __future__ import annotations

from onekv.commands.common import AsJson, Cache, ContextLength, Model, Weights, echo, echo_json
from onekv.export.options import Asked, Target


def plan(
    model: Model,
    context: ContextLength = None,
    weights: Weights = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Tell the memory that a model will need, from its configuration alone."""
    from onekv.export.checkpoints import read_spec
    from onekv.export.plan import compare_caches, plan_memory
    from onekv.export.resolve import resolve_options

    spec = read_spec(model)
    options = resolve_options(spec, Target.ONNX, Asked(context, weights, cache))
    memory, rows = plan_memory(spec, options), compare_caches(spec, options.context)
    if as_json:
        echo_json({"memory": memory, "caches": rows, "options": options, "model": spec})
        return
    from onekv.terminal import cache_table, memory_lines

    echo(cache_table(rows, options.context))
    for line in memory_lines(memory, options):
        echo(line)
