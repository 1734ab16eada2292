"""The servers behind the proxies: one process, one fixed answer a port, as fast as Python can be.

python3 backend.py PORT=WORD PORT=WORD ...
"""

import select
import socket
import sys


def answer(word):
    body = f"<{word}>".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def serve(ports):
    """Answer every request on every port until somebody kills us."""
    poll = select.epoll()
    listeners, connections = {}, {}
    for port, word in ports.items():
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        listener.setblocking(False)
        listeners[listener.fileno()] = (listener, answer(word))
        poll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            if number in listeners:
                listener, text = listeners[number]
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = (connection, text)
                poll.register(connection.fileno(), select.EPOLLIN)
                continue
            connection, text = connections[number]
            try:
                asked = connection.recv(65536)
                # A GET is one short segment here, and nobody pipelines: one read, one answer.
                if asked:
                    connection.send(text)
            except OSError:
                asked = b""
            if not asked:
                poll.unregister(number)
                del connections[number]
                connection.close()


if __name__ == "__main__":
    serve({int(port): word for port, _, word in (given.partition("=") for given in sys.argv[1:])})
