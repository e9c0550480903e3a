"""What all sessions of ONNX Runtime have in common."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from onekv.errors import BundleError

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def lean_settings() -> ort.SessionOptions:
    """Settings of a session that holds no more memory than its calls need."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    # An arena never gives back what the largest prefill took. A pattern takes one block for a
    # call of a known shape, and more than is in use at any moment.
    settings.enable_cpu_mem_arena = False
    settings.enable_mem_pattern = False
    return settings


def find_weights(settings: ort.SessionOptions, folder: Path) -> None:
    """Tell where the weights lie of a graph that is not opened by its path."""
    settings.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))


def refusal(path: Path, error: Exception) -> BundleError:
    """What is raised where ONNX Runtime does not take a file."""
    return BundleError(
        f"ONNX Runtime {ort.__version__} cannot load {path.name}: {reason(error)}",
        "Export the model again, or update onnxruntime.",
    )


def reason(error: Exception) -> str:
    """The part of the runtime's message that says what is wrong."""
    return str(error).strip().rsplit("Exception during initialization: ")[-1]
