"""The generated pages of the site, and links to the source (a hook of mkdocs, see mkdocs.yml).

Written when the site is built, so that none of them can be stale: every option of the commands,
all recipes, all settings, the API, the notebooks and the changelog. A link to a file outside of
docs/ becomes the file's name, for a reader without a network has no repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPO = Path(__file__).resolve().parent.parent
NOTEBOOKS = REPO / "docs" / "notebooks"
GENERATED = {
    *(f"reference/{name}.md" for name in ("cli", "recipes", "settings", "api", "losses")),
    "changelog.md",
    *(f"notebooks/{path.stem}.md" for path in NOTEBOOKS.glob("*.ipynb")),
}
"""The pages that exist on the site alone."""
SHIM = "https://unpkg.com/iframe-worker/shim"
OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?!docs/)[^)#\s]+|examples/[^)#\s]+)[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name files of the repository instead of linking to them."""
    here = (REPO / "docs" / page.file.src_uri).parent

    def named(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if target.is_relative_to(REPO / "docs") and "examples" not in target.parts:
            return match[0]
        return match[1] if match[1].startswith("`") else f"`{match[1]}`"

    return OUTSIDE.sub(named, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Take the theme's one script from elsewhere, which the search needs, from the site itself."""
    up = "../" * page.file.dest_uri.count("/")
    return output.replace(SHIM, f"{up}assets/iframe-worker.js")


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """The same in pages that are no document, such as 404.html."""
    return output_content.replace(SHIM, "assets/iframe-worker.js")


def pages() -> dict[str, str]:
    """Path below docs/ → the text of each generated page."""
    return {
        "reference/cli.md": commands(),
        "reference/recipes.md": recipes(),
        "reference/settings.md": settings(),
        "reference/api.md": api(),
        "reference/losses.md": losses(),
        "changelog.md": (REPO / "CHANGELOG.md").read_text(encoding="utf-8").replace("docs/", ""),
        **{
            f"notebooks/{path.stem}.md": notebook(path)
            for path in sorted(NOTEBOOKS.glob("*.ipynb"))
        },
    }


def commands() -> str:
    """Every verb with its arguments and options, from the app itself."""
    import typer

    from medcl_cli.main import app

    parts = [
        "# Every option\n",
        "Generated from the commands. All verbs follow one grammar: **what does the work** (a "
        "recipe, a run, a study, an encoder), then `--data` (what it works on), then `--out` or "
        "`-o` (where the result goes). `-h` or `--help` explains a verb, `--json` prints for "
        "programs, `--dry-run` says what would be read and written. `medcl --install-completion` "
        "completes names in your shell.\n",
    ]
    for name, command in _verbs(typer.main.get_command(app), "medcl"):
        about = re.sub(r"\s+", " ", command.help or "")
        rows = ["| argument or option | default | meaning |", "|---|---|---|"]
        for parameter in command.params:
            if parameter.name == "help" or getattr(parameter, "hidden", False):
                continue
            spelled = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "argument":
                spelled = f"`{(parameter.metavar or parameter.name or '').upper()}`"
            default = parameter.default
            plain = default is None or callable(default) or "UNSET" in repr(default).upper()
            shown = getattr(parameter, "show_default", None)
            value = shown if isinstance(shown, str) else "" if plain else f"`{default}`"
            if parameter.required:
                value = "needed"
            text = (getattr(parameter, "help", "") or "").replace("|", "\\|")
            rows.append(f"| {spelled} | {value} | {text} |")
        parts.append(f"## {name}\n\n{about}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    if name != "medcl":
        yield name, command
    for key, inner in command.commands.items():
        yield from _verbs(inner, f"{name} {key}")


def recipes() -> str:
    """A table of recipes for each plugin."""
    from medcl import recipe as library

    by_plugin: dict[str, list[str]] = {}
    for name, entry in library.describe().items():
        row = f"| `{name}` | {entry.about} | {entry.paper} |".replace("\n", " ")
        by_plugin.setdefault(name.split("/")[0], []).append(row)
    parts = [
        "# All recipes\n",
        "Generated. `medcl recipes ct` lists those of a plugin, `medcl recipes NAME` shows one, "
        "`--full` with every setting. [How recipes work](../recipes.md).\n",
    ]
    for plugin, rows in by_plugin.items():
        head = "| recipe | what it does | paper |\n|---|---|---|\n"
        parts.append(f"## {plugin}\n\n{head}" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def settings() -> str:
    """Every setting of every section: the fixed ones, then those of each plugin's parts."""
    from medcl import plugin as plugins
    from medcl.catalogue import CLASSIFIERS, METHODS
    from medcl.recipe.sections import Recipe

    parts = [
        "# All settings\n",
        "Generated from the code. `-s section.key=value` sets one on the command line.\n",
        "## Sections of every recipe\n",
        *_models(Recipe, ""),
    ]
    for name, target in METHODS.items():
        parts.append(_part(f"method: {name}", target))
    for name, target in CLASSIFIERS.items():
        parts.append(_part(f"classifier: {name}", target))
    for name, plugin in plugins.discover().items():
        if not isinstance(plugin, plugins.Plugin) or name not in ("biosignals", "ct", "pathology"):
            continue
        parts.append(f"## Plugin {name}\n")
        own = {"prepare": plugin.prepare, "dataset": plugin.dataset, "views": plugin.views}
        tables = (("encoder", plugin.encoders), ("method", plugin.methods))
        own |= {f"{kind}: {key}": to for kind, table in tables for key, to in table.items()}
        own |= {f"classifier: {key}": to for key, to in plugin.classifiers.items()}
        parts += [_part(title, target) for title, target in own.items()]
    return "\n".join(parts)


def _models(model: Any, prefix: str) -> list[str]:
    from pydantic import BaseModel

    rows, inner = [], []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner += _models(kind, f"{prefix}{name}.")
        default = (
            "needed"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        default = default if len(default) < 60 else "see its own table"
        text = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {default} | {text} |")
    title = prefix.rstrip(".") or "top level"
    head = f"### {title}\n\n| setting | default | meaning |\n|---|---|---|\n"
    return [head + "\n".join(rows) + "\n", *inner]


def _part(title: str, target: str) -> str:
    import inspect

    from medcl.registry import described, resolve

    function = resolve(target)
    texts = described(function)
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        default = parameter.default
        value = "needed" if default is inspect.Parameter.empty else f"`{default!r}`"
        text = re.sub(r"\s+", " ", texts.get(name, "")).replace("|", "\\|")
        rows.append(f"| `{name}` | {value} | {text} |")
    head = "| setting | default | meaning |\n|---|---|---|\n"
    return f"### {title}\n\n" + (head + "\n".join(rows) if rows else "No settings.") + "\n"


def api() -> str:
    """The functions of ``import medcl``, from their docstrings."""
    import medcl

    listed = "\n\n".join(f"::: medcl.api.{name}" for name in medcl.__all__)
    return (
        "# The functions of `import medcl`\n\nGenerated from the docstrings. "
        f"[In five minutes](../start/python.md).\n\n{listed}\n"
    )


def losses() -> str:
    """Every published objective, from its docstring."""
    from medcl.objectives import OBJECTIVES

    listed = "\n\n".join(f"::: {entry.target.replace(':', '.')}" for entry in OBJECTIVES.values())
    return (
        "# Losses\n\nPure functions of tensors: `from medcl.objectives import nt_xent`. Generated "
        "from the docstrings, whose examples the tests run. Which paper and which test: "
        f"[methods and objectives](../methods.md).\n\n{listed}\n"
    )


def notebook(path: Path) -> str:
    """A notebook as a page; with outputs if the tests have executed it (``make notebooks``)."""
    done = REPO / "site-notebooks" / path.name
    raw = json.loads((done if done.is_file() else path).read_text(encoding="utf-8"))
    parts = []
    for cell in raw["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                image = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="output" src="data:image/png;base64,{image}">')
            else:
                shown = "".join(output.get("text", data.get("text/plain", [])))
                if shown.strip():
                    parts.append(f"```text\n{shown.rstrip()}\n```")
    where = f"This page is the notebook `docs/notebooks/{path.name}`; the tests execute it."
    return "\n\n".join([*parts[:1], where, *parts[1:]]) + "\n"
