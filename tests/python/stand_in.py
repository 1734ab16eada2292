"""Stands in for the program `pointsman`: writes down how it was called, and ends."""

import json
import os
import sys

with open(os.environ["STAND_IN_RECORD"], "w") as record:
    json.dump({"words": sys.argv[1:], "token": os.environ.get("CONFIGPROXY_AUTH_TOKEN"), "folder": os.getcwd()}, record)
sys.exit(3)
