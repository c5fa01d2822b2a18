"""What the drivers of the guests share: the disk that brings the tests, and the serial port."""

import io
import re
import selectors
import socket
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def skip(guest, reason):
    print(f"skipped: {guest} guest: {reason}", file=sys.stderr)
    sys.exit(77)


def archive(path, texts, files):
    """What goes into the guest, as a disk that tar(1) can read: texts and files by name, the first one at its start."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in texts:
            about = tarfile.TarInfo(name)
            about.size = len(text.encode())
            tar.addfile(about, io.BytesIO(text.encode()))
        for name, file in files:
            tar.add(file, name)


class GaveUp(Exception):
    """The guest did not come that far; its console is in the message."""


class Console:
    """The guest's serial port."""

    def __init__(self, path, machine, deadline):
        self.machine, self.deadline, self.seen = machine, deadline, ""
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if machine.poll() is not None:
                    raise GaveUp("QEMU has ended")
                time.sleep(0.05)  # QEMU tells nobody that it listens
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.socket, selectors.EVENT_READ)

    def send(self, text):
        self.socket.sendall(text.encode())

    def read(self, seconds):
        """Some text, or "" after so many seconds without any."""
        if time.monotonic() > self.deadline:
            self.give_up("out of time")
        if not self.selector.select(seconds):
            return ""
        data = self.socket.recv(65536)
        if not data:
            self.give_up("the guest has gone")
        text = data.decode("utf-8", "replace").replace("\r", "")
        self.seen = (self.seen + text)[-20000:]
        return text

    def give_up(self, reason):
        raise GaveUp(f"{reason}; its console said:\n{self.seen[-3000:]}")

    def log_in(self, system):
        """Waits for a shell: of a login, or one that is there already. After the system has said its name, it is asked."""
        asked = False
        while True:
            text = self.read(5)
            if re.search(r"login: *$", self.seen):
                self.seen = ""
                self.send("root\n")
            elif re.search(r"[#%] *$", self.seen):
                return
            elif not text and asked:
                self.send("\n")
            asked = asked or system in self.seen

    def run(self, command):
        """Runs a command of sh(1), passes its output on, returns its exit code."""
        self.seen = ""
        # The terminal shows the command, too; it must not look like its end.
        self.send(f"sh -c '{command}' </dev/null; echo EN''D-$?-\n")
        rest, begun = "", False
        while True:
            rest += self.read(10)
            *lines, rest = rest.split("\n")
            for line in lines:
                if end := re.search(r"END-(\d+)-", line):
                    return int(end[1])
                if begun:
                    print(line, flush=True)
                begun = begun or "EN''D" in line
