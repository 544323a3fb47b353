"""Released encoders: runs without data or patients, each with its card, in the plugins' packages.

::

    PLUGIN/released/NAME/encoder.safetensors   the weights
    PLUGIN/released/NAME/recipe.yaml           the very recipe
    PLUGIN/released/NAME/run.json              seed, steps, versions, commit, command (no paths)
    PLUGIN/released/NAME/card.json             `Card`: data, licences, figures, limits
    PLUGIN/released/NAME/README.md             the card to read
    PLUGIN/released/NAME/manifest.json         the SHA-256 of each of them

`medcl.run.Run.open` takes such a name in place of a run's folder, so every verb does. They are
written by ``medcl export RUN --to released`` (`medcl.export.release`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl import plugin as plugins
from medcl.errors import MedclError
from medcl.reading import read_json

CARD = "card.json"
_RESTORE = "Install medcl again."


@dataclass(frozen=True)
class Card:
    """What is to be known of a released encoder.

    Attributes:
        name: by which it is opened.
        plugin: its modality.
        about: one sentence.
        data: of pretraining: for each set ``name``, ``citation``, ``licence``, ``patients`` (or
            "unknown") and ``recordings``.
        licence: of the weights.
        limits: what it was not tested for, and where it is known to be weak.
        parameters: of the encoder.
        bytes: of its weights.
        sha256: of its weights.
        width: of an embedding.
        input: what it takes: channels, rate in Hz, length.
        recipe: its name.
        command: that trained it, without paths.
        commit: of medcl, or "".
        figures: of public sets: ``benchmark``, ``problem``, ``metric``, ``row``, ``fraction``,
            ``value``, ``low``, ``high``.
    """

    name: str
    plugin: str
    about: str
    data: list[dict[str, Any]]
    licence: str
    limits: list[str]
    parameters: int
    bytes: int
    sha256: str
    width: int
    input: str
    recipe: str
    command: str
    commit: str
    figures: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, as in card.json."""
        return asdict(self)

    @classmethod
    def load(cls, folder: Path) -> Card:
        """The card of a folder.

        Raises:
            MedclError: if it is missing, damaged, or another version's.
        """
        raw = read_json(folder / CARD, _RESTORE)
        try:
            return cls(**raw)
        except TypeError:
            raise MedclError(
                f"{folder / CARD} is no card that this medcl reads. {_RESTORE}"
            ) from None


def folders() -> dict[str, Path]:
    """Name → folder of every released encoder of the installed plugins."""
    found: dict[str, Path] = {}
    for plugin in plugins.discover().values():
        if isinstance(plugin, plugins.Plugin) and plugin.released is not None:
            found |= {path.parent.name: path.parent for path in plugin.released.glob(f"*/{CARD}")}
    return dict(sorted(found.items()))


def cards() -> list[Card]:
    """The cards of all of them, verified.

    Raises:
        MedclError: if one is damaged.
    """
    return [Card.load(folder) for folder in folders().values()]


def place(path: Path) -> Path:
    """The folder of a released encoder, if ``path`` is no file or folder but the name of one.

    A folder of that name goes first, so an encoder's name never hides a run.
    """
    if path.name != str(path) or path.exists():
        return path
    return folders().get(path.name, path)


def is_released(path: Path) -> bool:
    """Whether a folder is that of a released encoder."""
    return (path / CARD).is_file()


def verified(folder: Path) -> bool:
    """Whether all files of a released encoder are as they were written.

    Raises:
        MedclError: if one is damaged.
    """
    record = manifest.load(folder)
    if record is None:
        return False
    return all(manifest.check(folder / name, _RESTORE) for name in record.files)
