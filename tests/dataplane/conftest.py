"""One pair of proxies for each group of flags: configurable-http-proxy and Pointsman, started as a hub starts them."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))

from devkit.places import HOME  # noqa: E402
from devkit.ports import free_port  # noqa: E402

from rig.backend import Backend  # noqa: E402
from rig.cases import GROUPS  # noqa: E402
from rig.certificates import Certificates  # noqa: E402
from rig.contenders import CONTENDERS, Refused  # noqa: E402
from rig.world import World  # noqa: E402

FOLDER = HOME / "dataplane"


class Rig:
    """What flags may name: certificates, a server for error pages, a second port, a folder of pages."""

    def __init__(self):
        shutil.rmtree(FOLDER, ignore_errors=True)
        self.certificates = Certificates(FOLDER / "certificates")
        self.error_backend = Backend("error target")
        self.error_backend_tls = Backend("error target", self.certificates.of_server(ask=True))
        self.folder = FOLDER
        self.extra_port = free_port()
        self.pages = FOLDER / "pages"
        self.pages.mkdir()
        (self.pages / "404.html").write_text("<p>our own 404</p>")
        (self.pages / "error.html").write_text("<p>our own page</p>")
        self.group, self.worlds = None, {}

    def worlds_of(self, group):
        """Both proxies with the flags of this group; those of the group before are stopped."""
        if self.group is not group:
            self.stop()
            self.group = group
        return self

    def world(self, name):
        """The running proxy of that name, or the `Refused` that it ended with."""
        if name not in self.worlds:
            self.extra_port = free_port()
            group = self.group
            folder = self.folder / f"{group.name}-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            proxy = CONTENDERS[name](folder, group.flags(self), group.environment)
            try:
                world = World(proxy.start(), self.certificates, self.error_backend)
                world.extra_port = self.extra_port
                world.rig = self
                if group.tls:
                    world.tls = self.certificates.of_client()
                self.worlds[name] = world
            except Refused as refused:
                self.worlds[name] = refused
        return self.worlds[name]

    def stop(self):
        for world in self.worlds.values():
            if isinstance(world, World):
                world.proxy.stop()
        self.worlds = {}


@pytest.fixture(scope="session")
def rig():
    rig = Rig()
    yield rig
    rig.stop()


@pytest.fixture
def pair(rig, request):
    """The two proxies of a case's group."""
    return rig.worlds_of(GROUPS[request.param])
