"""The three networks once more, for inference in float32 on a CPU: the same weights and results, less arithmetic.

The networks themselves (``descriptor.py``, ``orientation.py``, ``response.py``) are the definition; they call these
where no gradient is recorded. docs/performance.md explains how each works and what it saves.
"""
