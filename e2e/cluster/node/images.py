"""Images that are built here, by buildah, and kept as archives outside the tree. No registry has a part in it.

An archive is found by a digest of all that its image is made of: what has not changed is never built twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import BuildFailed
from e2e.cluster.node.machine import with_system_path
from e2e.cluster.processes import last_lines, run
from e2e.cluster.progress import Progress

ROOT = Path(__file__).resolve().parents[3]
REGISTRY = "kms-acme.test"
"""A name that no registry has."""
_LIMIT = 1800.0
_KEPT = 8
# Mounts and processes of a build end with it, however it ends.
_PRIVATE = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
_PROGRAM = """FROM scratch
COPY program /program
USER 65532:65532
ENTRYPOINT ["/program"]
"""
_BASE = """FROM scratch
ADD base.tar /
"""
_SUITE = "bookworm"
_INCLUDED = "python3,python3-venv,ca-certificates"
_LEFT_OUT = ("dev", "var/cache", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
SOURCES = (
    "deploy/Containerfile",
    *(".containerignore", "LICENSE", "README.md", "pyproject.toml", "requirements.lock"),
    *("deploy/requirements-build.lock", "deploy/rbac.yaml"),
    *("acme_server", "crds", "kms", "kms_acme", "operator"),
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Image:
    """An image, by what pods call it."""

    reference: str

    @property
    def repository(self) -> str:
        """Without the tag."""
        return self.reference.rpartition(":")[0]

    @property
    def tag(self) -> str:
        """What follows the repository."""
        return self.reference.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class BuiltImage(Image):
    """One that was built here."""

    archive: Path


Build = Callable[["Draft"], None]


class Images:
    """Builds what is missing in a cache folder."""

    def __init__(self, cache: Path, progress: Progress, env: Mapping[str, str] = os.environ) -> None:
        self._cache = cache
        self._progress = progress
        self._env = with_system_path(env)

    def program(self, program: Path) -> BuiltImage:
        """A static program and nothing else. The folder of the program is named after what it was made of."""

        def build(draft: Draft) -> None:
            shutil.copy(program, draft.folder / "program")
            draft.containerfile(_PROGRAM)

        return self._ensure(program.name, _digest(_PROGRAM, program.parent.name, program.name), build)

    def base(self) -> BuiltImage:
        """A minimal Debian with Python, which stands in for the official image that no registry gives us here."""

        def build(draft: Draft) -> None:
            root = draft.folder / "root"
            draft.run("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", _SUITE, root)
            excluded = [f"--exclude=./{each}" for each in _LEFT_OUT]
            draft.run("tar", "-C", root, "--sort=name", *excluded, "-cf", draft.folder / "base.tar", ".")
            shutil.rmtree(root)
            draft.containerfile(_BASE)

        return self._ensure("base", _digest(_BASE, _SUITE, _INCLUDED, *_LEFT_OUT, platform.machine()), build)

    def kms_acme(self, root: Path = ROOT) -> BuiltImage:
        """Ours, from deploy/Containerfile and the sources of a tree as they are now."""
        base = self.base()

        def build(draft: Draft) -> None:
            draft.pull(base)
            draft.build(
                *("--file", root / "deploy" / "Containerfile", "--build-arg", f"BASE={base.reference}"),
                *("--build-arg", "VERSION=0.0.0-test", "--build-arg", f"REVISION={draft.tag}"),
                *("--isolation=chroot", *self._pip(draft)),
                root,
            )

        return self._ensure("kms-acme", _digest(base.tag, *_contents(root)), build)

    def _pip(self, draft: Draft) -> Iterator[str | Path]:
        """pip inside a build trusts whom this machine trusts."""
        config = draft.folder / "pip.conf"
        config.write_text("[global]\ncert = /run/secrets/certificates\n", encoding="ascii")
        yield f"--secret=id=pip.conf,src={config}"
        yield f"--secret=id=certificates,src={_CERTIFICATES}"

    def _ensure(self, name: str, key: str, build: Build) -> BuiltImage:
        """The image from the cache; of several who build at once, one builds and the others wait."""
        folder = self._cache / name
        image = BuiltImage(f"{REGISTRY}/{name}:{key}", folder / f"{key}.tar")
        if not image.archive.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(self._cache / "lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as place:
                if not image.archive.exists():
                    self._clear_unfinished()
                    with self._progress.step(f"Building image {image.reference}") as tick:
                        draft = Draft(Path(place), image, self._cache, self._env, tick)
                        build(draft)
                        draft.finish()
                    self._unfinished.unlink()
            _forget_old(folder)
        os.utime(image.archive)  # it was asked for: the oldest are forgotten first
        return image

    def _clear_unfinished(self) -> None:
        """What a build left in buildah's storage that did not come to its end is nobody's: remove all of it."""
        if self._unfinished.exists():
            shutil.rmtree(self._cache / "storage", ignore_errors=True)
        (self._cache / "storage").mkdir(exist_ok=True)
        self._unfinished.touch()

    @property
    def _unfinished(self) -> Path:
        return self._cache / "unfinished"


class Draft:
    """An image that is being built, in a folder of its own."""

    def __init__(
        self, folder: Path, image: BuiltImage, cache: Path, env: Mapping[str, str], tick: Callable[[], None]
    ) -> None:
        self.folder = folder
        self.tag = image.tag
        self._image = image
        self._buildah = (
            *("buildah", "--storage-driver=vfs"),
            *(f"--root={cache / 'storage'}", f"--runroot={cache / 'storage-run'}"),
        )
        self._env = {**env, "TMPDIR": str(cache / "storage")}  # caches of builds are kept there, too
        self._tick = tick

    def containerfile(self, text: str) -> None:
        """Build from this text and what lies in the folder."""
        path = self.folder / "Containerfile"
        path.write_text(text, encoding="ascii")
        self.build("--file", path, self.folder)

    def build(self, *arguments: str | Path) -> None:
        """`buildah build` with these arguments; time stamps say nothing, so equal contents are equal images."""
        self.run(*self._buildah, "build", "--quiet", "--timestamp=0", f"--tag={self._image.reference}", *arguments)

    def pull(self, image: BuiltImage) -> None:
        """Make an archive known to buildah."""
        self.run(*self._buildah, "pull", "--quiet", f"oci-archive:{image.archive}")

    def finish(self) -> None:
        """Put the archive where it belongs, whole; buildah need not keep the image, too."""
        reference, archive = self._image.reference, self.folder / "image.tar"
        self.run(
            *self._buildah, "push", "--quiet", "--disable-compression", reference, f"oci-archive:{archive}:{reference}"
        )
        self.run(*self._buildah, "rmi", reference)
        archive.rename(self._image.archive)

    def run(self, *command: str | Path) -> None:
        """Run one command of the build.

        Raises:
            BuildFailed: with the end of what it said.
        """
        log = self.folder / "log"
        words = [*_PRIVATE, *command]
        words[0] = shutil.which("unshare", path=self._env["PATH"]) or words[0]
        if run(words, log=log, limit=_LIMIT, tick=self._tick, env=self._env) != 0:
            raise BuildFailed(f"Image {self._image.reference} could not be built:\n{last_lines(log, 40)}")


def _contents(root: Path) -> Iterator[str | bytes]:
    """All that the Containerfile sees, and the Containerfile."""
    for each in map(root.joinpath, SOURCES):
        for path in sorted(each.rglob("*")) if each.is_dir() else [each]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(root))
                yield path.read_bytes()


def _digest(*parts: str | bytes) -> str:
    made = hashlib.sha256()
    for each in parts:
        content = each.encode() if isinstance(each, str) else each
        made.update(len(content).to_bytes(8, "big") + content)
    return made.hexdigest()[:16]


def _forget_old(folder: Path) -> None:
    """Archives of earlier states of the tree are not needed for ever."""
    archives = sorted(folder.glob("*.tar"), key=lambda each: each.stat().st_mtime)
    for each in archives[:-_KEPT]:
        each.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The kernel frees the lock when its holder ends, however that happens."""
    with path.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
