"""Working in a notebook server without a browser: start a kernel, run code over its websocket."""

import json
import uuid

import requests
import websocket


class Kernel:
    """A kernel of a user's notebook server, reached through Traefik."""

    def __init__(self, hub, name):
        self.hub = hub
        self.base = f"{hub.path(name)}api/kernels"
        self.headers = {"Authorization": f"token {hub.token}"}
        self.id = self._post(self.base)["id"]
        self.connect()

    def connect(self):
        """Connect to the kernel, also if there was a connection before."""
        host = self.hub.stack.public_url.removeprefix("http://")
        self.socket = websocket.create_connection(
            f"ws://{host}{self.base}/{self.id}/channels",
            header=[f"Authorization: token {self.hub.token}"],
            timeout=60,
        )

    def _post(self, path):
        answer = requests.post(self.hub.stack.public_url + path, headers=self.headers, timeout=60)
        assert answer.status_code == 201, f"POST {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def run(self, code):
        """Run code and give its result as text."""
        request = uuid.uuid4().hex
        header = {
            "msg_id": request,
            "msg_type": "execute_request",
            "session": uuid.uuid4().hex,
            "username": "",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
            "buffers": [],
        }
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer["parent_header"].get("msg_id") != request:
                continue
            if answer["msg_type"] == "execute_result":
                return answer["content"]["data"]["text/plain"]
            assert answer["msg_type"] != "error", answer["content"]

    def close(self):
        self.socket.close()
