"""A guide as one script, for a terminal or a file."""

from __future__ import annotations

from kms.enrollment_guide.facts import Guide, Step

_END = "END"


def script(guide: Guide) -> str:
    """The steps as a script for a shell, or for PowerShell where the client runs on Windows; sentences are comments."""
    windows = any(step.language == "powershell" for step in guide.steps)
    return "\n".join(f"# {step.text}\n{_windows(step) if windows else _posix(step)}" for step in guide.steps)


def _posix(step: Step) -> str:
    if step.file is None:
        return step.content
    folder, _, _ = step.file.rpartition("/")
    create = f"mkdir -p {folder}\n" if folder else ""
    return f"{create}cat >{step.file} <<'{_END}'\n{step.content}{_END}\n"


def _windows(step: Step) -> str:
    if step.file is None:
        return step.content
    return f"@'\n{step.content}'@ | Set-Content {step.file}\n"
