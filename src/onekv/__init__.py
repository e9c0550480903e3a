"""onekv puts transformers that keep one tensor per token and layer on phones.

Importing it makes `transformers.AutoModelForCausalLM` load onekv's own folders.
"""

from onekv.registration import register_when_imported

__version__ = "0.1.0"

register_when_imported()
