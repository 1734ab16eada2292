"""The proxy class by which JupyterHub starts Pointsman.

JupyterHub speaks the same API with Pointsman as with configurable-http-proxy, so nearly all of it is
inherited. What this class adds is where the program is, and settings with names, types and explanations
instead of a list of arguments.
"""

import os
import shutil
import sys

from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.traitlets import Command
from traitlets import Bool, Enum, Integer, List, Unicode

from pointsman import find_program


class PointsmanProxy(ConfigurableHTTPProxy):
    """Pointsman, started and watched by the Hub, with Traefik below it.

    Use it with::

        c.JupyterHub.proxy_class = "pointsman"

    All settings of `ConfigurableHTTPProxy` work here as well, under either name: `auth_token`, `api_url`,
    `check_running_interval`, `log_level`, `extra_routes` and so on. What is not set here, Pointsman takes
    from `config_file`, from its variables (`POINTSMAN_...`), and then from its own defaults.

    If Pointsman is run by something else, such as systemd, set::

        c.PointsmanProxy.should_start = False
        c.PointsmanProxy.api_url = "http://127.0.0.1:8001"

    with the same token in `CONFIGPROXY_AUTH_TOKEN` of both. The settings of this class that are handed to
    the program as flags then have no effect.
    """

    command = Command(
        "pointsman",
        config=True,
        help="""
        The command that starts Pointsman, as a list of words.

        `pointsman` alone is the program that was installed together with this class, or else the first of
        this name on PATH. The settings of this class are added as flags, and after them those that the
        Hub itself decides (addresses, error page, log level).
        """,
    )

    data_dir = Unicode(
        config=True,
        help="""
        Folder in which Pointsman keeps its routes, so that they survive a restart of it (`--data-dir`).

        It is made if it isn't there. A relative path is relative to the folder that the Hub was started in,
        and that is where `pointsman-data` is, which is used if this is empty. Not for use with
        `etcd_endpoints`.
        """,
    ).tag(flag="--data-dir")

    traefik_binary = Unicode(
        config=True,
        help="""
        The Traefik to run (`--traefik-binary`), 3.7.9 or newer.

        If this is empty, it is the one that was installed together with Pointsman, or else the first `traefik`
        on PATH. Not for use with `etcd_endpoints`.
        """,
    ).tag(flag="--traefik-binary")

    config_file = Unicode(
        config=True,
        help="""
        A TOML file with further settings of Pointsman (`--config`).

        What is set here, or decided by the Hub, wins over that file.
        """,
    ).tag(flag="--config")

    redirect_port = Integer(
        None,
        allow_none=True,
        config=True,
        help="""
        A second port, for plain http, that sends users to https (`--redirect-port`), such as 80.

        It needs `JupyterHub.ssl_key` and `JupyterHub.ssl_cert`.
        """,
    ).tag(flag="--redirect-port")

    metrics_port = Integer(
        None,
        allow_none=True,
        config=True,
        help="""
        Port on which Prometheus finds `/metrics` (`--metrics-port`). Without it there are no metrics.
        """,
    ).tag(flag="--metrics-port")

    metrics_ip = Unicode(
        config=True,
        help="""
        Address of `/metrics` (`--metrics-ip`). If this is empty, all addresses of this machine.
        """,
    ).tag(flag="--metrics-ip")

    trusted_ips = List(
        Unicode(),
        config=True,
        help="""
        Balancers and proxies in front of us whose `X-Forwarded-...` headers count (`--trusted-ips`).

        A list of addresses and ranges, such as `["10.0.0.0/8", "fd00::/8"]`. From everybody else these
        headers are then thrown away, for a browser could write anything into them. If this is empty, they
        count from everybody, as with configurable-http-proxy; with `etcd_endpoints` from nobody.
        """,
    ).tag(flag="--trusted-ips")

    proxy_protocol_ips = List(
        Unicode(),
        config=True,
        help="""
        Balancers that tell the browser's address by the PROXY protocol (`--proxy-protocol-ips`).

        A list of addresses and ranges, such as `["10.0.0.7"]`.
        """,
    ).tag(flag="--proxy-protocol-ips")

    middlewares = List(
        Unicode(),
        config=True,
        help="""
        Traefik's middlewares that every request passes through, in this order (`--middlewares`).

        A list of names with their provider, such as `["security-headers@file"]`.
        """,
    ).tag(flag="--middlewares")

    access_log = Unicode(
        config=True,
        help="""
        File to which Traefik writes a line for each request of a user, or `-` for its log (`--access-log`).

        A relative path is relative to the folder that the Hub was started in. If this is empty, nothing
        is written.
        """,
    ).tag(flag="--access-log")

    log_format = Enum(
        ["", "text", "json"],
        default_value="",
        config=True,
        help="""
        How Pointsman writes its own log: `text` for people, `json` for machines (`--log-format`).

        The log goes where the Hub's own log goes. How much is written is `log_level`.
        """,
    ).tag(flag="--log-format")

    etcd_endpoints = List(
        Unicode(),
        config=True,
        help="""
        Where etcd is, such as `["http://etcd-0:2379", "http://etcd-1:2379"]` (`--etcd-endpoints`).

        With it the routes are kept in etcd, Pointsman starts no Traefik, and those that run elsewhere read
        their routes from etcd. Without it everything is on this machine.
        """,
    ).tag(flag="--etcd-endpoints")

    traefik_api = List(
        Unicode(),
        config=True,
        help="""
        The API of each Traefik that reads from etcd (`--traefik-api`).

        A list of URLs such as `["http://10.0.0.5:8099"]`, or one name that resolves to all of them, as
        `["dns://traefik:8099"]`. Only for use with `etcd_endpoints`.
        """,
    ).tag(flag="--traefik-api")

    pages_url = Unicode(
        config=True,
        help="""
        Where these Traefiks reach Pointsman's error pages, such as `http://10.0.0.4:8002` (`--pages-url`).

        Only for use with `etcd_endpoints`.
        """,
    ).tag(flag="--pages-url")

    strict_versions = Bool(
        False,
        config=True,
        help="""
        Refuse to start with a Traefik or an etcd that is too old, instead of a warning (`--strict-versions`).
        """,
    ).tag(flag="--strict-versions")

    extra_args = List(
        Unicode(),
        config=True,
        help="""
        Further arguments for Pointsman, such as `["--custom-header", "X-Served-By: us"]`.

        `pointsman --help` says what there is. They come after those of the settings above.
        """,
    )

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if not self.should_start:
            idle = [name for name in self.trait_names(flag=bool) if self._flags_of(name)]
            if self.extra_args:
                idle.append("extra_args")
            if idle:
                self.log.warning(
                    "No effect, because should_start is False: %s. Give it to the Pointsman that you start.",
                    ", ".join(f"{type(self).__name__}.{name}" for name in sorted(idle)),
                )

    def _flags_of(self, name):
        """The arguments that one of our settings becomes; none if it isn't set."""
        flag = self.trait_metadata(name, "flag")
        value = getattr(self, name)
        if isinstance(value, bool):
            return [flag] if value else []
        values = value if isinstance(value, list) else [value]
        return [word for each in values if each not in (None, "") for word in (flag, str(each))]

    def _whole_command(self):
        """The command, with all that the Hub doesn't add itself."""
        words = list(self.command)
        words[0] = self._program(words[0])
        for name in sorted(self.trait_names(flag=bool)):
            words += self._flags_of(name)
        return words + self.extra_args

    def _program(self, name):
        """The path of the program, or an error that says how to get it."""
        if os.path.basename(name) == "configurable-http-proxy":
            raise ValueError(
                "The setting `command` still names configurable-http-proxy. Remove the line"
                " `c.ConfigurableHTTPProxy.command = ...` from the configuration; Pointsman's own is known."
            )
        found = find_program() if name == "pointsman" else shutil.which(name)
        if found:
            return found
        if name == "pointsman":
            raise FileNotFoundError(
                f"The program `pointsman` is neither beside {sys.executable} nor on PATH."
                f" Get it with: {sys.executable} -m pip install --force-reinstall pointsman"
            )
        raise FileNotFoundError(
            f"{type(self).__name__}.command names `{name}`, which is no program that can be run."
            " Remove the setting, and the program that was installed with this class is used."
        )

    async def start(self):
        """Start Pointsman, and wait until it answers."""
        # The inherited method starts `self.command` with the Hub's own flags after it.
        configured = self.command
        self.command = self._whole_command()
        try:
            await super().start()
        finally:
            self.command = configured
