"""Archives on object storage: ``s3://``, ``gs://``, ``az://`` and ``http(s)://``, by obstore.

A reader is given a `RemotePath`: `open` reads ranges of the object, so a header costs a few
kilobytes, and whatever needs a file of this machine (``os.fspath``: numpy, C libraries) downloads
the whole object into a scratch folder first. Preparing downloads the files of one item at a time
(`local`). Credentials come from the environment or the machine's role, as in the provider's own
tools (``AWS_…``, ``GOOGLE_…``, ``AZURE_…``): never from the address, which is stored and shown.

A web server lists no files: the address is that of a text file with a path on each line, relative
to that file, such as ``SHA256SUMS.txt`` of PhysioNet.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any, NamedTuple

from medcl.errors import MedclError, UsageError
from medcl.io import scratch
from medcl.io.atomic import replacing

_ADDRESS = re.compile(r"(s3|gs|az|abfs|abfss|https?):/+(?=[^/])", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:(/|$)")
_SUM = re.compile(r"[0-9a-fA-F]{32,128} [ *]?(?P<path>.+)")
_READ = 64 << 10  # bytes asked for at a time
_REQUESTS = 16  # at once


class Listed(NamedTuple):
    """An object: its path below the address, its size and time."""

    path: str
    size: int
    mtime_ns: int


def address(path: Path | str) -> str | None:
    """The address that a path is, None of a file or folder of this machine.

    A `Path` made of an address has lost a slash; this gives it back.

    Raises:
        UsageError: if it holds credentials.
    """
    text = str(path)
    match = _ADDRESS.match(text)
    if match is None:
        return None
    scheme = match[1].lower()
    url = f"{scheme}://{text[match.end() :]}".rstrip("/")
    host = url.split("/")[2]
    azure = scheme.startswith("abfs") and ":" not in host  # abfss://CONTAINER@ACCOUNT.dfs.…
    if "?" in url or ("@" in host and not azure):
        raise UsageError(
            "The address of an archive is stored with its index, so it may hold no password, key "
            "or signature. Give them as environment variables: see docs/cluster.md."
        )
    return url


def absolute(path: Path) -> Path:
    """The path resolved; an address as it is.

    Raises:
        UsageError: if it is an address of a kind that is not read.
    """
    if address(path) is not None:
        return Path(str(path))
    if _SCHEME.match(str(path)) and not path.exists():
        raise UsageError(
            f"{path} is no address that medcl reads: s3://BUCKET/PATH, gs://BUCKET/PATH, "
            "az://CONTAINER/PATH, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, "
            "https://HOST/LIST.txt. Or give a folder of this machine."
        )
    return path.resolve()


def refuse_output(path: Path | str) -> None:
    """For what is written.

    Raises:
        UsageError: if it is an address: it would become a folder of this machine named ``s3:``.
    """
    if address(path) is not None:
        raise UsageError(
            f"--out {address(path)}: outputs lie on this machine's file systems. Give a folder, "
            "and copy it afterwards."
        )


def listed(path: Path) -> list[Listed]:
    """All objects below an address, in the order of their paths.

    Raises:
        UsageError: if it cannot be listed, with what to do.
    """
    url = address(path)
    assert url is not None
    with _told(url):
        if not url.startswith("http"):
            found = [
                Listed(each["path"], each["size"], _nanoseconds(each["last_modified"]))
                for chunk in _obstore().list(_store(url))
                for each in chunk
                if not each["path"].endswith("/")
            ]
            return sorted(found)
        folder, name = url.rsplit("/", 1)
        text = bytes(_obstore().get(_store(folder), name).bytes()).decode("utf-8", "replace")
        names = sorted({_line(line) for line in text.splitlines() if line.strip()})
        if not name.endswith(".txt") or not names:
            raise UsageError(
                f"{url} is no list of files: a web server lists none, so give the address of a "
                "text file (.txt) with one path on each line, relative to that file."
            )
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(lambda each: _head(folder, each), names))


def _line(line: str) -> str:
    match = _SUM.fullmatch(line.strip())
    path = PurePosixPath(match["path"] if match else line.strip())
    if path.is_absolute() or ".." in path.parts:
        raise UsageError("The list of files names one outside of its folder.")
    return str(path)


@contextmanager
def opened(archive: Path, folder: Path) -> Iterator[Path]:
    """The archive as its readers see it: itself, or a `RemotePath` with a scratch folder."""
    url = address(archive)
    if url is None:
        yield archive
        return
    with scratch.new(folder) as place:
        yield RemotePath.of(_base(url), place)


@contextmanager
def local(archive: Path, files: Iterable[str]) -> Iterator[Path]:
    """A folder of this machine with these files of an archive: the archive itself, or a copy."""
    url = address(archive)
    if url is None:
        yield archive
        return
    with scratch.temporary() as place:
        root = RemotePath.of(_base(url), place)
        for file in files:
            os.fspath(root / file)
        yield Path(place)


def release(root: Path, files: Iterable[str]) -> None:
    """Remove what was downloaded of these files; of a folder of this machine, nothing."""
    if isinstance(root, RemotePath):
        for file in files:
            Path(str(root / file)).unlink(missing_ok=True)


def refuse(archive: Path) -> None:
    """For what reads recordings again and again, as the tiles of a slide.

    Raises:
        MedclError: if the archive is not on this machine's file systems.
    """
    url = address(archive)
    if url is not None:
        raise MedclError(
            f"The recordings lie at {url}, and this reads them again and again: copy them to a "
            "disk, and index them there."
        )


# --- objects as files -----------------------------------------------------------------------------

_addresses: dict[str, str] = {}
"""Folder of downloads → the address that it stands for, in this process."""


class RemotePath(PosixPath):
    """A file or folder of an archive on object storage; see the module's docstring.

    As text it is the place in the scratch folder where it would be downloaded to.
    """

    @classmethod
    def of(cls, url: str, place: Path) -> RemotePath:
        """The archive at an address, with a folder for downloads."""
        _addresses[str(place)] = url
        return cls(str(place))

    def _object(self) -> tuple[str, str]:
        """The archive's address, and the path below it."""
        text = str(self)
        for place, url in _addresses.items():
            if text == place or text.startswith(f"{place}/"):
                return url, text[len(place) + 1 :]
        raise MedclError("A path of an archive outlived it.")  # never: a programming error

    def __reduce__(self) -> Any:
        url, path = self._object()
        place = str(self)[: len(str(self)) - len(path)].rstrip("/")
        return _again, (url, place, path)

    def __fspath__(self) -> str:
        """The file of this machine: downloaded now, if there is such an object."""
        url, path = self._object()
        text = str(self)
        if path and not os.path.lexists(text):
            try:
                _download(url, path, Path(text))
            except FileNotFoundError:
                return text  # whoever opens it will say so
        return text

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of the object; a folder is whatever objects lie below."""
        url, path = self._object()
        if not path:
            return _status(stat.S_IFDIR, 0, 0)
        try:
            found = _head(url, path)
        except FileNotFoundError:
            if next(self.iterdir(), None) is None:
                raise
            return _status(stat.S_IFDIR, 0, 0)
        return _status(stat.S_IFREG, found.size, found.mtime_ns)

    def resolve(self, strict: bool = False) -> RemotePath:
        """Itself."""
        return self

    def iterdir(self) -> Generator[Any, None, None]:
        """What lies directly below; of a web server nothing, since it lists nothing."""
        url, path = self._object()
        if url.startswith("http"):
            return
        with _told(url):
            found = _obstore().list_with_delimiter(_store(url), path or None)
        names = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        for name in sorted(PurePosixPath(each).name for each in names):
            yield self / name

    def open(  # type: ignore[override]
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open for reading, by ranges."""
        if set(mode) - set("rbt"):
            raise PermissionError(f"An archive is only read, not opened as '{mode}'.")
        if os.path.lexists(str(self)):
            return open(str(self), mode, buffering, encoding, errors, newline)
        url, path = self._object()
        raw = _Object(url, path)
        if buffering == 0:
            return raw  # type: ignore[return-value]
        buffered = io.BufferedReader(raw, _READ)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    def glob(self, pattern: str) -> Generator[Any, None, None]:
        """Only of one folder.

        Raises:
            MedclError: for patterns with folders, which would list the whole archive.
        """
        if "/" in pattern or "**" in pattern:
            raise MedclError(
                f"A reader looks for '{pattern}' in an archive on object storage, where only the "
                "files of one folder can be looked for: copy the archive to a disk."
            )
        return (path for path in self.iterdir() if PurePosixPath(path.name).match(pattern))

    def rglob(self, pattern: str) -> Generator[Any, None, None]:
        """Refused, see `glob`."""
        return self.glob(f"**/{pattern}")


def _again(url: str, place: str, path: str) -> RemotePath:
    root = RemotePath.of(url, Path(place))
    return root / path if path else root


class _Object(io.RawIOBase):
    """An object, read by ranges."""

    def __init__(self, url: str, path: str) -> None:
        self._url, self._path = url, path
        self._size, self._at = _head(url, path).size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        with _told(self._url):
            data = _obstore().get_range(_store(self._url), self._path, start=self._at, end=end)
        got = memoryview(data)
        if len(got) > end - self._at:
            raise MedclError(f"{self._url} gives no ranges of files: copy them to a disk.")
        buffer[: len(got)] = got
        self._at += len(got)
        return len(got)


def _download(url: str, path: str, to: Path) -> None:
    """A whole object, with its time, so that it can be told from a later one."""
    with _told(url):
        got = _obstore().get(_store(url), path)
        with replacing(to) as temporary:
            with temporary.open("wb") as out:
                for chunk in got.stream():
                    out.write(chunk)
            time = _nanoseconds(got.meta["last_modified"])
            os.utime(temporary, ns=(time, time))


def _head(url: str, path: str) -> Listed:
    with _told(url):
        found = _obstore().head(_store(url), path)
        return Listed(path, found["size"], _nanoseconds(found["last_modified"]))


def _status(kind: int, size: int, mtime_ns: int) -> os.stat_result:
    seconds = mtime_ns // 10**9
    plain = (kind | 0o444, 0, 0, 1, 0, 0, size, seconds, seconds, seconds)
    return os.stat_result((*plain, *(mtime_ns / 1e9,) * 3, *(mtime_ns,) * 3))


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp()) * 10**9 + time.microsecond * 1000


def _base(url: str) -> str:
    """The folder of an archive: of a list of files, the one that it lies in."""
    return url.rsplit("/", 1)[0] if url.startswith("http") else url


# --- obstore --------------------------------------------------------------------------------------

_stores: dict[tuple[int, str], Any] = {}


def _obstore() -> Any:
    if importlib.util.find_spec("obstore") is None:
        raise UsageError(
            "Archives on object storage need obstore: pip install 'medcl[object-storage]'"
        )
    import obstore

    return obstore


def _store(url: str) -> Any:
    """The store at an address, opened once in each process."""
    key = (os.getpid(), url)
    if key not in _stores:
        _obstore()
        from obstore.store import from_url

        told = (os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "AZURE"))
        plain = any(each.lower() in ("1", "true", "yes") for each in told)
        options: Any = {"allow_http": True} if plain or url.startswith("http://") else None
        _stores[key] = from_url(url, client_options=options)
    return _stores[key]


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors of the storage in one sentence. Theirs may quote a request with its signature.

    Raises:
        FileNotFoundError: if there is no such object.
        UsageError: if access is denied, or the storage does not answer.
    """
    exceptions = _obstore().exceptions
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "No such object") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
        _failures.append(
            f"{url} may not be read with these credentials. Set those of the storage in the "
            "environment, see docs/cluster.md."
        )
        raise UsageError(_failures[-1]) from None
    except exceptions.BaseError as error:
        _failures.append(
            f"{url} does not answer ({type(error).__name__}): check the address, the region or "
            "endpoint and the network, see docs/cluster.md."
        )
        raise UsageError(_failures[-1]) from None


_failures: list[str] = []


def check() -> None:
    """After work that may have taken a failure of the storage for one of a file.

    Raises:
        UsageError: the last failure in this process since the last call, if there was one.
    """
    last = _failures[-1:]
    _failures.clear()
    if last:
        raise UsageError(*last)
