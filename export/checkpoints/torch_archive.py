"""Opens what `torch.save` wrote without running any of it and without reading its tensors."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onekv.errors import CheckpointError

_RESAVE = (
    "onekv reads tensors and plain data only, because a pickle can run code. If you trust the "
    "file, load it where it was written and save it again with model_config as a plain "
    "dictionary (dataclasses.asdict) and tensors as the only objects."
)


def load_archive(path: Path) -> Mapping[str, Any]:
    """The archive's content with tensors mapped from the file, none of them read.

    Raises:
        CheckpointError: the file is truncated or corrupt, refers to code, or holds no mapping.
    """
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"refers to code ({found[1]})" if found else "holds more than tensors and plain data"
        raise CheckpointError(f"{path.name} {what}", _RESAVE) from error
    except Exception as error:  # A corrupt pickle can fail in any way.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path.name} is corrupt: {reason}", "Copy it again.") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, no checkpoint")
    return content


def _check_archive(path: Path) -> None:
    """Refuse what is truncated or compressed before anything of it is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path.name} is truncated or no archive that torch.save wrote: {error}",
            "Copy it again; a file older than PyTorch 1.6 has to be saved again.",
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise CheckpointError(
                f"{path.name}: {entry.filename} is compressed, which torch.save never does"
            )
