"""Exported encoders to the Hugging Face Hub and back, by huggingface_hub.

Nothing here runs unless it is asked for. The token is huggingface_hub's own (``hf auth login``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from medcl import manifest
from medcl.errors import MedclError, UsageError
from medcl.export.encoder import FACTS
from medcl.io.atomic import new_folder
from medcl.released import CARD


def push(folder: Path, name: str, *, public: bool = False) -> str:
    """Upload an exported or released encoder, and return the address of the commit.

    Only files that the folder's manifest lists are sent: nothing that was put beside them.

    Args:
        folder: of ``medcl export``, checked against its manifest before anything is sent.
        name: ``OWNER/NAME``; a repository is created where none is.
        public: whether a new repository can be read by everybody.

    Raises:
        UsageError: if it is no exported encoder, or huggingface_hub is missing.
        MedclError: if the Hub refuses, or cannot be reached.
    """
    from medcl.export.encoder import REMEDY

    if not any((folder / known).is_file() for known in (FACTS, CARD)):
        raise UsageError(
            f"{folder} is not an exported encoder, and only those are free of patients' data: "
            "medcl export RUN --to huggingface-folder --out FOLDER"
        )
    listed = manifest.load(folder)
    if listed is None or not any(Path(n).suffix in _WEIGHTS for n in listed.files):
        raise UsageError(f"{folder} has no weights in its manifest. {REMEDY}")
    for file in listed.files:
        manifest.check(folder / file, REMEDY)
    api = _hub().HfApi()
    with _said(name):
        api.create_repo(name, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*listed.files, manifest.FILE],
            commit_message="medcl push",
        )
    return str(done.commit_url)


def pull(name: str, out: Path, *, revision: str | None = None) -> Path:
    """Download an encoder that `push` sent, checked by its manifest; none of its code is run.

    Args:
        name: ``OWNER/NAME``.
        out: the folder to create.
        revision: a branch, tag or commit; the default branch without it.

    Raises:
        UsageError: if ``out`` exists, or huggingface_hub is missing.
        MedclError: if it is not an encoder of medcl, is damaged, or the Hub cannot be reached.
    """
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out, or remove it.")
    api = _hub().HfApi()
    with new_folder(out) as folder:
        with _said(name):
            api.snapshot_download(
                name,
                revision=revision,
                local_dir=folder,
                allow_patterns=["*.json", "*.yaml", "*.md", "*.py", *(f"*{s}" for s in _WEIGHTS)],
            )
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        listed = manifest.load(folder)
        if listed is None or not any((folder / known).is_file() for known in (FACTS, CARD)):
            raise MedclError(f"{name} is not an encoder that medcl pushed: it has no manifest.")
        for file in listed.files:
            manifest.check(folder / file, f"Pull it again, or ask whoever pushed {name}.")
    return out


_WEIGHTS = (".safetensors", ".onnx", ".pt")


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError("For the Hugging Face Hub: pip install 'medcl[hf]'") from None
    return huggingface_hub


@contextmanager
def _said(name: str) -> Iterator[None]:
    """The Hub's errors, as one sentence that names what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise UsageError(f"'{name}' is no name of a repository: take OWNER/NAME.") from None
    except errors.RepositoryNotFoundError:
        raise MedclError(
            f"The Hub has no repository '{name}' that you may see: check its name, or log in: "
            "hf auth login."
        ) from None
    except errors.RevisionNotFoundError:
        raise MedclError(f"{name} has no such revision.") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        hint = " Log in first: hf auth login." if status in (401, 403) else ""
        raise MedclError(f"The Hub answered {status} for '{name}'.{hint}") from None
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError, TimeoutError):
        raise MedclError(
            f"The Hugging Face Hub cannot be reached for '{name}': check the network, or carry the "
            "exported folder over; load_encoder and from_pretrained open it without the Hub."
        ) from None
