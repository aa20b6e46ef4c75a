"""Somebody between a client and the server, who may cut their connections."""

import contextlib
import socket
import threading

from support import ADDRESS


class Proxy:
    def __init__(self, target=ADDRESS):
        host, port = target.rsplit(":", 1)
        self.target = (host, int(port))
        self.lock = threading.Lock()
        self.pairs = []
        # Nobody else gets the port while nobody listens.
        self.holder = socket.socket()
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holder.bind(("127.0.0.1", 0))
        self.own = self.holder.getsockname()
        self.address = "%s:%d" % self.own
        self.open()

    def open(self):
        """From now on connections are made."""
        self.listener = socket.create_server(self.own)
        self.is_cut = False
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        """Ends the connections that there are, and makes no further ones."""
        # Closing alone does not end an accept that waits.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            self.is_cut = True
            pairs, self.pairs = self.pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            with self.lock:
                if self.is_cut:
                    client.close()
                    server.close()
                    return
                self.pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        # Whoever ends its side ends the other one, too.
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()
        self.holder.close()
