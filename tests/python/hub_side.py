"""What the tests run in the Python of a hub: make the proxy as the hub would, start it, and tell what happened.

Each line on stdin is a JSON object: the configuration, by section, where to write the record, and PATH.
Each line on stdout is the answer. The program that is started is `stand_in.py`, which writes down how it
was called and ends, so the hub's own code for starting a proxy runs as it is. The addresses are ones that
nobody listens on, so that the hub can't take a stranger for its proxy.
"""

import asyncio
import json
import logging
import os
import sys
from types import SimpleNamespace

from traitlets.config import Config


def main():
    import pointsman

    needs_hub = "jupyterhub" in sys.modules
    # The hub cancels its wait for the ports when the program ends, which asyncio finds worth a traceback.
    logging.getLogger("asyncio").disabled = True
    for line in sys.stdin:
        told = {**answer(json.loads(line)), "package": pointsman.__file__, "needs_hub": needs_hub}
        print(json.dumps(told), flush=True)


def answer(asked):
    """Start a proxy with this configuration, and give its words, its variables, or the error."""
    from pointsman.proxy import PointsmanProxy

    told = []
    log = logging.Logger("hub")
    log.addHandler(SimpleNamespace(level=0, handle=lambda record: told.append(record.getMessage())))
    record = asked["record"]
    if os.path.exists(record):
        os.remove(record)
    os.environ["STAND_IN_RECORD"] = record
    os.environ["PATH"] = asked.get("path", os.defpath)
    result = {"log": told}
    try:
        app = SimpleNamespace(internal_ssl=False, subdomain_host="")
        proxy = PointsmanProxy(
            config=Config(asked["config"]),
            app=app,
            hub=SimpleNamespace(url="http://127.0.0.1:8081/hub/"),
            public_url="http://:2",
            log=log,
        )
        result.update(should_start=proxy.should_start, api_url=proxy.api_url, auth_token=proxy.auth_token)
        if proxy.should_start:
            asyncio.run(proxy.start())
    except Exception as error:
        result.update(error=str(error), kind=type(error).__name__)
    if "proxy" in locals():
        result["command"] = list(proxy.command)
    if os.path.exists(record):
        with open(record) as file:
            result.update(json.load(file))
    return result


if __name__ == "__main__":
    main()
