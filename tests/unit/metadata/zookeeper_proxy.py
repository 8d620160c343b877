"""A TCP proxy in front of ZooKeeper that loses what a test wants to be lost: answers, requests, connections."""

import contextlib
import socket
import threading


class Proxy:
    """Passes bytes between clients and a server, in threads. `drop_answers` and `drop_requests` are obeyed at once."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.drop_answers = False
        self.drop_requests = False
        self.refuse = False
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Closes all connections that there are."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, "drop_requests"), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, "drop_answers"), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, drop: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not getattr(self, drop):
                    sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        source.close()
        self._sockets.discard(source)
